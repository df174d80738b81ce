"""Scores of predictions: pure functions of targets and scores, with an optional weight per row. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from transference.core.errors import ConfigError, did_you_mean

Array = NDArray[Any]


@dataclass(frozen=True)
class Metric:
    """A score: what it is called, which way is better, its range, and the function.

    `compute` takes targets (n,) class numbers or values, scores (n, classes) probabilities or (n, 1) values, and
    weights (n,). `rowwise`, where there is one, gives a value per row whose weighted mean is the metric.
    """

    name: str
    better: Literal["higher", "lower"]
    bounds: tuple[float | None, float | None]
    tasks: frozenset[str]
    compute: Callable[[Array, Array, Array], float]
    rowwise: Callable[[Array, Array], Array] | None = None

    def __call__(self, target: Array, scores: Array, weight: Array | None = None) -> float:
        return self.compute(target, scores, np.ones(len(target)) if weight is None else weight)


def correct(target: Array, scores: Array) -> Array:
    """(n,) 1.0 where the class of the highest score is the target."""
    return (scores.argmax(1) == target).astype(float)


def absolute_error(target: Array, scores: Array) -> Array:
    """(n,) in the unit of the target."""
    return np.abs(target - scores[:, 0])


def log_loss(target: Array, scores: Array) -> Array:
    """(n,) negative log probability of the target, in nats; probabilities are cut at 1e-7."""
    return -np.log(np.clip(scores[np.arange(len(target)), target], 1e-7, 1.0))


def reciprocal_rank(target: Array, scores: Array) -> Array:
    """(n,) 1 / rank, where scores (n, 2) are ranks and average precisions of a search."""
    return 1 / scores[:, 0]


def average_precision(target: Array, scores: Array) -> Array:
    """(n,) second column of scores (n, 2): ranks and average precisions of a search."""
    return scores[:, 1]


def squared_share(target: Array, scores: Array) -> Array:
    """(n,) squared error as a share of the variance: the only column of scores (n, 1)."""
    return scores[:, 0]


def recall_at(k: int) -> Callable[[Array, Array], Array]:
    """A function of target and scores (n, 2): (n,) 1.0 where the rank is k or better."""

    def rowwise(target: Array, scores: Array) -> Array:
        return (scores[:, 0] <= k).astype(float)

    return rowwise


def class_map(target: Array, scores: Array, weight: Array) -> float:
    """Mean over the classes of the average precision of the rows ranked by the class's score, in [0, 1]."""
    found = []
    for hits, rows in _ranked_by_class(target, scores, weight):
        precision = hits.cumsum() / np.maximum(rows.cumsum(), 1e-300)
        found.append(float((precision * hits).sum() / hits.sum()))
    return float(np.mean(found)) if found else float("nan")


def precision_at_50(target: Array, scores: Array, weight: Array) -> float:
    """Mean over the classes of the share of the class among the 50 rows with its highest scores, in [0, 1]."""
    found = []
    for hits, rows in _ranked_by_class(target, scores, weight):
        taken = np.clip(50 - (rows.cumsum() - rows), 0, rows)  # of rows that tie at the end, a part
        found.append(float((hits * taken / np.maximum(rows, 1e-300)).sum() / taken.sum()))
    return float(np.mean(found)) if found else float("nan")


def _ranked_by_class(target: Array, scores: Array, weight: Array) -> Iterator[tuple[Array, Array]]:
    """For each class that is there, the weight of its rows and of all rows at each different score, best first."""
    for c in range(scores.shape[1]):
        _, group = np.unique(-scores[:, c], return_inverse=True)
        hits = np.bincount(group, weight * (target == c))
        if hits.any():
            yield hits, np.bincount(group, weight)


def macro_f1(target: Array, scores: Array, weight: Array) -> float:
    """Unweighted mean over the classes of the harmonic mean of precision and recall, in [0, 1]."""
    k, predicted = scores.shape[1], scores.argmax(1)
    hits = np.bincount(target[predicted == target], weight[predicted == target], minlength=k)
    total = np.bincount(target, weight, minlength=k) + np.bincount(predicted, weight, minlength=k)
    seen = total > 0
    return float(np.mean(2 * hits[seen] / total[seen]))


def auroc(target: Array, scores: Array, weight: Array) -> float:
    """Area under the ROC curve, in [0, 1], 0.5 is chance; for more than two classes the mean of one against rest."""
    k = scores.shape[1]
    areas = [_binary_auroc(target == c, scores[:, c], weight) for c in ([1] if k == 2 else range(k))]
    known = [area for area in areas if not np.isnan(area)]
    return float(np.mean(known)) if known else float("nan")


def _binary_auroc(positive: Array, score: Array, weight: Array) -> float:
    _, group = np.unique(score, return_inverse=True)
    up = np.bincount(group, weight * positive)
    down = np.bincount(group, weight * ~positive)
    pairs = up.sum() * down.sum()
    below = np.cumsum(down) - down
    return float((up * (below + down / 2)).sum() / pairs) if pairs else float("nan")


def _mean(rowwise: Callable[[Array, Array], Array]) -> Callable[[Array, Array, Array], float]:
    def compute(target: Array, scores: Array, weight: Array) -> float:
        return float(np.average(rowwise(target, scores), weights=weight))

    return compute


_CLASSES, _VALUES = frozenset({"classification"}), frozenset({"regression"})
_SEARCH, _ASKED = frozenset({"retrieval"}), frozenset({"classification", "zero_shot", "few_shot"})
METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "higher", (0, 1), _ASKED, _mean(correct), correct),
        Metric("auroc", "higher", (0, 1), _CLASSES, auroc),
        Metric("macro_f1", "higher", (0, 1), _CLASSES, macro_f1),
        Metric("log_loss", "lower", (0, None), _CLASSES, _mean(log_loss), log_loss),
        Metric("class_map", "higher", (0, 1), _CLASSES, class_map),
        Metric("precision_at_50", "higher", (0, 1), _CLASSES, precision_at_50),
        *(Metric(f"recall_at_{k}", "higher", (0, 1), _SEARCH, _mean(recall_at(k)), recall_at(k)) for k in (1, 5, 10)),
        Metric("reciprocal_rank", "higher", (0, 1), _SEARCH, _mean(reciprocal_rank), reciprocal_rank),
        Metric("map", "higher", (0, 1), _SEARCH, _mean(average_precision), average_precision),
        Metric("unexplained", "lower", (0, None), frozenset({"generation"}), _mean(squared_share), squared_share),
        Metric("mae", "lower", (0, None), _VALUES, _mean(absolute_error), absolute_error),
    )
}


def metric(name: str) -> Metric:
    """The metric of this name."""
    if name not in METRICS:
        raise ConfigError(f"There is no metric {name!r}. {did_you_mean(name, METRICS)}")
    return METRICS[name]
