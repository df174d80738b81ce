"""Self-training: its fixed points, the order that teaches, and what never changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.gaussian_process.kernels import RBF
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from torch import Tensor, nn

from transference.core.errors import ConfigError
from transference.core.registry import create
from transference.core.spec import ModalitySpec
from transference.core.views import Views
from transference.data.loader import to_batch
from transference.induction.self_training import _Consistent
from transference.nn.losses import soft_cross_entropy
from transference.nn.pretrained import PretrainedEncoder
from transference.train.schedule import Schedule

SHORT = Schedule(updates=60, batch_size=16)
LINEAR = LogisticRegression()


def blobs(n: int = 90, labelled: int = 4, gap: float = 6.0, seed: int = 0) -> tuple[Views, Any, Any]:
    generator = np.random.default_rng(seed)
    truth = np.arange(n) % 2
    x = generator.normal(size=(n, 2)) + truth[:, None] * [gap, 0.0]
    names = np.where(truth == 1, "right", "left").astype(object)
    y = names.copy()
    y[labelled:] = None
    return Views.of(primary="x", x=x), y, names


def rotating(seed: int, steps: int = 10, each: int = 14) -> tuple[Views, Any, Any]:
    """Two Gaussians opposite one another turn by 130 degrees; the labelled rows are those before the turn."""
    generator = np.random.default_rng(seed)
    angle = np.repeat(np.linspace(0, np.radians(130), steps), each)
    truth = np.arange(steps * each) % 2
    centre = np.c_[np.cos(angle), np.sin(angle)] * np.where(truth == 1, 1, -1)[:, None]
    x = centre + generator.normal(size=(steps * each, 2)) * 0.12
    y = np.where(truth == 1, "one", "two").astype(object)
    y[each:] = None
    return Views.of(primary="x", x=x), y, truth


def test_own_soft_labels_have_no_gradient() -> None:
    """A logistic model is a stationary point of the cross-entropy against its own probabilities."""
    model, x = nn.Linear(3, 4).double(), torch.randn(50, 3, generator=torch.Generator().manual_seed(0)).double()
    soft_cross_entropy(model(x), model(x).detach().softmax(1)).backward()
    assert all(float(parameter.grad.abs().max()) < 1e-12 for parameter in model.parameters())
    model.zero_grad()
    hard = nn.functional.one_hot(model(x).argmax(1), 4).double()
    soft_cross_entropy(model(x), hard).backward()
    assert max(float(parameter.grad.abs().max()) for parameter in model.parameters()) > 1e-3


def test_all_labels_at_once_change_nothing_where_classes_are_apart() -> None:
    X, y, _ = blobs(gap=12.0)
    alone = create("unimodal", estimator=LINEAR).fit(X, y)
    once = create("induction.self_training", model=LINEAR, rounds=1, prior_matched=False).fit(X, y)
    assert np.array_equal(alone.predict(X), once.predict(X))
    assert once.rounds_[0]["added"] == 86


def test_stages_follow_a_drift_that_one_step_cannot() -> None:
    model = GaussianProcessClassifier(RBF(0.5), optimizer=None)  # unsure far from the rows it learned from
    for seed in range(2):
        X, y, truth = rotating(seed)
        correct = []
        for rounds in (1, 10):
            method = create("induction.self_training", model=model, rounds=rounds, prior_matched=False).fit(X, y)
            correct.append(np.mean(method.transduction_ == (truth == 0)))
        assert correct[0] < 0.9
        assert correct[1] > 0.98


@pytest.mark.parametrize("model", [None, GaussianNB()])
def test_nothing_is_added_at_threshold_one(model: Any) -> None:
    X, y, _ = blobs(gap=200.0)
    if model:
        assert create("unimodal", estimator=model).fit(X, y).predict_proba(X).max() == 1.0  # in floating point
    method = create("induction.self_training", model=model, threshold=1.0, schedule=SHORT).fit(X, y)
    assert [line["added"] for line in method.rounds_] == [0]
    alone = create("unimodal", estimator=model, schedule=SHORT).fit(X, y)
    assert np.array_equal(alone.predict_proba(X), method.predict_proba(X))
    assert (method.labeled_iter_ == np.where([v is None for v in y], -1, 0)).all()


def test_without_unlabelled_rows_it_is_the_baseline() -> None:
    X, _, names = blobs()
    method = create("induction.self_training", schedule=SHORT).fit(X, names)
    assert np.array_equal(method.predict_proba(X), create("unimodal", schedule=SHORT).fit(X, names).predict_proba(X))
    assert method.rounds_ == []


def test_a_slow_reference_loop_adds_the_same_rows() -> None:
    X, y, _ = blobs(gap=1.5, labelled=6)
    model = make_pipeline(GaussianNB())  # a pipeline is given the numbers as they are
    method = create("induction.self_training", model=model, rounds=4, share=0.7, prior_matched=False).fit(X, y)
    x, labels = X["x"], [None if v is None else int(v == "right") for v in y]
    came = [0 if v is not None else -1 for v in labels]
    most = round(0.7 * 84)
    for turn in range(1, 5):
        known = [i for i, v in enumerate(labels) if v is not None]
        model = GaussianNB().fit(x[known], [labels[i] for i in known])
        free = [i for i, v in enumerate(labels) if v is None]
        sure = sorted(free, key=lambda i: (-model.predict_proba(x[i : i + 1])[0].max(), i))
        wanted = round(most * turn / 4) - sum(c > 0 for c in came)
        answers = {i: int(model.predict_proba(x[i : i + 1])[0].argmax()) for i in sure[:wanted]}
        for i, answer in answers.items():
            labels[i], came[i] = answer, turn
    assert method.labeled_iter_.tolist() == came
    assert method.transduction_.tolist() == [-1 if v is None else v for v in labels]


def test_labels_that_came_are_never_changed_and_shares_are_kept() -> None:
    X, y, _ = blobs(n=200, labelled=8, gap=0.5)
    y[:8] = ["left"] * 6 + ["right"] * 2
    method = create("induction.self_training", model=GaussianNB(), rounds=5).fit(X, y)
    assert method.transduction_[:8].tolist() == [0] * 6 + [1] * 2
    assert np.mean(method.transduction_[8:] == 1) == pytest.approx(0.25, abs=0.03)
    assert sum(line["added"] for line in method.rounds_) == 192
    assert all(sum(line["by class"]) == line["added"] for line in method.rounds_)


def test_many_rounds_of_few_rows_keep_the_shares_too() -> None:
    """Ten equal classes far apart and five rows a round: every class gets its four rows, and its own ones."""
    truth = np.tile(np.arange(10), 5)
    x = 10.0 * np.eye(10)[truth] + np.random.default_rng(0).normal(0, 0.1, (50, 10))
    y = np.array([f"c{k}" for k in truth], object)
    y[10:] = None
    method = create("induction.self_training", model=LINEAR, rounds=8).fit(Views.of(primary="x", x=x), y)
    assert np.sum([turn["by class"] for turn in method.rounds_], 0).tolist() == [4] * 10
    assert (method.transduction_ == truth).all()


def test_rows_without_the_primary_are_left_alone() -> None:
    X, y, _ = blobs()
    present = np.arange(90) != 50
    gap = Views.of(primary="x", x=X["x"] * present[:, None], z=np.ones((90, 1))).replace(
        "x", X["x"] * present[:, None], present=present
    )
    method = create("induction.self_training", model=LINEAR).fit(gap, y)
    assert method.labeled_iter_[50] == -1
    assert (np.delete(method.labeled_iter_, 50) >= 0).all()


def test_consistency_flattens_the_answers_around_every_row() -> None:
    X, y, _ = blobs(gap=2.0)
    shift = np.random.default_rng(1).normal(size=X["x"].shape)
    moved = Views.of(primary="x", x=X["x"] + shift)
    changes = []
    for weight in (0.0, 20.0):
        method = create("induction.self_training", consistency=weight, noise=1.0, rounds=1, share=0.0, schedule=SHORT)
        method.fit(X, y)
        changes.append(np.abs(method.predict_proba(X) - method.predict_proba(moved)).mean())
    assert changes[1] < 0.8 * changes[0]
    assert "consistency" in method.history_
    assert type(method.deployed()).__name__ == "Unimodal"


def test_consistency_holds_the_clean_answers_fixed() -> None:
    """Without noise softmax(s) - q vanishes, whatever the weights; the entropy, its value, would have a gradient."""
    X, y, _ = blobs(gap=2.0)
    model = _Consistent(1.0, 0.0, width=8, schedule=SHORT, seed=0).fit(X, y)
    loss = model.losses(model.net_, to_batch(X))["consistency"]
    p = model.predict_proba(X)
    assert loss.item() == pytest.approx(-(p * np.log(p)).sum(1).mean(), rel=1e-5)
    model.net_.zero_grad()
    loss.backward()
    assert max(float(parameter.grad.abs().max()) for parameter in model.net_.parameters()) < 1e-6


def test_noise_falls_on_what_a_pretrained_model_makes_of_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens = nn.Embedding(11, 4)  # any other number is refused

        def size(self, *about: object) -> int:
            return 4

        def text(self, given: dict[str, Tensor]) -> Tensor:
            return self.tokens(given["input_ids"]).mean(1)

    def encoder(spec: ModalitySpec, width: int) -> PretrainedEncoder:
        return PretrainedEncoder(spec, width, Model())  # type: ignore[arg-type]

    monkeypatch.setattr("transference.nn.network.encoder", encoder)
    words = np.random.default_rng(0).integers(1, 12, (40, 5)).astype(np.float32)
    spec = ModalitySpec("t", "text", (5,), lengths=True, vocabulary=12, reading={"tokenizer": "hf:any"})
    y = np.where(words[:, 0] > 6, "high", "low").astype(object)
    y[20:] = None
    method = create("induction.self_training", consistency=1.0, noise=100.0, rounds=1, schedule=SHORT)
    assert "consistency" in method.fit(Views({"t": words}, {"t": spec}, "t"), y).history_


def test_a_round_gets_its_share_of_the_updates_and_the_last_fit_all() -> None:
    """Of 60 updates 0.3 are 18: whom the round chooses is as sure as a network of 18 updates is."""
    X, y, _ = blobs(gap=1.0)
    method = create("induction.self_training", rounds=1, round_updates=0.3, prior_matched=False, schedule=SHORT)
    method.fit(X, y)
    first = create("unimodal", schedule=Schedule(updates=18, batch_size=16)).fit(X, y).predict_proba(X[4:])
    assert method.rounds_[0]["least probability"] == pytest.approx(first.max(1).min())
    assert method.history_["update"][-1] == 60


@pytest.mark.parametrize(
    ("parameters", "wording"),
    [
        ({"threshold": 1.1}, r"The 'threshold' parameter of SelfTraining must be a number in \[0, 1\]\. Got 1\.1"),
        ({"rounds": 0}, "The 'rounds' parameter of SelfTraining must be an integer of at least 1. Got 0"),
        ({"consistency": 1.0, "model": LINEAR}, "'consistency' of SelfTraining is for the network. Leave out 'model'"),
    ],
)
def test_wrong_parameters_are_told_in_words(parameters: Any, wording: str) -> None:
    with pytest.raises(ConfigError, match=wording):
        create("induction.self_training", **parameters).check_parameters()
