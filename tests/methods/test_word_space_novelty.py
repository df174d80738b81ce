"""Word space: novelty against slow loops over rows of unequally frequent classes, and what of them is kept."""

from __future__ import annotations

import math
from copy import copy
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import multivariate_normal
from test_colearning_alignment_word_space import LONG, SEEN, UNSEEN, of_seen, planted, vectors

from transference.colearning.alignment import word_space
from transference.colearning.alignment.word_space import WordSpace
from transference.core.views import Views
from transference.train.schedule import Schedule

Array = NDArray[Any]


def uneven() -> tuple[Views, Array]:
    """60 rows of two classes, whose other numbers are noisier, and 21 of the six others."""
    X, y = of_seen(*planted(n=60))
    frequent = np.isin(y.astype(str), SEEN[:2])
    noise = 12 * frequent[:, None] * np.random.default_rng(0).normal(size=X["x"].shape)
    keep = frequent | (np.arange(len(y)) % 60 < 21)
    return X.replace("x", (X["x"] + noise).astype(np.float32))[keep], y[keep]


@cache
def trained_unevenly(loss: str) -> WordSpace:
    return WordSpace(loss=loss, novelty="loop", schedule=LONG).fit(*uneven())  # type: ignore[arg-type]


def slow_outlier_probability(data: Array, asked: Array, itself: bool, k: int, extent: float) -> list[float]:
    """The definitions, one after the other: sigma, probabilistic distance, PLOF, nPLOF, LoOP."""

    def distance(point: Array, skip: int | None) -> tuple[float, list[int]]:
        near = sorted((float(np.linalg.norm(point - data[j])), j) for j in range(len(data)) if j != skip)[:k]
        return extent * math.sqrt(sum(d**2 for d, _ in near) / k), [j for _, j in near]

    of_data = [distance(data[j], j)[0] for j in range(len(data))]

    def factor(point: Array, skip: int | None) -> float:
        own, near = distance(point, skip)
        return own / (sum(of_data[j] for j in near) / k) - 1

    spread = extent * math.sqrt(sum(factor(data[j], j) ** 2 for j in range(len(data))) / len(data))
    factors = [factor(point, i if itself else None) for i, point in enumerate(asked)]
    return [max(0.0, math.erf(each / (spread * math.sqrt(2)))) for each in factors]


@pytest.mark.parametrize(("k", "extent"), [(5, 1.0), (20, 3.0)])
def test_local_outlier_probabilities_by_brute_force(k: int, extent: float) -> None:
    g = np.random.default_rng(0)
    data = np.concatenate([g.normal(size=(25, 3)), 0.2 * g.normal(size=(15, 3)) + 4])
    asked = np.concatenate([g.normal(size=(6, 3)), [[9.0, 9, 9]], data[:2]])
    for given, points in ((data, None), (asked, asked)):
        found = word_space.outlier_probability(data, points, k, extent)
        slow = slow_outlier_probability(data, given, points is None, k, extent)
        np.testing.assert_allclose(found, slow, rtol=0, atol=1e-9)
        assert 0 <= found.min() <= found.max() <= 1
    assert word_space.outlier_probability(data, asked, k, extent)[6] > 0.99


def test_outlier_probabilities_where_there_is_little_to_go_by() -> None:
    one, two, many = np.zeros((1, 2)), np.array([[0.0, 0.0], [1.0, 0.0]]), np.zeros((9, 2))
    far = np.array([[0.0, 50.0], [0.0, 0.0]])
    assert word_space.outlier_probability(one, far).tolist() == [1, 1]
    assert word_space.outlier_probability(two, far)[0] == 1
    assert word_space.outlier_probability(many, far).tolist() == [1, 0]  # nine rows at one place: there or not


@pytest.mark.parametrize("loss", ["regression", "ranking"])
@pytest.mark.parametrize("novelty", ["gaussian", "loop"])
def test_the_posterior_against_a_slow_sum_over_both_hypotheses(loss: str, novelty: str) -> None:
    """p(y|x) for eight seen and three unseen classes, from scipy's densities or outlier probabilities; it sums to 1.

    Classes have 60 rows or 21, and those of many are met less well: the mean over rows is not that over classes.
    """
    X, y = planted(n=9)
    method = copy(trained_unevenly(loss)).set_params(novelty=novelty)
    candidates = vectors(X, y, [*UNSEEN[:2], *SEEN, UNSEEN[2]])
    p = method.posterior(X, candidates)
    hard = copy(method).set_params(threshold=0.6).posterior(X, candidates)[:, [0, 1, 10]].sum(1)
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-6)

    known, labels = uneven()
    f, mapped = (method.embed(each.only(["x"]))["x"].astype(float) for each in (X, known))
    lengths = [np.linalg.norm(each, axis=1, keepdims=True) if loss == "ranking" else 1 for each in (f, mapped)]
    f, mapped = f / lengths[0], mapped / lengths[1]
    words = method.embed(candidates)["word"].astype(float)
    of_class = dict(zip(SEEN, words[2:10], strict=True))
    errors = {name: np.square(mapped[labels == name] - of_class[name]).sum(1) for name in SEEN}
    variances = {name: error.mean() / 6 for name, error in errors.items()}
    middle = words[2:10].mean(0)
    broad = np.square(words[2:10] - middle).mean() + np.mean([*variances.values()])
    total = np.mean([sum((mapped[i] - of_class[name]) ** 2) for i, name in enumerate(labels)])
    assert abs(total / np.mean([error.mean() for error in errors.values()]) - 1) > 0.1
    outlying = [slow_outlier_probability(mapped[labels == name], f[::7], False, 20, 3.0) for name in SEEN]
    softmax = method.predict_proba(X)
    for place, i in enumerate(range(0, len(X), 7)):
        if novelty == "loop":
            novel = min(each[place] for each in outlying)
            assert hard[i] == pytest.approx(float(1 - novel <= 0.6), abs=1e-9)
        else:
            inside = np.mean([multivariate_normal(of_class[name], variances[name]).pdf(f[i]) for name in SEEN])
            outside = multivariate_normal(middle, broad).pdf(f[i])
            novel = outside / (inside + outside)
            near = max((6 - np.square(f[i] - of_class[name]).sum() / variances[name]) / 12**0.5 for name in SEEN)
            assert hard[i] == pytest.approx(float(near <= 0.6), abs=1e-9)
        kernels = {k: math.exp(-np.square(f[i] - words[k]).sum() / (2 * total)) for k in (0, 1, 10)}
        for k in range(11):
            unseen = kernels.get(k, 0.0) / sum(kernels.values()) * novel
            seen = softmax[i, k - 2] * (1 - novel) if 2 <= k < 10 else 0.0
            assert p[i, k] == pytest.approx(unseen + seen, rel=2e-3, abs=1e-6)


def test_of_many_rows_of_a_class_200_from_first_to_last_are_kept() -> None:
    net: Any = WordSpace(novelty="loop", schedule=Schedule(updates=1)).fit(*of_seen(*planted(n=2))).net_
    net.remember(np.arange(501.0)[:, None].repeat(6, 1), np.zeros(501, int), np.zeros((1, 6)), np.zeros(1, int))
    kept = net.kept[net.kept_of == 0, 0].tolist()
    assert (len(kept), kept[:2], kept[-1]) == (200, [0, 3], 500)
    assert (np.diff(kept) >= 2).all()


def test_no_more_is_kept_than_there_are_rows_and_a_restored_model_keeps_as_much() -> None:
    """As many numbers as a text has words, for every class: room for 200 rows of each would be 200 times as much."""
    n = 30
    words = np.random.default_rng(0).integers(1, 900, (n, 4))
    X = Views.of(primary="x", kinds={"word": "text"}, x=np.eye(n), word=words)
    method: Any = WordSpace(novelty="loop", schedule=Schedule(updates=2)).fit(X, np.arange(n) // 2)
    size = method.net_.form.size
    assert method.net_.kept.shape == (n, size)
    assert np.bincount(method.net_.kept_of).tolist() == [2] * 15
    state = method.net_.state_dict()
    assert sum(value.numel() for value in state.values()) < 3 * n * size + 100_000
    again: Any = WordSpace(novelty="loop").restore(method.spec_, state)
    candidates = X.only(["word"], primary="word")
    np.testing.assert_array_equal(again.match(X, candidates), method.match(X, candidates))
    again.set_params(schedule=Schedule(updates=2)).fit(X[:20], np.arange(20) // 2)
    assert again.net_.kept.shape == (20, size)
