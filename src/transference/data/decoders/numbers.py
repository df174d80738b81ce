"""Vectors and tables: numbers and categories in one column or in a group of columns."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import polars as pl

from transference.core.errors import did_you_mean, must_be
from transference.data.decoders.parts import Array, CellFault, Prepared, Source, finite, load_npy, most_common, quoted

CATEGORIES = 64  # of one column; rarer ones are "other"


def prepare_vector(source: Source, options: Mapping[str, Any]) -> Prepared:
    """Rows of (d,): a group of number columns, or one column of lists of numbers or .npy paths."""
    columns = options.get("columns")
    if columns:
        matrix, present = _group(source, list(columns))
        loads = {row: partial(matrix.__getitem__, k) for k, row in enumerate(present)}
        return Prepared("vector", (len(columns),), loads, {"width": len(columns)})
    rows = source.each(partial(_look, source))
    width = int(options["width"]) if source.fitted else most_common([len(row) for row in rows.values()]) or 1
    for row, value in rows.items():
        if len(value) != width:
            others = "the model was trained with" if source.fitted else "most rows have"
            source.fault(row, CellFault(must_be("A vector", f"{width} numbers long, as {others}", len(value))))
    loads = {row: partial(np.copy, value) for row, value in rows.items() if len(value) == width}
    return Prepared("vector", (width,), loads, {"width": width})


def prepare_table(source: Source, options: Mapping[str, Any]) -> Prepared:
    """Rows of (d,): numbers as they are, categories as one-hot with a last place for "other".

    Inside a row that is present, a missing number becomes the column's median and a missing category "other".
    Medians and categories are those of all rows that are read when the modality is fitted, whatever their split:
    they are properties of the inputs, not of the labels.
    """
    columns = list(options["columns"])
    cells = {name: [row[k] for row in source.cells.values()] for k, name in enumerate(columns)}
    rows = list(source.cells)
    faulty: set[int] = set()
    medians, categories = _fitted(source, options, cells)
    places = np.zeros((len(rows), len(columns)), np.int32)  # where a row of d numbers is not zero, and what is there
    filled = np.ones((len(rows), len(columns)), np.float32)
    width = 0
    for column, (name, values) in enumerate(cells.items()):
        if name in medians:
            numbers, faults = parse_column(values)
            for k, fault in faults.items():
                faulty.add(rows[k])
                source.fault(rows[k], CellFault(fault, name))
            numbers[list(faults)] = np.nan
            filled[:, column] = np.where(np.isnan(numbers), medians[name], numbers)
            places[:, column] = width
            width += 1
        else:
            kept = {category: k for k, category in enumerate(categories[name])}
            places[:, column] = [width + kept.get(_category(value), len(kept)) for value in values]
            width += len(kept) + 1

    def load(k: int) -> Array:
        row = np.zeros(width, np.float32)
        row[places[k]] = filled[k]
        return row

    loads = {row: partial(load, k) for k, row in enumerate(rows) if row not in faulty}
    return Prepared("table", (width,), loads, {"medians": medians, "categories": categories})


def _fitted(
    source: Source, options: Mapping[str, Any], cells: Mapping[str, list[Any]]
) -> tuple[dict[str, float], dict[str, list[str]]]:
    """Median by number column, categories by the others."""
    if source.fitted:
        return dict(options["medians"]), {name: list(values) for name, values in options["categories"].items()}
    asked = set(options.get("categories", ()))
    medians: dict[str, float] = {}
    categories: dict[str, list[str]] = {}
    for name in sorted(asked - set(cells)):
        source.fault(-1, CellFault(f"There is no column {name!r} in the table. {did_you_mean(name, cells)}", name))
    for name, values in cells.items():
        filled = [value for value in map(_category, values) if value]
        if not filled and source.cells:
            source.fault(-1, CellFault("The column is empty in every row. Leave it out of the group.", name))
        if name not in asked and is_numeric(filled):
            numbers, _ = parse_column(values)
            medians[name] = float(np.median(numbers[~np.isnan(numbers)])) if (~np.isnan(numbers)).any() else 0.0
        else:
            counts = Counter(filled)
            frequent = sorted(counts, key=lambda value: (-counts[value], value))[:CATEGORIES]
            categories[name] = sorted(frequent)
    return medians, categories


def is_numeric(filled: Sequence[str]) -> bool:
    """Whether more than half of these cells are numbers, or none is filled."""
    numbers = pl.Series(list(filled), dtype=pl.String).str.strip_chars().cast(pl.Float64, strict=False)
    return 2 * numbers.is_not_null().sum() > len(filled) or not filled


def parse_column(values: Sequence[Any]) -> tuple[Array, dict[int, str]]:
    """(n,) numbers with nan where a cell is empty, and the faults by position."""
    texts = [_category(value) for value in values]
    numbers = pl.Series(texts, dtype=pl.String).cast(pl.Float64, strict=False).to_numpy().astype(float)
    faults = {}
    for k in np.flatnonzero(~(np.abs(numbers) <= np.finfo(np.float32).max)).tolist():
        if not texts[k]:
            continue
        is_text = np.isnan(numbers[k]) and texts[k].lstrip("+-").lower() != "nan"
        faults[k] = must_be(
            "A cell of a number column",
            "a number" if is_text else "a finite number",
            quoted(texts[k]),
            "Correct it, empty it or name the column under 'categories'." if is_text else "Correct it, or empty it.",
        )
    return numbers, faults


def parse_list(cell: str) -> Array:
    """(d,) numbers from ``[1, 2.5]`` or ``1 2.5``."""
    parts = [part for part in re.split(r"[,;\s]+", cell.strip().strip("[]()")) if part]
    try:
        return np.array([float(part) for part in parts])
    except ValueError as error:
        raise CellFault(must_be("A cell", "a list of numbers such as '[1, 2.5]' or '1 2.5'", quoted(cell))) from error


def _look(source: Source, cell: Any) -> Array:
    if not isinstance(cell, str):
        try:
            values = np.array(cell, float)
        except (ValueError, TypeError) as error:
            raise CellFault(must_be("A cell", "a list of numbers", type(cell).__name__)) from error
    elif cell.strip().lower().endswith(".npy"):
        values = np.array(load_npy(source.files.find(cell, "a .npy array"), cell))  # a copy lets go of the file
    else:
        values = parse_list(cell)
    values = np.atleast_1d(values)
    if values.ndim != 1 or not len(values):
        raise CellFault(
            must_be("A vector", "of one axis", f"an array of shape {values.shape}", "Use the kind 'series' or 'image'.")
        )
    return finite(values, "A vector")


def _group(source: Source, columns: list[str]) -> tuple[Array, list[int]]:
    """(rows, columns) and the rows of those without a fault."""
    rows = list(source.cells)
    matrix = np.zeros((len(rows), len(columns)))
    good = np.ones(len(rows), bool)
    for k, name in enumerate(columns):
        values = [source.cells[row][k] for row in rows]
        matrix[:, k], faults = parse_column(values)
        for position in np.flatnonzero(np.isnan(matrix[:, k])).tolist():
            faults.setdefault(
                position,
                "A cell of a vector must be a number where others of the row are filled. Got an empty cell instead. "
                "Fill it, empty all cells of the group in this row, or use the kind 'table', which fills in medians.",
            )
        for position, fault in faults.items():
            good[position] = False
            source.fault(rows[position], CellFault(fault.replace(", or name the column under 'categories'", ""), name))
    return matrix[good].astype(np.float32), [row for row, kept in zip(rows, good.tolist(), strict=True) if kept]


def _category(value: Any) -> str:
    return "" if value is None else str(value).strip()
