"""How far apart two sets of representations are: the 2-Wasserstein distance W2, beside what chance alone makes of it.

    gaussian   W2^2 = |m1 - m2|^2 + tr(S1 + S2 - 2 (S1^1/2 S2 S1^1/2)^1/2), of the means m and covariances S
    exact      W2^2 = the least mean of |x_i - z_p(i)|^2 over all pairings p of two sets of equal size

Both are biased upwards, the more so the more dimensions and the fewer rows there are: between two samples of one and
the same law the exact distance is far above 0. So every value comes with its null: the distances after rows were
exchanged at random between the two sets. A distance below the upper end of its null is no distance that these rows
show.

The distances are of the representations as they are: scale them alike before they are compared.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from transference.core.errors import DataError, must_be
from transference.core.records import Finding
from transference.core.seeding import numpy_generator

Array = NDArray[Any]
Estimator = Literal["gaussian", "exact"]
MOST = 1000  # rows of a set for the exact distance, whose cost is cubic
DRAWS = 19  # of the null: the largest of them is its 95 % point


def gaussian(one: Array, other: Array) -> float:
    """W2 between the normal laws with the means and covariances of (n, d) and (m, d)."""
    first, second = (np.atleast_2d(np.cov(rows, rowvar=False, bias=True)) for rows in (one, other))
    sizes, axes = np.linalg.eigh(first)
    root = axes * np.sqrt(np.maximum(sizes, 0)) @ axes.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ second @ root), 0)).sum()
    spread = float(np.trace(first + second) - 2 * cross)
    return float(np.sqrt(max(0.0, np.square(one.mean(0) - other.mean(0)).sum() + max(0.0, spread))))


def exact(one: Array, other: Array) -> float:
    """W2 between (n, d) and (n, d): the root of the mean squared distance of the best pairing.

    >>> exact(np.array([[0.0], [1.0]]), np.array([[3.0], [2.0]]))
    2.0
    """
    cost = cdist(one, other, "sqeuclidean")
    return float(np.sqrt(cost[linear_sum_assignment(cost)].mean()))


def distance(one: Array, other: Array, estimator: Estimator = "gaussian", seed: int = 0) -> Finding:
    """W2 with its null.

    Parameters
    ----------
    one, other
        (n, d) and (m, d) representations.
    estimator
        ``exact`` reads the same number of rows of both, at most `MOST`, drawn at random.
    seed
        Of the draws.

    Returns
    -------
    A finding whose ``of`` names the estimator, and the mean and the 95 % point of the null.
    """
    for rows in (one, other):
        if rows.ndim != 2 or len(rows) < 2 or rows.shape[1] != one.shape[1]:
            raise DataError(must_be("Representations to compare", "two or more rows of equal width", rows.shape))
    generator = numpy_generator(seed, "distance")
    if estimator == "exact":
        size = min(len(one), len(other), MOST)
        one, other = (rows[generator.permutation(len(rows))[:size]] for rows in (one, other))
    measure = exact if estimator == "exact" else gaussian
    both = np.concatenate([one, other]).astype(float)
    null = []
    for _ in range(DRAWS):
        order = generator.permutation(len(both))
        null.append(measure(both[order[: len(one)]], both[order[len(one) :]]))
    value = measure(one.astype(float), other.astype(float))
    of = {"estimator": estimator, "null mean": f"{np.mean(null):.4g}", "null 95 %": f"{max(null):.4g}"}
    return Finding(
        "w2", value, unit="unit of the representation", better="neither", bounds=(0, None), n=len(both), of=of
    )


def triple(
    student: Array, teacher: Array, trained: Array, estimator: Estimator = "gaussian", seed: int = 0
) -> list[Finding]:
    """W2 of the three laws of a student that learns from a teacher, and how nearly the trained one lies between.

    Parameters
    ----------
    student, teacher, trained
        (n, d) representations before training, of the targets, and after training.
    estimator, seed
        As for `distance`; ``exact`` draws the rows of each law once, and as many of all three.

    Returns
    -------
    The three distances, each with its null, and ``detour``: (student to trained + trained to teacher) / (student to
    teacher), at least 1 by the triangle inequality, and 1 where the trained law interpolates between the two.
    """
    laws = {"student": student, "teacher": teacher, "trained": trained}
    if estimator == "exact":
        size = min(MOST, *map(len, laws.values()))
        laws = {name: _drawn(rows, size, numpy_generator(seed, "distance", name)) for name, rows in laws.items()}
    found = {}
    for pair in (("student", "teacher"), ("student", "trained"), ("trained", "teacher")):
        one = distance(laws[pair[0]], laws[pair[1]], estimator, seed)
        of = {**one.of, "from": pair[0], "to": pair[1]}
        found[pair] = Finding("w2", one.value, unit=one.unit, better="neither", bounds=one.bounds, n=one.n, of=of)
    way = found["student", "trained"].value + found["trained", "teacher"].value
    straight = found["student", "teacher"].value
    detour = way / straight if straight else float("nan")
    return [
        *found.values(),
        Finding("detour", detour, unit="ratio", better="lower", bounds=(1, None), n=len(trained), of={"of": estimator}),
    ]


def _drawn(rows: Array, size: int, generator: np.random.Generator) -> Array:
    """So many rows at random; all of them in their order where there are no more."""
    return rows[generator.permutation(len(rows))[:size]] if len(rows) > size else rows
