"""Views as one matrix of numbers, for estimators that know nothing of modalities. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from transference.core.spec import ModalitySpec
from transference.core.views import Views

PARTS = (1, 4, 8)  # into how many equal parts a series or a spectrogram is cut, one after another
FRAMES = 8  # of a resampled video


def features(X: Views, names: Iterable[str]) -> NDArray[np.float32]:
    """(n, d) features of these modalities side by side.

    Text becomes word counts (n, vocabulary). Series and audio become the mean, standard deviation, minimum and maximum
    of every channel over the whole, over each quarter and over each eighth of the row's real steps; video its frames at
    8 instants, spaced evenly over the real ones; sets the mean and the maximum of their elements. Images, tables and
    vectors are flattened. A row that lacks a modality has zeros there.
    """
    return np.concatenate([_of_present(X, name) for name in names], 1)


def _of_present(X: Views, name: str) -> NDArray[np.float32]:
    """(n, d), zeros where absent; what an absent row holds, nan perhaps, is not looked at."""
    present, lengths = X.present[name], X.lengths.get(name)
    if present.all():
        return _features(X[name], X.specs[name], lengths)
    found = _features(X[name][present], X.specs[name], None if lengths is None else lengths[present])
    whole = np.zeros((len(X), found.shape[1]), np.float32)
    whole[present] = found
    return whole


def _features(array: NDArray, spec: ModalitySpec, lengths: NDArray[np.int64] | None) -> NDArray[np.float32]:
    n = len(array)
    if spec.kind == "text":
        return counts(array, spec.vocabulary)
    if lengths is None or spec.kind not in ("series", "audio", "video", "set"):
        return np.asarray(array, np.float32).reshape(n, math.prod(spec.shape))
    if spec.kind == "set":
        mask = np.arange(array.shape[1]) < lengths[:, None]  # (n, elements)
        mean = (array * mask[:, :, None]).sum(1) / np.maximum(lengths, 1)[:, None]
        most = np.where(mask[:, :, None], array, -np.inf).max(1)
        return np.concatenate([mean, np.where(lengths[:, None] > 0, most, 0)], 1).astype(np.float32)
    if spec.kind == "video":
        frames = min(FRAMES, array.shape[1])
        return resample(array, lengths, frames).reshape(n, frames * math.prod(spec.shape[1:]))
    return summary(array, lengths)


def counts(words: NDArray, vocabulary: int) -> NDArray[np.float32]:
    """(n, vocabulary) how often each word number occurs; padding, number 0, is not counted."""
    number = np.asarray(words, np.int64)
    rows = np.repeat(np.arange(len(number)), number.shape[1])
    total = np.zeros((len(number), vocabulary), np.float32)
    np.add.at(total, (rows, number.ravel()), 1)
    total[:, 0] = 0
    return total


def summary(array: NDArray, lengths: NDArray[np.int64]) -> NDArray[np.float32]:
    """(n, 13 * 4 * d) mean, standard deviation, minimum and maximum over parts of the real steps of (n, length, d).

    A row with fewer steps than parts has steps in several parts; a row with no step has zeros.
    """
    n, _, d = array.shape
    parts = np.concatenate([np.arange(k) / k for k in PARTS])
    ends = np.concatenate([np.arange(1, k + 1) / k for k in PARTS])
    told = np.zeros((n, len(parts), 4, d), np.float32)
    for row in np.flatnonzero(lengths).tolist():
        steps = np.asarray(array[row, : lengths[row]], np.float64)
        first = np.floor(parts * lengths[row] + 1e-9).astype(np.int64)
        last = np.maximum(np.floor(ends * lengths[row] + 1e-9).astype(np.int64), first + 1)
        total = np.concatenate([np.zeros((2, 1, d)), np.cumsum([steps, steps**2], axis=1)], 1)  # (2, length + 1, d)
        mean, square = (total[:, last] - total[:, first]) / (last - first)[:, None]
        told[row, :, 0], told[row, :, 1] = mean, np.sqrt(np.maximum(square - mean**2, 0))
        bounds = np.stack([first, last], 1).ravel()
        padded = np.concatenate([steps, steps[-1:]])  # so that the last bound is an index
        told[row, :, 2] = np.minimum.reduceat(padded, bounds)[::2]
        told[row, :, 3] = np.maximum.reduceat(padded, bounds)[::2]
    return told.reshape(n, len(parts) * 4 * d)


def resample(array: NDArray, lengths: NDArray[np.int64], steps: int) -> NDArray[np.float32]:
    """(n, steps, ...) values at evenly spaced instants from the first to the last real step, linear in between."""
    last = np.maximum(lengths, 1)[:, None] - 1  # (n, 1)
    instant = last * (np.linspace(0, 1, steps) if steps > 1 else np.array([0.5]))  # (n, steps)
    low = np.floor(instant).astype(np.int64)
    high = np.minimum(low + 1, last)
    weight = (instant - low).reshape(*instant.shape, *[1] * (array.ndim - 2)).astype(np.float32)
    row = np.arange(len(array))[:, None]
    before, after = np.asarray(array[row, low], np.float32), np.asarray(array[row, high], np.float32)
    return before + weight * (after - before)
