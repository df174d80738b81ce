"""What is answered when one modality shows one class and the other another one, as in the effect of McGurk.

    share(p | v, a)    share of rows that show v in the one modality, a in the other, and are answered with p
    third              share of incongruent rows (v is not a) that are answered with neither v nor a

Every row of a class v is put beside a row of a class a, for all v and a: for congruent pairs too, so that they differ
from incongruent ones in their classes alone. It is not the row's own partner, where the class has two rows or more.

A third class is no proof that the modalities were fused. A mean of two separate beliefs gives it too, wherever both
modalities find the third class similar to what they show. Where that class has nothing in common with either, and each
belief in what is shown is above 2/3, a mean of probabilities cannot give it. A mean of logits can all the same: it
multiplies beliefs, so that a class wins which neither rules out. Ask the same of `averaged`, and compare.

Shares have Wilson's intervals, of 95 %, and regard the rows as independent draws; the model is fixed. Source: the
experiment of ngiam2011, with all pairs of classes and with that control, which the paper lacks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from transference.assessment.scores import is_labelled, wilson
from transference.core.errors import DataError, must_be
from transference.core.records import Finding
from transference.core.seeding import numpy_generator
from transference.core.views import Views

Array = NDArray[Any]
Answer = Callable[[Views], Array]


def mcgurk(answer: Answer, X: Views, y: ArrayLike, *, seen: str, heard: str, seed: int = 0) -> list[Finding]:
    """The probe: the table of answers to rows put together from two classes.

    Parameters
    ----------
    answer
        Rows with both modalities -> (n,) labels: ``predict`` of a method that reads both, or any other function.
    X, y
        n rows and their classes; those count that have a label and both modalities.
    seen, heard
        The two modalities.
    seed
        Of which rows are put together.

    Returns
    -------
    list
        "share" for each ``of={"seen": v, "heard": a, "answered": p}``, and "third" over all incongruent rows.
    """
    if seen == heard:
        raise DataError(must_be("The modalities that are put together", "two", f"{seen!r} twice"))
    labels = np.asarray(y)
    there = is_labelled(labels) & X.present[seen] & X.present[heard]
    X, labels = X.take(there), labels[there]
    one, other = pairs(labels, seed)
    answered = np.asarray(answer(recombined(X, one, other, seen, heard)))
    if answered.shape != (len(one),):
        raise DataError(must_be("The answers to rows put together", f"of shape {(len(one),)}", answered.shape))
    return table(labels[one], labels[other], answered)


def pairs(labels: Array, seed: int) -> tuple[Array, Array]:
    """Positions (m,) of rows for the one modality and for the other: all rows of v beside rows of a, for all v and a.

    The rows of a come in a random order, and again only after all have come.

    >>> one, other = pairs(np.array(["ba", "ba", "ga"]), 0)
    >>> one.tolist(), other.tolist()
    ([0, 1, 0, 1, 2, 2], [1, 0, 2, 2, 0, 2])
    """
    classes = np.unique(labels)
    if len(classes) < 2:
        raise DataError(must_be("The classes of rows to put together", "2 or more", f"{len(classes)}"))
    generator = numpy_generator(seed, "mcgurk")
    one, other = [], []
    for shown in classes:
        rows = np.flatnonzero(labels == shown)
        for said in classes:
            partners = generator.permutation(np.flatnonzero(labels == said))
            if said == shown:  # each row gets the next one of a random circle, never itself
                place = np.argsort(partners)[np.arange(len(rows))]
                chosen = partners[(place + 1) % len(partners)]
            else:
                chosen = np.resize(partners, len(rows))
            one.append(rows)
            other.append(chosen)
    return np.concatenate(one), np.concatenate(other)


def recombined(X: Views, one: Array, other: Array, seen: str, heard: str) -> Views:
    """Rows that hold `seen` of the rows `one` and `heard` of the rows `other`, and no further modality."""
    kept = X.only([seen, heard], primary=X.primary if X.primary in (seen, heard) else seen)
    partner = kept.take(other)
    return kept.take(one).replace(heard, partner[heard], lengths=partner.lengths.get(heard))


def table(seen: Array, heard: Array, answered: Array) -> list[Finding]:
    """Findings from the classes that were shown (n,) and (n,) and the labels answered (n,)."""
    found = []
    for v in np.unique(seen):
        for a in np.unique(heard):
            cell = (seen == v) & (heard == a)
            n = int(cell.sum())
            for p in np.unique(np.concatenate([seen, heard, answered])) if n else ():
                of = {"seen": str(v), "heard": str(a), "answered": str(p)}
                found.append(_share("share", answered[cell] == p, of))
    incongruent = seen != heard
    if incongruent.any():
        third = (answered != seen) & (answered != heard)
        found.append(_share("third", third[incongruent], {}))
    return found


def averaged(beliefs: Sequence[Answer], classes: Array) -> Answer:
    """The control: answers by the mean of separate beliefs.

    Parameters
    ----------
    beliefs
        Each gives (n, classes) probabilities from one modality.
    classes
        (classes,) labels, in the order of their columns.
    """

    def answer(X: Views) -> Array:
        return np.asarray(classes)[np.mean([belief(X) for belief in beliefs], axis=0).argmax(1)]

    return answer


def _share(name: str, hits: Array, of: dict[str, str]) -> Finding:
    value, n = float(hits.mean()), len(hits)
    return Finding(name, value, *wilson(value, n), unit="share", better="neither", bounds=(0, 1), n=n, of=of)
