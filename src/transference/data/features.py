"""Frozen features of pretrained encoders, computed once a cell and kept on disk by content.

    entry = digest(every file of the model that counts, preprocessing, bytes of the cell)

Entries are safetensors files with a checksum; a damaged one is noticed, told by a warning and computed again.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transference.core.errors import DataError, must_be
from transference.core.spec import ModalitySpec
from transference.data.decoders import audio, image
from transference.data.decoders.parts import Cell, CellFault, Files, Source
from transference.data.hub import PREPARATION, WEIGHTS, digest, find_model, require_transformers, require_weights
from transference.data.modality import ModalityConfig
from transference.data.readers import Column, default_cache, is_empty, raise_faults

VERSION = 1  # of what is computed from a cell
BATCH = 32


@dataclass(frozen=True)
class Encoder:
    """A pretrained encoder on disk: its folder, what it reads, and a digest of its files and preprocessing."""

    folder: Path
    kind: str
    length: int | None
    identity: str


def encode_frozen(
    cells: Sequence[Cell],
    how: ModalityConfig | ModalitySpec,
    folder: Path,
    cache: Path | None = None,
    *,
    name: str = "",
    strict: bool = True,
) -> Column:
    """Features (n, d) of the cells from a pretrained encoder, as a modality of the kind ``vector``.

    Text: the mean over its tokens (or what a sentence-transformers folder says). Images: the model's pooled output, or
    its first token where the pooling has no weights. Audio: the mean over frames.

    Parameters
    ----------
    cells
        One a row: a text, or the path of an image or sound; None or "" where absent.
    how
        A `ModalityConfig` with an encoder, or the `ModalitySpec` that came of one; with the latter the encoder must
        still be the same.
    folder
        Paths are relative to it and must not leave it; so is the encoder, if it is a folder there.
    cache
        Entries are kept in ``features`` below it; the user's cache folder when left out.
    name
        Of the modality, for a `ModalityConfig`; the column's when left out.
    strict
        Raise DataError for faults. Otherwise they are in the result, and their rows are absent.
    """
    if isinstance(how, ModalityConfig):
        name, kind, length, column = name or how.column, how.kind, how.length, how.column or name
    else:
        reading: Mapping[str, Any] = how.reading
        name, kind, length, column = how.name, reading["raw"], reading["length"], reading["column"]
    encoder = find_encoder(how.encoder, folder, kind, length)
    if isinstance(how, ModalitySpec) and how.reading["identity"] != encoder.identity:
        raise DataError(
            f"The encoder {how.encoder!r} of {name!r} is not the one that the model was trained with: its files "
            "differ. Put the same files back, or train again."
        )
    present = np.array([not is_empty(cell) for cell in cells], bool)
    source = Source({row: cells[row] for row in np.flatnonzero(present).tolist()}, Files(folder), True, column)
    keys: dict[int, str] = source.each(lambda cell: _key(encoder, source.files, cell))
    entries = (cache or default_cache()) / "features" / encoder.identity
    values = {key: value for key in set(keys.values()) if (value := _load(entries, key)) is not None}
    todo = {key: row for row, key in keys.items() if key not in values}
    if todo:
        values |= _compute(encoder, how.encoder, source, todo, entries)
    width = how.shape[0] if isinstance(how, ModalitySpec) else len(next(iter(values.values()), np.zeros(1)))
    array, present = np.zeros((len(cells), width), np.float32), np.zeros(len(cells), bool)
    for row, key in keys.items():
        if key in values:
            array[row], present[row] = values[key], True
    spec = ModalitySpec(
        name,
        "vector",
        (width,),
        encoder=how.encoder,
        reading={"raw": kind, "column": column, "length": length, "identity": encoder.identity},
    )
    if strict:
        raise_faults(source.faults, f"The modality {name!r}")
    return Column(array, present, None, spec, tuple(source.faults))


def find_encoder(encoder: str, folder: Path, kind: str, length: int | None = None) -> Encoder:
    """The files of ``hf:<id or folder>`` and what tells them from others; see `find_model`."""
    found = find_model(encoder, folder)
    require_weights(found, encoder)
    return Encoder(found, kind, length, digest(found, PREPARATION + WEIGHTS, f"{VERSION} {kind} {length}"))


def _key(encoder: Encoder, files: Files, cell: Any) -> str:
    if encoder.kind == "text":
        if not isinstance(cell, str):
            raise CellFault(must_be("A cell", "a text", type(cell).__name__))
        content = cell.encode("utf-8", "surrogatepass")
    else:
        path = files.find(cell, f"an {encoder.kind} file")
        try:
            content = path.read_bytes()
        except OSError as error:
            raise CellFault(must_be(f"The file {cell!r}", "a readable file", f"{error}"[:120])) from error
    return hashlib.blake2b(content, key=encoder.identity.encode(), digest_size=20).hexdigest()


def _path(entries: Path, key: str) -> Path:
    return entries / key[:2] / f"{key}.safetensors"


def _load(entries: Path, key: str) -> NDArray[np.float32] | None:
    """A kept entry; None where there is none, or where it is damaged, which a warning tells."""
    from safetensors import SafetensorError, safe_open

    path = _path(entries, key)
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="np") as file:
            value, checksum = file.get_tensor("value"), (file.metadata() or {}).get("blake2b")
        if checksum == _checksum(value) and value.ndim == 1 and value.dtype == np.float32:
            return value
        reason = "its checksum does not match"
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        reason = f"{error}"[:120]
    warnings.warn(f"The cached feature {path.name} is damaged ({reason}) and is computed again.", stacklevel=4)
    return None


def _keep(entries: Path, key: str, value: NDArray[np.float32]) -> None:
    from safetensors.numpy import save

    path = _path(entries, key)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(suffix=".part", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(save({"value": value}, metadata={"blake2b": _checksum(value)}))
            os.replace(temporary, path)
        finally:
            Path(temporary).unlink(missing_ok=True)
    except OSError as error:
        raise DataError(
            f"A feature cannot be written to {str(entries)!r}: {error}. "
            "Free space there, or choose another cache folder."
        ) from error


def _checksum(value: NDArray[Any]) -> str:
    return hashlib.blake2b(np.ascontiguousarray(value).data, digest_size=16).hexdigest()


def _compute(
    encoder: Encoder, shown: str, source: Source, todo: Mapping[str, int], entries: Path
) -> dict[str, NDArray[np.float32]]:
    """Key -> feature of the cells of these rows; each batch is kept as soon as it is there."""
    require_transformers()
    from transference.data.pretrained import Pretrained

    model = Pretrained(encoder.folder, shown, encoder.kind, encoder.length)
    values: dict[str, NDArray[np.float32]] = {}
    keys = sorted(todo, key=lambda key: (len(str(source.cells[todo[key]])), key))
    for start in range(0, len(keys), BATCH):
        inputs = {}
        for key in keys[start : start + BATCH]:
            cell = source.cells[todo[key]]
            try:
                inputs[key] = _decode(encoder, model.rate, source.files, cell)
            except CellFault as fault:
                source.fault(todo[key], fault)
        for key, value in zip(inputs, model.encode(list(inputs.values())) if inputs else [], strict=True):
            _keep(entries, key, value)
            values[key] = value
    return values


def _decode(encoder: Encoder, rate: int, files: Files, cell: Any) -> Any:
    if encoder.kind == "text":
        return cell
    path = files.find(cell, f"an {encoder.kind} file")
    if encoder.kind == "image":
        return image.rgb(path, cell)
    return audio.waveform(path, cell, rate)
