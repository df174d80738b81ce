"""How well classes are told apart of which a few rows are shown: episodes of so many classes and rows.

An episode draws `way` classes, `shot` rows of each to show (with every modality) and `queries` rows of each to ask
(through the primary modality alone), all different. The accuracy is that over all queries of all episodes; its interval
is Student's, of 95 %, over episodes, since the queries of one share what was shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from transference.assessment.scores import is_labelled
from transference.core.errors import DataError, must_be
from transference.core.method import Method
from transference.core.records import Finding
from transference.core.seeding import numpy_generator
from transference.core.views import Views

Array = NDArray[Any]
LESS = "Ask for less: lower 'way', 'shot' or 'queries'; or add rows."


@dataclass(frozen=True)
class Episode:
    """Positions of rows: `support` (way * shot,) and `query` (way * queries,), class by class, sorted."""

    support: Array
    query: Array


def few_shot(
    method: Method,
    X: Views,
    y: Array,
    *,
    way: int = 5,
    shot: int = 1,
    queries: int = 10,
    episodes: int = 100,
    seed: int = 0,
) -> list[Finding]:
    """The probe: episodes over rows of classes that the method has not met.

    Parameters
    ----------
    method
        Fitted to rows of other classes; its card names ``few_shot``.
    X, y
        n rows with every modality, and their classes; a row without a label is in no episode.
    way, shot, queries, episodes, seed
        See `draw`.
    """
    drawn = draw(X, y, way, shot, queries, episodes, seed)
    _, target, scores = answer(method, X, y, drawn)
    return of_answers(target, scores, episodes)


def draw(X: Views, y: Array, way: int, shot: int, queries: int, episodes: int, seed: int) -> list[Episode]:
    """Episodes over the rows that have the primary modality; those that are shown have every modality."""
    whole = np.logical_and.reduce([X.present[name] for name in X.names])
    primary = X.present[X.primary]
    rows = {
        name: (np.flatnonzero((y == name) & whole), np.flatnonzero((y == name) & primary))
        for name in sorted(set(y[is_labelled(y)].tolist()))
    }
    rows = {name: both for name, both in rows.items() if len(both[0]) >= shot and len(both[1]) >= shot + queries}
    if len(rows) < way:
        enough = f"test classes with {shot} whole rows and {queries} more"
        raise DataError(must_be(f"The number of {enough}", f"{way} or more", len(rows), LESS))
    generator = numpy_generator(seed, "episodes")
    drawn = []
    for _ in range(episodes):
        names = sorted(generator.choice(list(rows), way, replace=False))
        shown = [generator.permutation(rows[name][0])[:shot] for name in names]
        left = [np.setdiff1d(rows[name][1], one) for name, one in zip(names, shown, strict=True)]
        asked = [generator.permutation(each)[:queries] for each in left]
        drawn.append(Episode(np.concatenate(shown), np.concatenate(asked)))
    return drawn


def answer(method: Method, X: Views, y: Array, drawn: list[Episode]) -> tuple[Array, Array, Array]:
    """Of all queries: their positions (n,), their class numbers in their episodes (n,) and their scores (n, way)."""
    scores = [
        method.episode(X.take(each.support), y[each.support], X.take(each.query).only([X.primary])) for each in drawn
    ]
    asked = [np.unique(y[each.query], return_inverse=True)[1] for each in drawn]
    return np.concatenate([each.query for each in drawn]), np.concatenate(asked), np.concatenate(scores)


def of_answers(target: Array, scores: Array, episodes: int) -> list[Finding]:
    """The accuracy of the answers to all queries, whose episodes are of equal size."""
    right = (scores.argmax(1) == target).reshape(episodes, -1).mean(1)
    mean, low, high = float(right.mean()), None, None
    if episodes > 1:
        half = float(stdtrit(episodes - 1, 0.975) * right.std(ddof=1) / np.sqrt(episodes))
        low, high = max(0.0, mean - half), min(1.0, mean + half)
    return [Finding("accuracy", mean, low, high, unit="share", better="higher", bounds=(0, 1), n=len(target))]
