"""What the decoders share: cells, faults, safe paths, arrays from files."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transference.core.errors import must_be
from transference.core.spec import Kind

Cell = str | Sequence[Any] | None
"""A text or a path; a list of numbers; for a group of columns the cells side by side; None or "" where absent."""

Array = NDArray[Any]
SUGGESTIONS = 20  # missing files for which similar names are looked up


class CellFault(Exception):
    """One cell cannot be read. The message says what, what was expected, what came, and the remedy."""

    def __init__(self, message: str, column: str = "") -> None:
        super().__init__(message)
        self.column = column


@dataclass(frozen=True)
class Fault:
    """A fault of one cell: position of the row among the cells given, column, message."""

    row: int
    column: str
    message: str


@dataclass(frozen=True)
class Prepared:
    """Cells looked at but not decoded.

    Attributes
    ----------
    kind, shape, lengths, vocabulary, reading, folder
        As in `ModalitySpec`; `reading` holds the choices that were made from the data.
    loads
        Row -> a function that decodes it: (*shape), or (length, *shape[1:]) where rows differ in length.
    """

    kind: Kind
    shape: tuple[int, ...]
    loads: Mapping[int, Callable[[], Array]]
    reading: Mapping[str, Any]
    lengths: bool = False
    vocabulary: int = 0
    folder: str = ""


@dataclass
class Source:
    """The cells of one modality that are present, and where faults are told.

    Attributes
    ----------
    cells
        Row -> cell.
    files
        Where paths are looked up.
    fitted
        Whether the options come from a fitted spec, so that nothing may be chosen from the data.
    """

    cells: Mapping[int, Any]
    files: Files
    fitted: bool
    column: str
    faults: list[Fault] = field(default_factory=list)

    def each(self, look: Callable[[Any], Any]) -> dict[int, Any]:
        """Row -> ``look(cell)`` for the cells where that succeeds; the others become faults."""
        seen = {}
        for row, cell in self.cells.items():
            try:
                seen[row] = look(cell)
            except CellFault as fault:
                self.fault(row, fault)
        return seen

    def fault(self, row: int, fault: CellFault) -> None:
        self.faults.append(Fault(row, fault.column or self.column, str(fault)))


class Files:
    """Files below one folder; nothing outside it is opened."""

    def __init__(self, folder: Path) -> None:
        self.root = folder.resolve()
        self._suggested = 0

    def find(self, cell: object, what: str) -> Path:
        """The file or folder that a cell names."""
        if not isinstance(cell, str):
            raise CellFault(must_be("A cell", f"the path of {what}", type(cell).__name__))
        try:
            path = (self.root / cell.strip()).resolve()
            exists = path.exists()
        except (OSError, ValueError, RuntimeError) as error:
            raise CellFault(must_be("A cell", f"the path of {what}", f"{cell[:80]!r} ({error})")) from error
        if not path.is_relative_to(self.root):
            raise CellFault(
                f"The path {cell!r} leads out of the table's folder. Copy the file into the folder and name it "
                "relative to the table."
            )
        if not exists:
            shown = cell if len(cell) <= 80 else cell[:77] + "..."
            raise CellFault(f"There is no file {shown!r}. {self._remedy(path)}")
        return path

    def _remedy(self, path: Path) -> str:
        self._suggested += 1
        if self._suggested <= SUGGESTIONS and path.parent.is_dir():
            close = difflib.get_close_matches(path.name, [entry.name for entry in path.parent.iterdir()], n=1)
            if close:
                return f"Did you mean {close[0]!r}?"
        return "Paths are relative to the table. Correct it, or empty the cell if the row lacks this modality."


def load_npy(path: Path, cell: str) -> Array:
    """A numeric array from a .npy file, memory-mapped; no pickle is loaded."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise CellFault(
            must_be(f"The file {cell!r}", "a readable .npy array of numbers", f"{error}".partition("\n")[0][:120])
        ) from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
        got = f"dtype {array.dtype}" if isinstance(array, np.ndarray) else "an archive of several arrays"
        raise CellFault(must_be(f"The file {cell!r}", "a .npy array of real numbers", got))
    return array


def finite(array: Array, subject: str) -> Array:
    """The array as float32; refuses nan and inf."""
    values = np.asarray(array, np.float32)
    bad = ~np.isfinite(values)
    if bad.any():
        where = tuple(int(k) for k in np.argwhere(bad)[0])
        raise CellFault(
            must_be(
                subject, "made of finite numbers", f"{values[where]} at {list(where)}", "Remove or fill these values."
            )
        )
    return values


def most_common(values: Sequence[Any]) -> Any:
    """The value that occurs most often; of several the smallest."""
    return min(set(values), key=lambda value: (-values.count(value), value)) if values else None


def quoted(text: str, most: int = 60) -> str:
    """A text of a cell in the form that `must_be` shows within quotes."""
    text = text if len(text) <= most else text[: most - 3] + "..."
    return repr(text) if " " in text else text


def natural(name: str) -> tuple[tuple[int, int | str], ...]:
    """A sort key under which ``frame10`` comes after ``frame9``."""
    return tuple((0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", name))
