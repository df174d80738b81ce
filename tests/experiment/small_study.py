"""A study of seconds, and methods that go wrong on purpose. Worker processes import it by name."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import Tensor

from transference.core.batch import Batch
from transference.core.method import Card, Method
from transference.core.views import Views
from transference.data.dataset import Dataset
from transference.experiment.config import Config, parse
from transference.unimodal import Unimodal

PAIRED = Card(
    summary="A test's method.",
    reference="none",
    modalities=(2, None),
    needs=frozenset({"labels", "paired"}),
    at_test="primary",
    tasks=frozenset({"classification"}),
)


def small_data(rows: int = 160) -> Dataset:
    """Digits 0 to 3: a noisy vector of 16 pixels, and all 64 pixels."""
    digits = load_digits(n_class=4)
    images, labels = digits.images[:rows] / 16, digits.target[:rows]
    noise = np.random.default_rng(0).normal(0, 0.3, (len(images), 16))
    coarse = images.reshape(-1, 4, 2, 4, 2).mean((2, 4)).reshape(-1, 16) + noise
    views = Views.of(primary="coarse", coarse=coarse, fine=images.reshape(-1, 64))
    ids = np.array([f"row{k}" for k in range(len(images))], object)
    return Dataset("small", views, np.array([f"d{label}" for label in labels], object), "classification", ids)


def small_config(**changes: Any) -> Config:
    """Two seeds, two budgets, the baseline and one paired arm; `changes` replace whole tables."""
    raw: dict[str, Any] = {
        "name": "small",
        "data": {"set": "small"},
        "study": {"seeds": 2, "budgets": [2, "all"], "controls": ["shuffle"]},
        "schedule": {"updates": 20, "device": "cpu"},
        "arms": {"unimodal": {"width": 8}, "small_study:Means": {}},
    }
    return parse(raw | changes)


class Means(Method):
    """Nearest class mean of the primary modality, moved by the class mean of the secondary one."""

    card: ClassVar[Card] = PAIRED

    def __init__(self, *, pause: float = 0.0) -> None:
        self.pause = pause

    def learn(self, X: Views, target: NDArray[Any]) -> None:
        time.sleep(self.pause)
        shifts = X[X.secondary[0]][:, :16].astype(float)
        self.means_ = np.stack(
            [
                X[X.primary][target == k].mean(0) + 0.1 * shifts[target == k].mean(0)
                for k in range(len(self.spec_.task.classes))
            ]
        )

    def decide(self, X: Views) -> NDArray[Any]:
        distance = ((X[X.primary][:, None, :] - self.means_) ** 2).sum(2)
        weight = np.exp(-distance)
        return weight / weight.sum(1, keepdims=True)


class Careless(Means):
    """Draws from the global generators, as methods of other people do."""

    def learn(self, X: Views, target: NDArray[Any]) -> None:
        super().learn(X, target)
        self.means_ += np.random.normal(size=self.means_.shape) + float(torch.rand(1))


class Crash(Means):
    def learn(self, X: Views, target: NDArray[Any]) -> None:
        raise RuntimeError("the sky fell on <row 3>")


class HalfACharacter(Means):
    def learn(self, X: Views, target: NDArray[Any]) -> None:
        raise RuntimeError("no file caf\udce9.wav")  # how Python reads a name that is not UTF-8


class Backwards(Means):
    """Means, with its classes in falling order."""

    def learn(self, X: Views, target: NDArray[Any]) -> None:
        super().learn(X, target)
        self.classes_ = self.classes_[::-1]

    def decide(self, X: Views) -> NDArray[Any]:
        return super().decide(X)[:, ::-1]


class Forgetful(Means):
    """Means, without the first class."""

    def learn(self, X: Views, target: NDArray[Any]) -> None:
        super().learn(X, target)
        self.classes_ = self.classes_[1:]

    def decide(self, X: Views) -> NDArray[Any]:
        return super().decide(X)[:, 1:]


class Hungry(Means):
    def learn(self, X: Views, target: NDArray[Any]) -> None:
        raise MemoryError("asked for 9 TB")


class Killed(Means):
    def learn(self, X: Views, target: NDArray[Any]) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class NotANumber(Means):
    def decide(self, X: Views) -> NDArray[Any]:
        return np.full((len(X), len(self.spec_.task.classes)), np.nan)


class Diverging(Unimodal):
    def losses(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        return {name: value * 1e38 * 1e38 for name, value in super().losses(net, batch).items()}


SLOW_ARMS = {"unimodal": {"width": 8}, "small_study:Means": {"pause": 0.15}}


if __name__ == "__main__":
    from transference.experiment.runner import run

    run(small_config(arms=SLOW_ARMS), folder=sys.argv[1], data=small_data(), workers=int(sys.argv[2]))
