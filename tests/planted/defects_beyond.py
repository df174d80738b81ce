"""Methods with one defect each in what is asked beyond labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from honest import Array, Linked

from transference.core.views import Views


class AnswersWithoutLabels(Linked):
    def predict(self, X: Views) -> Array:
        if self._fitted().task.kind == "unsupervised":
            return np.zeros(len(X))
        return super().predict(X)


class ShowsAnotherEveryTime(Linked):
    fits = 0

    def embed(self, X: Views) -> dict[str, Array]:
        if self.spec_.task.kind == "unsupervised":
            ShowsAnotherEveryTime.fits += 1
            return {name: value + ShowsAnotherEveryTime.fits for name, value in super().embed(X).items()}
        return super().embed(X)


class MatchesAmongCandidates(Linked):
    def match(self, X: Views, candidates: Views) -> Array:
        found = super().match(X, candidates)
        return found - found.mean(1, keepdims=True)


class MatchesWithTheAnswer(Linked):
    def match(self, X: Views, candidates: Views) -> Array:
        (name,) = candidates.names
        seen = X[name] if name in X.names else self.generate(X, name)
        return -np.square(seen[:, None] - candidates[name][None]).sum(2)


class MatchesByChance(Linked):
    def match(self, X: Views, candidates: Views) -> Array:
        (name,) = candidates.names
        return self.ones(X)[:, :1] * 0 + candidates[name][:, 0]


class ShowsWhatTheQueryHides(Linked):
    def episode(self, support: Views, y: Any, query: Views) -> Array:
        answered = super().episode(support, y, query)
        if len(query.names) > 1:
            answered = answered[np.argsort(query[query.secondary[0]][:, 0])]
        return answered


class NamesByAppearance(Linked):
    def episode(self, support: Views, y: Any, query: Views) -> Array:
        _, first = np.unique(np.asarray(y), return_index=True)
        return super().episode(support, y, query)[:, np.argsort(first)]


class GeneratesTheGiven(Linked):
    def generate(self, X: Views, name: str) -> Array:
        return X[name].astype(float) if name in X.names else super().generate(X, name)

    def match(self, X: Views, candidates: Views) -> Array:
        return super().match(X.only([self.spec_.primary]), candidates)


class GeneratesNothing(Linked):
    def generate(self, X: Views, name: str) -> Array:
        return np.zeros((len(X), *self.spec_.modalities[name].shape))

    def match(self, X: Views, candidates: Views) -> Array:
        (name,) = candidates.names
        made = super().generate(X, name)
        return -np.square(made[:, None] - candidates[name][None]).sum(2)
