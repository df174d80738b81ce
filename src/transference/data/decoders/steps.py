"""Series (length, d) and sets (elements, d) from .npy, .csv or lists of numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from transference.core.errors import must_be
from transference.core.spec import Kind
from transference.data.decoders.numbers import parse_list
from transference.data.decoders.parts import Array, CellFault, Prepared, Source, finite, load_npy, most_common, quoted

_NUMBERS = re.compile(r"\s*[\[(]|[-+\d.,;\seE]+$")  # how a list of numbers begins; no path to a file does


@dataclass(frozen=True)
class _Seen:
    """A cell looked at; `counted` says whether a file without a header begins with 0, 1, ..., d - 1; None: no file."""

    length: int
    width: int
    load: Callable[[], Array]
    counted: bool | None = None

    def without_first(self) -> _Seen:
        return replace(self, length=self.length - 1, load=lambda: self.load()[1:])


def prepare(source: Source, options: Mapping[str, Any], kind: Kind) -> Prepared:
    """Rows of (length, d), which differ in length and agree in d; a one-dimensional array has d = 1.

    Where every .csv file (of two or more) begins with 0, 1, ..., d - 1, that row is a header: pandas writes such names.
    """
    rows: dict[int, _Seen] = source.each(partial(_look, source))
    counted = [seen.counted for seen in rows.values() if seen.counted is not None]
    has_header = bool(options.get("header")) if source.fitted else len(counted) > 1 and all(counted)
    if has_header:
        rows = {row: seen.without_first() if seen.counted else seen for row, seen in rows.items()}
    width = int(options["width"]) if source.fitted else most_common([seen.width for seen in rows.values()]) or 1
    for row, seen in rows.items():
        if seen.width != width:
            source.fault(row, _other_width(source.cells[row], kind, seen.width, width, source.fitted))
    rows = {row: seen for row, seen in rows.items() if seen.width == width}
    longest = max((seen.length for seen in rows.values()), default=1)
    most = int(options.get("length", longest))
    length = most if source.fitted else min(most, longest)
    return Prepared(
        kind,
        (length, width),
        {row: seen.load for row, seen in rows.items()},
        {"length": length, "width": width, **({"header": True} if has_header else {})},
        lengths=True,
    )


def _other_width(cell: Any, kind: Kind, own: int, width: int, fitted: bool) -> CellFault:
    shown = repr(cell) if isinstance(cell, str) and len(cell) < 80 else "of this cell"
    others = "the model was trained with" if fitted else "most rows have"
    return CellFault(
        must_be(f"The {kind} {shown}", f"{width} numbers wide, as {others}", own, "Correct it, or empty the cell.")
    )


def _look(source: Source, cell: Any) -> _Seen:
    counted = None
    if isinstance(cell, str) and not _NUMBERS.match(cell):
        path = source.files.find(cell, "a .npy or .csv file")
        if path.suffix.lower() == ".npy":
            array = _two(load_npy(path, cell), cell)
            return _Seen(len(array), array.shape[1], partial(_load, path, cell))
        if path.suffix.lower() not in (".csv", ".tsv", ".txt"):
            raise CellFault(must_be("A cell", "the path of a .npy or .csv file, or a list of numbers", cell))
        values, counted = read_csv(path, cell)
    elif isinstance(cell, str) and cell.lstrip()[1:].lstrip()[:1] == "[":
        try:
            values = _two(np.array(json.loads(cell), float), "this cell")
        except (ValueError, TypeError) as error:
            raise CellFault(must_be("A cell", "a list of lists of numbers, all of one width", quoted(cell))) from error
    elif isinstance(cell, str):
        values = _two(parse_list(cell), "this cell")
    else:
        try:
            values = _two(np.array(cell, float), "this cell")
        except (ValueError, TypeError) as error:
            raise CellFault(
                must_be("A cell", "a list of numbers, or of lists of one width", type(cell).__name__)
            ) from error
    subject = f"The file {cell!r}" if isinstance(cell, str) and len(cell) < 80 else "A cell"
    checked = finite(values, subject)
    return _Seen(len(checked), checked.shape[1], lambda: checked, counted)


def _load(path: Path, cell: str) -> Array:
    return finite(_two(load_npy(path, cell), cell), f"The file {cell!r}")


def _two(array: Array, cell: str) -> Array:
    if array.ndim not in (1, 2) or 0 in array.shape:
        raise CellFault(
            must_be(f"The array {cell!r}", "of shape (length, d)", array.shape, "Reshape it, or empty the cell.")
        )
    return array[:, None] if array.ndim == 1 else array


def read_csv(path: Path, cell: str) -> tuple[Array, bool]:
    """(rows, columns) numbers of a file with or without a header; commas, semicolons or tabs between them.

    And whether the first of several rows counts 0, 1, ..., columns - 1: numbers, or names that pandas made up.
    """
    try:
        data = path.read_bytes().decode("utf-8-sig").rstrip() + "\n"
    except UnicodeDecodeError as error:
        raise CellFault(must_be(f"The file {cell!r}", "UTF-8 text", f"byte {error.start} is not")) from error
    first = data.partition("\n")[0]
    separator = max(",;\t", key=first.count)
    try:
        frame = pl.read_csv(data.encode(), has_header=False, separator=separator, infer_schema=False)
    except pl.exceptions.PolarsError as error:
        raise CellFault(
            must_be(f"The file {cell!r}", "numbers in rows of one width", str(error).partition("\n")[0][:120])
        ) from error
    numbers = frame.select(pl.all().str.strip_chars().cast(pl.Float64, strict=False))
    has_header = len(frame) > 1 and all(value is None for value in numbers.row(0))
    counted = len(frame) > 1 and list(frame.row(0)) == [str(k) for k in range(frame.width)]
    numbers = numbers[1:] if has_header else numbers
    texts = numbers.select(pl.all().is_null()).to_numpy()
    if texts.any():
        row, column = (int(k) for k in np.argwhere(texts)[0])
        got = (frame[1:] if has_header else frame)[row, column]
        subject = f"Row {row + 1 + has_header}, column {column + 1} of {cell!r}"
        if not got or not got.strip():
            remedy = "Fill it; save a table that has an index without it."
            raise CellFault(must_be(subject, "a number", "an empty cell", remedy))
        raise CellFault(must_be(subject, "a number", quoted(got)))
    return _two(numbers.to_numpy(), cell), counted
