"""How good the answers are, for classes and for values, with intervals.

For n labelled rows, class probabilities p (n, k) and classes y (n,):

    accuracy           share of rows whose most probable class is y; interval of Wilson
    macro_f1           unweighted mean over classes of the harmonic mean of precision and recall
    auroc              chance that a row of a class scores above a row of another; interval of Hanley and McNeil (k = 2)
    log_loss           mean of -ln p[y], nats; normal interval
    calibration_error  sum over 15 bins of confidence c = max p of  n_bin / n * |accuracy - mean c|,  in [0, 1]

and for values v (n,) and targets y (n,):

    mae                mean of |v - y|, in the unit of the target; normal interval
    correlation        of Pearson, in [-1, 1]; interval of Fisher

Intervals are of 95 % and regard the rows as independent draws; the model is fixed.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from transference.core.errors import DataError, must_be
from transference.core.method import Method
from transference.core.metrics import METRICS
from transference.core.records import Finding
from transference.core.views import Views

Array = NDArray[Any]
Z = 1.959963984540054  # of the standard normal law, 2.5 % lie above
BINS = 15


def scores(method: Method, X: Views, y: ArrayLike) -> list[Finding]:
    """The probe: how well a fitted method answers the labelled rows of X.

    Raises
    ------
    DataError
        When no row is labelled, or a label is not one of the classes that the method knows.
    """
    given = np.asarray(y)
    if method.spec_.task.kind == "regression":
        known = ~np.isnan(given.astype(float))
        target = given[known].astype(np.float32)
        return of_values(target, method.predict(X[known])) if known.any() else _refuse_empty()
    known = is_labelled(given)
    if not known.any():
        return _refuse_empty()
    classes = method.classes_.tolist()
    unknown = sorted({str(value) for value in given[known].tolist() if value not in classes})
    if unknown:
        raise DataError(must_be("A label of the test rows", f"one of the classes {classes}", ", ".join(unknown)))
    numbers = np.array([classes.index(value) for value in given[known].tolist()])
    return of_classes(numbers, method.predict_proba(X[known]))


def is_labelled(y: Array) -> NDArray[np.bool_]:
    """(n,) which rows have a class: none is None or nan, nor -1 among integers.

    >>> is_labelled(np.array(["a", None, float("nan")], object)).tolist(), is_labelled(np.array([0, -1])).tolist()
    ([True, False, False], [True, False])
    """
    return np.array([_is_class(value) for value in y.tolist()], bool)


def of_classes(target: Array, probabilities: Array) -> list[Finding]:
    """Findings for class numbers (n,) and probabilities (n, classes)."""
    n = len(target)
    accuracy = METRICS["accuracy"](target, probabilities)
    area = METRICS["auroc"](target, probabilities)
    losses = -np.log(np.clip(probabilities[np.arange(n), target].astype(float), 1e-7, 1.0))
    two = (target == 1).sum() if probabilities.shape[1] == 2 else 0
    found = [
        _finding("accuracy", accuracy, wilson(accuracy, n), n),
        _finding("macro_f1", METRICS["macro_f1"](target, probabilities), None, n),
        _finding("log_loss", float(losses.mean()), _normal(losses), n, unit="nats"),
        Finding(
            "calibration_error",
            calibration_error(target, probabilities),
            better="lower",
            bounds=(0, 1),
            n=n,
            unit="share",
        ),
    ]
    if not math.isnan(area):
        interval = hanley(area, int(two), int(n - two)) if two else None
        found.insert(2, _finding("auroc", area, interval, n))
    return found


def of_values(target: Array, values: Array) -> list[Finding]:
    """Findings for targets (n,) and values (n,)."""
    n = len(target)
    errors = np.abs(target.astype(float) - values.astype(float))
    found = [_finding("mae", float(errors.mean()), _normal(errors), n, unit="unit of the target")]
    if n > 2 and np.std(target) > 0 and np.std(values) > 0:
        r = float(np.corrcoef(target.astype(float), values.astype(float))[0, 1])
        found.append(
            Finding("correlation", r, *fisher(r, n), unit="", better="higher", bounds=(-1, 1), n=n),
        )
    return found


def wilson(share: float, n: int) -> tuple[float, float]:
    """95 % interval of a share of n rows; inside [0, 1] also where the share is 0 or 1.

    >>> [round(end, 4) for end in wilson(0.5, 10)]
    [0.2366, 0.7634]
    """
    middle = share + Z * Z / (2 * n)
    half = Z * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    return max(0.0, (middle - half) / (1 + Z * Z / n)), min(1.0, (middle + half) / (1 + Z * Z / n))


def hanley(area: float, positive: int, negative: int) -> tuple[float, float]:
    """95 % interval of an area under the ROC curve from so many rows of the two classes."""
    first, second = area / (2 - area), 2 * area * area / (1 + area)
    variance = area * (1 - area) + (positive - 1) * (first - area**2) + (negative - 1) * (second - area**2)
    half = Z * math.sqrt(max(0.0, variance / (positive * negative)))
    return max(0.0, area - half), min(1.0, area + half)


def fisher(r: float, n: int) -> tuple[float | None, float | None]:
    """95 % interval of a correlation of n rows; (None, None) below 4 rows."""
    if n < 4:
        return None, None
    z, half = math.atanh(max(-1 + 1e-12, min(1 - 1e-12, r))), Z / math.sqrt(n - 3)
    return math.tanh(z - half), math.tanh(z + half)


def calibration_error(target: Array, probabilities: Array, bins: int = BINS) -> float:
    """Expected distance of confidence and accuracy over bins of equal width, in [0, 1], 0 is best."""
    confidence = probabilities.max(1).astype(float)
    correct = (probabilities.argmax(1) == target).astype(float)
    number = np.minimum((confidence * bins).astype(int), bins - 1)
    gap = np.bincount(number, correct - confidence, minlength=bins)
    return float(np.abs(gap).sum() / len(target))


def _finding(
    name: str, value: float, interval: tuple[float | None, float | None] | None, n: int, unit: str = "share"
) -> Finding:
    low, high = interval or (None, None)
    metric = METRICS[name]
    return Finding(name, value, low, high, unit=unit, better=metric.better, bounds=metric.bounds, n=n)


def _is_class(value: Any) -> bool:
    missing = value is None or value != value or (value == -1 and not isinstance(value, float))
    return not missing


def _normal(values: Array) -> tuple[float | None, float | None]:
    """95 % interval of the mean of values that are not below 0."""
    if len(values) < 2:
        return None, None
    mean, half = float(values.mean()), Z * float(values.std(ddof=1)) / math.sqrt(len(values))
    return max(0.0, mean - half), mean + half


def _refuse_empty() -> list[Finding]:
    raise DataError(must_be("The number of labelled test rows", "at least 1", 0, "Label some of them."))
