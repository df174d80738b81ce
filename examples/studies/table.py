"""Finished studies in Markdown, from their summary.json: ``python examples/studies/table.py runs/webkb runs/avmnist``.

With ``--glance`` one table of all of them: what each arm does for each pair of modalities, at each budget.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transference.core.metrics import metric

NONE = "–"
ALPHA = 0.05
CONTROLS = ("shuffle", "noise", "constant")


def table(summary: dict[str, Any]) -> str:
    """One line an arm: its score, its gains with 95 % intervals, its controls, what was transferred and its cost.

    A score in [0, 1] is shown in points, any other as it is.
    """
    points = metric(summary["metric"]).bounds == (0, 1)
    controls = [name for name in CONTROLS if name in summary["data"]["controls"]]
    scores = {_key(entry): entry["mean"] for entry in summary["entries"]}
    seconds = {_key(entry): entry["seconds"] for entry in summary["cost"]["entries"]}
    titles = ["labels", "arm", "score", "gain over unimodal", "gain over primary-only", *controls]
    lines = [f"**{summary['study']}**: {summary['verdict']}", ""]
    lines += [
        _line([*titles, "transferred", "seconds"]),
        "|---|---|---:|---|---|" + "---:|" * len(controls) + "---|---:|",
    ]
    for entry in summary["entries"]:
        if entry["control"] is not None:
            continue
        upper = " (needs all at test)" if entry["needs_all_at_test"] else ""
        budget, arm, _ = _key(entry)
        cells = [budget, f"`{arm}`{upper}", _number(entry["mean"], points)]
        cells += [_interval(entry, name, points) for name in ("gain", "gain_semi")]
        cells += [_number(scores.get((budget, arm, control)), points) for control in controls]
        cells += [_interval(entry, "transferred", points), f"{seconds[_key(entry)]:.1f}"]
        lines.append(_line(cells))
    return "\n".join(lines)


def glance(summaries: Sequence[dict[str, Any]]) -> str:
    """Arms by studies and budgets. Each place is what the gain over the baseline is, in points, and what it means."""
    columns = [(summary, str(budget)) for summary in summaries for budget in dict.fromkeys(_budgets(summary))]
    arms = dict.fromkeys(entry["arm"] for summary in summaries for entry in summary["entries"])
    found = {
        (summary["study"], *_key(entry)): _meaning(entry)
        for summary in summaries
        for entry in summary["entries"]
        if not entry["primary_only"] and not entry["needs_all_at_test"]
    }
    lines = [
        _line(["arm", *(f"{summary['study'].rpartition('-')[2]}, {budget}" for summary, budget in columns)]),
        "|---|" + "---|" * len(columns),
    ]
    for arm in sorted(arms):
        cells = [found.get((summary["study"], budget, arm, None)) for summary, budget in columns]
        if any(cells):
            lines.append(_line([f"`{arm}`", *(cell or NONE for cell in cells)]))
    return "\n".join(lines)


def _meaning(entry: dict[str, Any]) -> str:
    """Whether a gain over the baseline is told from 0, all arms and budgets of the study counted, and from controls."""
    gain, p = entry["gain"], entry["p_adjusted"]
    if gain is None:
        return NONE
    shown = f"{100 * gain:+.1f}"
    if p is None or p >= ALPHA:
        return shown
    if gain < 0:
        return f"{shown} hurts"
    low = entry["transferred_low"]
    return f"**{shown} transfers**" if low is not None and low > 0 else f"{shown} regularises"


def _budgets(summary: dict[str, Any]) -> list[str]:
    return [str(entry["budget"]) for entry in summary["entries"]]


def _key(entry: dict[str, Any]) -> tuple[str, str, str | None]:
    return str(entry["budget"]), entry["arm"], entry["control"]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _number(value: float | None, points: bool, sign: str = "") -> str:
    if value is None:
        return NONE
    return f"{100 * value:{sign}.1f}" if points else f"{value:{sign}.3g}"


def _interval(entry: dict[str, Any], name: str, points: bool) -> str:
    value, low, high = (entry[f"{name}{end}"] for end in ("", "_low", "_high"))
    shown = _number(value, points, "+")
    return shown if low is None else f"{shown} [{_number(low, points)}, {_number(high, points)}]"


if __name__ == "__main__":
    folders = [each for each in sys.argv[1:] if each != "--glance"]
    summaries = [json.loads((Path(each) / "summary.json").read_text(encoding="utf-8")) for each in folders]
    shown = [glance(summaries)] if "--glance" in sys.argv else [table(each) for each in summaries]
    sys.stdout.write("\n\n".join(shown) + "\n")
