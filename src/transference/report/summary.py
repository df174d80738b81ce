"""Records and predictions become the numbers of ``summary.json``: entries, verdict, series, failures, cost."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transference.core.errors import DataError, must_be
from transference.core.metrics import Metric, metric
from transference.core.records import Predictions, RunRecord
from transference.core.spec import OF_TWO
from transference.report.compare import Estimate, Key, Score, compare, estimate, holm, score
from transference.report.notes import notes
from transference.report.verdict import FEWEST, competes, verdicts
from transference.report.wording import budget_key

POINTS = 32  # of a training curve
DIGITS = 9
_METHOD = (
    "Means over seeds with 95 % intervals over seeds and test rows, which are paired between arms "
    "(Obuchowski and Rockette's variance, Hillis' degrees of freedom). The p-values of gains are corrected by Holm: "
    "those over the baseline for all arms and budgets, those over the strongest primary-only arm for all budgets and "
    "the arms that can win the verdict. Intervals are not corrected, nor is the p-value of what was transferred: the "
    f"verdict asks it only of gains that are told from 0. Below {FEWEST} seeds in common there is no verdict."
)


def summarise(
    records: Sequence[RunRecord], predictions: Mapping[str, Predictions], about: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What a study found, as plain JSON values.

    Parameters
    ----------
    records
        Of one study, in any order, failed cells included.
    predictions
        By the hash of their record, for the cells that are "ok".
    about
        What is known of the data beside the records, as plain values: "name", "rows", "labelled", "split",
        "modalities" (name -> kind, shape, rows that have it), "source", "notes", "leaks" (what of the test rows was in
        training).

    Returns
    -------
    A dict with "study", "metric", "task", "data", "method", "notes", "verdict", "outcome", "verdicts", "entries",
    "failed", "series", "findings", "environments" and "cost". Scores and gains are in the metric's own scale, and a
    positive gain is better whatever the metric. Two runs of one study agree in everything but "cost".

    Raises
    ------
    DataError
        When the records are not of one study with one metric, two are of the same cell, or one has no card.
    """
    ordered = _ordered(records)
    task = _task(ordered)
    measure = metric(task["metric"])
    cells, failed = _scored(ordered, predictions, measure)
    entries = _entries(ordered, cells, failed, task, measure)
    groups = _grouped(ordered)
    return {
        "study": ordered[0].study,
        "metric": measure.name,
        "task": task,
        "data": {**_data_card(ordered, failed), "about": dict(about or {})},
        "method": _METHOD,
        "notes": notes(ordered, entries, about or {}, task),
        **verdicts(entries, task),
        "entries": entries,
        "failed": failed,
        "series": {"training": [each for key, group in groups.items() if (each := _training(key, group))]},
        "findings": [each for key, group in groups.items() for each in _findings(key, group)],
        "environments": _environments(ordered),
        "cost": _cost(groups),
    }


def _ordered(records: Sequence[RunRecord]) -> list[RunRecord]:
    if not records:
        raise DataError(must_be("'records'", "one record or more", 0, "Run the study first."))
    for subject, names in (
        ("study", {record.study for record in records}),
        ("metric", {str(record.task.get("metric")) for record in records}),
    ):
        if len(names) > 1:
            remedy = "Report each study from its own folder."
            raise DataError(must_be(f"The {subject} of all records", "the same", sorted(names), remedy))
    labelled: dict[str, list[int]] = defaultdict(list)
    for record in records:
        if not record.card:
            raise DataError(f"The record {record.hash} does not say what its method needs. Run the study again.")
        if "labelled" in record.rows:
            labelled[budget_key(record.cell.budget)].append(record.rows["labelled"])

    def place(record: RunRecord) -> tuple[Any, ...]:
        cell, key = record.cell, budget_key(record.cell.budget)
        counts = labelled.get(key)
        size = sum(counts) / len(counts) if counts else math.inf
        return size, cell.budget == "all", _size(cell.budget), key, cell.arm, cell.control or "", cell.seed, record.hash

    ordered = sorted(records, key=place)
    for one, other in pairwise(ordered):
        if _cell(one) == _cell(other):
            budget, arm, control, seed = _cell(one)
            raise DataError(
                f"Two records are of the same cell: arm {arm!r}, control {control or None!r}, seed {seed}, "
                f"budget {budget}: {one.hash} and {other.hash}. Delete the folder of the one that is out of date."
            )
    return ordered


def _size(budget: Any) -> float:
    return float(budget) if isinstance(budget, int | float) else math.inf


def _cell(record: RunRecord) -> tuple[str, str, str, int]:
    cell = record.cell
    return budget_key(cell.budget), cell.arm, cell.control or "", cell.seed


def _key(record: RunRecord) -> Key:
    return Key(*_cell(record)[:3])


def _grouped(ordered: Sequence[RunRecord]) -> dict[Key, list[RunRecord]]:
    groups: dict[Key, list[RunRecord]] = {}
    for record in ordered:
        groups.setdefault(_key(record), []).append(record)
    return groups


def _task(ordered: Sequence[RunRecord]) -> dict[str, Any]:
    given = ordered[0].task
    secondary = given.get("secondary") or []
    methods = {record.cell.arm: record.cell.method for record in ordered}
    plain = sorted(arm for arm, method in methods.items() if method == "unimodal")
    baseline = given.get("baseline") or ("unimodal" if "unimodal" in plain or not plain else plain[0])
    return {
        "kind": str(given.get("kind", "")),
        "metric": str(given.get("metric")),
        "better": metric(str(given.get("metric"))).better,
        "classes": [str(name) for name in given.get("classes") or []],
        "primary": str(given.get("primary") or ""),
        "secondary": [secondary] if isinstance(secondary, str) else [str(name) for name in secondary],
        "baseline": str(baseline),
    }


def _scored(
    ordered: Sequence[RunRecord], predictions: Mapping[str, Predictions], measure: Metric
) -> tuple[dict[Key, dict[int, Score]], list[dict[str, Any]]]:
    """The score of every cell that has one, and why the others have none."""
    cells: dict[Key, dict[int, Score]] = {}
    failed = []
    for record in ordered:
        status, error = str(record.status), record.error
        found = predictions.get(record.hash)
        if status == "ok" and found is None:
            status, error = (
                "no_predictions",
                "Its predictions are missing or damaged. Delete its folder and run the study again.",
            )
        elif status == "ok" and found is not None:
            one = score(measure, found) if np.isfinite(found.scores).all() and len(found.rows) else None
            if one is not None and math.isfinite(one.value):
                cells.setdefault(_key(record), {})[record.cell.seed] = one
                continue
            status, error = "no_score", f"Its predictions give no finite {measure.name}."
        failed.append({**_of(record), "seed": record.cell.seed, "hash": record.hash, "status": status, "error": error})
    return cells, failed


def _of(record: RunRecord) -> dict[str, Any]:
    cell = record.cell
    return {"arm": cell.arm, "method": cell.method, "control": cell.control, "budget": cell.budget}


def _entries(
    ordered: Sequence[RunRecord],
    cells: Mapping[Key, Mapping[int, Score]],
    failed: Sequence[Mapping[str, Any]],
    task: Mapping[str, Any],
    measure: Metric,
) -> list[dict[str, Any]]:
    sign = 1 if measure.better == "higher" else -1
    towards = {
        key: {seed: Score(sign * one.value, one.rows, sign * one.influence) for seed, one in series.items()}
        for key, series in cells.items()
    }
    groups = _grouped(ordered)
    alone = frozenset(key.arm for key, group in groups.items() if not key.control and _primary_only(group[0]))
    references = frozenset({task["baseline"]}) if task["kind"] in OF_TWO else alone
    comparisons = compare(towards, references, task["baseline"])
    lost = Counter((budget_key(each["budget"]), each["arm"], each["control"] or "") for each in failed)
    entries = []
    for key, group in groups.items():
        series, found = cells.get(key, {}), dict(comparisons.get(key, {}))
        if found.get("reference") == key.arm and not key.control:
            found["gain_semi"] = None
        entries.append(
            {
                **_of(group[0]),
                "metric": measure.name,
                "primary_only": key.arm in alone,
                "needs_all_at_test": group[0].card["at_test"] != "primary",
                "n_seeds": len(series),
                "n_failed": lost[key],
                "scores": {str(seed): _round(one.value) for seed, one in sorted(series.items())},
                **_spread("mean", estimate(series), measure.bounds),
                **_compared("gain", "p", found),
                **_compared("gain_semi", "p_semi", found),
                "reference": found.get("reference"),
                **_compared("transferred", "p_transferred", found),
                "best_control": found.get("best_control"),
            }
        )
    for name, adjusted in (("p", "p_adjusted"), ("p_semi", "p_semi_adjusted")):
        family = [entry for entry in entries if _corrected(entry, name)]
        for entry in entries:
            entry[adjusted] = None
        for entry, value in zip(family, holm([entry[name] for entry in family]), strict=True):
            entry[adjusted] = _round(value)
    return entries


def _primary_only(record: RunRecord) -> bool:
    return record.card["at_test"] == "primary" and "paired" not in record.card["needs"]


def _corrected(entry: Mapping[str, Any], name: str) -> bool:
    """Whether a p-value is one of those that Holm's correction is over."""
    asked = competes(entry) if name == "p_semi" else entry["control"] is None
    return asked and entry[name] is not None


def _spread(
    name: str, found: Estimate | None, bounds: tuple[float | None, float | None] = (None, None)
) -> dict[str, float | None]:
    """A value and its interval, cut at the bounds of the metric. The interval of "mean" is "low" and "high"."""
    prefix = "" if name == "mean" else f"{name}_"
    value, low, high = (found.value, found.low, found.high) if found else (None, None, None)
    if low is not None and bounds[0] is not None:
        low = max(low, bounds[0])
    if high is not None and bounds[1] is not None:
        high = min(high, bounds[1])
    return {name: _round(value), f"{prefix}low": _round(low), f"{prefix}high": _round(high)}


def _compared(name: str, p: str, found: Mapping[str, Any]) -> dict[str, Any]:
    one: Estimate | None = found.get(name)
    return {**_spread(name, one), p: _round(one.p) if one else None, f"{name}_seeds": one.n_seeds if one else 0}


def _round(value: float | None) -> float | None:
    """Nine significant digits; None for what is not a finite number."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.{DIGITS}g}")


def _data_card(ordered: Sequence[RunRecord], failed: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    budgets: dict[str, dict[str, Any]] = {}
    for record in ordered:
        held = budgets.setdefault(budget_key(record.cell.budget), {"budget": record.cell.budget, "rows": {}})
        for name, count in sorted(record.rows.items()):
            low, high = held["rows"].get(name, (count, count))
            held["rows"][name] = [min(low, count), max(high, count)]
    return {
        "fingerprints": sorted({record.data for record in ordered}),
        "budgets": list(budgets.values()),
        "seeds": sorted({record.cell.seed for record in ordered}),
        "arms": sorted({record.cell.arm for record in ordered}),
        "controls": sorted({record.cell.control for record in ordered if record.cell.control}),
        "n_cells": len(ordered),
        "n_failed": len(failed),
    }


def _training(key: Key, group: Sequence[RunRecord]) -> dict[str, Any] | None:
    """Mean loss curves over the seeds of an arm without control, at no more than `POINTS` updates."""
    histories = [record.history for record in group if len(record.history.get("update", ())) > 1]
    if key.control or not histories:
        return None
    updates = np.unique(np.concatenate([np.asarray(history["update"], float) for history in histories]))
    grid = updates[np.unique(np.linspace(0, len(updates) - 1, POINTS).round().astype(int))]
    names = sorted({name for history in histories for name in history} - {"update"})
    losses = {name: _mean_curve([h for h in histories if name in h], name, grid) for name in names}
    return {**_of(group[0]), "n_seeds": len(histories), "update": [int(each) for each in grid], "losses": losses}


def _mean_curve(
    histories: Sequence[Mapping[str, Sequence[float]]], name: str, grid: NDArray[Any]
) -> list[float | None]:
    curves = np.full((len(histories), len(grid)), math.nan)
    for curve, history in zip(curves, histories, strict=True):
        values, updates = np.asarray(history[name], float), np.asarray(history["update"], float)
        known = np.isfinite(values)
        if known.any():
            curve[:] = np.interp(grid, updates[known], values[known], left=math.nan, right=math.nan)
    known = np.isfinite(curves)
    count = known.sum(0)
    total = np.where(known, curves, 0.0).sum(0)
    return [_round(float(t / c)) if c else None for t, c in zip(total, count, strict=True)]


def _findings(key: Key, group: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """Every measure that the cells recorded, as a mean over the seeds."""
    found: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    for record in group:
        for one in record.findings:
            if math.isfinite(one.value):
                found[one.name, tuple(sorted(one.of.items())), one.unit, one.better].append(one.value)
    return [
        {**_of(group[0]), "name": name, "of": dict(of), "unit": unit, "better": better}
        | {"mean": _round(float(np.mean(values))), "n_seeds": len(values)}
        for (name, of, unit, better), values in sorted(found.items())
    ]


def _environments(ordered: Sequence[RunRecord]) -> list[dict[str, Any]]:
    seen: dict[str, dict[str, Any]] = {}
    for record in ordered:
        plain = {**asdict(record.environment), "packages": dict(sorted(record.environment.packages.items()))}
        seen.setdefault(repr(plain), plain)
    return [seen[name] for name in sorted(seen)]


def _cost(groups: Mapping[Key, Sequence[RunRecord]]) -> dict[str, Any]:
    """Wall seconds (mean over the seeds that finished) and peak memory in bytes (the highest)."""
    entries = []
    for group in groups.values():
        done = [record for record in group if record.status == "ok"]
        entries.append(
            {
                **_of(group[0]),
                "seconds": _round(float(np.mean([record.seconds for record in done]))) if done else None,
                "peak_memory": max((record.peak_memory for record in done), default=None),
            }
        )
    total = math.fsum(record.seconds for group in groups.values() for record in group)
    return {"entries": entries, "seconds": _round(total)}
