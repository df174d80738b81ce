"""NeuralMethod: which rows train, which are held out, and which state is kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from transference.core.batch import Batch
from transference.core.errors import DataError
from transference.core.registry import create
from transference.core.views import Views
from transference.train.schedule import Schedule
from transference.unimodal import Unimodal


class Exact(Unimodal):
    """The baseline, which notes whether convolutions are in whole float32 while it trains and answers."""

    def learn(self, X: Views, target: Any) -> None:
        self.seen_: dict[str, bool] = {}
        super().learn(X, target)

    def losses(self, net: Any, batch: Batch) -> dict[str, torch.Tensor]:
        self.seen_["losses"] = not torch.backends.cudnn.allow_tf32
        return super().losses(net, batch)

    def answers(self, net: Any, batch: Batch) -> torch.Tensor:
        self.seen_["answers"] = not torch.backends.cudnn.allow_tf32
        return super().answers(net, batch)

    def embeddings(self, net: Any, batch: Batch) -> dict[str, torch.Tensor]:
        self.seen_["embeddings"] = not torch.backends.cudnn.allow_tf32
        return super().embeddings(net, batch)


def test_training_and_answers_are_in_whole_float32_on_a_gpu_too() -> None:
    X, y = uneven()
    method = Exact(schedule=Schedule(updates=2)).fit(X, y)
    method.predict(X)
    method.embed(X)
    assert method.seen_ == {"losses": True, "answers": True, "embeddings": True}


class Watched(Unimodal):
    """The baseline, which notes the rows that it trains on and those that it is judged by."""

    def learn(self, X: Views, target: Any) -> None:
        self.trained: set[int] = set()
        self.judged: list[float] = []
        self.held: set[int] = set()
        super().learn(X, target)

    def losses(self, net: Any, batch: Batch) -> dict[str, torch.Tensor]:
        self.trained |= set(batch.rows.tolist())
        return super().losses(net, batch)

    def _held_out_loss(self, rows: Batch) -> float:
        self.held |= set(rows.rows.tolist())
        self.judged.append(super()._held_out_loss(rows))
        return self.judged[-1]


def uneven() -> tuple[Views, np.ndarray]:
    """49, 49 and 8 rows of three classes, of which the last one is rare."""
    y = np.array(["a"] * 49 + ["b"] * 49 + ["c"] * 8, object)
    x = np.random.default_rng(0).normal(size=(len(y), 2)) + np.array([[0, 0]] * 49 + [[2, 0]] * 49 + [[0, 2]] * 8)
    return Views.of(primary="x", x=x), y


@pytest.mark.parametrize("seed", range(5))
def test_held_out_rows_are_of_every_class_and_never_train(seed: int) -> None:
    X, y = uneven()
    y[:9] = None
    method = Watched(schedule=Schedule(updates=40, validation=0.25, least_validation=2), seed=seed).fit(X, y)
    assert not method.held & method.trained
    assert method.held | method.trained == set(range(9, 106))
    assert {name: sum(y[row] == name for row in method.held) for name in "abc"} == {"a": 10, "b": 12, "c": 2}


def test_the_state_that_is_best_on_held_out_rows_is_kept() -> None:
    X, y = uneven()
    wild = Schedule(updates=60, learning_rate=0.3, weight_decay=0.0, validation=0.25, least_validation=2)
    method = Watched(schedule=wild).fit(X, y)
    held = np.array(sorted(method.held))
    p = method.predict_proba(X[held])
    loss = -np.log(p[np.arange(len(held)), np.searchsorted(method.classes_, y[held].astype(str))]).mean()
    assert loss == pytest.approx(min(method.judged), rel=1e-4)
    assert min(method.judged) < method.judged[-1]


def test_nothing_is_held_out_where_a_class_would_give_too_few_rows() -> None:
    X, y = uneven()
    method = Watched(schedule=Schedule(updates=40, validation=0.25, least_validation=3)).fit(X, y)
    assert method.trained == set(range(106))
    assert not method.held


@pytest.mark.parametrize("method", ["unimodal", "fusion.early", "colearning.fusion.zero_fill"])
def test_labels_without_the_primary_teach_nothing_and_are_refused(method: str) -> None:
    y = np.array(["a", "b"] * 10 + [None] * 10, object)
    present = np.array([False] * 20 + [True] * 10)
    X = Views.of(primary="x", x=np.ones((30, 2)), z=np.ones((30, 2)))
    X = X.replace("x", X["x"] * present[:, None], present=present)
    with pytest.raises(DataError, match="No labelled row has 'x'"):
        create(method, schedule=Schedule(updates=2)).fit(X, y)
