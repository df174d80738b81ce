"""Word space: both losses by hand, densities against closed forms, and classes that were never seen."""

from __future__ import annotations

import math
from copy import copy, deepcopy
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from transference.assessment import zero_shot
from transference.colearning.alignment import word_space
from transference.colearning.alignment.word_space import WordSpace, ranking, regression
from transference.core.errors import ConfigError, DataError
from transference.core.spec import Kind
from transference.core.views import Views
from transference.data.loader import to_batch
from transference.train.schedule import Schedule
from transference.unimodal import Unimodal

Array = NDArray[Any]
FAST = Schedule(updates=30, batch_size=16, device="cpu")
LONG = Schedule(updates=150, batch_size=48, device="cpu")
SEEN, UNSEEN = [f"seen{k}" for k in range(8)], [f"new{k}" for k in range(6)]


def planted(seed: int = 0, n: int = 40, shuffled: bool = False) -> tuple[Views, Array]:
    """Rows of fourteen classes: the vector of each in 6 numbers, and 12 numbers that mix those of a row near it."""
    world, g = np.random.default_rng(seed), np.random.default_rng([seed, n])
    words, mix = 2 * world.normal(size=(14, 6)), world.normal(size=(6, 12))
    number = np.repeat(np.arange(14), n)
    x = (words[number] + 0.7 * g.normal(size=(14 * n, 6))) @ mix + 0.3 * g.normal(size=(14 * n, 12))
    word = g.permutation(words[number]) if shuffled else words[number]
    return Views.of(primary="x", x=x, word=word), np.array(SEEN + UNSEEN, object)[number]


def of_seen(X: Views, y: Array) -> tuple[Views, Array]:
    known = np.isin(y.astype(str), SEEN)
    return X[known], y[known]


def vectors(X: Views, y: Array, names: list[str]) -> Views:
    """One row a class, with its vector alone."""
    return X.take(np.array([np.flatnonzero(y == name)[0] for name in names])).only(["word"], primary="word")


@cache
def trained(loss: str, seed: int) -> WordSpace:
    """Fitted to the rows of eight classes, with all that any kind of novelty needs."""
    return WordSpace(loss=loss, novelty="loop", schedule=LONG).fit(*of_seen(*planted(seed)))  # type: ignore[arg-type]


def fitted(loss: str, novelty: str, seed: int = 0) -> WordSpace:
    """The same network, asked in one way or another."""
    return copy(trained(loss, seed)).set_params(novelty=novelty)


def test_squared_distance_by_hand_and_the_gradient_of_the_map_by_differences() -> None:
    g = torch.Generator().manual_seed(0)
    h, w = torch.randn(5, 4, generator=g, dtype=torch.float64), torch.randn(5, 3, generator=g, dtype=torch.float64)
    given = [torch.randn(*shape, generator=g, dtype=torch.float64) for shape in ((4, 4), (4,), (3, 4), (3,))]

    def loss(w1: torch.Tensor, b1: torch.Tensor, w2: torch.Tensor, b2: torch.Tensor) -> torch.Tensor:
        return regression(torch.tanh(h @ w1.T + b1) @ w2.T + b2, w)

    w1, b1, w2, b2 = (each.numpy() for each in given)
    mapped = np.tanh(h.numpy() @ w1.T + b1) @ w2.T + b2
    by_hand = sum((w[i, k].item() - mapped[i, k]) ** 2 for i in range(5) for k in range(3)) / 5
    assert loss(*given).item() == pytest.approx(by_hand, rel=1e-12)
    assert torch.autograd.gradcheck(loss, [each.requires_grad_() for each in given])


def test_the_map_of_the_regression_is_a_perceptron_and_its_gradient_that_of_differences() -> None:
    net = deepcopy(trained("regression", 0).net_.map).double()
    g = torch.Generator().manual_seed(1)
    h, w = torch.randn(5, 64, generator=g, dtype=torch.float64), torch.randn(5, 6, generator=g, dtype=torch.float64)
    first, _, last = net
    torch.testing.assert_close(net(h), torch.tanh(h @ first.weight.T + first.bias) @ last.weight.T + last.bias)
    assert torch.autograd.gradcheck(lambda given: regression(net(given), w), h.requires_grad_())


@pytest.mark.parametrize("classes", [2, 5, 9])
def test_equal_scores_cost_a_margin_a_class_and_orthonormal_alignment_nothing(classes: int) -> None:
    own = torch.arange(classes)
    same = torch.ones(classes, 7, dtype=torch.float64)
    assert ranking(same, torch.ones(classes, 7, dtype=torch.float64), own).item() == pytest.approx(0.1 * (classes - 1))
    eye = torch.eye(classes, dtype=torch.float64)
    assert ranking(eye, eye, own).item() == 0.0
    assert ranking(eye, eye.roll(1, 0), own).item() == pytest.approx(1.1 + 0.1 * (classes - 2))


def test_hinges_by_a_slow_loop_and_their_gradient_is_that_of_the_active_ones() -> None:
    """Value, and the gradient of row i: the sum over violating targets j of (t_j - t_own), over the number of rows."""
    g = torch.Generator().manual_seed(1)
    targets = torch.nn.functional.normalize(torch.randn(6, 4, generator=g, dtype=torch.float64), dim=1)
    points = torch.randn(9, 4, generator=g, dtype=torch.float64).mul(0.4).requires_grad_()
    own = torch.tensor([0, 5, 2, 2, 1, 3, 4, 0, 1])
    total, active, expected = 0.0, 0, torch.zeros(9, 4, dtype=torch.float64)
    for i in range(9):
        for j in range(6):
            gap = 0.1 + (points[i] @ (targets[j] - targets[own[i]])).item()
            if j != own[i] and gap > 0:
                total += gap / 9
                expected[i] += (targets[j] - targets[own[i]]) / 9
                active += 1
    assert 5 < active < 40
    loss = ranking(points, targets, own)
    assert loss.item() == pytest.approx(total, rel=1e-12)
    torch.testing.assert_close(torch.autograd.grad(loss, points)[0], expected)


def test_the_vectors_of_a_batch_count_once() -> None:
    g = torch.Generator().manual_seed(2)
    words = torch.nn.functional.normalize(torch.randn(5, 300, generator=g), dim=1)
    rows = torch.tensor([3, 1, 3, 0, 0, 4, 1, 3])
    targets, own = word_space.distinct(words[rows])
    assert torch.equal(targets, words[torch.tensor([3, 1, 0, 4])])
    assert own.tolist() == [0, 1, 0, 2, 2, 3, 1, 0]


@pytest.mark.parametrize("loss", ["regression", "ranking"])
def test_the_losses_of_a_batch_by_hand(loss: str) -> None:
    X, y = of_seen(*planted(n=6))
    there = np.arange(len(X)) % 3 != 0
    X = X.replace("word", np.where(there[:, None], X["word"], 1e3).astype(np.float32), present=there)
    y[1::2] = None
    method = WordSpace(weight=3.0, loss=loss, schedule=FAST).fit(X, y)  # type: ignore[arg-type]
    target = np.where(np.arange(len(y)) % 2 == 1, -1, np.arange(len(y)) // 6)
    found = {name: value.item() for name, value in method.losses(method.net_, to_batch(X, target)).items()}
    f, w = method.embed(X.only(["x"]))["x"].astype(float), X["word"].astype(float)
    words = {tuple(v / np.linalg.norm(v)) for v in w[there]}
    centre = w[there].mean(0)
    unit = math.sqrt(np.square(w[there] - centre).sum(1).mean())
    costs = []
    for i in np.flatnonzero(there):
        mine = tuple(w[i] / np.linalg.norm(w[i]))
        gaps = [0.1 - np.dot(f[i], mine) + np.dot(f[i], other) for other in words if other != mine]
        hinges = sum(max(0.0, gap) for gap in gaps)
        costs.append(hinges if loss == "ranking" else np.square(f[i] - (w[i] - centre) / unit).sum())
    assert set(found) == {"task", loss}
    assert found[loss] == pytest.approx(3 * np.mean(costs), rel=1e-4)
    chosen = method.predict_proba(X)[::2][np.arange(len(y) // 2), target[::2]]
    assert found["task"] == pytest.approx(-np.log(chosen).mean(), rel=1e-4)


@pytest.mark.parametrize(("ratio", "shift"), [(4.0, 0.0), (1.5, 0.0), (1.0, 2.0), (1.0, 3.5)])
def test_known_gaussians_are_told_apart_as_well_as_the_closed_form_says(ratio: float, shift: float) -> None:
    """In the plane, against N(0, I): N(0, r I) with area r / (1 + r); N(m, I) with 1 - exp(-|m|^2 / 4) / 2."""
    g = np.random.default_rng(0)
    inside = g.normal(size=(40000, 2)) * 3
    outside = g.normal(size=(40000, 2)) * 3 * math.sqrt(ratio) + np.array([3 * shift, 0])
    points, novel = np.concatenate([inside, outside]) + 5, np.repeat([0, 1], 40000)
    near = word_space.typicality(points, np.array([[5.0, 5.0]]), np.array([9.0]))[:, 0]
    expected = ratio / (1 + ratio) if not shift else 1 - math.exp(-(shift**2) / 4) / 2
    assert roc_auc_score(novel, -near) == pytest.approx(expected, abs=0.006)
    assert near[:40000].mean() == pytest.approx(0, abs=0.02)
    assert near[:40000].std() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("loss", ["regression", "ranking"])
@pytest.mark.parametrize("novelty", ["gaussian", "loop"])
def test_thresholds_go_from_all_seen_to_all_unseen_and_trade_one_for_the_other(loss: str, novelty: str) -> None:
    X, y = planted(n=20)
    method, new, curve = fitted(loss, novelty), np.isin(y.astype(str), UNSEEN), []
    candidates, names = vectors(X, y, SEEN + UNSEEN), np.array(SEEN + UNSEEN)
    steps = [-5.0, -2, -1, 0, 0.5, 5] if novelty == "gaussian" else [0.1, 0.3, 0.5, 0.7, 0.9]
    for threshold in (-1e30, *steps, 1e30):
        method.set_params(threshold=threshold)
        right = names[method.match(X, candidates).argmax(1)] == y
        curve.append((right[~new].mean(), right[new].mean()))
        np.testing.assert_allclose(method.posterior(X, candidates).sum(1), 1, atol=1e-6)
    assert curve[0][1] == 0
    assert curve[0][0] == (method.predict(X[~new]) == y[~new]).mean() > 0.9
    assert curve[-1][0] == 0
    closed = np.array(UNSEEN)[method.match(X[new], vectors(X, y, UNSEEN)).argmax(1)] == y[new]
    assert curve[-1][1] == closed.mean() > 0.4
    assert all(left[0] >= right[0] and left[1] <= right[1] for left, right in pairwise(curve))
    assert len(set(curve)) > 3


def test_labelled_rows_without_a_vector_leave_nothing_to_judge_novelty_by() -> None:
    X, y = of_seen(*planted(n=4))
    half = np.arange(len(X)) % 2 == 0
    y[half] = None
    part = X.replace("word", np.where(half[:, None], X["word"], 0).astype(np.float32), present=half)
    WordSpace(schedule=FAST).fit(part, y)
    with pytest.raises(DataError, match=r"labelled rows with 'x' and 'word' must be 1 or more, for novelty\. Got 0"):
        WordSpace(novelty="gaussian", schedule=FAST).fit(part, y)


def test_a_match_is_the_distance_or_the_dot_product_and_in_logarithms_the_posterior_of_unseen_candidates() -> None:
    X, y = planted(n=3)
    candidates = vectors(X, y, UNSEEN + SEEN[:2])
    for loss in ("regression", "ranking"):
        method = fitted(loss, "none")
        f, w = method.embed(X.only(["x"]))["x"], method.embed(candidates)["word"]
        by_hand = [[np.dot(a, b) if loss == "ranking" else -((a - b) ** 2).sum() for b in w] for a in f]
        np.testing.assert_allclose(method.match(X, candidates), by_hand, rtol=1e-4, atol=1e-4)
    for novelty in ("gaussian", "loop"):
        method = fitted("regression", novelty)
        whole, p = method.match(X, candidates), np.log(method.posterior(X, candidates))
        np.testing.assert_allclose(whole[:, 6:], p[:, 6:], atol=1e-6)  # seen
        gap = whole[:, :6] - p[:, :6]
        np.testing.assert_allclose(gap, gap[:, :1].repeat(6, 1), atol=1e-6)
        for k in range(8):  # the others may be there or not
            np.testing.assert_allclose(method.match(X[4:6], candidates[[k]])[:, 0], whole[4:6, k], atol=1e-4)


@pytest.mark.parametrize("loss", ["regression", "ranking"])
def test_match_reads_the_primary_modality_of_rows_alone_and_a_restored_network_matches_alike(loss: str) -> None:
    X, y = planted(n=3)
    state = {name: value.clone() for name, value in trained(loss, 0).net_.state_dict().items()}
    other = WordSpace(loss=loss, novelty="loop").restore(trained(loss, 0).spec_, state)  # type: ignore[arg-type]
    candidates = vectors(X, y, UNSEEN + SEEN)
    for novelty in ("none", "gaussian", "loop"):
        whole = fitted(loss, novelty).match(X, candidates)
        assert np.array_equal(other.set_params(novelty=novelty).match(X, candidates), whole)
        for changed in (X.only(["x"]), X.replace("word", np.full_like(X["word"], np.nan))):
            assert np.array_equal(other.match(changed, candidates), whole)
            assert np.array_equal(other.predict_proba(changed), other.predict_proba(X))


def test_only_what_the_vectors_mean_to_one_another_matters() -> None:
    """Regression: their origin and unit do not matter; ranking: their lengths do not."""
    X, y = of_seen(*planted(n=12))
    test, labels = planted(n=13)
    stretch = np.random.default_rng(0).uniform(0.5, 2, (len(X), 1))
    for loss, factor, shift in (("regression", 3.0, 7.0), ("ranking", stretch, 0.0)):
        changed = X.replace("word", (X["word"] * factor + shift).astype(np.float32))
        one, other = (WordSpace(loss=loss, schedule=FAST).fit(each, y) for each in (X, changed))  # type: ignore[arg-type]
        np.testing.assert_allclose(one.predict_proba(test), other.predict_proba(test), atol=1e-3)
        candidates = moved = vectors(test, labels, UNSEEN)
        if loss == "regression":
            moved = moved.replace("word", moved["word"] * 3 + 7)
        np.testing.assert_allclose(one.match(test, candidates), other.match(test, moved), atol=2e-3)


@pytest.mark.parametrize("value", [0.0, 0.1, 3141.59, 1e8 / 3])
def test_vectors_that_are_all_alike_are_matched_in_their_own_unit(value: float) -> None:
    """Rows are mapped to 0, so that a vector away by 2 in each of 7 numbers is at 28: no rounding is blown up."""
    g, y = np.random.default_rng(0), np.arange(100) % 2
    X = Views.of(primary="x", x=g.normal(size=(100, 5)), word=np.full((100, 7), value))
    method = WordSpace(weight=1.0, schedule=LONG).fit(X, y)
    candidates = Views.of(primary="word", word=np.array([[value] * 7, [value + 2] * 7]))
    assert method.match(X, candidates) == pytest.approx(np.array([[0, -28]] * 100), abs=3)
    assert max(method.history_["regression"]) < 3


def test_weight_zero_is_the_unimodal_baseline_bit_for_bit_and_has_no_space() -> None:
    X, y = of_seen(*planted(n=6))
    y[3::4] = None
    plain = Unimodal(schedule=FAST, seed=3).fit(X, y)
    zero = WordSpace(weight=0, novelty="loop", schedule=FAST, seed=3).fit(X, y)
    assert np.array_equal(plain.decide(X), zero.decide(X))
    assert plain.history_ == zero.history_
    assert list(plain.net_.state_dict()) == list(zero.net_.state_dict())
    assert not np.array_equal(plain.decide(X), WordSpace(weight=0.1, schedule=FAST, seed=3).fit(X, y).decide(X))
    with pytest.raises(ConfigError, match=r"'weight' parameter of WordSpace must be above 0.*Got 0 instead"):
        zero.match(X, X.only(["word"], primary="word"))


@pytest.mark.parametrize("loss", ["regression", "ranking"])
def test_classes_never_seen_are_named_by_their_vectors_and_by_nothing_else(loss: str) -> None:
    true, permuted, unrelated, shuffled = [], [], [], []
    for seed in range(3):
        X, y = planted(seed, n=41)
        method, new = fitted(loss, "none", seed), np.isin(y.astype(str), UNSEEN)
        X, y, g = X[new], y[new], np.random.default_rng(seed)
        candidates = vectors(X, y, UNSEEN)
        answers = np.array(UNSEEN)[method.match(X, candidates).argmax(1)]
        true.append((answers == y).mean())
        permuted.append((answers == g.permutation(y)).mean())
        for _ in range(10):
            other = candidates.replace("word", 2 * g.normal(size=(6, 6)).astype(np.float32))
            unrelated.append((np.array(UNSEEN)[method.match(X, other).argmax(1)] == y).mean())
        blind = WordSpace(loss=loss, schedule=LONG).fit(*of_seen(*planted(seed, shuffled=True)))  # type: ignore[arg-type]
        shuffled.append((np.array(UNSEEN)[blind.match(X, candidates).argmax(1)] == y).mean())
    assert np.mean(true) > 0.55
    for chance in (permuted, unrelated, shuffled):
        assert np.mean(chance) == pytest.approx(1 / 6, abs=0.15)


def test_asking_for_novelty_first_lets_new_classes_be_answers() -> None:
    """By distance alone nearly every row is of a class in training; the order of the new classes stays."""
    harmonic, told = [], []
    for seed in range(3):
        X, y = planted(seed, n=41)
        described, found = zero_shot.describe(X, y, SEEN + UNSEEN), {}
        for novelty in ("none", "gaussian"):
            probe = zero_shot.zero_shot(fitted("regression", novelty, seed), X, y, described, UNSEEN)
            found[novelty] = {each.name: each.value for each in probe}
        assert found["none"]["accuracy"] == found["gaussian"]["accuracy"]
        harmonic.append(found["gaussian"]["harmonic"] - found["none"]["harmonic"])
        candidates, new = vectors(X, y, SEEN + UNSEEN), np.isin(y.astype(str), UNSEEN)
        for novelty in ("gaussian", "loop"):
            p = fitted("regression", novelty, seed).posterior(X, candidates)
            told.append(roc_auc_score(new, p[:, 8:].sum(1)))
    assert np.mean(harmonic) > 0.08
    assert np.mean(told) > 0.8


@pytest.mark.parametrize("kind", ["text", "series", "image", "table", "set"])
def test_any_kind_can_stand_for_words(kind: Kind) -> None:
    g, number = np.random.default_rng(0), np.arange(60) % 3
    centre = 3 * np.eye(3)[number]
    content = {
        "text": np.array([[1, 2, 0], [3, 4, 5], [6, 0, 0]])[number],
        "series": centre[:, None] + g.normal(size=(60, 5, 3)),
        "image": np.repeat(centre, 5, 1).reshape(60, 1, 5, 3) + g.uniform(size=(60, 1, 5, 3)),
        "table": 10.0 ** np.arange(3) * (centre + g.normal(size=(60, 3))),
        "set": centre[:, None] + g.normal(size=(60, 4, 3)),
    }[kind]
    X = Views.of(primary="x", kinds={"word": kind}, x=centre + g.normal(size=(60, 3)), word=content)
    for loss in ("regression", "ranking"):
        method = WordSpace(loss=loss, novelty="gaussian", schedule=FAST).fit(X[:45], number[:45])  # type: ignore[arg-type]
        scores = method.match(X[45:], X[:3].only(["word"], primary="word"))
        assert (scores.argmax(1) == number[45:]).mean() > 0.6


def test_questions_are_checked() -> None:
    X, method = planted(n=2)[0], fitted("regression", "none")
    with pytest.raises(ConfigError, match=r"'novelty' parameter must be 'gaussian' or 'loop' for a posterior"):
        method.posterior(X, X)
    with pytest.raises(DataError, match=r"no modality 'word'"):
        method.match(X, X.only(["x"]))
