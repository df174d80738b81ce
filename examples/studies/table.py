"""Finished studies in Markdown, from summary.json: ``python examples/studies/table.py runs/webkb runs/avmnist``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transference.core.metrics import metric

NONE = "–"
CONTROLS = ("shuffle", "noise", "constant")


def table(summary: dict[str, Any]) -> str:
    """One line an arm: its score, its gains with 95 % intervals, its controls, what was transferred and its cost.

    A score in [0, 1] is shown in points, any other as it is.
    """
    points = metric(summary["metric"]).bounds == (0, 1)
    controls = [name for name in CONTROLS if name in summary["data"]["controls"]]
    scores = {_key(entry): entry["mean"] for entry in summary["entries"]}
    seconds = {_key(entry): entry["seconds"] for entry in summary["cost"]["entries"]}
    baseline = summary["task"]["baseline"]
    titles = ["labels", "arm", "score", f"gain over {baseline}", "gain over primary-only", *controls]
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
    for folder in sys.argv[1:]:
        sys.stdout.write(table(json.loads((Path(folder) / "summary.json").read_text(encoding="utf-8"))) + "\n\n")
