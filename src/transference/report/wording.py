"""Scores, gains, budgets and lists of names in words."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from transference.core.metrics import METRICS, metric

_POINTS = frozenset(each.name for each in METRICS.values() if each.bounds == (0, 1))
_PART = re.compile(r"(.+?)=(\d+)(?:, |$)")  # of a budget by class: "course=3, other=9"


def scale(task: Mapping[str, Any]) -> float:
    """What a score is multiplied by to be shown."""
    return 100.0 if task["metric"] in _POINTS else 1.0


def unit(task: Mapping[str, Any]) -> str:
    """Of a gain: points are hundredths of a score in [0, 1]; where there is no unit, a gain is so much "lower mae"."""
    if task["metric"] in _POINTS:
        return "points"
    return "nats" if task["metric"] == "log_loss" else f"{metric(task['metric']).better} {task['metric']}"


def number(value: float, task: Mapping[str, Any], sign: bool = False) -> str:
    """One score or gain: points with one decimal, other units with three significant digits."""
    shown = round(value * scale(task), 1) if scale(task) != 1 else float(f"{value:.3g}")
    text = f"{shown + 0.0:.1f}" if scale(task) != 1 else f"{shown + 0.0:.6g}"
    return f"+{text}" if sign and shown >= 0 else text


def amount(value: float, task: Mapping[str, Any]) -> str:
    """A gain with its sign and unit: "+21.3 points"."""
    return f"{number(value, task, sign=True)} {unit(task)}"


def quantity(value: float, task: Mapping[str, Any]) -> str:
    """How much, without a sign: "21.3 points"; a bare number where there is no unit."""
    return f"{number(value, task)} {unit(task)}" if unit(task) in ("points", "nats") else number(value, task)


def interval(entry: Mapping[str, Any], name: str, task: Mapping[str, Any]) -> str:
    """The interval of a number of an entry, after a space: " [17.0, 25.0]"; "" where there is none."""
    prefix = "" if name == "mean" else f"{name}_"
    low, high = entry[f"{prefix}low"], entry[f"{prefix}high"]
    return "" if low is None or high is None else f" [{number(low, task)}, {number(high, task)}]"


def gain(entry: Mapping[str, Any], name: str, task: Mapping[str, Any]) -> str:
    """A gain with its unit and interval: "+21.3 points [17.0, 25.0]"."""
    return amount(entry[name], task) + interval(entry, name, task)


def score(value: float, task: Mapping[str, Any]) -> str:
    """A score with its name: "accuracy 79.0 %"."""
    return f"{task['metric']} {number(value, task)}" + (" %" if scale(task) != 1 else "")


def budget_key(budget: Any) -> str:
    """One text per budget, whatever its type."""
    return json.dumps(budget, sort_keys=True, ensure_ascii=False)


def budget_label(budget: Any, task: Mapping[str, Any]) -> str:
    """A budget in two or three words: "2 per class", "10 %", "all", "3 course + 9 other"."""
    if budget == 0:
        return "none"
    if isinstance(budget, float) and budget <= 1:
        return f"{100 * budget:g} %"
    if isinstance(budget, int | float):
        return f"{budget:g} rows" if task.get("kind") == "regression" else f"{budget:g} per class"
    return " + ".join(_by_class(budget)) or budget


def budget_phrase(budget: Any, task: Mapping[str, Any]) -> str:
    """A budget in a sentence: "at 2 labels per class", "at 3 course and 9 other labels"."""
    if budget == "all":
        return "with all labels"
    if budget == 0:
        return "without labels"
    if isinstance(budget, float) and budget <= 1:
        return f"with {100 * budget:g} % of the labels"
    if isinstance(budget, int | float):
        per = "" if task.get("kind") == "regression" else " per class"
        return f"at {budget:g} label{'' if budget == 1 else 's'}{per}"
    return f"at {listed(_by_class(budget))} labels" if _by_class(budget) else f"at the budget {budget}"


def _by_class(budget: str) -> list[str]:
    return [f"{rows} {name}" for name, rows in _PART.findall(budget)]


def listed(names: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
