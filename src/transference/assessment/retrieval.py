"""How well rows of one modality find those of another.

For similarities s (n, m) of n rows and m candidates, of which candidate own[i] belongs to row i:

    rank              place of the own candidate, 1 is first; candidates that tie share their mean place
    recall_at_k       share of rows whose own candidate is among the first k
    reciprocal_rank   mean of 1 / rank
    map               mean over rows of the average precision of the candidates of the row's class; for a row without
                      a label, of its own candidate alone

Intervals are of 95 % and regard the rows as independent draws; the model and the candidates are fixed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from transference.assessment.scores import is_labelled, wilson
from transference.core.errors import DataError, must_be
from transference.core.method import Method
from transference.core.metrics import METRICS
from transference.core.records import Finding
from transference.core.views import Views

Array = NDArray[Any]


def retrieval(method: Method, X: Views, y: ArrayLike, to: str) -> list[Finding]:
    """The probe: the rows of X, seen through the primary modality, find themselves in `to`, and the other way round.

    Parameters
    ----------
    method
        Fitted; its card names ``retrieval``.
    X
        Rows of which those count that have both modalities.
    y
        (n,) classes, which say what else is relevant; nothing else is, where there is no label.
    to
        The modality to be found.
    """
    X, labels = paired(X, np.asarray(y), to)
    similarity = similarities(method, X, to)
    forth, back = ranked(similarity, labels), ranked(similarity.T, labels)
    return [*of_ranks(forth, {"from": X.primary, "to": to}), *of_ranks(back, {"from": to, "to": X.primary})]


def paired(X: Views, y: Array, to: str) -> tuple[Views, Array]:
    """The rows that have the primary modality and `to`."""
    both = X.present[X.primary] & X.present[to]
    if not both.any():
        subject = f"The number of test rows with {X.primary!r} and {to!r}"
        raise DataError(must_be(subject, "1 or more", 0, f"Add rows with {to!r}."))
    return X.take(both), y[both]


def similarities(method: Method, X: Views, to: str) -> Array:
    """(n, n) of rows in the primary modality and the same rows in `to`."""
    return method.match(X.only([X.primary]), X.only([to], primary=to))


def ranked(similarity: Array, labels: Array) -> Array:
    """(n, 2): the rank of each row's own candidate, and the average precision of the candidates of its class.

    Parameters
    ----------
    similarity
        (n, n); candidate i belongs to row i.
    labels
        (n,); None, nan, or -1 among integers, where there is none.

    >>> similarity = np.array([[2.0, 1.0, 0.0], [0.0, 2.0, 1.0], [0.0, 2.0, 1.0]])
    >>> ranked(similarity, np.array(["a", "b", "a"])).round(3).tolist()
    [[1.0, 0.833], [1.0, 1.0], [2.0, 0.583]]
    """
    n = len(similarity)
    own = np.diagonal(similarity)[:, None]
    rank = 1 + (similarity > own).sum(1) + ((similarity == own).sum(1) - 1) / 2
    shuffled = np.random.default_rng(0).permutation(n)  # among ties the order of the candidates must not tell
    order = shuffled[np.argsort(-similarity[:, shuffled], axis=1, kind="stable")]
    known = is_labelled(labels)
    alike = (labels[order] == labels[:, None]) & known[order] & known[:, None]
    relevant = alike | (order == np.arange(n)[:, None])  # (n, n), best first
    precision = relevant.cumsum(1) / np.arange(1, n + 1)
    return np.stack([rank, (precision * relevant).sum(1) / relevant.sum(1)], 1)


def of_ranks(ranks: Array, of: dict[str, str]) -> list[Finding]:
    """Findings from what `ranked` returns, in one direction."""
    n = len(ranks)
    target = np.zeros(n, np.int64)
    found = []
    for name in ("recall_at_1", "recall_at_5", "recall_at_10"):
        value = METRICS[name](target, ranks)
        found.append(Finding(name, value, *wilson(value, n), unit="share", better="higher", bounds=(0, 1), n=n, of=of))
    for name in ("reciprocal_rank", "map"):
        value = METRICS[name](target, ranks)
        found.append(Finding(name, value, unit="share", better="higher", bounds=(0, 1), n=n, of=of))
    median = float(np.median(ranks[:, 0]))
    return [*found, Finding("median_rank", median, unit="place", better="lower", bounds=(1, n), n=n, of=of)]
