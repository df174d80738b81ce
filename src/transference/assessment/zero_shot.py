"""How well classes are told apart of which no row was seen in training, but a description in another modality.

A class is described by rows of one other modality, the same for all classes; its score for a row is the mean over these
of what the method's `match` says. In a study all training rows of a class describe it, seen or not, whatever the budget
of labels: a description is part of the question, and nothing is fitted to it. With scores s (n, classes) and classes
divided into seen and unseen:

    accuracy          rows of unseen classes, the unseen classes being the only answers
    open_seen         rows of seen classes, all classes being answers; open_unseen likewise; harmonic: of the two
    open_area         area under open_unseen against open_seen while a constant is added to the scores of the unseen
                      classes, from -inf (every row is seen) to +inf (none is); in [0, 1]
    trade_off         the best open_unseen where open_seen is at least a share, for shares from 0 to 1
    hierarchical      rows of unseen classes, among all classes or the unseen ones: precision at k where classes near
                      the right one in a tree count; only where a tree is given, see `hierarchy`

Intervals of shares are Wilson's, of 95 %, and regard the rows as independent draws; the model is fixed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transference.assessment.hierarchy import hops, precision
from transference.assessment.scores import wilson
from transference.core.errors import DataError, collect, must_be
from transference.core.method import Method
from transference.core.records import Finding
from transference.core.views import Views

Array = NDArray[Any]
MOST = 20  # descriptions a class
SHARES = [k / 10 for k in range(11)]  # of rows of seen classes that are right, at which the curve is told
BEST = (2, 5)  # answers of which the precision in a tree is told


def zero_shot(
    method: Method,
    X: Views,
    y: Array,
    descriptions: Mapping[str, Views],
    unseen: list[str],
    tree: Mapping[str, str] | None = None,
) -> list[Finding]:
    """The probe: the rows of X are told apart by what describes their classes.

    Parameters
    ----------
    method
        Fitted to rows of the other classes; its card names ``zero_shot``.
    X, y
        n rows with the primary modality, and their classes.
    descriptions
        Class -> rows with the modality that describes; see `describe`.
    unseen
        The classes that the method has not met.
    tree
        Child -> parent, of the classes and what is above them.
    """
    names = list(descriptions)
    target = np.array([names.index(label) for label in y])
    scores, new = class_scores(method, X, descriptions), np.isin(names, unseen)
    found = of_scores(target, scores, new)
    return found if tree is None else [*found, *of_tree(target, scores, new, hops(names, tree))]


def describe(X: Views, y: Array, classes: list[str], to: str | None = None) -> dict[str, Views]:
    """Class -> the first `MOST` different rows of the class in the modality `to`, without the others.

    Parameters
    ----------
    X, y
        n rows and their classes.
    classes
        Those to describe.
    to
        The modality that describes all of them; the first secondary one when left out.

    Raises
    ------
    DataError
        With every class that no row describes.
    """
    if to is None and not X.secondary:
        raise DataError(must_be("Rows that describe classes", "of two modalities or more", X.names))
    name = X.secondary[0] if to is None else to
    described = {}
    with collect("descriptions") as faults:
        for each in classes:
            rows = X.take((y == each) & X.present[name])
            if not len(rows):
                subject = f"The rows with {name!r} that describe the class {each!r}"
                faults.add(must_be(subject, "1 or more", 0, "Add some, or describe the classes by another modality."))
                continue
            _, first = np.unique(rows[name].reshape(len(rows), -1), axis=0, return_index=True)
            described[each] = rows.take(np.sort(first)[:MOST]).only([name], primary=name)
    return described


def class_scores(method: Method, X: Views, descriptions: Mapping[str, Views]) -> Array:
    """(n, classes) mean match of each row with the descriptions of each class."""
    asked = X.only([X.primary])
    return np.stack([method.match(asked, rows).mean(1) for rows in descriptions.values()], 1)


def trade_off(target: Array, scores: Array, unseen: Array) -> Array:
    """(points, 2): accuracy on seen and on unseen classes for every constant added to the scores of the unseen.

    The first point is that of -inf, where unseen classes are never the answer, the last that of +inf.

    >>> trade_off(np.array([0, 1]), np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([False, True])).tolist()
    [[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]
    """
    best_seen, best_unseen = scores[:, ~unseen].max(1), scores[:, unseen].max(1)
    gap = best_seen - best_unseen  # the constant from which on the row counts as unseen
    ours = np.flatnonzero(unseen)[scores[:, unseen].argmax(1)] == target
    theirs = np.flatnonzero(~unseen)[scores[:, ~unseen].argmax(1)] == target
    of_unseen = unseen[target]
    seen_right, unseen_right = np.sort(gap[~of_unseen & theirs]), np.sort(gap[of_unseen & ours])
    steps = np.append(np.unique(gap), np.inf)
    seen = (len(seen_right) - np.searchsorted(seen_right, steps, "left")) / max((~of_unseen).sum(), 1)
    new = np.searchsorted(unseen_right, steps, "left") / max(of_unseen.sum(), 1)
    return np.stack([seen, new], 1)


def of_scores(target: Array, scores: Array, unseen: Array) -> list[Finding]:
    """Findings from class numbers (n,), scores (n, classes) and which classes are unseen (classes,)."""
    new = unseen[target]
    if not new.any():
        raise DataError(must_be("The number of rows of unseen classes", "1 or more", 0, "Add some."))
    closed = np.flatnonzero(unseen)[scores[new][:, unseen].argmax(1)] == target[new]
    answers = scores.argmax(1) == target
    found = [_share("accuracy", closed)]
    if (~new).any():
        curve = trade_off(target, scores, unseen)
        seen, fresh = answers[~new], answers[new]
        both = seen.mean() + fresh.mean()
        harmonic = float(2 * seen.mean() * fresh.mean() / both) if both else 0.0
        area = float(-np.trapezoid(curve[:, 1], curve[:, 0]))
        found += [_share("open_seen", seen), _share("open_unseen", fresh)]
        found += [_plain("harmonic", harmonic, len(target)), _plain("open_area", area, len(target))]
        for share in SHARES:
            best = curve[curve[:, 0] >= share - 1e-9, 1].max(initial=0.0)
            found.append(_plain("trade_off", float(best), len(target), {"open_seen": f"{share:.1f}"}))
    return found


def of_tree(target: Array, scores: Array, unseen: Array, distance: Array) -> list[Finding]:
    """Findings from what `of_scores` takes, and how far classes are from each other (classes, classes)."""
    new = unseen[target]
    found = []
    for among, classes in (("all", np.arange(len(unseen))), ("unseen", np.flatnonzero(unseen))):
        wanted, offered = np.searchsorted(classes, target[new]), scores[new][:, classes]
        for k in BEST:
            if k < len(classes):  # among all of them every answer is right
                share = float(precision(wanted, offered, distance[np.ix_(classes, classes)], k).mean())
                found.append(_plain("hierarchical", share, int(new.sum()), {"among": among, "k": str(k)}))
    return found


def _share(name: str, right: Array) -> Finding:
    value, n = float(right.mean()), len(right)
    return Finding(name, value, *wilson(value, n), unit="share", better="higher", bounds=(0, 1), n=n)


def _plain(name: str, value: float, n: int, of: dict[str, str] | None = None) -> Finding:
    return Finding(name, value, unit="share", better="higher", bounds=(0, 1), n=n, of=of or {})
