"""Five small methods that keep every promise, to plant one defect at a time in."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from transference.core.batch import Batch
from transference.core.method import Card, Method
from transference.core.parameters import Interval
from transference.core.spec import DataSpec
from transference.core.views import Views
from transference.nn.losses import supervised
from transference.nn.network import Network
from transference.train.neural import NeuralMethod
from transference.unimodal import Unimodal

Array = NDArray[Any]


class Centroids(Method):
    """The nearest class mean in the primary modality; rows count for more where the secondary numbers are large."""

    card: ClassVar[Card] = Card(
        summary="The nearest class mean.",
        reference="nobody2000",
        modalities=(2, None),
        needs=frozenset({"labels", "paired"}),
        at_test="primary",
        tasks=frozenset({"classification"}),
    )
    constraints = {"sharpness": Interval(0)}

    def __init__(self, *, sharpness: float = 1.0, options: Any = None) -> None:
        self.sharpness = sharpness
        self.options = options

    def learn(self, X: Views, target: Array) -> None:
        known = (target >= 0) & X.present[X.primary]
        X, target = X.take(known), target[known]
        weight = 1 + sum(np.where(self.there(X, name), abs(self.numbers(X, name).mean(1)), 0) for name in X.secondary)
        numbers, ones = self.numbers(X, X.primary), np.eye(len(self.classes_))[target] * weight[:, None]
        self.means_ = ones.T @ numbers / ones.sum(0)[:, None]

    def there(self, X: Views, name: str) -> Array:
        return X.present[name]

    def numbers(self, X: Views, name: str) -> Array:
        """(n, d) float64; the mean over the real steps of a series."""
        values = X[name].astype(float)
        if name not in X.lengths or values.ndim == 2:  # words are taken as they are
            return values.reshape(len(X), -1)
        real = np.arange(values.shape[1]) < X.lengths[name][:, None]
        return np.where(real[..., None], values, 0).sum(1) / np.maximum(X.lengths[name], 1)[:, None]

    def decide(self, X: Views) -> Array:
        return self.probabilities(self.numbers(X, self.spec_.primary))

    def probabilities(self, numbers: Array) -> Array:
        """(n, d) -> (n, classes)."""
        distance = ((numbers[:, None] - self.means_) ** 2).sum(2) * self.sharpness
        likely = np.exp(distance.min(1, keepdims=True) - distance)
        return likely / likely.sum(1, keepdims=True)


class AnyOf(Centroids):
    """The mean answer of centroids in every modality that a row has."""

    card: ClassVar[Card] = Card(
        summary="Centroids in every modality.",
        reference="nobody2000",
        modalities=(2, None),
        needs=frozenset({"labels", "paired"}),
        at_test="any",
        tasks=frozenset({"classification"}),
    )

    def learn(self, X: Views, target: Array) -> None:
        self.models_ = {}
        for name in X.names:
            known = (target >= 0) & self.there(X, name)
            numbers, ones = self.numbers(X.take(known), name), np.eye(len(self.classes_))[target[known]]
            self.models_[name] = ones.T @ numbers / ones.sum(0)[:, None]

    def decide(self, X: Views) -> Array:
        total = np.zeros((len(X), len(self.classes_)))
        for name in X.names:
            self.means_ = self.models_[name]
            there = self.there(X, name)
            total[there] += self.probabilities(self.numbers(X, name)[there])
        return total / total.sum(1, keepdims=True)


class Linked(Centroids):
    """Centroids, and a linear map from the primary modality to each other one: it matches, shows and generates."""

    card: ClassVar[Card] = Card(
        summary="Centroids, and linear maps to the others.",
        reference="nobody2000",
        modalities=(2, None),
        needs=frozenset({"labels", "paired"}),
        at_test="primary",
        tasks=frozenset({"classification", "unsupervised", "retrieval", "zero_shot", "few_shot", "generation"}),
    )

    def learn(self, X: Views, target: Array) -> None:
        if self.spec_.task.kind == "classification":
            super().learn(X, target)
        self.maps_ = {}
        for name in X.secondary:
            both = X.take(X.present[X.primary] & X.present[name])
            x, z = self.ones(both), both[name].reshape(len(both), -1).astype(float)
            self.maps_[name] = np.linalg.solve(x.T @ x + np.eye(x.shape[1]), x.T @ z)

    def ones(self, X: Views) -> Array:
        """(n, d + 1) numbers of the primary modality and a one."""
        numbers = self.numbers(X, self.spec_.primary)
        return np.hstack([numbers, np.ones((len(numbers), 1))])

    def embed(self, X: Views) -> dict[str, Array]:
        self._fitted()
        return {name: self.numbers(X, name) for name in X.names if name in self.spec_.modalities}

    def match(self, X: Views, candidates: Views) -> Array:
        (name,) = [each for each in candidates.names if each != self.spec_.primary]
        gap = self.generate(X, name)[:, None] - candidates[name].reshape(1, len(candidates), -1)
        return -np.square(gap).sum(2)

    def generate(self, X: Views, name: str) -> Array:
        return (self.ones(X) @ self.maps_[name]).reshape(len(X), *self.spec_.modalities[name].shape)


class Net(Unimodal):
    """A network on the primary modality alone."""

    card: ClassVar[Card] = Card(
        summary="A network.",
        reference="nobody2000",
        modalities=(1, None),
        needs=frozenset({"labels"}),
        at_test="primary",
        tasks=frozenset({"classification"}),
    )


class Guess(NeuralMethod):
    """A network on the primary modality that also guesses the first number of each other one, labelled or not."""

    card: ClassVar[Card] = Card(
        summary="Guess the first number of the others.",
        reference="nobody2000",
        modalities=(2, None),
        needs=frozenset({"labels", "unlabelled", "paired"}),
        at_test="primary",
        tasks=frozenset({"classification", "regression", "multilabel"}),
    )

    def build(self, spec: DataSpec) -> Network:
        net = Network(spec, [spec.primary], self.width)
        net.guess = nn.Linear(self.width, len(spec.secondary))
        return net

    def losses(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        features = net.encode(batch, self.spec_.primary)
        losses = {"task": supervised(net.head(features), batch.target, self.spec_.task)}
        for k, name in enumerate(self.spec_.secondary):
            here = batch.present[name]
            error = net.guess(features)[here, k] - batch.views[name].flatten(1)[here, 0]
            losses[f"first of {name}"] = error.square().sum() / len(batch)
        return losses

    def scores(self, net: Any, batch: Batch) -> Tensor:
        return net.head(net.encode(batch, self.spec_.primary))
