"""The table of a finished study in Markdown, from its summary.json: ``python examples/studies/table.py runs/webkb``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from transference.core.metrics import metric

NONE = "–"


def table(summary: dict[str, Any]) -> str:
    """One line an arm: its score, its gains with 95 % intervals, and what was transferred, by budget.

    A score in [0, 1] is shown in points, any other as it is.
    """
    points = metric(summary["metric"]).bounds == (0, 1)
    lines = [f"**{summary['study']}**: {summary['verdict']}", ""]
    lines += [
        "| labels | arm | score | gain over unimodal | gain over primary-only | transferred |",
        "|---|---|---:|---|---|---|",
    ]
    for entry in summary["entries"]:
        if entry["control"] is not None:
            continue
        upper = " (needs all at test)" if entry["needs_all_at_test"] else ""
        gains = [_interval(entry, name, points) for name in ("gain", "gain_semi", "transferred")]
        cells = [str(entry["budget"]), f"`{entry['arm']}`{upper}", _number(entry["mean"], points), *gains]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


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
