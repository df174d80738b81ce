"""Concepts of colour, shape, size and place, shown as numbers that mix them with nuisance, and named in words."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transference.core.views import Views

OPTIONS = (5, 5, 3, 3)  # of each attribute
FIRST = np.cumsum([1, *OPTIONS[:-1]])  # number of its first word


def shape_world(
    seed: int, captions: str = "true", base: int = 100, rows: int = 2, new: int = 30, noise: float = 1.0
) -> tuple[Views, NDArray[Any], NDArray[np.bool_]]:
    """Rows of `base` concepts, then 12 of each of `new` ones; their classes; which rows are of the first.

    Parameters
    ----------
    captions
        Of the former: ``true``: colour, shape, size, place; ``colour``: that alone; ``no colour``: the rest;
        ``words``: in any order; ``captions``: those of other rows.
    """
    g = np.random.default_rng(seed)
    concepts = np.array(list(product(*map(range, OPTIONS))))
    concepts = concepts[g.permutation(len(concepts))[: base + new]]
    number = np.concatenate([np.repeat(np.arange(base), rows), base + np.repeat(np.arange(new), 12)])
    n, train = len(number), number < base
    named = np.concatenate([np.eye(k)[concepts[number, j]] for j, k in enumerate(OPTIONS)], 1)
    z = np.hstack([named, noise * g.normal(size=(n, 8))])
    mixing = np.random.default_rng(99)
    x = np.tanh(z @ mixing.normal(size=(24, 64))) @ mixing.normal(size=(64, 48)) / 8 + 0.1 * g.normal(size=(n, 48))
    words = concepts[number] + FIRST
    if captions == "colour":
        words[:, 1:] = 0
    if captions == "no colour":
        words = np.hstack([words[:, 1:], np.zeros_like(words[:, :1])])
    if captions == "words":
        words = g.permuted(words, axis=1)
    if captions == "captions":
        words[train] = words[g.permutation(base * rows)]
    X = Views.of(primary="x", kinds={"t": "text"}, x=x, t=words)
    return X, np.array([f"concept {k:03d}" for k in number], object), train


def episodes(
    X: Views, y: NDArray[Any], way: int = 10, shot: int = 1, count: int = 6
) -> list[tuple[Views, NDArray[Any], Views, NDArray[Any]]]:
    """Rows shown and their labels, rows asked and their class numbers: all other rows of `way` classes at a time."""
    g = np.random.default_rng(0)
    played = []
    for _ in range(count):
        chosen = np.sort(g.choice(np.unique(y.astype(str)), way, replace=False))
        rows = np.stack([g.permutation(np.flatnonzero(y == name)) for name in chosen])
        shown, asked = rows[:, :shot].ravel(), rows[:, shot:].ravel()
        played.append((X[shown], y[shown], X[asked], np.repeat(np.arange(way), rows.shape[1] - shot)))
    return played
