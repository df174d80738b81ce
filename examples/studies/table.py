"""The table of a finished study in Markdown, from its summary.json: ``python examples/studies/table.py runs/webkb``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

POINTS = 100


def table(summary: dict[str, Any]) -> str:
    """One line an arm: its score, its gains in points with 95 % intervals, and what was transferred, by budget."""
    lines = [f"**{summary['study']}**: {summary['verdict']}", ""]
    lines += [
        "| labels | arm | score | gain over unimodal | gain over primary-only | transferred |",
        "|---|---|---:|---|---|---|",
    ]
    for entry in summary["entries"]:
        if entry["control"] is not None:
            continue
        upper = " (needs all at test)" if entry["needs_all_at_test"] else ""
        cells = [_points(entry, name) for name in ("gain", "gain_semi", "transferred")]
        lines.append(
            f"| {entry['budget']} | `{entry['arm']}`{upper} | {POINTS * entry['mean']:.1f} | {' | '.join(cells)} |"
        )
    return "\n".join(lines)


def _points(entry: dict[str, Any], name: str) -> str:
    if entry[name] is None:
        return "–"
    return f"{POINTS * entry[name]:+.1f} [{POINTS * entry[f'{name}_low']:.1f}, {POINTS * entry[f'{name}_high']:.1f}]"


if __name__ == "__main__":
    for folder in sys.argv[1:]:
        sys.stdout.write(table(json.loads((Path(folder) / "summary.json").read_text(encoding="utf-8"))) + "\n\n")
