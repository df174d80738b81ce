"""How different two modalities are: what is lost when a model of the one is asked through the other.

Usable (V-) information is what a family of models can read: in bits, the surprise of the best of them that sees nothing
less that of the best of them that sees x.

    I(x -> y) = mean -log2 p(y)  -  mean -log2 p(y | x)
    T(1 -> 2) = surprise of a model of x_1, moved to x_2  -  surprise of a model of x_2
    d(1, 2)   = max(0, T(1 -> 2)) + max(0, T(2 -> 1))

`groups` then cuts a tree of average distances. The surprise is to be measured on rows that trained neither model.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import AgglomerativeClustering

LEAST = 1e-12  # probability: 40 bits of surprise


def surprise(probabilities: NDArray[np.floating], target: NDArray[np.integer]) -> float:
    """Mean -log2 of the probability of the truth, in bits.

    Parameters
    ----------
    probabilities
        (n, classes), or (1, classes) where all rows are answered alike.
    target
        (n,) class numbers.

    >>> surprise(np.array([[0.5, 0.5], [0.75, 0.25]]), np.array([0, 1]))
    1.5
    """
    rows = np.broadcast_to(probabilities, (len(target), probabilities.shape[1]))
    return float(-np.log2(np.maximum(rows[np.arange(len(target)), target], LEAST)).mean())


def surprise_of_labels(probabilities: NDArray[np.floating], target: NDArray[np.floating]) -> float:
    """As `surprise`, of (n, k) zeros and ones and the probability of each; the sum over the k labels, in bits."""
    right = np.where(target > 0.5, probabilities, 1 - probabilities)
    return float(-np.log2(np.maximum(right, LEAST)).sum(1).mean())


def surprise_of_values(values: NDArray[np.floating], target: NDArray[np.floating]) -> float:
    """As `surprise`, of (n,) values that are off by a normal error of the deviation that is met, in bits."""
    error = max(float(np.square(values - target).mean()), LEAST)
    return float(0.5 * np.log2(2 * np.pi * np.e * error))


def usable_information(null: NDArray[np.floating], given: NDArray[np.floating], target: NDArray[np.integer]) -> float:
    """I(x -> y) in bits; below 0 where the model that sees x does worse than the one that sees nothing.

    Parameters
    ----------
    null, given
        (n or 1, classes) probabilities of a model that sees nothing, and of one that sees x.
    target
        (n,) class numbers.

    >>> usable_information(np.array([[0.5, 0.5]]), np.eye(2)[[0, 1, 1, 0]], np.array([0, 1, 1, 0]))
    1.0
    """
    return surprise(null, target) - surprise(given, target)


def distances(moved: NDArray[np.floating]) -> NDArray[np.float64]:
    """(m, m) d, symmetric with zeros on the diagonal.

    Parameters
    ----------
    moved
        (m, m) surprise, of a model of the row's modality asked through the column's; on the diagonal that of each
        modality's own model.

    >>> distances(np.array([[1.0, 3.0], [1.5, 2.0]])).tolist()
    [[0.0, 1.5], [1.5, 0.0]]
    """
    lost = np.maximum(0.0, moved - np.diagonal(moved))  # (from, to)
    return np.asarray(lost + lost.T, np.float64)


def groups(distance: NDArray[np.floating], *, count: int | None = None, apart: float | None = None) -> list[int]:
    """The group of each of m, numbered in the order of their first members; agglomerative, by average distance.

    Parameters
    ----------
    distance
        (m, m).
    count, apart
        How many groups, or the distance from which on two of them stay apart: one of the two.

    >>> groups(np.array([[0, 1, 9], [1, 0, 9], [9, 9, 0]]), apart=2.0)
    [0, 0, 1]
    """
    if len(distance) == 1:
        return [0]
    tree = AgglomerativeClustering(n_clusters=count, distance_threshold=apart, metric="precomputed", linkage="average")
    found = tree.fit_predict(distance).tolist()
    number: dict[int, int] = {}
    return [number.setdefault(label, len(number)) for label in found]
