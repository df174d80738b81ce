"""What a table says of its rows besides modalities: ids, splits, groups and labels, with their faults."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transference.core.errors import Faults, did_you_mean, must_be
from transference.core.spec import TaskKind
from transference.data.decoders.parts import Fault
from transference.data.rawtable import SHOWN, RawTable

NOTHING = ("nan", "NaN")  # how a table writes a label that is missing, besides an empty cell
LARGEST = float(np.finfo(np.float32).max)


def _filled(cells: Sequence[Any]) -> list[str | None]:
    return [None if cell is None else str(cell) for cell in cells]


def read_ids(table: RawTable, id: str | None, split: str | None, faults: Faults) -> NDArray[Any]:
    """(n,) unique texts: the column, or the numbers of the rows in the file."""
    if id is None or id not in table.columns:
        return np.array([str(number) for number in table.numbers])
    cells = _filled(table.columns[id])
    found = [
        Fault(row, id, "An id must be filled. Got an empty cell instead.") for row, cell in enumerate(cells) if not cell
    ]
    sides = table.columns.get(split or "", [None] * len(table))
    first: dict[str, int] = {}
    for row, cell in enumerate(cells):
        if cell and cell in first:
            other = first[cell]
            where = f" ({sides[other]}, {sides[row]})" if sides[other] != sides[row] else ""
            met = f"{cell!r}, which row {table.numbers[other]} has too{where}"
            found.append(Fault(row, id, must_be("An id", "unique", met, "Rename it or remove the copy.")))
        elif cell:
            first[cell] = row
    table.tell(found, faults)
    return np.array([cell or "" for cell in cells])


def read_splits(table: RawTable, split: str | None, faults: Faults) -> NDArray[Any] | None:
    """(n,) "train" or "test"; None without a column."""
    if split is None or split not in table.columns:
        return None
    cells = _filled(table.columns[split])
    found = []
    for row, cell in enumerate(cells):
        if cell not in ("train", "test"):
            remedy = "Write 'train' for validation rows: they are drawn from the training rows." if cell else "Fill it."
            found.append(Fault(row, split, must_be("A split", "'train' or 'test'", cell or "an empty cell", remedy)))
    table.tell(found, faults)
    for side in ("train", "test"):
        if not found and side not in cells:
            faults.add(f"{table.where(None, split)}: There is no {side!r} row. Mark some, or leave the split out.")
    return np.array([cell or "" for cell in cells])


def read_groups(table: RawTable, group: str | None, splits: NDArray[Any] | None, faults: Faults) -> NDArray[Any] | None:
    """(n,) names of groups; None without a column."""
    if group is None or group not in table.columns:
        return None
    cells = _filled(table.columns[group])
    found = [
        Fault(row, group, "A group must be named. Got an empty cell instead. Name it; one of its own will do.")
        for row, cell in enumerate(cells)
        if not cell
    ]
    first: dict[str, int] = {}
    told = set()
    for row, cell in enumerate(cells):
        if splits is None or not cell:
            continue
        other = first.setdefault(cell, row)
        if splits[other] != splits[row] and cell not in told:
            told.add(cell)
            met = f"{cell!r} in {splits[other]} (row {table.numbers[other]}) and in {splits[row]}"
            found.append(Fault(row, group, must_be("A group", "in one split", met, "Move all its rows to one side.")))
    table.tell(found, faults)
    return np.array([cell or "" for cell in cells])


def read_labels(
    table: RawTable, columns: Sequence[str], task: TaskKind, splits: NDArray[Any] | None, faults: Faults
) -> NDArray[Any]:
    """y as in `Dataset`."""
    if not columns:
        return np.full(len(table), None, object)
    if task == "classification":
        cells = [None if cell in NOTHING else cell for cell in _filled(table.columns[columns[0]])]
        _check_classes(table, columns[0], cells, splits, faults)
        y = np.empty(len(table), object)
        y[:] = cells
        return y
    if task == "multilabel" and len(columns) == 1:
        met = f"the one column {columns[0]!r}"
        remedy = "Set task = 'classification' for it."
        faults.add(f"{table.path.name}: " + must_be("Several labels", "of two columns or more", met, remedy))
    values = np.full((len(table), len(columns)), np.nan, np.float32)
    found = []
    for k, name in enumerate(columns):
        for row, cell in enumerate(table.columns[name]):
            if cell is None or cell in NOTHING:
                continue
            value = _number(cell)
            if not abs(value) <= LARGEST:
                remedy = "Correct it, empty it or set task = 'classification'."
                expected = f"a number of at most {LARGEST:.3g}" if np.isfinite(value) else "a finite number"
                found.append(Fault(row, name, must_be("A label", expected, str(cell)[:60], remedy)))
            elif task == "multilabel" and value not in (0, 1):
                found.append(Fault(row, name, must_be("A label of several", "0 or 1", str(cell)[:60])))
            else:
                values[row, k] = value
    table.tell(found, faults)
    if not found and np.isnan(values).any(1).all():
        faults.add(f"{table.where(None, columns[0])}: No row has a label. Label some.")
    elif not found and task == "regression" and np.nanmin(values) == np.nanmax(values):
        met = f"{np.nanmin(values):g} in every row"
        faults.add(f"{table.where(None, columns[0])}: " + must_be("The labels", "of two values or more", met))
    return values[:, 0] if task == "regression" else values


def _number(cell: Any) -> float:
    try:
        return float(cell)
    except (TypeError, ValueError):
        return float("nan")


def _check_classes(
    table: RawTable, column: str, cells: Sequence[str | None], splits: NDArray[Any] | None, faults: Faults
) -> None:
    training = [cell for row, cell in enumerate(cells) if cell and (splits is None or splits[row] != "test")]
    classes = Counter(training)
    if len(classes) < 2:
        where = "" if splits is None else " of the training rows"
        met = f"{len(classes)} ({next(iter(classes))!r} in {len(training)} rows)" if classes else "no label at all"
        faults.add(
            f"{table.where(None, column)}: "
            + must_be(f"The labels{where}", "of two classes or more", met, "Label rows of another class.")
        )
        return
    if splits is None:
        return
    unknown = [row for row, cell in enumerate(cells) if cell and splits[row] == "test" and cell not in classes]
    close = {row: did_you_mean(str(cells[row]), classes) for row in unknown[:SHOWN]}  # slow; the others are not told
    told = "The label {!r} of a test row occurs in no training row. {}"
    table.tell([Fault(row, column, told.format(cells[row], close.get(row, ""))) for row in unknown], faults)
