"""A Config and its data become cells (seed x budget x arm x control), each with a content hash. No torch at import.

What can not work is refused here, before anything is trained, with all misfits in one error.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transference.core.errors import ConfigError, DataError, Faults, collect, must_be
from transference.core.method import Card
from transference.core.metrics import METRICS
from transference.core.records import Cell
from transference.core.registry import find
from transference.data.dataset import Dataset
from transference.data.split import Split, check_leaks, label_budget, split_rows
from transference.experiment.config import Budget, Config, budget_name

DEFAULT_METRIC = {"classification": "accuracy", "regression": "mae"}


def plan(config: Config, data: Dataset) -> list[Cell]:
    """The cells of a study, seed by seed.

    Controls are planned for the arms whose method uses a secondary modality. A budget keeps its type, except that one
    by class becomes its name.

    Raises
    ------
    ConfigError
        With everything in which arms, budgets, metric and data do not fit one another.
    """
    cards = {name: find(arm.method).card for name, arm in config.arms.items()}
    with collect(f"study {config.name!r}", ConfigError) as faults:
        if data.task not in DEFAULT_METRIC:
            raise ConfigError(
                must_be(f"The labels of {data.name!r}", "classes or single values in a study", data.task, "Split them.")
            )
        _check_task(config, data, cards, faults)
        for name, card in cards.items():
            for message in _misfits(name, card, data):
                faults.add(message)
        _check_rows(config, data, faults)
    return [
        Cell(name, arm.method, arm.parameters, control, seed, budget)
        for seed in config.study.seeds
        for budget in (budget_name(each) if isinstance(each, dict) else each for each in config.study.budgets)
        for name, arm in config.arms.items()
        for control in (None, *(config.study.controls if uses_secondary(cards[name]) else ()))
    ]


def uses_secondary(card: Card) -> bool:
    """Whether a control of the secondary modalities can change what a method learns."""
    return card.modalities[0] >= 2 or "paired" in card.needs


def task_of(config: Config, data: Dataset) -> dict[str, Any]:
    """What the records of a study say about what is predicted, from what, and how it is judged."""
    return {
        "kind": data.task,
        "classes": classes(data),
        "metric": config.study.metric or DEFAULT_METRIC[data.task],
        "primary": data.views.primary,
        "secondary": list(data.views.secondary),
        "baseline": config.study.baseline,
    }


def fingerprint(data: Dataset) -> str:
    """A digest of rows, labels, split and groups."""
    digest = hashlib.blake2b(f"{data.task} {data.views.fingerprint()}".encode(), digest_size=16)
    for column in (data.y, data.split, data.group):
        digest.update(b"none" if column is None else _bytes(column))
    return digest.hexdigest()


def classes(data: Dataset) -> list[str]:
    """The class names in the order of the columns of scores; none for regression."""
    return sorted(set(data.y[data.is_labelled].tolist())) if data.task == "classification" else []


def budget_of(cell: Cell, config: Config) -> Budget:
    """The budget of a cell as the study wrote it."""
    return {budget_name(budget): budget for budget in config.study.budgets}[str(cell.budget)]


def rows_of(data: Dataset, seed: int, test: float) -> Split:
    """The rows that train and test: as `split_rows`, less the test rows that lack the primary modality."""
    split = split_rows(data, seed, test)
    return Split(split.train, split.test[data.views.present[data.views.primary][split.test]])


def leaks(data: Dataset, config: Config) -> list[str]:
    """What test rows and training rows share, in the split of any seed; none of it is refused."""
    seeds = config.study.seeds if data.split is None else config.study.seeds[:1]
    found = {seed: check_leaks(data, rows_of(data, seed, config.data.test)) for seed in seeds}
    leaking = [seed for seed in seeds if found[seed]]
    if data.split is not None or not leaking:
        return found[seeds[0]]
    told = [f"Seed {leaking[0]}: {message}" for message in found[leaking[0]]]
    if leaking[1:]:
        told.append(f"The splits of other seeds leak too: {', '.join(map(str, leaking[1:]))}.")
    return told


def _bytes(column: NDArray[Any]) -> bytes:
    if column.dtype.kind == "f":
        return np.ascontiguousarray(column).tobytes()
    return json.dumps([None if value is None else str(value) for value in column.tolist()]).encode()


def _check_task(config: Config, data: Dataset, cards: dict[str, Card], faults: Faults) -> None:
    metric = METRICS[config.study.metric or DEFAULT_METRIC[data.task]]
    fitting = [name for name, each in METRICS.items() if data.task in each.tasks]
    if metric.name not in fitting:
        faults.add(f"The metric {metric.name!r} is not for {data.task}. Choose one of {', '.join(map(repr, fitting))}.")
    for name, card in cards.items():
        if data.task not in card.tasks:
            faults.add(
                f"The arm {name!r} can not do {data.task}: {config.arms[name].method} is for "
                f"{', '.join(sorted(card.tasks))}. Leave the arm out."
            )


def _misfits(name: str, card: Card, data: Dataset) -> Iterator[str]:
    views, (fewest, most) = data.views, card.modalities
    n = len(views.names)
    if n < fewest:
        yield f"The arm {name!r} needs {fewest} modalities, and the data have {n}. Add one to 'secondary' in [data]."
    elif most is not None and n > most:
        yield f"The arm {name!r} takes at most {most} modalities, and the data have {n}. Name fewer in 'secondary'."
    elif "paired" in card.needs and not (np.sum([views.present[each] for each in views.names], 0) >= 2).any():
        yield f"The arm {name!r} learns from rows with two modalities, and no row has two. Leave the arm out."


def _check_rows(config: Config, data: Dataset, faults: Faults) -> None:
    """Splits and budgets, for every seed; each budget is reported once."""
    refused: set[str] = set()
    metric = config.study.metric
    for seed in config.study.seeds:
        try:
            split = rows_of(data, seed, config.data.test)
        except DataError as error:
            faults.add(str(error))
            return
        for message in _leaks(data, split):
            faults.add(message)
        if not len(split.test):
            faults.add(
                f"No test row of seed {seed} has the primary modality {data.views.primary!r}. Add some that have it."
            )
        y = data.y[split.train]
        known, tested = set(y[data.is_labelled[split.train]].tolist()), set(data.y[split.test].tolist())
        unknown = sorted(tested - known) if data.task == "classification" else []
        if unknown:
            faults.add(
                f"The test rows have labels that no training row has: {', '.join(map(repr, unknown))}. "
                "Add training rows with these labels, or leave these test rows out."
            )
        if metric == "auroc" and len(tested) == 1 and metric not in refused:
            refused.add(metric)
            faults.add(
                f"The metric 'auroc' needs two classes or more among the test rows, and those of seed {seed} hold "
                f"{tested.pop()!r} alone. Choose another metric, or test on more rows."
            )
        for budget in config.study.budgets:
            if budget_name(budget) in refused:
                continue
            try:
                label_budget(y, budget, seed)
            except (ConfigError, DataError) as error:
                refused.add(budget_name(budget))
                faults.add(f"Budget {budget_name(budget)!r}: {error}")


def _leaks(data: Dataset, split: Split) -> Iterator[str]:
    for name, column in (("id", data.ids), ("group", data.group)):
        shared = [] if column is None else sorted(set(column[split.train].tolist()) & set(column[split.test].tolist()))
        if shared:
            shown = ", ".join(map(repr, shared[:5])) + (" ..." if len(shared) > 5 else "")
            yield f"{len(shared)} values of the {name} are in training and test rows: {shown}. Put each into one split."
