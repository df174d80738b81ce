"""Control arms and imperfect supervision: the same rows with a damaged modality.

A control keeps everything of a study but the one thing that could be transferred, the row-by-row content of the
secondary modality. What a method still gains under a control is regularisation, not transfer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from transference.core.errors import ConfigError, DataError, did_you_mean, must_be
from transference.core.seeding import numpy_generator
from transference.core.spec import ModalitySpec
from transference.core.views import Views

Control = Literal["shuffle", "noise", "constant"]
CONTROLS: tuple[Control, ...] = ("shuffle", "noise", "constant")

Array = NDArray[Any]


def control(X: Views, kind: Control, seed: int, secondary: Sequence[str]) -> Views:
    """The same training rows with uninformative secondary modalities; nothing else changes.

    Parameters
    ----------
    X
        Training rows.
    kind
        ``shuffle``: every row gets the content, presence and length of another row, the same one for all secondary
        modalities together. ``noise``: independent normal numbers with the mean and standard deviation of each
        feature (of each channel of a sequence); for images and video they are then cut to the range of the data, which
        moves both where many pixels lie at an end of it; for text, words drawn by their frequency. Presence and
        lengths stay. ``constant``: every row gets the mean of all rows (of the rows that are long enough, step by step,
        up to the mean length); for text, the words of one row. Presence stays.
    seed
        Of the draw.
    secondary
        The modalities to damage.
    """
    if kind not in CONTROLS:
        raise ConfigError(f"There is no control {kind!r}. {did_you_mean(kind, CONTROLS)}")
    if X.primary in secondary:
        raise ConfigError(f"A control changes secondary modalities only, and {X.primary!r} is the primary one.")
    for name in secondary:
        X[name]
    if kind == "shuffle":
        return _exchange(X, _cycle(np.arange(len(X)), seed, "shuffle"), secondary)
    for name in secondary:
        generator = numpy_generator(seed, kind, name)
        present, lengths = X.present[name], X.lengths.get(name)
        if not present.any():
            continue
        if kind == "noise":
            X = X.replace(name, _noise(X[name], X.specs[name], present, lengths, generator))
            continue
        row, length = _constant(X[name], X.specs[name], present, lengths, generator)
        array = np.where(_along(present, X[name]), row, 0).astype(X[name].dtype)
        X = X.replace(name, array, lengths=None if lengths is None else np.where(present, length, lengths))
    return X


def drop(X: Views, name: str, share: float, seed: int) -> Views:
    """The same rows; in this share of the rows that have the modality it becomes absent.

    For one seed, the rows dropped at a smaller share are among those dropped at a larger one.
    """
    chosen = _chosen(np.flatnonzero(X.present[name]), share, seed, "drop", name)
    array, present = X[name].copy(), X.present[name].copy()
    array[chosen], present[chosen] = 0, False
    return X.replace(name, array, present=present)


def mispair(X: Views, share: float, seed: int) -> Views:
    """The same rows; this share of them (0, or two rows at least) exchange their secondary modalities."""
    chosen = _chosen(np.arange(len(X)), share, seed, "mispair", fewest=2 if share else 0)
    source = np.arange(len(X))
    if len(chosen):
        source[chosen] = _cycle(chosen, seed, "mispair cycle")[chosen]
    return _exchange(X, source, X.secondary)


def add_noise(X: Views, name: str, level: float, seed: int) -> Views:
    """The same rows with noise in one modality: a probe of robustness.

    Parameters
    ----------
    X, name
        Rows, and the modality to damage.
    level
        Standard deviation of the added normal noise, in units of each feature's own; at least 0. The sum is cut to the
        range of the data for images and video, so that less is added where pixels lie at an end of it. For text, the
        share of the words that are replaced by words drawn by their frequency, in [0, 1].
    seed
        Of the draw.
    """
    spec, array, present, lengths = X.specs[name], X[name], X.present[name], X.lengths.get(name)
    is_text = spec.vocabulary > 0
    if level < 0 or (is_text and level > 1):
        raise ConfigError(must_be("A noise level", "in [0, 1] for text" if is_text else "at least 0", level))
    if level == 0 or not present.any():
        return X
    generator = numpy_generator(seed, "add noise", name)
    if is_text:
        drawn = _noise(array, spec, present, lengths, generator)
        return X.replace(name, np.where(generator.random(array.shape) < level, drawn, array))
    mask = _real(array, present, lengths)
    _, deviation = _moments(array, mask, spec)
    noisy = array + level * deviation * generator.standard_normal(array.shape)
    return X.replace(name, np.where(mask, _cut(noisy, array, mask, spec), 0).astype(array.dtype))


def prompts(labels: Sequence[Any] | Array, template: str, related: bool, seed: int) -> list[str | None]:
    """A text for every row, made from class names alone.

    Parameters
    ----------
    labels
        (n,) class names, None where unlabelled.
    template
        Holds ``{label}`` once: "a photo of a {label}".
    related
        True: the row's own class. False: a class drawn independently of the row (now and then its own).
    seed
        Of the draw.

    Returns
    -------
    (n,) texts; None where the row is unlabelled, so that both choices have a text in the same rows.

    Examples
    --------
    >>> prompts(["cat", None, "dog"], "a {label}", related=True, seed=0)
    ['a cat', None, 'a dog']
    """
    if template.count("{label}") != 1:
        raise ConfigError(must_be("A prompt template", "a text that holds {label} once", template))
    names = [None if label is None else str(label) for label in labels]
    classes = sorted({name for name in names if name is not None})
    drawn = numpy_generator(seed, "prompts").integers(max(len(classes), 1), size=len(names))
    chosen = names if related else [None if name is None else classes[k] for name, k in zip(names, drawn, strict=True)]
    return [None if name is None else template.replace("{label}", name) for name in chosen]


def _cycle(rows: NDArray[np.int64], seed: int, name: str) -> NDArray[np.int64]:
    """source[i] != i for every i of `rows`: the rows in random order, each followed by the next."""
    if len(rows) < 2:
        raise DataError(must_be("The number of rows to exchange", "2 or more", len(rows)))
    order = numpy_generator(seed, name).permutation(rows)
    source = np.arange(rows.max() + 1)
    source[order] = np.roll(order, -1)
    return source


def _exchange(X: Views, source: NDArray[np.int64], names: Sequence[str]) -> Views:
    for name in names:
        lengths = X.lengths[name][source] if name in X.lengths else None
        X = X.replace(name, X[name][source], present=X.present[name][source], lengths=lengths)
    return X


def _chosen(rows: NDArray[np.int64], share: float, seed: int, *names: str, fewest: int = 0) -> NDArray[np.int64]:
    if not 0 <= share <= 1:
        raise ConfigError(must_be("A share of rows", "a number in [0, 1]", share))
    return numpy_generator(seed, *names).permutation(rows)[: max(round(share * len(rows)), fewest)]


def _along(mask: Array, array: Array) -> Array:
    """A mask over the first axes, ready to broadcast over the rest of `array`."""
    return mask.reshape(*mask.shape, *(1,) * (array.ndim - mask.ndim))


def _real(array: Array, present: Array, lengths: Array | None) -> Array:
    """Broadcasts against `array`: True where the row is present and, in a sequence, the step is real."""
    if lengths is None:
        return _along(present, array)
    return _along(present[:, None] & (np.arange(array.shape[1]) < lengths[:, None]), array)


def _moments(array: Array, mask: Array, spec: ModalitySpec) -> tuple[Array, Array]:
    """Mean and standard deviation of each feature: of each channel where rows are sequences, else of each entry."""
    axes = (0, 1) if spec.lengths else 0
    weight = mask.astype(np.float64)
    count = weight.sum(axes)
    mean = (array * weight).sum(axes) / count
    return mean, np.sqrt((((array - mean) * weight) ** 2).sum(axes) / count)


def _noise(
    array: Array, spec: ModalitySpec, present: Array, lengths: Array | None, generator: np.random.Generator
) -> Array:
    mask = _real(array, present, lengths)
    if spec.vocabulary > 0:
        words = array[np.broadcast_to(mask, array.shape) & (array > 0)]
        drawn = generator.choice(words, array.shape) if len(words) else array
        return np.where(mask & (array > 0), drawn, array)
    mean, deviation = _moments(array, mask, spec)
    drawn = mean + deviation * generator.standard_normal(array.shape)
    return np.where(mask, _cut(drawn, array, mask, spec), 0).astype(array.dtype)


def _cut(values: Array, array: Array, mask: Array, spec: ModalitySpec) -> Array:
    if spec.kind not in ("image", "video"):
        return values
    seen = array[np.broadcast_to(mask, array.shape)]
    return values.clip(seen.min(), seen.max())


def _constant(
    array: Array, spec: ModalitySpec, present: Array, lengths: Array | None, generator: np.random.Generator
) -> tuple[Array, int]:
    """One row's content, and its length for sequences (0 for the rest)."""
    if spec.vocabulary > 0:
        row = int(generator.choice(np.flatnonzero(present)))
        return array[row], 0 if lengths is None else int(lengths[row])
    weight = _real(array, present, lengths).astype(np.float64)
    mean = (array * weight).sum(0) / np.maximum(weight.sum(0), 1)
    if lengths is None:
        return mean, 0
    length = round(float(lengths[present].mean()))
    mean[length:] = 0
    return mean, length
