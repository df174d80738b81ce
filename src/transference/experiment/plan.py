"""A Config and its data become cells (seed x budget x arm x control), each with a content hash. No torch at import.

What can not work is refused here, before anything is trained, with all misfits in one error.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transference.assessment import few_shot, generation, retrieval
from transference.assessment.hierarchy import hops
from transference.core.errors import ConfigError, DataError, Faults, collect, did_you_mean, must_be
from transference.core.method import Card
from transference.core.metrics import METRICS
from transference.core.records import Cell
from transference.core.registry import find
from transference.core.spec import TaskKind
from transference.data.dataset import Dataset
from transference.data.split import Split, check_leaks
from transference.experiment.config import Budget, Config, budget_name
from transference.experiment.protocol import (
    BEYOND_LABELS,
    NEW_CLASSES,
    TASK_KEYS,
    can,
    classes,
    descriptions,
    kept_labels,
    kind_of,
    rows_of,
    target_of,
)

DEFAULT_METRIC: dict[TaskKind, str] = {
    "classification": "accuracy",
    "regression": "mae",
    "retrieval": "recall_at_10",
    "zero_shot": "accuracy",
    "few_shot": "accuracy",
    "generation": "unexplained",
}


def plan(config: Config, data: Dataset) -> list[Cell]:
    """The cells of a study, seed by seed.

    Controls of the data are planned for the arms whose method uses a secondary modality; an arm that is a control of
    another one is planned as such. A budget keeps its type, except that one
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
            for message in (*_misfits(name, card, data), *_own_rows(name, config, data)):
                faults.add(message)
        _check_rows(config, data, faults)
    return [
        Cell(arm.control_of or name, arm.method, arm.parameters, control, seed, budget)
        for seed in config.study.seeds
        for budget in (budget_name(each) if isinstance(each, dict) else each for each in config.study.budgets)
        for name, arm in config.arms.items()
        for control in _controls(config, name, cards[name])
    ]


def _controls(config: Config, name: str, card: Card) -> tuple[str | None, ...]:
    """None for the arm itself, and its controls of the data; the name alone of an arm that is itself a control."""
    if config.arms[name].control_of is not None:
        return (name,)
    return (None, *(config.study.controls if uses_secondary(card) else ()))


def uses_secondary(card: Card) -> bool:
    """Whether a control of the secondary modalities can change what a method learns."""
    return card.modalities[0] >= 2 or "paired" in card.needs


def task_of(config: Config, data: Dataset) -> dict[str, Any]:
    """What the records of a study say about what is predicted, from what, and how it is judged."""
    return {
        "kind": kind_of(config, data),
        "classes": classes(data),
        "metric": config.study.metric or DEFAULT_METRIC[kind_of(config, data)],
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


def budget_of(cell: Cell, config: Config) -> Budget:
    """The budget of a cell as the study wrote it."""
    return {budget_name(budget): budget for budget in config.study.budgets}[str(cell.budget)]


def leaks(data: Dataset, config: Config) -> list[str]:
    """What test rows and training rows share, in the split of any seed; none of it is refused."""
    seeds = config.study.seeds if data.split is None else config.study.seeds[:1]
    found = {seed: check_leaks(data, rows_of(config, data, seed)) for seed in seeds}
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
    kind = kind_of(config, data)
    metric = METRICS[config.study.metric or DEFAULT_METRIC[kind]]
    fitting = [name for name, each in METRICS.items() if kind in each.tasks]
    if metric.name not in fitting:
        faults.add(f"The metric {metric.name!r} is not for {kind}. Choose one of {', '.join(map(repr, fitting))}.")
    unlabelled = 0 in config.study.budgets
    if unlabelled and kind not in BEYOND_LABELS:
        faults.add(f"A budget of 0 labels can not teach {kind}. Leave it out of 'budgets' in [study].")
    for name, card in cards.items():
        if not can(card, kind, data.task, not unlabelled):
            blind = " without labels" if kind in card.tasks else ""
            faults.add(
                f"The arm {name!r} can not do {kind}{blind}: {config.arms[name].method} is for "
                f"{', '.join(sorted(card.tasks))}. Leave the arm out."
            )
    for message in _task_faults(config, data, kind):
        faults.add(message)


def _task_faults(config: Config, data: Dataset, kind: TaskKind) -> Iterator[str]:
    """What [task] and the data do not agree on."""
    task, names = config.task, classes(data)
    if kind in ("classification", "regression") and kind != data.task:
        yield must_be("'kind' in [task]", f"{data.task}, which the labels pose, or beyond labels", kind)
    if kind in ("retrieval", "generation", "zero_shot") and not data.views.secondary:
        yield f"{kind} needs a second modality. Add one to 'secondary' in [data]."
    for key in sorted(task.model_fields_set - {"kind"} - TASK_KEYS.get(kind, frozenset())):
        able = sorted(other for other, keys in TASK_KEYS.items() if key in keys)
        yield f"{key!r} in [task] is for {' and '.join(able)}, not for {kind}. Leave it out."
    if "to" in TASK_KEYS.get(kind, ()) and task.to is not None and task.to not in data.views.secondary:
        remedy = did_you_mean(task.to, data.views.secondary)
        yield f"'to' in [task]: there is no secondary modality {task.to!r}. {remedy}"
    if kind not in NEW_CLASSES:
        return
    for name in task.unseen:
        if name not in names:
            yield f"'unseen' in [task]: there is no class {name!r}. {did_you_mean(name, names)}"
    for name in sorted(task.tree):
        if name not in names and name not in task.tree.values():
            yield f"'tree' in [task]: {name!r} is no class, and above none. {did_you_mean(name, names)}"
    try:
        hops(names, task.tree)
    except ConfigError as error:
        yield str(error)
    least = task.way if kind == "few_shot" else 2
    if len(set(task.unseen)) < least:
        yield must_be("The number of classes of 'unseen' in [task]", f"{least} or more", len(set(task.unseen)))
    if len(set(names) - set(task.unseen)) < 2:
        yield "'unseen' in [task] leaves fewer than two classes to train on. Name fewer."


def _misfits(name: str, card: Card, data: Dataset) -> Iterator[str]:
    views, (fewest, most) = data.views, card.modalities
    n = len(views.names)
    if n < fewest:
        yield f"The arm {name!r} needs {fewest} modalities, and the data have {n}. Add one to 'secondary' in [data]."
    elif most is not None and n > most:
        yield f"The arm {name!r} takes at most {most} modalities, and the data have {n}. Name fewer in 'secondary'."
    elif fewest > 1 and "paired" in card.needs and np.sum([views.present[each] for each in views.names], 0).max() < 2:
        yield f"The arm {name!r} learns from rows with two modalities, and no row has two. Leave the arm out."


def _own_rows(name: str, config: Config, data: Dataset) -> Iterator[str]:
    """Where an arm also learns from another set, that one must not hold the rows that this study tests on."""
    others = config.arms[name].parameters.get("others")
    if data.split is not None or not isinstance(others, Mapping):
        return
    for key, other in others.items():
        if isinstance(other, Mapping) and other.get("set") == config.data.set:
            yield (
                f"The arm {name!r} also learns from {key!r}, the set of this study, which is split anew for each seed: "
                "test rows would train. Leave it out of 'others'."
            )


def _check_rows(config: Config, data: Dataset, faults: Faults) -> None:
    """Splits, budgets and what the task asks, for every seed whose split is another; each fault is told once."""
    refused: set[str] = set()
    metric, kind = config.study.metric, kind_of(config, data)
    agreed = not any(_task_faults(config, data, kind))
    for seed in config.study.seeds if data.split is None else config.study.seeds[:1]:
        try:
            split = rows_of(config, data, seed)
        except DataError as error:
            faults.add(str(error))
            return
        for message in _leaks(data, split):
            faults.add(message)
        if agreed and kind in BEYOND_LABELS and (kind == "few_shot" or len(split.test)):
            for message in _asked(config, data, split, seed):
                subject = message.partition(" Got ")[0]  # what came instead may differ from seed to seed
                if subject not in refused:
                    refused.add(subject)
                    faults.add(message)
        if not len(split.test) and kind != "few_shot" and "primary" not in refused:
            refused.add("primary")
            faults.add(
                f"No test row of seed {seed} has the primary modality {data.views.primary!r}. Add some that have it."
            )
        y = data.y[split.train]
        known, tested = set(y[data.is_labelled[split.train]].tolist()), set(data.y[split.test].tolist())
        unknown = sorted(tested - known - set(config.task.unseen)) if data.task == "classification" else []
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
                kept_labels(y, budget, seed)
            except (ConfigError, DataError) as error:
                refused.add(budget_name(budget))
                faults.add(f"Budget {budget_name(budget)!r}: {error}")


def _asked(config: Config, data: Dataset, split: Split, seed: int) -> Iterator[str]:
    """What the rows of one seed lack for a task beyond labels."""
    kind, task = kind_of(config, data), config.task
    X, y = data.views[split.test], data.y[split.test]
    if kind == "zero_shot" and not np.isin(y, task.unseen).any():
        yield must_be("The number of test rows of the classes of 'unseen' in [task]", "1 or more", 0, "Add some.")
    try:
        if kind == "few_shot":
            few_shot.draw(X, y, task.way, task.shot, task.queries, 1, seed)
        elif kind == "zero_shot":
            descriptions(config, data, seed)
        elif kind == "retrieval":
            retrieval.paired(X, y, target_of(config, data))
        else:
            to = target_of(config, data)
            rows = X.take(X.present[to])
            generation.unexplained(rows[to], rows, to)
    except DataError as error:
        yield from error.faults or (str(error),)


def _leaks(data: Dataset, split: Split) -> Iterator[str]:
    for name, column in (("id", data.ids), ("group", data.group)):
        shared = [] if column is None else sorted(set(column[split.train].tolist()) & set(column[split.test].tolist()))
        if shared:
            shown = ", ".join(map(repr, shared[:5])) + (" ..." if len(shared) > 5 else "")
            yield f"{len(shared)} values of the {name} are in training and test rows: {shown}. Put each into one split."
