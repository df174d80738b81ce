"""W2 on laws whose distance is known, its bias shown by its null, and the triple of student, teacher and trained."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from transference.assessment import distance as module
from transference.assessment.distance import distance, exact, gaussian, triple
from transference.core.errors import DataError


def normal(mean: list[float], variances: list[float], n: int = 4000, seed: int = 0) -> np.ndarray:
    """Rows whose mean and covariance are exactly these."""
    x = np.random.default_rng(seed).normal(size=(n, len(mean)))
    x -= x.mean(0)
    x = x @ np.linalg.inv(np.linalg.cholesky(np.atleast_2d(np.cov(x, rowvar=False, bias=True)))).T
    return x * np.sqrt(variances) + mean


def test_gaussian_laws_by_hand() -> None:
    assert gaussian(normal([0, 0], [1, 1]), normal([3, 4], [1, 1], seed=1)) == pytest.approx(5, abs=1e-6)
    assert gaussian(normal([0, 0], [1, 4]), normal([0, 0], [9, 16], seed=1)) ** 2 == pytest.approx(8, abs=1e-6)
    one, other = normal([0, 1, 2], [1, 2, 3]), normal([1, 1, 0], [2, 1, 5], seed=1)
    assert gaussian(one, other) == pytest.approx(gaussian(other, one), rel=1e-6)
    assert gaussian(one, one) == pytest.approx(0, abs=1e-4)
    single = normal([0], [1])
    assert gaussian(single, single + 2) == pytest.approx(2, abs=1e-6)


def test_axes_along_which_nothing_varies_add_nothing() -> None:
    one, other = normal([0, 0], [1, 4]), normal([0, 0], [9, 16], seed=1)
    flat, wide = (np.pad(rows, ((0, 0), (0, 4))) for rows in (one, other))
    assert gaussian(flat, wide) ** 2 == pytest.approx(8, abs=1e-6)
    few = np.random.default_rng(3).normal(size=(10, 64))
    assert gaussian(few, few + 3) == pytest.approx(24, abs=1e-5)


def test_exact_is_the_best_of_all_pairings() -> None:
    g = np.random.default_rng(0)
    one, other = g.normal(size=(6, 3)), g.normal(size=(6, 3))
    best = min(np.square(one - other[list(p)]).sum(1).mean() for p in itertools.permutations(range(6)))
    assert exact(one, other) == pytest.approx(np.sqrt(best))
    assert exact(one, one[::-1]) == 0


def test_points_on_the_way_divide_the_distance() -> None:
    """On the geodesic between two normal laws, with the map of optimal transport, distances are proportional."""
    one = normal([0, 0], [1, 4])
    moved = one * np.sqrt([9, 4]) + [3, 4]  # the map from diag(1, 4) to diag(9, 16), and a shift
    for t in (0.3, 0.7):
        middle = (1 - t) * one + t * moved
        assert gaussian(one, middle) / gaussian(one, moved) == pytest.approx(t, abs=1e-6)
        assert exact(one[:200], middle[:200]) / exact(one[:200], moved[:200]) == pytest.approx(t, abs=1e-9)


@pytest.mark.parametrize("estimator", ["gaussian", "exact"])
def test_one_law_in_many_dimensions_looks_far_apart_and_the_null_says_so(estimator) -> None:
    g = np.random.default_rng(3)
    one, other = g.normal(size=(150, 64)), g.normal(size=(150, 64))
    found = distance(one, other, estimator)
    assert found.value > 2  # the truth is 0
    low, high = float(found.of["null mean"]), float(found.of["null 95 %"])
    assert abs(found.value - low) < 0.1 * low
    apart = distance(one, other + 1, estimator)
    assert apart.value > 1.2 * float(apart.of["null 95 %"])
    assert low <= high


def test_the_triple_of_a_law_that_lies_between_has_no_detour() -> None:
    student = normal([0, 0], [1, 1], 300)
    teacher = student * [2, 3] + [4, 0]
    between = 0.4 * student + 0.6 * teacher
    found = {(f.name, f.of.get("from"), f.of.get("to")): f for f in triple(student, teacher, between)}
    assert found["detour", None, None].value == pytest.approx(1, abs=1e-6)
    whole = found["w2", "student", "teacher"].value
    assert found["w2", "student", "trained"].value == pytest.approx(0.6 * whole, rel=1e-6)
    beside = triple(student, teacher, student + np.array([0, 9]))[-1].value
    assert beside > 1.5


def test_a_law_is_drawn_once_for_all_three_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 60)
    monkeypatch.setattr(module, "DRAWS", 1)
    student = np.random.default_rng(0).normal(size=(200, 2))
    teacher = student + np.array([3, 0])
    detours = [triple(student, teacher, (student + teacher) / 2, "exact", seed)[-1].value for seed in range(10)]
    assert min(detours) >= 1 - 1e-12
    assert len(set(detours)) == 10
    assert [found.n for found in triple(student, teacher[:50], student, "exact")][:3] == [100, 100, 100]


def test_the_triangle_inequality_holds_between_any_three() -> None:
    g = np.random.default_rng(5)
    for _ in range(5):
        laws = [g.normal(size=(60, 3)) @ g.normal(size=(3, 3)) + g.normal(size=3) for _ in range(3)]
        for measure in (gaussian, exact):
            assert measure(laws[0], laws[2]) <= measure(laws[0], laws[1]) + measure(laws[1], laws[2]) + 1e-9


def test_sets_of_unequal_size_and_width() -> None:
    g = np.random.default_rng(6)
    assert distance(g.normal(size=(30, 2)), g.normal(size=(50, 2)), "exact").n == 60
    assert distance(g.normal(size=(30, 2)), g.normal(size=(50, 2))).n == 80
    with pytest.raises(DataError, match="two or more rows of equal width"):
        distance(g.normal(size=(30, 2)), g.normal(size=(50, 3)))
