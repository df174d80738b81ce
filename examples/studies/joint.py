"""One network for three sets against one network a set: does learning actions, numerals and digits together help?

    transference data get utd_mhad mfeat avmnist
    python examples/studies/joint.py

HighMMT learns one set of few labels, alone and with the other two, of which all training rows have labels; the control
has these labels shuffled. Accuracy on test rows with all modalities and with the primary one alone; five seeds, the
differences are paired by seed, with 95 per cent intervals of Student's t.
"""

from __future__ import annotations

import sys
from collections import defaultdict

import numpy as np
from scipy.stats import t

from transference.core.views import Views
from transference.data import sets
from transference.data.dataset import Dataset
from transference.data.split import label_budget, split_rows
from transference.train.others import clear_of
from transference.train.schedule import Schedule
from transference.transfer.highmmt import HighMMT

SETS = {"utd_mhad": ("inertial", "skeleton"), "mfeat": ("fourier", "profile"), "avmnist": ("audio", "image")}
BUDGETS, SEEDS = (2, 5, 20), range(5)
SCHEDULE = Schedule(updates=800)


def training(data: Dataset, seed: int, test: Views, shuffled: bool) -> Dataset:
    """The training rows of another set, none of which is a test row of this one."""
    rows = split_rows(data, seed).train
    known = rows[data.is_labelled[rows]]
    y = data.y[known]
    less = Dataset(
        data.name,
        data.views[known],
        np.random.default_rng(seed).permutation(y) if shuffled else y,
        data.task,
        data.ids[known],
    )
    return clear_of(less, test)


def interval(values: list[float]) -> str:
    """Mean and half of the width of its interval, in points."""
    half = t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    return f"{100 * np.mean(values):+.1f} ± {100 * half:.1f}"


def main() -> None:
    """Print the table in Markdown."""
    lines = [
        "| set | labels a class | read | alone | gain with the others | gain with their labels shuffled |",
        "|---|---:|---|---:|---:|---:|",
    ]
    loaded = {name: sets.load(name, primary=one, secondary=other) for name, (one, other) in SETS.items()}
    for name, data in loaded.items():
        for budget in BUDGETS:
            found: dict[tuple[str, str], list[float]] = defaultdict(list)
            for seed in SEEDS:
                split = split_rows(data, seed)
                X, y = data.views[split.train], data.y[split.train].copy()
                y[~label_budget(y, budget, seed)] = None
                test, truth = data.views[split.test], data.y[split.test]
                for arm in ("alone", "joint", "shuffled"):
                    rest = {each: more for each, more in loaded.items() if each != name and arm != "alone"}
                    others = {each: training(more, seed, test, arm == "shuffled") for each, more in rest.items()}
                    method = HighMMT(others=others, schedule=SCHEDULE, seed=seed).fit(X, y)
                    found["all", arm].append(method.score(test, truth))
                    found[test.primary, arm].append(method.score(test.only([test.primary]), truth))
            for read in ("all", data.views.primary):
                alone = found[read, "alone"]
                gains = [
                    interval([b - a for a, b in zip(alone, found[read, arm], strict=True)])
                    for arm in ("joint", "shuffled")
                ]
                lines.append(f"| {name} | {budget} | {read} | {100 * np.mean(alone):.1f} | {' | '.join(gains)} |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
