"""A column of cells becomes an array: image, audio, video, text, series, table, vector, set.

Every cell is decoded once. What is chosen from the data (size, rate, length, medians, categories ...) is chosen from
the inputs of all rows that are read, whatever their split, and is kept in `ModalitySpec.reading`, so that reading with
a fitted spec gives rows of exactly its shape.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transference.core.errors import DataError, collect
from transference.core.spec import ModalitySpec
from transference.data.decoders import audio, finetuned, image, numbers, steps, text, video
from transference.data.decoders.parts import Cell, CellFault, Fault, Files, Prepared, Source
from transference.data.modality import FINE_TUNED, ModalityConfig

MEMORY = 1 << 30  # bytes of one modality that are held in ordinary memory
VERSION = 2  # of what the decoders make of a cell

DECODERS: Mapping[str, Callable[[Source, Mapping[str, Any]], Prepared]] = {
    "image": image.prepare,
    "audio": audio.prepare,
    "video": video.prepare,
    "text": text.prepare,
    "series": partial(steps.prepare, kind="series"),
    "set": partial(steps.prepare, kind="set"),
    "table": numbers.prepare_table,
    "vector": numbers.prepare_vector,
    "tokenizer": finetuned.prepare_tokens,
    "processor": finetuned.prepare_pixels,
}


@dataclass(frozen=True)
class Column:
    """One modality of all rows.

    Attributes
    ----------
    array
        (n, *spec.shape) float32; zeros where absent.
    present
        (n,) bool.
    lengths
        (n,) int64 for modalities whose rows differ in length, 0 where absent; None for the others.
    spec
        How it was read.
    faults
        Cells that could not be read; their rows are absent.
    """

    array: NDArray[Any]
    present: NDArray[np.bool_]
    lengths: NDArray[np.int64] | None
    spec: ModalitySpec
    faults: tuple[Fault, ...] = ()


def read_column(
    cells: Sequence[Cell],
    how: ModalityConfig | ModalitySpec,
    folder: Path,
    *,
    name: str = "",
    columns: Sequence[str] = (),
    cache: Path | None = None,
    memory: int = MEMORY,
    strict: bool = True,
) -> Column:
    """Read the cells of one modality.

    Parameters
    ----------
    cells
        One a row: a path, a text, a list of numbers; for a group of columns the row's cells in the order of the
        columns; None or an empty text where the row lacks the modality.
    how
        A `ModalityConfig`, and the options left out are chosen from the data; or a fitted `ModalitySpec`.
    folder
        Paths are relative to it and must not leave it.
    name
        Of the modality, for a `ModalityConfig`; the column's when left out.
    columns
        Names of the columns of a group, for a `ModalityConfig`.
    cache
        Where arrays larger than `memory` are kept and memory-mapped from, and features of pretrained encoders are
        stored; the user's cache folder when left out.
    memory
        Bytes above which the array is memory-mapped.
    strict
        Raise DataError for faults. Otherwise they are in the result, and their rows are absent.
    """
    options: dict[str, Any]
    if isinstance(how, ModalityConfig):
        kind, encoder = how.kind, how.encoder
        name = name or how.column
        options = {**how.options(), **_place(how, name, columns)}
        if how.fine_tune:
            encoder, options[FINE_TUNED[kind]] = "", encoder
    else:
        options = {**how.reading, **_of_shape(how)}
        kind, encoder, name = options.get("raw", how.kind), how.encoder, how.name
    if encoder:
        from transference.data.features import encode_frozen

        return encode_frozen(cells, how, folder, cache, name=name, strict=strict)
    present = np.array([not is_empty(cell) for cell in cells], bool)
    source = Source(
        {row: cells[row] for row in np.flatnonzero(present).tolist()},
        Files(folder),
        isinstance(how, ModalitySpec),
        options.get("column", name),
    )
    reader = next((each for each in FINE_TUNED.values() if each in options), kind)
    prepared = DECODERS[reader](source, options)
    place: dict[str, Any] = {key: options[key] for key in ("column", "columns") if key in options}
    spec = ModalitySpec(
        name,
        prepared.kind,
        prepared.shape,
        prepared.lengths,
        prepared.vocabulary,
        "",
        {**place, **prepared.reading},
        prepared.folder,
    )
    column = _fill(len(cells), prepared, spec, source, cache or default_cache(), memory)
    if strict:
        raise_faults(column.faults, f"The modality {name!r}")
    return column


def default_cache() -> Path:
    """The user's cache folder for this package."""
    from platformdirs import user_cache_path

    return user_cache_path("transference")


def raise_faults(faults: Sequence[Fault], title: str) -> None:
    """Raise one DataError with all of these, if there are any; rows are counted from 0."""
    with collect(title) as found:
        for fault in faults:
            found.add(f"Row {fault.row}, column {fault.column!r}: {fault.message}")


def _of_shape(spec: ModalitySpec) -> dict[str, Any]:
    """The options that a fitted shape decides."""
    kind, shape = spec.reading.get("raw", spec.kind), spec.shape
    needs = {"audio": "rate", "table": "medians"}.get(str(kind))
    if needs and needs not in spec.reading and not spec.encoder:
        raise DataError(
            f"The modality {spec.name!r} does not say how its rows were read ({needs!r} is missing), so that cells of "
            "a table cannot be read the same way. Give its arrays instead."
        )
    if spec.encoder:
        return {}
    if kind == "image":
        return {"channels": shape[0], "size": shape[1:]}
    if kind == "video":
        return {"length": shape[0], "channels": shape[1], "size": shape[2:]}
    if kind == "audio":
        return {"length": shape[0], "mels": shape[1]}
    if kind == "text":
        return {"length": shape[0], "vocabulary": spec.vocabulary}
    if kind in ("series", "set"):
        return {"length": shape[0], "width": shape[1]}
    return {"width": shape[0]}


def _place(how: ModalityConfig, name: str, columns: Sequence[str]) -> dict[str, Any]:
    if how.columns or columns or how.kind == "table":
        return {"columns": list(columns or how.columns or [how.column or name])}
    return {"column": how.column or name}


def is_empty(cell: Cell) -> bool:
    """Whether the row lacks the modality."""
    if cell is None:
        return True
    if isinstance(cell, str):
        return not cell.strip()
    return all(part is None or (isinstance(part, str) and not part.strip()) for part in cell)


def _fill(n: int, prepared: Prepared, spec: ModalitySpec, source: Source, cache: Path, memory: int) -> Column:
    """Decode every row into one array, in memory or in a file of the cache."""
    size = 4 * n * int(np.prod(prepared.shape))
    if size <= memory:
        array = np.zeros((n, *prepared.shape), np.float32)
        present, lengths = _decode(prepared, source, array)
        return Column(array, present, lengths, spec, tuple(source.faults))
    entry = cache / "columns" / _digest(spec, source)
    kept = _reopen(entry, (n, *prepared.shape))
    if kept is not None and not source.faults:
        return Column(*kept, spec)
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=entry.parent))
        try:
            mapped = np.lib.format.open_memmap(
                temporary / "array.npy", mode="w+", dtype=np.float32, shape=(n, *prepared.shape)
            )
            present, lengths = _decode(prepared, source, mapped)
            mapped.flush()
            del mapped
            np.save(temporary / "present.npy", present)
            if lengths is not None:
                np.save(temporary / "lengths.npy", lengths)
            if source.faults:  # nothing incomplete is kept
                nothing = np.broadcast_to(np.float32(0), (n, *prepared.shape))
                return Column(nothing, present, lengths, spec, tuple(source.faults))
            shutil.rmtree(entry, ignore_errors=True)
            os.replace(temporary, entry)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise DataError(
            f"The decoded {spec.name!r} ({size / 2**30:.1f} GiB) cannot be written to {str(cache)!r}: {error}. "
            "Free space there, choose another cache folder, or make the rows smaller (size, length)."
        ) from error
    kept = _reopen(entry, (n, *prepared.shape))
    if kept is None:
        raise DataError(f"The decoded {spec.name!r} could not be read back from {str(entry)!r}. Check the disk.")
    return Column(*kept, spec)


def _decode(
    prepared: Prepared, source: Source, array: NDArray[Any]
) -> tuple[NDArray[np.bool_], NDArray[np.int64] | None]:
    present = np.zeros(len(array), bool)
    lengths = np.zeros(len(array), np.int64)
    for row, load in prepared.loads.items():
        try:
            value = load()
        except CellFault as fault:
            source.fault(row, fault)
            continue
        if prepared.lengths:
            lengths[row] = min(len(value), prepared.shape[0])
            array[row, : lengths[row]] = value[: lengths[row]]
        else:
            array[row] = value
        present[row] = True
    return present, lengths if prepared.lengths else None


def _digest(spec: ModalitySpec, source: Source) -> str:
    """Of everything that the decoded array depends on: options, cells, and size and time of the files they name."""
    digest = hashlib.blake2b(digest_size=20)
    digest.update(f"{VERSION} {spec.kind} {json.dumps(dict(spec.reading), sort_keys=True)}".encode())
    for row, cell in source.cells.items():
        digest.update(f"\0{row}\0{cell!r}".encode())
        if isinstance(cell, str) and len(cell) < 4096:
            try:
                path = source.files.root / cell.strip()
                for entry in [path, *sorted(path.iterdir())] if path.is_dir() else [path]:
                    status = entry.stat()
                    digest.update(f"{entry.name} {status.st_size} {status.st_mtime_ns}".encode())
            except (OSError, ValueError):
                continue
    return digest.hexdigest()


def _reopen(
    entry: Path, shape: tuple[int, ...]
) -> tuple[NDArray[Any], NDArray[np.bool_], NDArray[np.int64] | None] | None:
    """A column written before, or None where it is missing or damaged."""
    try:
        array = np.load(entry / "array.npy", mmap_mode="r", allow_pickle=False)
        present = np.load(entry / "present.npy", allow_pickle=False)
        path = entry / "lengths.npy"
        lengths = np.load(path, allow_pickle=False) if path.exists() else None
    except (OSError, ValueError, EOFError):
        return None
    return (array, present, lengths) if array.shape == shape and len(present) == len(array) else None
