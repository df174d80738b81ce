"""A table of rows becomes a Dataset, with every fault of the table and of the files it names in one error.

One row is one example. A modality is a column (a path, a text, a list of numbers) or a group of columns. An empty cell
means that the row lacks the modality, an empty label (or nan) that the row is unlabelled. Paths are relative to the
table and do not leave its folder.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transference.core.errors import ConfigError, Faults, collect, did_you_mean, must_be
from transference.core.spec import ModalitySpec, TaskKind
from transference.core.views import Views
from transference.data.dataset import Dataset
from transference.data.decoders.parts import Fault
from transference.data.guess import Roles, guess_modalities, guess_roles, guess_table, left_out_of
from transference.data.labels import read_groups, read_ids, read_labels, read_splits
from transference.data.modality import ModalityConfig
from transference.data.rawtable import RawTable, read_table
from transference.data.readers import MEMORY, Column, read_column

__all__ = ["ModalityConfig", "Roles", "guess_modalities", "guess_roles", "load_manifest", "read_rows"]

TASKS: tuple[TaskKind, ...] = ("classification", "regression", "multilabel")


def load_manifest(
    path: str | Path,
    *,
    primary: str,
    label: str,
    secondary: Sequence[str] | None = None,
    modalities: Mapping[str, ModalityConfig] | None = None,
    task: TaskKind = "classification",
    split: str | None = None,
    group: str | None = None,
    id: str | None = None,
    cache: Path | None = None,
    memory: int = MEMORY,
) -> Dataset:
    """Read a CSV or Parquet table and all that it names.

    Parameters
    ----------
    path
        The table.
    primary, secondary
        Names of modalities. `secondary` left out: all others that are given or, where none is given, guessed.
    label
        The column to predict; for several labels a pattern of columns of zeros and ones (``tag_*``).
    modalities
        How each modality is read; those left out are guessed from the cells. A pattern of columns never stands for
        the columns of label, split, group and id. A warning says which other columns a guess leaves out.
    task
        "classification", "regression" or "multilabel".
    split
        A column of "train" and "test".
    group
        A column of what must not be divided between splits: a person, a recording.
    id
        A column of names, unique; the row's number in the file when left out.
    cache
        Folder for large decoded arrays and for features of pretrained encoders; the user's cache folder when left out.
    memory
        Bytes above which a decoded modality is memory-mapped from the cache.

    Raises
    ------
    DataError
        With every fault found: file, row (in CSV the header is row 1), column, remedy.
    """
    if task not in TASKS:
        raise ConfigError(must_be("The 'task' of a table", f"one of {', '.join(map(repr, TASKS))}", task))
    table = read_table(path)
    with collect(str(path)) as faults:
        roles = {"split": split, "group": group, "id": id}
        for purpose, name in roles.items():
            if name is not None and name not in table.columns:
                faults.add(table.missing(name, f"the {purpose}"))
        labels = table.match(label)
        if not labels:
            faults.add(table.missing(label, "the label"))
        elif len(labels) > 1 and task != "multilabel":
            faults.add(f"{table.path.name}: The label {label!r} stands for {len(labels)} columns. Name one of them.")
            labels = []
        ids = read_ids(table, id, split, faults)
        splits = read_splits(table, split, faults)
        groups = read_groups(table, group, splits, faults)
        y = read_labels(table, labels, task, splits, faults)
        taken = dict.fromkeys(labels, "label") | {name: purpose for purpose, name in roles.items() if name is not None}
        configs, about = _configs(table, primary, secondary, modalities or {}, taken, faults)
        columns = {
            name: column
            for name, config in configs.items()
            if (column := _read(table, name, config, faults, cache, memory, taken)) is not None
        }
    source = {"table": table.path.name, **about}
    return Dataset(table.path.stem, _views(columns, primary), y, task, ids, splits, groups, source)


def read_rows(
    path: str | Path,
    specs: Mapping[str, ModalitySpec],
    *,
    primary: str | None = None,
    complete: bool = True,
    cache: Path | None = None,
    memory: int = MEMORY,
) -> Views:
    """Read new rows the way that fitted modalities were read; other columns of the table are not looked at.

    Parameters
    ----------
    path
        A table with the columns of these modalities.
    specs
        Name -> fitted spec, such as those of an exported model.
    primary
        The first of `specs` when left out.
    complete
        Whether an empty cell is a fault; otherwise the row lacks the modality.
    """
    table = read_table(path)
    primary = primary or next(iter(specs))
    with collect(str(path)) as faults:
        columns = {}
        for name, spec in specs.items():
            column = _read(table, name, spec, faults, cache, memory)
            if column is None:
                continue
            columns[name] = column
            if complete:
                known = {fault.row for fault in column.faults}
                absent = [row for row in np.flatnonzero(~column.present).tolist() if row not in known]
                place = _columns_of(spec)[0]
                told = "The cell is empty, and an answer needs it. Fill it, or leave the row out."
                table.tell([Fault(row, place, told) for row in absent], faults)
    return _views(columns, primary, np.array(table.numbers) - table.first)


def _views(columns: Mapping[str, Column], primary: str, rows: NDArray[np.int64] | None = None) -> Views:
    return Views(
        {name: column.array for name, column in columns.items()},
        {name: column.spec for name, column in columns.items()},
        primary,
        present={name: column.present for name, column in columns.items()},
        lengths={name: column.lengths for name, column in columns.items() if column.lengths is not None},
        rows=rows,
    )


def _configs(
    table: RawTable,
    primary: str,
    secondary: Sequence[str] | None,
    given: Mapping[str, ModalityConfig],
    taken: Mapping[str, str],
    faults: Faults,
) -> tuple[dict[str, ModalityConfig], dict[str, str]]:
    """The modalities of the study, guessed where they are not given, and what a guess left out."""
    others = list(given) if secondary is None and given else list(secondary or ())
    wanted = [primary, *(name for name in others if name != primary)]
    unknown = [name for name in wanted if name not in given]
    guessed: dict[str, ModalityConfig] = {}
    about: dict[str, str] = {}
    if unknown or not given:
        used = [*taken, *(name for config in given.values() for name in (config.columns or (config.column,)))]
        guessed = guess_table(table, exclude=used, apart=unknown)
    configs = {**guessed, **given}
    if secondary is None and not given:
        wanted = [primary, *(name for name in guessed if name != primary)]
        left_out = left_out_of(table, exclude=taken, apart=unknown)
        if left_out:
            about["left out"] = ", ".join(f"{name!r} (looks like the {role})" for name, role in left_out.items())
            told = f"{table.path.name}: Columns left out of the guessed modalities: {about['left out']}."
            remedy = "Say what they are (split, group, id), or name them under 'modalities'."
            warnings.warn(f"{told} {remedy}", stacklevel=3)
    for name in wanted:
        if name not in configs:
            faults.add(
                f"{table.path.name}: There is no modality {name!r}, and no column of this name. "
                f"{did_you_mean(name, [*configs, *table.columns])}"
            )
    return {name: configs[name] for name in wanted if name in configs}, about


def _columns_of(how: ModalityConfig | ModalitySpec, name: str = "") -> list[str]:
    if isinstance(how, ModalityConfig):
        return list(how.columns) or [how.column or name]
    columns: Any = how.reading.get("columns") or [how.reading.get("column", how.name)]
    return list(columns)


def _find(
    table: RawTable, name: str, how: ModalityConfig | ModalitySpec, faults: Faults, taken: Mapping[str, str]
) -> list[str] | None:
    """The columns of a modality; None where a part of them is not there, or is `taken` (column -> what it is)."""
    columns: list[str] = []
    whole = True
    for pattern in _columns_of(how, name):
        found = table.match(pattern) if isinstance(how, ModalityConfig) else [pattern] * (pattern in table.columns)
        free = [column for column in found if column not in taken]
        if not found:
            faults.add(table.missing(pattern, f"the modality {name!r}"))
        elif not free:
            what = taken[found[0]]
            faults.add(
                f"{table.path.name}: The column {found[0]!r} is the {what}, and the modality {name!r} names it too. "
                f"A model would be shown its own answer, or what tells rows apart. Leave it out of {name!r}."
            )
        whole = whole and bool(free)
        columns += [column for column in free if column not in columns]
    return columns if whole else None


def _read(
    table: RawTable,
    name: str,
    how: ModalityConfig | ModalitySpec,
    faults: Faults,
    cache: Path | None,
    memory: int,
    taken: Mapping[str, str] | None = None,
) -> Column | None:
    columns = _find(table, name, how, faults, taken or {})
    if columns is None:
        return None
    grouped = how.columns or how.kind == "table" if isinstance(how, ModalityConfig) else "columns" in how.reading
    cells: list[Any] = table.columns[columns[0]]
    if grouped:
        cells = list(zip(*(table.columns[column] for column in columns), strict=True))
    column = read_column(
        cells,
        how,
        table.path.parent,
        name=name,
        columns=columns if grouped else (),
        cache=cache,
        memory=memory,
        strict=False,
    )
    table.tell(column.faults, faults)
    if not column.faults and not column.present.any() and isinstance(how, ModalityConfig):
        faults.add(
            f"{table.where(None, columns[0])}: The modality {name!r} is absent in every row. "
            "Fill its cells, or leave it out of the study."
        )
    return column
