"""Pseudo-labels: soft ones brought to a class prior, hard ones cut at a quota, both handed on to models. Plain numpy.

A teacher that learned from few labels often has the order of the rows right and their share of each class wrong; its
labels at the largest probability then teach the wrong shares. These functions keep the order and mend the shares.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def class_shares(target: Array, classes: int) -> Array:
    """(classes,) share of each class among the labelled rows of (n,) class numbers with -1 where unlabelled.

    >>> class_shares(np.array([0, 1, 1, -1, 1]), 2).tolist()
    [0.25, 0.75]
    """
    counts = np.bincount(target[target >= 0], minlength=classes)
    return counts / counts.sum()


def soften(probabilities: Array, temperature: float) -> Array:
    """softmax(logits / T), from the probabilities softmax(logits); rows sum to 1.

    >>> soften(np.array([[0.8, 0.2]]), 2.0).round(4).tolist()
    [[0.6667, 0.3333]]
    """
    logits = _log(probabilities) / temperature
    return _normalised(logits)


def match_prior(probabilities: Array, prior: Array, *, tolerance: float = 1e-6, most: int = 2000) -> Array:
    """Class weights a such that q_ic = a_c p_ic / sum_d a_d p_id has column means equal to the prior; returns q.

    The fixed point of a_c <- a_c prior_c / mean_i q_ic. Within a pair of classes the order of the rows by p_c / p_d
    stays.

    Parameters
    ----------
    probabilities
        (n, classes), rows sum to 1.
    prior
        (classes,) above 0, sums to 1.
    tolerance, most
        Largest difference from the prior at which it stops; largest number of steps.

    Examples
    --------
    >>> match_prior(np.array([[0.5, 0.5], [0.5, 0.5]]), np.array([0.25, 0.75])).round(6).tolist()
    [[0.25, 0.75], [0.25, 0.75]]
    """
    return _matched(_log(probabilities), prior, np.zeros(len(prior)), tolerance, most)[0]


def sharpen(probabilities: Array, prior: Array, *, share: float, matched: bool = True) -> Array:
    """Soft labels that leave a stated share of the classes' entropy open, however sure or unsure their source was.

    q = softmax(log p / T), matched to the prior where asked for, with the T at which the mean entropy of its rows is
    `share` times that of the prior; T in [0.001, 1000]. Probabilities that hardly differ from row to row keep their
    order and become labels that one can learn from.

    Parameters
    ----------
    probabilities
        (n, classes), rows sum to 1.
    prior
        (classes,) above 0, sums to 1.
    share
        In (0, 1): 0 would be hard labels.
    matched
        Whether column means equal the prior.

    Examples
    --------
    >>> p = np.array([[0.52, 0.48], [0.51, 0.49], [0.50, 0.50], [0.49, 0.51]])
    >>> sharpen(p, np.array([0.5, 0.5]), share=0.4).round(2).tolist()
    [[0.99, 0.01], [0.81, 0.19], [0.19, 0.81], [0.01, 0.99]]
    """
    logits, goal = _log(probabilities), share * _entropy(prior[None])
    shift = np.zeros(len(prior))
    low, high = np.log(1e-3), np.log(1e3)
    for step in range(24):
        middle = (low + high) / 2
        q = _normalised(logits / np.exp(middle))
        if matched:
            q, shift = _matched(logits / np.exp(middle), prior, shift, 1e-6 if step == 23 else 1e-4, 2000)
        if _entropy(q) > goal:
            high = middle
        else:
            low = middle
    return q


def quotas(total: int, prior: Array) -> NDArray[np.int64]:
    """`total` divided over the classes in proportion to the prior; what is left goes to the largest remainders.

    >>> quotas(10, np.array([0.26, 0.74])).tolist(), quotas(2, np.array([1, 1, 1]) / 3).tolist()
    ([3, 7], [1, 1, 0])
    """
    exact = np.round(total * np.asarray(prior, float), 9)
    whole = np.floor(exact).astype(np.int64)
    order = np.argsort(whole - exact, kind="stable")
    whole[order[: total - whole.sum()]] += 1
    return whole


def most_confident(
    probabilities: Array, quota: Array, *, above: float = 0.0, most: int | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and the classes they are given, by falling probability: a row once, a class as often as its quota.

    For two classes and quotas that use all rows up, this is the cut of the rows at a quantile of the probability.

    Parameters
    ----------
    probabilities
        (n, classes).
    quota
        (classes,) most rows a class.
    above
        Only probabilities greater than this count, so that nothing passes 1.0.
    most
        Most rows in all; None = as the quotas allow.

    Returns
    -------
    tuple
        Positions (m,) and class numbers (m,), the most confident first. Ties go to the earlier row.

    Examples
    --------
    >>> rows, classes = most_confident(np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]]), np.array([1, 1]))
    >>> rows.tolist(), classes.tolist()
    ([0, 2], [0, 1])
    """
    n, k = probabilities.shape
    left = np.minimum(np.asarray(quota, np.int64), n)
    limit = int(min(left.sum(), n if most is None else most))
    taken = np.zeros(n, bool)
    rows: list[int] = []
    classes: list[int] = []
    for place in np.argsort(-probabilities, axis=None, kind="stable").tolist():
        row, label = divmod(place, k)
        if len(rows) == limit or not probabilities[row, label] > above:
            break
        if not taken[row] and left[label] > 0:
            taken[row] = True
            left[label] -= 1
            rows.append(row)
            classes.append(label)
    return np.array(rows, np.int64), np.array(classes, np.int64)


def weighted_examples(
    rows: NDArray[np.int64], probabilities: Array, least: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Soft labels for an estimator that takes weights: each row once a class, with its probability as the weight.

    Parameters
    ----------
    rows
        (n,) position of each row.
    probabilities
        (n, classes).
    least
        Only probabilities greater than this become examples.

    Returns
    -------
    tuple
        Rows, class numbers and weights, (m,) each.

    Examples
    --------
    >>> taught = weighted_examples(np.array([5, 8]), np.array([[0.75, 0.25], [0.0, 1.0]]), 0.0)
    >>> [part.tolist() for part in taught]
    [[5, 5, 8], [0, 1, 1], [0.75, 0.25, 1.0]]
    """
    place, classes = np.nonzero(probabilities > least)
    return rows[place], classes, probabilities[place, classes]


def by_row(labels: Array, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """(largest row + 1, k) soft labels by the number that a batch has for each row; nan where there is no such row.

    >>> by_row(np.array([[0.25, 0.75], [1.0, 0.0]]), np.array([2, 0])).tolist()
    [[1.0, 0.0], [nan, nan], [0.25, 0.75]]
    """
    table = np.full((rows.max() + 1, labels.shape[1]), np.nan, np.float32)
    table[rows] = labels
    return table


def _matched(logits: Array, prior: Array, shift: Array, tolerance: float, most: int) -> tuple[Array, Array]:
    """q and the logarithms of the class weights, searched from `shift`."""
    q = _normalised(logits + shift)
    for _ in range(most):
        shares = q.mean(0)
        if np.abs(shares - prior).max() <= tolerance:
            break
        shift = shift + np.log(prior) - np.log(np.maximum(shares, 1e-12))
        q = _normalised(logits + shift)
    return q, shift


def _entropy(q: Array) -> float:
    """Mean over rows, in nats."""
    return float(-(q * _log(q)).sum(1).mean())


def _log(probabilities: Array) -> Array:
    return np.log(np.maximum(np.asarray(probabilities, np.float64), 1e-38))


def _normalised(logits: Array) -> Array:
    weight = np.exp(logits - logits.max(1, keepdims=True))
    return weight / weight.sum(1, keepdims=True)
