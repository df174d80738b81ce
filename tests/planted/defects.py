"""Methods with one defect each."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, Self

import numpy as np
import torch
from honest import AnyOf, Array, Centroids, Guess, Net
from torch import Tensor

from transference.core.batch import Batch
from transference.core.method import Method
from transference.core.spec import DataSpec
from transference.core.views import Views
from transference.train.loop import Stage, Step


class PositionalConstructor(Centroids):
    def __init__(self, sharpness: float = 1.0, options: Any = None) -> None:
        super().__init__(sharpness=sharpness, options=options)


class CopiesArgument(Centroids):
    def __init__(self, *, sharpness: float = 1.0, options: Any = None) -> None:
        super().__init__(sharpness=sharpness, options=dict(options or {}))


class RenamesArgument(Centroids):
    def __init__(self, *, sharpness: float = 1.0, options: Any = None) -> None:
        self.sharpness = sharpness
        self._options = options

    @property
    def options(self) -> Any:
        return None

    @options.setter
    def options(self, value: Any) -> None:
        self._options = value


class MutatesArgument(Centroids):
    def __init__(self, *, sharpness: float = 1.0, options: Any = None) -> None:
        super().__init__(sharpness=sharpness)
        self.options = options

    def learn(self, X: Views, target: Array) -> None:
        if isinstance(self.options, dict):
            self.options["fits"] = self.options.get("fits", 0) + 1
        super().learn(X, target)


class LeavesRows(Centroids):
    def learn(self, X: Views, target: Array) -> None:
        self._rows = X
        super().learn(X, target)


class ReplacesArgument(Centroids):
    def learn(self, X: Views, target: Array) -> None:
        self.options = self.options or []
        super().learn(X, target)


class ReturnsNothing(Centroids):
    def fit(self, X: Views, y: Any) -> Self:
        super().fit(X, y)
        return None  # type: ignore[return-value]


class KeepsState(Centroids):
    def learn(self, X: Views, target: Array) -> None:
        before = getattr(self, "means_", None)
        super().learn(X, target)
        if before is not None and before.shape == self.means_.shape:
            self.means_ = 0.9 * self.means_ + 0.1 * before


class SeedsTheGlobalGenerator(Centroids):
    def learn(self, X: Views, target: Array) -> None:
        np.random.seed(0)
        super().learn(X, target)


class DrawsFromTorch(Centroids):
    def decide(self, X: Views) -> Array:
        torch.rand(1)
        return super().decide(X)


class DrawsWithoutSeed(Centroids):
    def learn(self, X: Views, target: Array) -> None:
        super().learn(X, target)
        self.means_ = self.means_ + 1e-9 * np.random.default_rng().normal(size=self.means_.shape)


class ReadsGlobalGenerator(Centroids):
    def learn(self, X: Views, target: Array) -> None:
        super().learn(X, target)
        state = np.random.get_state()
        self.means_ = self.means_ + 1e-6 * np.random.random(self.means_.shape)
        np.random.set_state(state)


class IgnoresSeed(Net):
    def learn(self, X: Views, target: Array) -> None:
        given, self.seed = self.seed, 0
        super().learn(X, target)
        self.seed = given


class ChangesInput(Centroids):
    def learn(self, X: Views, target: Array) -> None:
        X[X.primary][...] = np.round(X[X.primary], 3)
        super().learn(X, target)


class ChangesQuestion(Centroids):
    def decide(self, X: Views) -> Array:
        found = super().decide(X)
        X[X.primary][...] = np.round(X[X.primary], 3)
        return found


class ReadsTheSecondary(Centroids):
    kind = "vector"

    def _readable(self, X: Views) -> Views:
        super()._readable(X)
        return X

    def decide(self, X: Views) -> Array:
        numbers = self.numbers(X, self.spec_.primary)
        for name in X.secondary:
            if X.specs[name].kind == self.kind:
                mean = np.nan_to_num(self.numbers(X, name)).mean(1, keepdims=True)
                numbers = numbers + 1e-3 * mean * np.arange(numbers.shape[1])
        return self.probabilities(numbers)


class ReadsTheText(ReadsTheSecondary):
    kind = "text"


class ReadsTheOtherSeries(ReadsTheSecondary):
    kind = "series"


class InfersPresence(Centroids):
    def there(self, X: Views, name: str) -> Array:
        return X[name].reshape(len(X), -1).any(1)


class NeedsNoPairs(Centroids):
    def there(self, X: Views, name: str) -> Array:
        return np.zeros(len(X))


class PeeksAtTheSecondary(Centroids):
    card = dataclasses.replace(Centroids.card, modalities=(1, None), needs=frozenset({"labels"}))


class NeedsTwoExactly(Centroids):
    def learn(self, X: Views, target: Array) -> None:
        if len(X.secondary) != 1:
            raise IndexError("two modalities")
        super().learn(X, target)


class NeedsEverything(Centroids):
    def learn(self, X: Views, target: Array) -> None:
        if not all(mask.all() for mask in X.present.values()):
            raise RuntimeError("nan in the input")
        super().learn(X, target)


class StumblesOnUnlabelled(Centroids):
    def learn(self, X: Views, target: Array) -> None:
        if (target < 0).any():
            raise IndexError("class -1")
        super().learn(X, target)


class TakesUnlabelledForTheLastClass(Net):
    def learn(self, X: Views, target: Array) -> None:
        super().learn(X, np.where(target < 0, len(self.classes_) - 1, target))


class OddProbabilities(Centroids):
    def decide(self, X: Views) -> Array:
        return super().decide(X) * 0.9


class NumbersForLabels(Centroids):
    def predict(self, X: Views) -> Array:
        return self.decide(self._readable(X)).argmax(1)


class ClassesByAppearance(Centroids):
    """Right by luck where the first rows come in the order of the alphabet."""

    def learn(self, X: Views, target: Array) -> None:
        known = target[target >= 0]
        first = [int(np.flatnonzero(known == k)[0]) for k in range(len(self.classes_))]
        order = np.argsort(np.argsort(first))
        super().learn(X, np.where(target >= 0, order[target], -1))


class LearnsNothing(Centroids):
    def learn(self, X: Views, target: Array) -> None:
        super().learn(X, target)
        self.means_ = self.means_ * 1e-3 + 5


class NormalisesByTheQuestion(Centroids):
    def decide(self, X: Views) -> Array:
        numbers = self.numbers(X, self.spec_.primary)
        return self.probabilities(numbers - 0.01 * numbers.mean(0))


class CrashesOnOne(Centroids):
    def decide(self, X: Views) -> Array:
        squeezed = super().decide(X).squeeze()
        return squeezed / squeezed.sum(1, keepdims=True)


class RemembersTheLastQuestion(Centroids):
    def decide(self, X: Views) -> Array:
        found = super().decide(X)
        return found if len(X) > 1 else np.full_like(found, 1 / 3)


class ReadsPadding(Centroids):
    def numbers(self, X: Views, name: str) -> Array:
        values = X[name].astype(float)
        return values.mean(1) if values.ndim == 3 else values


def _padding_for_content(X: Views, names: Iterable[str]) -> Views:
    for name in names:
        if name in X.lengths:
            X = X.replace(name, X[name], lengths=np.full(len(X), X[name].shape[1]))
    return X


class LearnsFromPadding(Centroids):
    def learn(self, X: Views, target: Array) -> None:
        super().learn(_padding_for_content(X, X.secondary), target)


class AnswersFromPadding(Centroids):
    def decide(self, X: Views) -> Array:
        return super().decide(_padding_for_content(X, X.names))


class UnusedParameter(Net):
    def build(self, spec: DataSpec) -> Any:
        net = super().build(spec)
        net.idle = torch.nn.Linear(2, 2)
        return net


class StateOutsideTheNetwork(Net):
    def learn(self, X: Views, target: Array) -> None:
        self.shift_ = 0.0
        super().learn(X, target)
        self.shift_ = 0.5

    def scores(self, net: Any, batch: Batch) -> Tensor:
        scores = super().scores(net, batch)
        return scores + getattr(self, "shift_", 0.0) * torch.arange(scores.shape[1])


class RaggedHistory(Net):
    def learn(self, X: Views, target: Array) -> None:
        super().learn(X, target)
        self.history_["extra"] = [0.0]


class TenTimesTheUpdates(Guess):
    def stages(self, net: Any) -> tuple[Stage, ...]:
        return (Stage("train", (Step(self.losses),), share=10),)


class PreparesForLong(Guess):
    def stages(self, net: Any) -> tuple[Stage, ...]:
        step = Step(self.losses)
        return (Stage("prepare", (step,), share=3, answers=False), Stage("train", (step,)))


class LearnsNoValues(Guess):
    kind = "regression"

    def losses(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        losses = super().losses(net, batch)
        return {**losses, "task": losses["task"] * (self.spec_.task.kind != self.kind)}


class LearnsNoSeveralLabels(LearnsNoValues):
    kind = "multilabel"


class AnswersInStandardUnits(Guess):
    def answers(self, net: Any, batch: Batch) -> Tensor:
        return self.scores(net, batch) if self.spec_.task.kind == "regression" else super().answers(net, batch)


class ThrowsUnlabelledRowsAway(Guess):
    def losses(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        return super().losses(net, batch.labelled)


class DropsRowsWithoutTheOthers(Guess):
    def losses(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        whole = batch.complete(self.spec_.secondary).is_labelled.any()
        return super().losses(net, batch.complete(self.spec_.secondary) if whole else batch)


class EmptyCard(Centroids):
    card = dataclasses.replace(Centroids.card, reference="none")


class CannotDoItsTask(Centroids):
    card = dataclasses.replace(Centroids.card, tasks=frozenset({"classification", "multilabel"}))


class AcceptsAnything(Centroids):
    """Never looks at parameters."""

    def check_parameters(self) -> None:
        pass

    def learn(self, X: Views, target: Array) -> None:
        given, self.sharpness = self.sharpness, 1.0
        super().learn(X, target)
        self.sharpness = given


class VagueWhenNotFitted(Centroids):
    def _fitted(self) -> DataSpec:
        return self.spec_


class AnswersRowsWithoutPrimary(Centroids):
    def _readable(self, X: Views) -> Views:
        self._fitted()
        return X.only([self.spec_.primary])


class AcceptsAbsentModalities(Centroids):
    def _check_modalities(self, X: Views) -> None:
        pass


class FlatRepresentation(Centroids):
    def embed(self, X: Views) -> dict[str, Array]:
        return {"look": self.decide(self._readable(X)).argmax(1)}


class DeploysSomethingElse(Centroids):
    def deployed(self) -> Method:
        self._fitted()
        return LearnsNothing().fit(self.rows_, self.labels_)

    def fit(self, X: Views, y: Any) -> Self:
        self.rows_, self.labels_ = X, y
        return super().fit(X, y)


class ReadsAbsentModalities(AnyOf):
    def there(self, X: Views, name: str) -> Array:
        return X[name].reshape(len(X), -1).any(1)


class WantsAll(AnyOf):
    def decide(self, X: Views) -> Array:
        if len(X.names) < len(self.models_):
            raise KeyError("a modality")
        return super().decide(X)
