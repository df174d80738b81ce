"""Which rows train and which test, which training rows keep their label, and what leaks from one to the other."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transference.core.errors import ConfigError, DataError, must_be
from transference.core.seeding import numpy_generator
from transference.data.dataset import Dataset

Rows = NDArray[np.int64]
Budget = int | float | str | Mapping[str, int]

CANDIDATES = 100  # random divisions of the groups that are compared


@dataclass(frozen=True)
class Split:
    """Positions of the rows in a Dataset: two sorted, disjoint int64 arrays."""

    train: Rows
    test: Rows


def split_rows(data: Dataset, seed: int, test: float = 0.25) -> Split:
    """Divide the rows into training and test rows.

    Where `data.split` is given, it decides. Otherwise whole groups are drawn, where there are groups; otherwise rows,
    class by class, so that each class is divided in the same proportion. A class of one row goes to training.

    Unlabelled rows train. The exception are unlabelled rows that belong to the test side (by the split column or by
    their group): they are in neither part, because they can not be scored and must not be learned from.

    Parameters
    ----------
    data
        All rows.
    seed
        Of the draw; it has no effect where `data.split` decides.
    test
        Share of the labelled rows that test, in (0, 1).

    Raises
    ------
    DataError
        When one of the parts would hold no labelled row.
    """
    if not 0 < test < 1:
        raise ConfigError(must_be("The 'test' share", "a number in (0, 1)", test))
    labelled = data.is_labelled
    if data.split is not None:
        held_out = _column(data.split, data.ids)
    elif data.group is not None:
        held_out = _draw_groups(data, data.group, labelled, seed, test)
    else:
        held_out = _draw_rows(data, labelled, seed, test)
    split = Split(np.flatnonzero(~held_out), np.flatnonzero(held_out & labelled))
    for name, rows in (("training", split.train), ("test", split.test)):
        if not labelled[rows].any():
            raise DataError(
                must_be(f"The number of labelled {name} rows of {data.name!r}", "at least 1", 0, "Label more rows.")
            )
    return split


def label_budget(y_train: NDArray[Any], budget: Budget, seed: int) -> NDArray[np.bool_]:
    """Which training rows keep their label; the others are used as unlabelled rows.

    The rows are nested: for one seed, a smaller budget keeps a subset of the rows that a larger one keeps.

    Parameters
    ----------
    y_train
        (n,) labels as in `Dataset.y`.
    budget
        An integer: rows of each class. A fraction in (0, 1): share of each class, at least one row. "all".
        A mapping class -> rows. For regression and for several labels an integer or a fraction of all labelled rows.
    seed
        Of the draw.

    Returns
    -------
    (n,) bool, False in rows that had no label.
    """
    by_class = y_train.dtype.kind != "f"
    missing: NDArray[Any] = np.array([value is None for value in y_train]) if by_class else np.isnan(y_train)
    labelled = ~(missing.any(1) if missing.ndim == 2 else missing)
    if isinstance(budget, str):
        if budget != "all":
            raise ConfigError(_expected(budget))
        return np.asarray(labelled, bool)
    if isinstance(budget, Mapping) and not by_class:
        raise ConfigError("A budget by class needs classes, and these labels have none. Give a number of rows instead.")
    names = y_train[labelled].astype(str) if by_class else np.full(int(labelled.sum()), "rows")
    classes, counts = np.unique(names, return_counts=True)
    wanted = _wanted(budget, dict(zip(classes.tolist(), counts.tolist(), strict=True)), by_class)
    rows = np.flatnonzero(labelled)
    kept = np.zeros(len(y_train), bool)
    for name in classes.tolist():
        members = rows[names == name]
        kept[numpy_generator(seed, "budget", name).permutation(members)[: wanted[name]]] = True
    return kept


def check_leaks(data: Dataset, split: Split) -> list[str]:
    """What the two parts share that they should not: ids, groups, rows with the same primary content.

    Returns
    -------
    One message for each kind of leak; an empty list when there is none.
    """
    messages = []
    columns = [("id", data.ids), ("group", data.group)]
    for name, column in columns:
        if column is None:
            continue
        shared = sorted(set(column[split.train].tolist()) & set(column[split.test].tolist()))
        if shared:
            messages.append(
                f"{len(shared)} {name}{'s are' if len(shared) > 1 else ' is'} in training and test: "
                f"{_list(shared)}. Put all rows of one {name} into the same split."
            )
    primary = data.views.primary
    twins = _twins(data, split)
    if twins:
        shown = _list([f"{data.ids[test]} = {data.ids[train]}" for train, test in twins])
        messages.append(
            f"{len(twins)} test row{'s hold' if len(twins) > 1 else ' holds'} the same {primary!r} as a training row "
            f"(test = train: {shown}). Remove the copies or put them into the same split."
        )
    return messages


def _column(column: NDArray[Any], ids: NDArray[Any]) -> NDArray[np.bool_]:
    wrong = [k for k, value in enumerate(column) if value not in ("train", "test")]
    if wrong:
        raise DataError(
            must_be(f"The split of row {ids[wrong[0]]!r}", "'train' or 'test'", column[wrong[0]])
            + (f" {len(wrong) - 1} more like it." if len(wrong) > 1 else "")
        )
    return np.array([value == "test" for value in column], bool)


def _codes(data: Dataset, labelled: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(n labelled,) class numbers; all 0 where there are no classes."""
    if data.task != "classification":
        return np.zeros(int(labelled.sum()), np.int64)
    return np.unique(data.y[labelled].astype(str), return_inverse=True)[1]


def _draw_rows(data: Dataset, labelled: NDArray[np.bool_], seed: int, test: float) -> NDArray[np.bool_]:
    generator = numpy_generator(seed, "split")
    rows, codes = np.flatnonzero(labelled), _codes(data, labelled)
    held_out = np.zeros(len(data), bool)
    for code in range(codes.max(initial=-1) + 1):
        members = generator.permutation(rows[codes == code])
        size = min(max(round(test * len(members)), 1), len(members) - 1)
        held_out[members[:size]] = True
    return held_out


def _draw_groups(
    data: Dataset, column: NDArray[Any], labelled: NDArray[np.bool_], seed: int, test: float
) -> NDArray[np.bool_]:
    """The best of many random divisions of the groups: nearest to the wanted share in every class."""
    names, group = np.unique(column.astype(str), return_inverse=True)
    codes = _codes(data, labelled)
    counts = np.zeros((len(names), codes.max(initial=0) + 1))  # (groups, classes) labelled rows
    np.add.at(counts, (group[labelled], codes), 1)
    usable = np.flatnonzero(counts.any(1))
    if len(usable) < 2:
        raise DataError(must_be(f"The number of groups of {data.name!r} with labelled rows", "2 or more", len(usable)))
    generator = numpy_generator(seed, "split")
    target = test * counts.sum(0)
    nearest, held_out = np.inf, usable[:1]
    for _ in range(CANDIDATES):
        order = generator.permutation(usable)[:-1]  # one group at least trains
        distance = np.abs(np.cumsum(counts[order], 0) - target).sum(1)
        size = int(distance.argmin())
        if distance[size] < nearest:
            nearest, held_out = distance[size], order[: size + 1]
    return np.isin(group, held_out)


def _expected(budget: object) -> str:
    return must_be(
        "A label budget", "a positive integer, a fraction in (0, 1), 'all' or a mapping from class to rows", budget
    )


def _wanted(budget: int | float | Mapping[str, int], counts: Mapping[str, int], by_class: bool) -> dict[str, int]:
    if isinstance(budget, Mapping):
        if set(budget) != set(counts):
            raise ConfigError(
                must_be("A label budget by class", f"given for exactly the classes {_list(list(counts))}", dict(budget))
            )
        wanted = dict(budget)
    elif isinstance(budget, float):
        if not 0 < budget < 1:
            raise ConfigError(_expected(budget))
        wanted = {name: max(1, round(budget * count)) for name, count in counts.items()}
    else:
        wanted = dict.fromkeys(counts, budget)
    for name, size in wanted.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ConfigError(_expected(budget))
        if size > counts[name]:
            subject = f"Class {name!r}" if by_class else "This data set"
            raise ConfigError(
                f"{subject} has {counts[name]} labelled training rows, and the label budget asks for {size}. "
                f"Use at most {counts[name]}, a fraction below 1, or 'all'."
            )
    return wanted


def _twins(data: Dataset, split: Split) -> list[tuple[int, int]]:
    """(train row, test row) for each test row whose primary content occurs in training."""
    primary = data.views.primary
    array, present = data.views[primary], data.views.present[primary]

    def digest(row: int) -> bytes:
        return hashlib.blake2b(np.ascontiguousarray(array[row]).data, digest_size=16).digest()

    known = {digest(row): row for row in split.train[present[split.train]].tolist()}
    tested = ((digest(row), row) for row in split.test[present[split.test]].tolist())
    return [(known[key], row) for key, row in tested if key in known]


def _list(values: list[Any], most: int = 5) -> str:
    shown = ", ".join(map(str, values[:most]))
    return shown + (f" and {len(values) - most} more" if len(values) > most else "")
