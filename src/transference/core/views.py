"""Views: all rows of a data set, one array a modality. It is scikit-learn's X."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from transference.core.errors import DataError, did_you_mean, must_be
from transference.core.spec import SEQUENCES, Kind, ModalitySpec


class Views:
    """Rows seen through several modalities.

    Parameters
    ----------
    arrays
        Name -> (n, *shape) numbers; text holds word numbers. Rows that lack the modality hold zeros.
    specs
        Name -> ModalitySpec, the same names as `arrays`.
    primary
        The modality that is deployed.
    present
        Name -> (n,) bool; a name left out is present in every row. Presence is data, never inferred from zeros.
    lengths
        Name -> (n,) int64 for modalities whose rows differ in length; left out, every row has the full length. Of no
        meaning for the others.
    rows
        (n,) int64, the row in the manifest; counted from 0 when left out.

    Raises
    ------
    DataError
        For names that are no modality and for shapes and lengths that do not fit. Values are checked by `of`, and by a
        method that reads them.

    Examples
    --------
    >>> views = Views.of(primary="sound", sound=np.ones((4, 3)), words=np.zeros((4, 2)))
    >>> len(views), views.names, views[1:3].rows.tolist(), views["sound"].shape
    (4, ('sound', 'words'), [1, 2], (4, 3))
    """

    def __init__(
        self,
        arrays: Mapping[str, NDArray[Any]],
        specs: Mapping[str, ModalitySpec],
        primary: str,
        *,
        present: Mapping[str, NDArray[np.bool_]] | None = None,
        lengths: Mapping[str, NDArray[np.int64]] | None = None,
        rows: NDArray[np.int64] | None = None,
    ) -> None:
        if not arrays:
            raise DataError(must_be("Views", "built from one modality or more", "none"))
        if primary not in arrays:
            raise DataError(f"There is no modality {primary!r} to be primary. {did_you_mean(primary, arrays)}")
        n = len(next(iter(arrays.values())))
        for name, array in arrays.items():
            if name not in specs:
                raise DataError(f"There is no ModalitySpec of {name!r}. {did_you_mean(name, specs)}".strip())
            if len(array) != n or array.shape[1:] != specs[name].shape:
                raise DataError(must_be(f"The array of {name!r}", f"of shape {(n, *specs[name].shape)}", array.shape))
        self.arrays = dict(sorted(arrays.items()))
        self.specs = {name: specs[name] for name in self.arrays}
        self.primary = primary
        most = {name: spec.shape[0] for name, spec in self.specs.items() if spec.lengths}
        _check_names("presence", present or {}, self.arrays)
        _check_names("lengths", lengths or {}, self.arrays)
        self.present = {name: np.ones(n, bool) for name in self.arrays}
        self.present |= {name: np.asarray(mask, bool) for name, mask in (present or {}).items()}
        self.lengths = {name: np.full(n, size) for name, size in most.items()}
        self.lengths |= {name: np.asarray(sizes, np.int64) for name, sizes in (lengths or {}).items() if name in most}
        self.rows = np.arange(n) if rows is None else np.asarray(rows, np.int64)
        columns = [("row numbers", self.rows)]
        columns += [(f"presence of {name!r}", mask) for name, mask in self.present.items()]
        columns += [(f"lengths of {name!r}", sizes) for name, sizes in self.lengths.items()]
        for subject, column in columns:
            if column.shape != (n,):
                raise DataError(must_be(f"The {subject}", f"of shape {(n,)}", column.shape))
        for name, sizes in self.lengths.items():
            if n and (sizes.min() < 0 or sizes.max() > most[name]):
                met = f"{sizes.min()} to {sizes.max()}"
                raise DataError(must_be(f"The lengths of {name!r}", f"in [0, {most[name]}]", met))

    @classmethod
    def of(cls, *, primary: str, kinds: Mapping[str, Kind] | None = None, **arrays: ArrayLike) -> Views:
        """Views straight from arrays; 2-d arrays are vectors, 3-d ones series, 4-d ones images, unless `kinds` says."""
        guess: dict[int, Kind] = {2: "vector", 3: "series", 4: "image", 5: "video"}
        values, specs = {}, {}
        for name, given in arrays.items():
            array = np.asarray(given, np.float32)
            kind = (kinds or {}).get(name) or guess.get(array.ndim)
            if kind is None:
                raise DataError(must_be(f"The array of {name!r}", "of 2 to 5 dimensions, rows first", array.shape))
            most = array.max(initial=0) if kind == "text" else -1
            vocabulary = int(most) + 1 if np.isfinite(most) else 1
            values[name] = array
            specs[name] = ModalitySpec(name, kind, array.shape[1:], lengths=kind in SEQUENCES, vocabulary=vocabulary)
        views = cls(values, specs, primary)
        views.check_values()
        return views

    def check_values(self, specs: Mapping[str, ModalitySpec] | None = None) -> None:
        """Raise DataError unless the rows that have a modality hold finite numbers, and word numbers for text.

        Parameters
        ----------
        specs
            Whose vocabularies count, such as those of a fitted method; the own ones when left out.
        """
        for name, array in self.arrays.items():
            vocabulary = (specs or self.specs)[name].vocabulary
            if _are_fine(np.stack([array.min(initial=0), array.max(initial=0)]), vocabulary).all():
                continue
            rows, values = self.rows[self.present[name]], array[self.present[name]]  # an absent row may hold anything
            bad = ~_are_fine(values, vocabulary).reshape(len(rows), -1).all(1) if len(rows) else np.zeros(0, bool)
            if not bad.any():
                continue
            row, numbers = rows[bad][0], values[bad][0]
            if not np.isfinite(numbers).all():
                raise DataError(must_be(f"The array of {name!r}", "finite", f"nan or inf in row {row}"))
            met = f"{numbers.min():g} to {numbers.max():g} in row {row}"
            remedy = "Number its words as those of the training rows."
            raise DataError(must_be(f"The words of {name!r}", f"numbers in [0, {vocabulary})", met, remedy))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.arrays)

    @property
    def secondary(self) -> tuple[str, ...]:
        return tuple(name for name in self.arrays if name != self.primary)

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, modalities): what scikit-learn asks an X for."""
        return len(self), len(self.arrays)

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}: {spec.kind}{list(spec.shape)}" for name, spec in self.specs.items())
        return f"Views({len(self)} rows; {shown}; primary {self.primary!r})"

    @overload
    def __getitem__(self, key: str) -> NDArray[Any]: ...
    @overload
    def __getitem__(self, key: Any) -> Views: ...
    def __getitem__(self, key: Any) -> Any:
        """``views["name"]`` is an array; ``views[rows]`` (slice, mask, integers) is Views of these rows."""
        if isinstance(key, str):
            if key not in self.arrays:
                raise DataError(f"There is no modality {key!r}. {did_you_mean(key, self.arrays)}")
            return self.arrays[key]
        if isinstance(key, tuple):  # scikit-learn indexes X[rows, ...]
            key = key[0]
        return self.take(key)

    def take(self, rows: Any) -> Views:
        """These rows, in this order."""
        if isinstance(rows, int | np.integer):
            rows = [rows]
        return Views(
            {name: array[rows] for name, array in self.arrays.items()},
            self.specs,
            self.primary,
            present={name: mask[rows] for name, mask in self.present.items()},
            lengths={name: sizes[rows] for name, sizes in self.lengths.items()},
            rows=self.rows[rows],
        )

    def only(self, names: Iterable[str], primary: str | None = None) -> Views:
        """These modalities alone; `primary` is needed when the primary one is not among them."""
        kept = list(names)
        for name in kept:
            self[name]
        return Views(
            {name: self.arrays[name] for name in kept},
            self.specs,
            primary or self.primary,
            present={name: self.present[name] for name in kept},
            lengths={name: self.lengths[name] for name in kept if name in self.lengths},
            rows=self.rows,
        )

    def without(self, name: str) -> Views:
        """The same rows, each of them lacking this modality: zeros, and marked as absent."""
        return self.replace(name, np.zeros_like(self[name]), present=np.zeros(len(self), bool))

    def replace(
        self,
        name: str,
        array: NDArray[Any],
        *,
        present: NDArray[np.bool_] | None = None,
        lengths: NDArray[np.int64] | None = None,
    ) -> Views:
        """The same rows with other content in one modality; presence and lengths stay unless given."""
        return Views(
            {**self.arrays, name: array},
            self.specs,
            self.primary,
            present=self.present if present is None else {**self.present, name: present},
            lengths=self.lengths if lengths is None else {**self.lengths, name: lengths},
            rows=self.rows,
        )

    def fingerprint(self) -> str:
        """A digest of content, presence, lengths, shapes and the primary name."""
        digest = hashlib.blake2b(self.primary.encode(), digest_size=16)
        for name, array in self.arrays.items():
            digest.update(f"{name}{self.specs[name]}".encode())
            for part in (array, self.present[name], self.lengths.get(name, self.rows)):
                digest.update(np.ascontiguousarray(part).data)
        return digest.hexdigest()


def _check_names(what: str, given: Iterable[str], options: Collection[str]) -> None:
    for name in given:
        if name not in options:
            raise DataError(f"There is no modality {name!r} that has {what}. {did_you_mean(name, options)}".strip())


def _are_fine(values: NDArray[Any], vocabulary: int) -> NDArray[np.bool_]:
    """Which are finite and, where there is a vocabulary, numbers of its words."""
    fine: NDArray[np.bool_] = (values >= 0) & (values < vocabulary) if vocabulary else np.isfinite(values)
    return fine
