"""Is the small default encoder of every kind as good as logistic regression? Cross-validation, no test row is used.

    TRANSFERENCE_DATA=... python benchmarks/encoders.py                  # every set
    TRANSFERENCE_DATA=... python benchmarks/encoders.py "webkb inlinks"  # the named ones

Only rows that train in all seeds of a study are used. Where the set names people, speakers or videos, whole ones are
held out: one at a time where there are at most five, otherwise a quarter; elsewhere a quarter of the rows, class by
class. In every fold, and for every seed (the label budget's and the initial weights'), `unimodal` is fitted twice to
the same labels: as the network, and with logistic regression. Figures are in points, of accuracy unless AUC is said;
"spread" is the standard deviation over the folds of the difference between the two.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, LeaveOneGroupOut, StratifiedKFold

from transference.core.method import Method
from transference.core.metrics import METRICS
from transference.core.registry import create
from transference.data.dataset import Dataset
from transference.data.sets import load
from transference.data.split import Budget, Rows, label_budget, split_rows
from transference.train.schedule import Schedule

STUDY_SEEDS = range(5)
SEEDS = range(2)
FOLDS = 4
FEW = 5  # groups; so many or fewer are held out one at a time


@dataclass(frozen=True)
class Case:
    """One modality of one set, the numbers of labels tried, and the metric."""

    name: str
    modality: str
    variant: str | None = None
    budgets: tuple[Budget, ...] = ("all",)
    metric: str = "accuracy"


CASES = {
    "utd_mhad inertial": Case("utd_mhad", "inertial", budgets=("all", 2)),
    "utd_mhad skeleton": Case("utd_mhad", "skeleton", budgets=("all", 2)),
    "utd_mhad depth": Case("utd_mhad", "depth"),
    "avmnist audio": Case("avmnist", "audio", "speakers", budgets=("all", 10)),
    "avmnist image": Case("avmnist", "image", "random"),
    "webkb inlinks": Case("webkb", "inlinks", budgets=("all", {"course": 3, "other": 9}), metric="auroc"),
    "webkb page": Case("webkb", "page", budgets=("all", {"course": 3, "other": 9}), metric="auroc"),
    "wikipedia image": Case("wikipedia", "image", budgets=("all", 20)),
    "mfeat fourier": Case("mfeat", "fourier", budgets=("all", 3)),
    "mosi audio": Case("mosi", "audio"),
    "digits full": Case("digits", "full"),
    "digits coarse": Case("digits", "coarse", budgets=("all", 2)),
}


def inner(data: Dataset) -> Rows:
    """Rows that train whatever the seed of a study."""
    return reduce(np.intersect1d, [split_rows(data, seed).train for seed in STUDY_SEEDS])


def folds(data: Dataset, rows: Rows) -> Iterator[tuple[Rows, Rows]]:
    """(training rows, held-out rows) of each fold."""
    group = None if data.group is None else data.group[rows].astype(str)
    if group is None:
        cut = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    else:
        cut = LeaveOneGroupOut() if len(set(group)) <= FEW else GroupKFold(FOLDS)
    for fit, held in cut.split(rows, data.y[rows].astype(str), group):
        yield rows[fit], rows[held]


def network(seed: int) -> Method:
    return create("unimodal", schedule=Schedule(updates=300), seed=seed)


def logistic(seed: int) -> Method:
    return create("unimodal", estimator=LogisticRegression(max_iter=2000), seed=seed)


BOTH = (network, logistic)


def score(method: Method, data: Dataset, fit: Rows, held: Rows, case: Case, budget: Budget) -> float:
    """Points on the held-out rows; rows whose label is beyond the budget stay in training, unlabelled."""
    kept = label_budget(data.y[fit], budget, method.seed)
    labels = data.y[fit].copy()
    labels[~kept] = None
    method.fit(data.views[fit], labels)
    target = np.searchsorted(method.classes_, data.y[held].astype(str))
    return 100 * METRICS[case.metric](target, method.predict_proba(data.views[held]))


def main() -> None:
    sys.stdout.write(f"{'':19}{'labels':>24}{'network':>9}{'logistic':>10}{'difference':>12}{'spread':>8}\n")
    for title in sys.argv[1:] or CASES:
        case = CASES[title]
        data = load(case.name, primary=case.modality, secondary=(), variant=case.variant)
        parts = list(folds(data, inner(data)))
        for budget in case.budgets:
            pairs = np.array(  # (folds, seeds, 2)
                [[[score(new(k), data, *part, case, budget) for new in BOTH] for k in SEEDS] for part in parts]
            )
            deep, linear = pairs.mean((0, 1))
            spread = np.diff(pairs).mean(1).std(ddof=1)
            sys.stdout.write(f"{title:19}{budget!s:>24}{deep:9.1f}{linear:10.1f}{deep - linear:+12.1f}{spread:8.1f}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
