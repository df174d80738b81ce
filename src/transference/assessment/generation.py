"""How near what a method generates in one modality, given another, comes to what is there.

    unexplained    mean of |g - x|^2, as a share of that of answering with the mean of these rows: 1 - R^2

g and x (n, *shape) in the unit of the modality; steps beyond a row's length count for nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from transference.core.errors import DataError, must_be
from transference.core.method import Method
from transference.core.records import Finding
from transference.core.views import Views

Array = NDArray[Any]


def generation(method: Method, X: Views, to: str) -> list[Finding]:
    """The probe: the rows of X that have `to` are generated in it from their primary modality alone."""
    X = X.take(X.present[to] & X.present[X.primary])
    return of_shares(unexplained(method.generate(X.only([X.primary]), to), X, to))


def unexplained(generated: Array, X: Views, to: str) -> Array:
    """(n,) squared error of each row as a share of the mean squared deviation of the rows from their mean."""
    if X.specs[to].kind == "text":
        raise DataError(must_be(f"The modality {to!r} to generate", "numbers", "text", "Ask for retrieval instead."))
    if not len(X):
        raise DataError(must_be(f"The number of test rows with {to!r}", "1 or more", 0, f"Add rows with {to!r}."))
    given = X[to].astype(float)
    if generated.shape != given.shape:
        raise DataError(must_be(f"What is generated of {to!r}", f"of shape {given.shape}", generated.shape))
    mask = np.ones(given.shape[:2], bool)
    if to in X.lengths:
        mask = np.arange(given.shape[1]) < X.lengths[to][:, None]
    mask = np.broadcast_to(mask.reshape(mask.shape + (1,) * (given.ndim - 2)), given.shape)
    mean = np.divide((given * mask).sum(0), mask.sum(0), out=np.zeros(given.shape[1:]), where=mask.any(0))
    axes = tuple(range(1, given.ndim))
    spread = (np.square(given - mean) * mask).sum(axes).mean()
    if spread == 0:
        raise DataError(must_be(f"The rows of {to!r} to compare with", "different", "all the same"))
    return (np.square(generated - given) * mask).sum(axes) / spread


def of_shares(shares: Array) -> list[Finding]:
    """The mean, with a normal interval of 95 % over rows."""
    n, mean = len(shares), float(shares.mean())
    half = 1.96 * float(shares.std(ddof=1)) / np.sqrt(n) if n > 1 else None
    low, high = (None, None) if half is None else (max(0.0, mean - half), mean + half)
    return [Finding("unexplained", mean, low, high, unit="share", better="lower", bounds=(0, None), n=n)]
