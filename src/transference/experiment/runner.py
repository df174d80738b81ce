"""Runs the cells of a study that are not on disk yet, and puts each on disk as soon as it is finished.

A killed run is repeated with the same call: finished cells stay as they are. Cells that failed, diverged or ran out of
memory stay too, unless `retry` says otherwise: the same cell on the same machine mostly fails again.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from transference.core.errors import ConfigError
from transference.core.method import Method
from transference.core.records import Cell, RunRecord, Status, cell_hash
from transference.data.dataset import Dataset
from transference.experiment.cell import Outcome, blank, fit_cell, from_model, missing_device, run_cell, versions
from transference.experiment.clusters import Backend, WorkerKilled
from transference.experiment.clusters import workers as worker_pool
from transference.experiment.config import Config, load
from transference.experiment.plan import fingerprint, leaks, plan, task_of
from transference.experiment.protocol import classes, rows_of
from transference.experiment.setting import setting_of
from transference.experiment.store import Store

Progress = Callable[[int, int, RunRecord | None], None]


def run(
    config: Config | str | Path,
    *,
    folder: str | Path = "runs",
    workers: int | None = None,
    backend: Backend = "loky",
    address: str | None = None,
    progress: Progress | None = None,
    notice: Callable[[str], None] | None = None,
    retry: bool = False,
    data: Dataset | None = None,
) -> Path:
    """Run what is missing of a study.

    Parameters
    ----------
    config
        A Config, or the path of a study file.
    folder
        Where studies are kept; this one becomes ``folder/<name>``.
    workers
        Cells that run at the same time; None = what the study says. One runs in this process. Results do not depend
        on it.
    backend, address
        ``loky``: processes of this machine. ``dask``, ``ray``: the cluster at this address, or a local one.
    progress
        Called with (finished cells, all cells, the record just written or None at the start).
    notice
        Called with a line of text for each thing that the reader of the results should know: what test rows share with
        training rows, damaged cells, cells that other code computed.
    retry
        Whether cells that failed, diverged or ran out of memory are run again.
    data
        The rows, where they are in memory already; otherwise the config says where they are.

    Returns
    -------
    The folder of the study.
    """
    config = config if isinstance(config, Config) else load(config)
    if address is None:
        check_device(config)
    data, cells = prepare(config, data)
    digest = fingerprint(data)
    hashes = {cell_hash(cell, setting_of(cell, config), digest): cell for cell in cells}
    store = Store(Path(folder) / config.name)
    about, tell = describe(data, config), notice or _ignore
    for leak in about["leaks"]:
        tell(leak)
    with store.lock():
        store.begin({"config": config.to_json(), "cells": list(hashes), "data": about, "fingerprint": digest})
        finished = _finished(store, config, data, retry, tell)
        missing = [(cell, key) for key, cell in hashes.items() if key not in finished]
        done = len(hashes) - len(missing)
        if progress:
            progress(done, len(hashes), None)
        count = workers or config.study.workers
        with closing(_outcomes(config, data, digest, missing, count, backend, address)) as outcomes:
            for outcome in outcomes:
                store.write(outcome.record, outcome.predictions, outcome.model)
                done += 1
                if progress:
                    progress(done, len(hashes), outcome.record)
    return store.folder


def prepare(config: Config, data: Dataset | None = None) -> tuple[Dataset, list[Cell]]:
    """The data of a study and its cells, with everything checked that can be checked without training."""
    data = load_data(config) if data is None else data
    views, wanted = data.views, config.data
    primary = wanted.primary or views.primary
    names = [primary, *(views.secondary if wanted.secondary is None else wanted.secondary)]
    if primary != views.primary and wanted.secondary is None:
        names = [primary, *(name for name in views.names if name != primary)]
    data = replace(data, views=views.only(sorted(names), primary=primary))
    return data, plan(config, data)


def check_device(config: Config) -> None:
    """Raise ConfigError unless torch finds the device of the schedule on this machine."""
    reason = missing_device(config.schedule.device)
    if reason:
        raise ConfigError(
            f"The device {config.schedule.device!r} of [schedule] can not be used on this machine: {reason}. "
            'Write device = "auto", which takes a GPU where there is one, or device = "cpu".'
        )


def load_data(config: Config) -> Dataset:
    """The rows that a study names."""
    from transference.data import sets
    from transference.data.manifest import load_manifest

    given = config.data
    if given.set is not None:
        return sets.load(given.set, primary=given.primary, secondary=given.secondary, variant=given.variant)
    if given.manifest is None or given.primary is None or given.label is None:
        raise ConfigError("[data] names no rows. Write set = ..., or manifest, primary and label.")
    return load_manifest(
        Path(given.manifest),
        primary=given.primary,
        label=given.label,
        secondary=given.secondary,
        modalities=given.modalities or None,
        task=given.task,
        split=given.split,
        group=given.group,
        id=given.id,
    )


def refit(config: Config, record: RunRecord, data: Dataset | None = None) -> Method:
    """The fitted method of a record, trained again: the same bits, for arms whose model was not kept."""
    rows, _ = prepare(config, data)
    return fit_cell(config, record.cell, rows)[0]


def load_method(folder: str | Path) -> Method:
    """The fitted method kept in the folder of a cell.

    Raises
    ------
    ConfigError
        Where none was kept: an estimator answers, or the cell is a control.
    """
    folder = Path(folder)
    model = Store(folder.parent).model(folder.name)
    if model is None:
        raise ConfigError(f"No network was kept in {str(folder)!r}. Train it again from its record with refit().")
    return from_model(model)


def describe(data: Dataset, config: Config) -> dict[str, Any]:
    """What a reader of the report should know of the data, as plain values."""
    views, split = data.views, rows_of(config, data, config.study.seeds[0])
    y = data.y[data.is_labelled].tolist()
    return {
        "name": data.name,
        "rows": len(data),
        "labelled": len(y),
        "train": len(split.train),
        "test": len(split.test),
        "primary": views.primary,
        "modalities": {
            name: {"kind": spec.kind, "shape": list(spec.shape), "present": int(views.present[name].sum())}
            for name, spec in views.specs.items()
        },
        "classes": {name: y.count(name) for name in classes(data)},
        "split": "column" if data.split is not None else "drawn by group" if data.group is not None else "drawn",
        "source": dict(data.source),
        "leaks": leaks(data, config),
    }


def _finished(store: Store, config: Config, data: Dataset, retry: bool, notice: Callable[[str], None]) -> set[str]:
    """Hashes of the cells that need not run; their records learn of a metric or baseline that the study changed."""
    finished, task = set(), task_of(config, data)
    damaged, own, others = store.damaged(), versions().get("transference"), Counter[str]()
    for message in damaged.values():
        notice(message)
    for record in store.records():
        if record.hash not in damaged and (record.status == "ok" or not retry):
            finished.add(record.hash)
            made_by = record.environment.packages.get("transference")
            if made_by != own:
                others[str(made_by)] += 1
            if (task, config.name) != (record.task, record.study):
                store.rewrite(replace(record, task=task, study=config.name))
    if others:
        notice(
            f"{others.total()} finished cells were computed by other code of this package "
            f"({', '.join(sorted(others))}; now {own}) and are kept. "
            f"To compute them again, delete {str(store.folder)!r} and run the study."
        )
    return finished


def _ignore(message: str) -> None:
    pass


Missing = Sequence[tuple[Cell, str]]


def _outcomes(
    config: Config, data: Dataset, digest: str, missing: Missing, count: int, backend: Backend, address: str | None
) -> Generator[Outcome, None, None]:
    if count == 1 and backend == "loky" and address is None:
        for cell, key in missing:
            yield run_cell(config, cell, data, key, digest)
        return
    if not missing:
        return
    with tempfile.TemporaryDirectory() as marks, worker_pool(backend, count, address, data) as imap:
        left = {key: cell for cell, key in missing}
        folder = marks if backend == "loky" else None
        while left:
            tasks = [(config, cell, key, digest, folder) for key, cell in left.items()]
            try:
                for outcome in imap(_work, tasks):
                    del left[outcome.record.hash]
                    yield outcome
            except WorkerKilled:
                begun = [key for key in left if (Path(marks) / key).exists()]
                for key in begun or list(left)[:1]:
                    yield _alone(imap, (config, left.pop(key), key, digest, folder), data)


def _work(data: Dataset, config: Config, cell: Cell, key: str, digest: str, marks: str | None) -> Outcome:
    if marks is not None:
        (Path(marks) / key).touch()
    return run_cell(config, cell, data, key, digest)


def _alone(imap: Callable[..., Iterator[Any]], task: tuple[Any, ...], data: Dataset) -> Outcome:
    """Run one cell with no other beside it: one of a few during which a worker was killed."""
    config, cell, key, digest, _ = task
    try:
        (outcome,) = imap(_work, [task])
    except WorkerKilled as error:
        by_system = "SIGKILL" in str(error)
        status: Status = "out_of_memory" if by_system else "failed"
        message = "The worker process was killed while it ran this cell" + (
            ", as the system does when memory runs out. Run fewer workers, or lower the schedule's batch_size."
            if by_system
            else f". {error}"
        )
        outcome = Outcome(replace(blank(config, cell, data, key, digest), status=status, error=message))
    return outcome
