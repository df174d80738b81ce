"""How the defaults of the methods are chosen: by validation inside rows that no seed of a study tests on.

    TRANSFERENCE_DATA=... python benchmarks/defaults.py transfer.distillation --workers 2

The rows that train in *all* seeds of a study under ``examples/studies`` are divided anew, by person or speaker where
the set names them, with seeds of their own. Every candidate below is an arm there, with few labels, the schedule and
the metric of that study, and no control arms. A candidate's figure is its gain over `unimodal` in points. The default
is the one with the highest mean over the sets, each counting once; differences below half a point change nothing. What
is finished is kept under ``runs/defaults``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import reduce
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from transference.data.dataset import Dataset
from transference.experiment.arms import Arm
from transference.experiment.config import Budget, Config, load
from transference.experiment.protocol import rows_of
from transference.experiment.publish import publish
from transference.experiment.runner import prepare, run

STUDIES = Path(__file__).resolve().parent.parent / "examples" / "studies"
SETS: Mapping[str, tuple[Budget, ...]] = {
    "demo": (2,),
    "webkb": ({"course": 3, "other": 9},),
    "utd_mhad_skeleton": (1, 4),
    "utd_mhad_inertial": (2,),
    "avmnist": (10,),
}
FIRST_SEED = 100  # those of the studies are 0 to 4
TEST = 0.4  # share of the rows that are held out here

LOGISTIC = {"class": "sklearn.linear_model.LogisticRegression", "max_iter": 1000}
CANDIDATES: Mapping[str, tuple[Mapping[str, Any], ...]] = {  # what differs from the default, one thing at a time
    "transfer.distillation": (
        {},
        {"teacher": "unimodal"},
        {"teacher": LOGISTIC},
        {"prior_matched": False},
        {"entropy": 0.2},
        {"entropy": 0.6},
        {"temperature": 1.0},
        {"temperature": 2.0},
        {"weight": 0.5},
        {"weight": 0.95},
        {"teacher": "unimodal", "temperature": 2.0, "prior_matched": False},
    ),
    "induction.co_training": ({}, {"growth": 1}, {"pool": 75}),
    "induction.self_training": ({}, {"share": 0.5}, {"threshold": 0.8}, {"prior_matched": False}),
    "colearning.translation.cyclic": (
        {},
        {"translation": 1.0},
        {"translation": 3.0},
        {"translation": 30.0},
        {"cycle": 0.0},
    ),
    "colearning.translation.dense_supervision": ({}, {"whole": True}, {"dense": 1.0}),
}


def inner(config: Config, data: Dataset) -> Dataset:
    """The rows that train in every seed of a study, as a data set whose split is to be drawn."""
    kept = reduce(np.intersect1d, [rows_of(config, data, seed).train for seed in config.study.seeds])
    group = None if data.group is None else data.group[kept]
    return replace(data, views=data.views[kept], y=data.y[kept], ids=data.ids[kept], split=None, group=group)


def gains(method: str, name: str, seeds: int, workers: int) -> dict[str, float]:
    """Points over `unimodal` of each candidate on one set, the mean over its budgets."""
    config = load(STUDIES / f"{name}.toml")
    data, _ = prepare(config)
    arms = {_arm(candidate): Arm(method=method, parameters=dict(candidate)) for candidate in CANDIDATES[method]}
    config = config.model_copy(
        update={
            "name": f"{method}-{name}",
            "data": config.data.model_copy(update={"test": TEST}),
            "study": config.study.model_copy(
                update={
                    "seeds": tuple(range(FIRST_SEED, FIRST_SEED + seeds)),
                    "budgets": SETS[name],
                    "controls": (),
                }
            ),
            "arms": {"unimodal": Arm(method="unimodal", parameters={}), **arms},
        }
    )
    folder = run(config, folder="runs/defaults", workers=workers, data=inner(load(STUDIES / f"{name}.toml"), data))
    entries = publish(folder)["entries"]
    return {arm: 100 * mean(each["gain"] for each in entries if each["arm"] == arm) for arm in arms}


def _arm(candidate: Mapping[str, Any]) -> str:
    return (
        " ".join(f"{name}={'logistic' if value is LOGISTIC else value}" for name, value in candidate.items())
        or "default"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", choices=CANDIDATES)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    columns = {name: gains(given.method, name, given.seeds, given.workers) for name in SETS}
    sys.stdout.write(f"| {given.method} | {' | '.join(columns)} | mean |\n|---|{'---:|' * (len(columns) + 1)}\n")
    for arm in columns["demo"]:
        row = [column[arm] for column in columns.values()]
        sys.stdout.write(f"| {arm} | {' | '.join(f'{value:+.1f}' for value in [*row, mean(row)])} |\n")


if __name__ == "__main__":
    main()
