"""Everything that can be said of a study before anything is trained."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from transference.core.errors import ConfigError, TransferenceError, collect
from transference.core.records import Cell
from transference.data.dataset import Dataset
from transference.experiment.config import Config, parse
from transference.experiment.plan import leaks
from transference.experiment.runner import check_device, load_data, prepare
from transference.experiment.variants import load_all


@dataclass(frozen=True)
class Checked:
    """A study without faults: its rows, the cells to run, and what test rows share with training rows."""

    config: Config
    data: Dataset
    cells: list[Cell]
    leaks: list[str]


def check(path: str | Path) -> list[Checked]:
    """Read the studies of a file and their rows, and plan their cells.

    Raises
    ------
    TransferenceError
        With the faults of the file and of the rows that its [data] names. Budgets and methods are held against the rows
        once both are without fault.
    """
    try:
        configs = load_all(path)
    except ConfigError as error:
        with collect(str(path), ConfigError) as faults:
            for message in (*(error.faults or [str(error)]), *_of_rows(Path(path))):
                faults.add(message)
    if len(configs) == 1:
        return [_checked(configs[0])]
    found = []
    with collect(str(path), ConfigError) as faults:
        for config in configs:
            try:
                found.append(_checked(config))
            except TransferenceError as error:
                for message in error.faults or (str(error),):
                    faults.add(f"{config.name}: {message}")
    return found


def _checked(config: Config) -> Checked:
    check_device(config)
    data, cells = prepare(config)
    return Checked(config, data, cells, leaks(data, config))


def _of_rows(path: Path) -> tuple[str, ...]:
    """The faults of the rows alone, of a file that is faulty elsewhere; none where [data] is what is faulty."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        config = parse({"name": "rows", "data": raw["data"], "arms": {"unimodal": {}}}, path.resolve().parent)
    except (OSError, ValueError, KeyError, TypeError):  # told already
        return ()
    try:
        load_data(config)
    except TransferenceError as error:
        return error.faults or (str(error),)
    return ()
