"""Late fusion: additive by construction, defined for every subset of modalities."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from transference.core.errors import ConfigError, DataError
from transference.core.registry import create
from transference.core.views import Views
from transference.data.loader import to_batch
from transference.fusion.late import LateFusion, weighted_mean
from transference.train.schedule import Schedule

QUICK = Schedule(updates=30, batch_size=16)


def data(n: int = 60, seed: int = 0) -> tuple[Views, NDArray[Any]]:
    g = np.random.default_rng(seed)
    y = g.integers(0, 3, n)
    X = Views.of(
        primary="a",
        a=np.eye(3)[y] + g.normal(size=(n, 3)),
        b=np.eye(3)[y] @ g.normal(size=(3, 5)) + g.normal(size=(n, 5)),
        c=np.eye(3)[y][:, None] + g.normal(size=(n, 6, 3)),
    )
    return X, y


def logits(model: LateFusion, X: Views) -> NDArray[Any]:
    with torch.no_grad():
        return model.scores(model.net_, to_batch(X)).double().numpy()


def test_the_mean_counts_what_a_row_has_and_nothing_else() -> None:
    scores = {
        "a": torch.tensor([[2.0, 0.0], [2.0, 0.0], [7.0, 7.0]]),
        "b": torch.tensor([[8.0, 3.0], [1.0, 1.0], [5.0, 5.0]]),
    }
    present = {"a": torch.tensor([True, True, False]), "b": torch.tensor([True, False, False])}
    mean = weighted_mean(scores, present, {"a": 1.0, "b": 2.0})
    assert mean.tolist() == [[6.0, 2.0], [2.0, 0.0], [0.0, 0.0]]


def test_nothing_of_an_absent_row_reaches_the_mean() -> None:
    scores = {"a": torch.tensor([[1.0]]), "b": torch.tensor([[float("nan")]])}
    present = {"a": torch.tensor([True]), "b": torch.tensor([False])}
    assert weighted_mean(scores, present, {"a": 1.0, "b": 1.0}).tolist() == [[1.0]]


@pytest.mark.parametrize("joint", [0.0, 0.5, 1.0])
def test_mixed_second_differences_vanish(joint: float) -> None:
    X, y = data()
    model = LateFusion(joint=joint, schedule=QUICK).fit(X, y)
    other = X.take(np.roll(np.arange(len(X)), 7))
    swapped_b = X.replace("b", other["b"])
    swapped_a = X.replace("a", other["a"])
    both = swapped_a.replace("b", other["b"])
    mixed = logits(model, X) - logits(model, swapped_a) - logits(model, swapped_b) + logits(model, both)
    assert np.abs(logits(model, X) - logits(model, both)).max() > 0.1
    assert np.abs(mixed).max() < 1e-5


def test_its_additive_projection_is_itself() -> None:
    X, y = data(12)
    X = X.only(["a", "b"])
    model = LateFusion(schedule=QUICK).fit(X, y)
    grid = np.stack([logits(model, X.replace("b", X["b"][[k] * len(X)])) for k in range(len(X))], 1)  # (a, b, classes)
    projection = grid.mean(1) + grid.mean(0) - grid.mean((0, 1))
    np.testing.assert_allclose(projection, logits(model, X), atol=1e-5)


def test_xor_stays_at_chance() -> None:
    corners = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]] * 25, float)
    X = Views.of(primary="a", a=corners[:, :1], b=corners[:, 1:])
    y = (corners.prod(1) > 0).astype(int)
    model = LateFusion(joint=1.0, schedule=Schedule(updates=150)).fit(X, y)
    margin = np.diff(logits(model, X[:4]))[:, 0]
    assert margin[0] + margin[3] == pytest.approx(margin[1] + margin[2], abs=1e-5)
    assert model.score(X, y) <= 0.75  # no additive score separates the four corners


@pytest.mark.parametrize("joint", [0.0, 0.5, 1.0])
def test_with_weight_zero_it_is_the_primary_modality_alone(joint: float) -> None:
    X, y = data()
    late = LateFusion(secondary_weight=0.0, joint=joint, schedule=QUICK, seed=3).fit(X, y)
    alone = create("unimodal", schedule=QUICK, seed=3).fit(X, y)
    np.testing.assert_array_equal(late.predict_proba(X), alone.predict_proba(X))


@pytest.mark.parametrize("joint", [0.0, 1.0])
def test_with_weight_zero_rows_without_the_primary_change_nothing(joint: float) -> None:
    X, y = data()
    here = np.arange(len(X)) % 4 != 0
    X = X.replace("a", X["a"] * here[:, None], present=here)
    late = LateFusion(secondary_weight=0.0, joint=joint, schedule=QUICK, seed=3).fit(X, y)
    alone = create("unimodal", schedule=QUICK, seed=3).fit(X, y)
    np.testing.assert_array_equal(late.predict_proba(X[here]), alone.predict_proba(X[here]))


def test_rows_that_have_nothing_change_nothing() -> None:
    X, y = data()
    here = np.arange(len(X)) % 4 != 0
    gap = X
    for name in X.names:
        gap = gap.replace(name, np.where(here.reshape(-1, *[1] * (X[name].ndim - 1)), X[name], 0), present=here)
    with_gaps, without = (LateFusion(joint=0.5, schedule=QUICK).fit(*rows) for rows in ((gap, y), (X[here], y[here])))
    np.testing.assert_array_equal(with_gaps.predict_proba(X), without.predict_proba(X))


@pytest.mark.parametrize("task", ["classification", "regression", "multilabel"])
@pytest.mark.parametrize("name", ["a", "b"])
def test_a_modality_that_no_labelled_row_has_is_refused(name: str, task: str) -> None:
    X, y = data()
    labels = {"classification": y, "regression": y.astype(float), "multilabel": np.eye(3)[y]}[task]
    labels[20:] = -1 if task == "classification" else np.nan
    present = np.arange(len(X)) >= 20
    X = X.replace(name, X[name] * present[:, None], present=present)
    with pytest.raises(DataError, match=f"No labelled row has '{name}', so its predictor cannot learn. Leave it out"):
        LateFusion(schedule=QUICK).fit(X, labels)
    if name == "b":
        LateFusion(secondary_weight=0.0, schedule=QUICK).fit(X, labels)  # nothing is asked of it


def test_a_secondary_modality_counts_with_its_weight() -> None:
    """With a weight of 1/2 and two of them, the primary one makes up half of the mean."""
    X, y = data()
    model = LateFusion(secondary_weight=0.5, schedule=QUICK).fit(X, y)
    with torch.no_grad():
        a, b, c = (model.net_.predict(to_batch(X), name).double().numpy() for name in "abc")
    np.testing.assert_allclose(logits(model, X), a / 2 + b / 4 + c / 4, atol=1e-6)


def test_it_answers_from_any_subset_and_one_modality_gives_that_predictor() -> None:
    X, y = data()
    model = LateFusion(schedule=QUICK).fit(X, y)
    with torch.no_grad():
        own = {name: model.net_.predict(to_batch(X), name) for name in X.names}
    for names in (["a"], ["c"], ["a", "b"], ["b", "c"], ["a", "b", "c"]):
        expected = torch.stack([own[name] for name in names]).mean(0).softmax(1)
        np.testing.assert_allclose(model.predict_proba(X.only(names, primary=names[0])), expected, atol=1e-6)
        poisoned = X
        for name in set(X.names) - set(names):
            poisoned = poisoned.replace(name, np.full_like(X[name], np.nan), present=np.zeros(len(X), bool))
        np.testing.assert_allclose(model.predict_proba(poisoned), expected, atol=1e-6)


def test_rows_that_lack_modalities_train_what_they_have() -> None:
    X, y = data(90)
    half = np.arange(90) < 45
    X = X.replace("a", X["a"] * half[:, None], present=half).replace("b", X["b"] * ~half[:, None], present=~half)
    model = LateFusion(schedule=QUICK).fit(X, y)
    loss = model.losses(model.net_, to_batch(X, y))
    assert set(loss) == {"task a", "task b", "task c"}
    scores = model.net_.predict(to_batch(X[half]), "a").log_softmax(1)
    by_hand = -scores[np.arange(45), y[half]].mean()
    assert loss["task a"].item() == pytest.approx(by_hand.item(), rel=1e-5)


@pytest.mark.parametrize("joint", [0.0, 0.3, 1.0])
def test_every_parameter_gets_a_gradient(joint: float) -> None:
    X, y = data(20)
    model = LateFusion(joint=joint, schedule=QUICK).fit(X, y)
    model.net_.zero_grad()
    sum(model.losses(model.net_, to_batch(X[:1], y[:1])).values()).backward()
    assert [name for name, p in model.net_.named_parameters() if p.grad is None] == []


def test_a_share_above_one_is_refused() -> None:
    X, y = data(6)
    with pytest.raises(ConfigError, match=r"The 'joint' parameter of LateFusion must be a number in \[0, 1\]\. Got 2"):
        LateFusion(joint=2).fit(X, y)
