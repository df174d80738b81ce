"""A CSV or Parquet file as named columns of cells, with the row numbers that a person sees."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import polars as pl

from transference.core.errors import DataError, Faults, collect, did_you_mean, must_be
from transference.data.decoders.parts import Fault

SHOWN = 5  # faults of one column that are told one by one
SUFFIXES = (".csv", ".tsv", ".parquet")


@dataclass(frozen=True)
class RawTable:
    """The cells of a file.

    Attributes
    ----------
    path
        The file; paths in cells are relative to its folder.
    columns
        Name -> (n,) cells: texts, lists, or None where empty.
    numbers
        (n,) the row as counted in the file.
    first
        The number of the first row below the header: 2 in CSV, 1 in Parquet.
    """

    path: Path
    columns: dict[str, list[Any]]
    numbers: list[int]
    first: int

    def __len__(self) -> int:
        return len(self.numbers)

    def where(self, row: int | None, column: str = "") -> str:
        """``rows.csv, row 5, column 'audio'``."""
        shown = self.path.name if row is None else f"{self.path.name}, row {self.numbers[row]}"
        return f"{shown}, column {column!r}" if column else shown

    def tell(self, found: Iterable[Fault], faults: Faults) -> None:
        """Add the faults of cells, the first few of each column one by one."""
        by_column: dict[str, list[Fault]] = {}
        for fault in found:
            by_column.setdefault(fault.column, []).append(fault)
        for column, several in by_column.items():
            for fault in several[:SHOWN]:
                faults.add(f"{self.where(fault.row if fault.row >= 0 else None, column)}: {fault.message}")
            if len(several) > SHOWN:
                rows = ", ".join(str(self.numbers[fault.row]) for fault in several[SHOWN : 2 * SHOWN])
                more = " ..." if len(several) > 2 * SHOWN else ""
                rest = f"{len(several) - SHOWN} more rows have a fault like these: {rows}{more or '.'}"
                faults.add(f"{self.where(None, column)}: {rest}")

    def match(self, pattern: str) -> list[str]:
        """The columns that a name or a pattern stands for, in the order of the file."""
        if pattern in self.columns:
            return [pattern]
        return [name for name in self.columns if fnmatchcase(name, pattern)]

    def missing(self, name: str, purpose: str) -> str:
        """What to say of a column that is not there."""
        what = "no column that matches" if any(mark in name for mark in "*?[") else "no column"
        return f"{self.path.name}: There is {what} {name!r} for {purpose}. {did_you_mean(name, self.columns)}"


def read_table(path: str | Path) -> RawTable:
    """Read a table; DataError tells what is wrong with the file itself."""
    path = Path(path)
    if not path.is_file():
        near = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        tables = [name for name in near if name.lower().endswith(SUFFIXES)]
        raise DataError(f"There is no file {str(path)!r}. {did_you_mean(path.name, tables)}".strip())
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(must_be(f"The table {path.name!r}", "a .csv, .tsv or .parquet file", suffix or "no suffix"))
    frame = _parquet(path) if suffix == ".parquet" else _csv(path, "\t" if suffix == ".tsv" else ",")
    first = 1 if suffix == ".parquet" else 2
    columns = {name.strip(): _cells(frame[name]) for name in frame.columns}
    kept = [k for k in range(len(frame)) if any(column[k] is not None for column in columns.values())]
    if not kept:
        raise DataError(must_be(f"The table {path.name!r}", "of one row or more", "none", "Add rows below the header."))
    if len(kept) < len(frame):
        columns = {name: [cells[k] for k in kept] for name, cells in columns.items()}
    return RawTable(path, columns, [k + first for k in kept], first)


def _parquet(path: Path) -> pl.DataFrame:
    try:
        frame = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(
            must_be(f"The table {path.name!r}", "a readable Parquet file", str(error).partition("\n")[0][:120])
        ) from error
    _check_names(path, frame.columns)
    return frame


def _csv(path: Path, separator: str) -> pl.DataFrame:
    data = path.read_bytes()
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError(f"The table {path.name!r} must be UTF-8 text. Got UTF-16 instead. Save it as 'CSV UTF-8'.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = data[: error.start].count(b"\n") + 1
        raise DataError(
            f"The table {path.name!r} must be UTF-8 text. Got byte 0x{data[error.start]:02x} in line {row} instead. "
            "Save it as 'CSV UTF-8'."
        ) from error
    if not text.strip():
        raise DataError(must_be(f"The table {path.name!r}", "of a header and one row or more", "an empty file"))
    if "\n" not in text:
        text = text.replace("\r", "\n")  # of old Macintosh programs
    try:
        header = next(csv.reader(io.StringIO(text.lstrip("\r\n")), delimiter=separator))
    except csv.Error as error:
        raise DataError(_stray(path, str(error))) from error
    _check_header(path, header, separator)
    try:
        frame = pl.read_csv(text.encode(), separator=separator, infer_schema=False)
    except pl.exceptions.PolarsError as error:
        _refuse_ragged(path, text, separator, len(header), strict=True)
        raise DataError(_stray(path, "stray quotes")) from error
    if frame[:, -1].null_count():  # polars fills up what a row lacks, and says nothing
        _refuse_ragged(path, text, separator, len(header), strict=False)
    return frame


def _check_header(path: Path, header: Sequence[str], separator: str) -> None:
    if len(header) == 1:
        for other, name in ((";", "semicolons"), ("\t", "tabs"), (",", "commas")):
            if other in header[0]:
                wanted = "tabs" if separator == "\t" else "commas"
                raise DataError(
                    f"The columns of {path.name!r} must be separated by {wanted}. Got {name} instead. "
                    f"Save it again with {wanted}" + (", or rename it to .tsv." if other == "\t" else ".")
                )
    _check_names(path, header)


def _check_names(path: Path, header: Sequence[str]) -> None:
    names = [name.strip() for name in header]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(
            must_be(
                f"The column names of {path.name!r}", "unique", ", ".join(map(repr, twice)) + " twice", "Rename one."
            )
        )
    if "" in names:
        raise DataError(
            must_be(
                f"Column {names.index('') + 1} of {path.name!r}", "named in the header", "an empty name", "Name it."
            )
        )


def _refuse_ragged(path: Path, text: str, separator: str, width: int, *, strict: bool) -> None:
    """Raise DataError with the rows that have more or fewer cells than the header; lines of blanks are no rows."""
    lines = io.StringIO(text.lstrip("\r\n").replace("\r\n", "\n").replace("\r", " "))
    limit = csv.field_size_limit(len(text) + 1)  # a cell may hold a whole book
    try:
        rows = enumerate(csv.reader(lines, delimiter=separator, strict=strict), 1)
        wrong = [(number, len(row)) for number, row in rows if len(row) != width and any(map(str.strip, row))]
    except csv.Error as error:
        raise DataError(_stray(path, str(error))) from error
    finally:
        csv.field_size_limit(limit)
    with collect(path.name) as faults:
        for number, found in wrong[:SHOWN]:
            quote = f"Put cells that hold {separator!r} into double quotes."
            fill = f"Write an empty cell too, with its {separator!r}."
            subject, expected = f"{path.name}, row {number}", f"of {width} cells, as the header has"
            faults.add(must_be(subject, expected, found, quote if found > width else fill))
        if len(wrong) > SHOWN:
            faults.add(f"{path.name}: {len(wrong) - SHOWN} more rows have another number of cells than the header.")


def _stray(path: Path, met: str) -> str:
    return must_be(f"The table {path.name!r}", "well-formed CSV", met, "Look for a stray double quote.")


def _cells(column: pl.Series) -> list[Any]:
    """Texts stripped of surrounding blanks, lists as they are, numbers as text; None where empty."""
    if isinstance(column.dtype, pl.List | pl.Array):
        return column.to_list()
    if column.dtype in (pl.Binary, pl.Object, pl.Duration) or isinstance(column.dtype, pl.Struct):
        raise DataError(
            must_be(
                f"The column {column.name!r}",
                "of text, numbers or lists of numbers",
                str(column.dtype),
                "Write it as numbers, or its content to files and their paths into the column.",
            )
        )
    if column.dtype.is_float():
        return [None if value is None else repr(value) for value in column.to_list()]
    stripped = column.cast(pl.String).str.strip_chars()
    return stripped.set(stripped == "", None).to_list()
