"""Small made-up studies: what each arm answers for each test row is given, the rest is filled in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from transference.core.records import Cell, Environment, Finding, Predictions, RunRecord

ENVIRONMENT = Environment("3.11.9", "Linux", "x86_64", {"numpy": "2.4"}, 1, "cpu")
CARDS = {
    "unimodal": {"at_test": "primary", "needs": ["labels"]},
    "induction.self_training": {"at_test": "primary", "needs": ["labels", "unlabelled"]},
    "fusion.late": {"at_test": "any", "needs": ["labels"]},
}
CO_LEARNING = {"at_test": "primary", "needs": ["labels", "paired"]}


class Study:
    """Records and predictions, gathered cell by cell."""

    def __init__(self, metric: str = "accuracy", **task: Any) -> None:
        kind = "regression" if metric == "mae" else "classification"
        classes = [] if metric == "mae" else ["no", "yes"]
        self.task = {"kind": kind, "classes": classes, "metric": metric, **task}
        self.records: list[RunRecord] = []
        self.predictions: dict[str, Predictions] = {}

    def add(
        self,
        arm: str,
        seed: int,
        found: Predictions | None,
        *,
        control: str | None = None,
        budget: Any = 2,
        method: str | None = None,
        status: Any = "ok",
        error: str = "",
        history: Mapping[str, list[float]] | None = None,
        findings: tuple[Finding, ...] = (),
        seconds: float = 1.0,
        card: Mapping[str, Any] | None = None,
        version: str = "",
    ) -> str:
        digest = f"{len(self.records):08x}"
        cell = Cell(arm, method or arm, {}, control, seed, budget)
        rows = {"labelled": 4, "unlabelled": 8, "test": 0 if found is None else len(found.rows)}
        self.records.append(
            RunRecord(
                hash=digest,
                study="small",
                cell=cell,
                status=status,
                error=error,
                environment=replace(ENVIRONMENT, packages={"transference": version}) if version else ENVIRONMENT,
                task=self.task,
                data="data-1",
                rows=rows,
                history=history or {},
                findings=findings,
                predictions="",
                seconds=seconds,
                peak_memory=2**20,
                card=card or CARDS.get(method or arm, CO_LEARNING),
            )
        )
        if found is not None:
            self.predictions[digest] = found
        return digest


def answers(correct: Any, rows: Any = None) -> Predictions:
    """Predictions that are right exactly where `correct` is; the target is class 1 in every other row."""
    right = np.asarray(correct, bool)
    target = np.arange(len(right)) % 2
    said = np.where(right, target, 1 - target)
    scores = np.full((len(right), 2), 0.25, np.float32)
    scores[np.arange(len(right)), said] = 0.75
    return Predictions(np.arange(len(right)) if rows is None else np.asarray(rows), target, scores)


def fill(study, arm, share, control=None, seeds=5, lost=(), **given):
    """Cells of an arm that is right in this share of 200 rows, give or take; `lost` are the seeds that diverged."""
    for seed in range(seeds):
        right = (np.arange(200) < 200 * share) ^ (np.random.default_rng([seed, len(study.records)]).random(200) < 0.03)
        found, status = (None, "diverged") if seed in lost else (answers(right), "ok")
        study.add(arm, seed, found, control=control, status=status, **given)


def values(errors: Any) -> Predictions:
    """Regression answers whose absolute errors are these."""
    off = np.asarray(errors, np.float32)
    target = np.linspace(0, 1, len(off)).astype(np.float32)
    return Predictions(np.arange(len(off)), target, (target + off)[:, None])
