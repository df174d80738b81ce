"""The Markdown table of a study: one line an arm, in the scale of its metric."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[2] / "examples" / "studies" / "table.py"


def table(metric: str, **entry: Any) -> list[str]:
    """The lines of a table with one arm."""
    spec = importlib.util.spec_from_file_location("table", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    gains = {f"{name}{end}": None for name in ("gain", "gain_semi", "transferred") for end in ("", "_low", "_high")}
    whole = {"arm": "a", "budget": 2, "control": None, "needs_all_at_test": False, "mean": None, **gains, **entry}
    control = whole | {"control": "shuffle", "mean": None if whole["mean"] is None else whole["mean"] / 2}
    cost = [{"arm": "a", "budget": 2, "control": None, "seconds": 1.25}]
    summary = {"study": "s", "verdict": "V.", "metric": metric, "entries": [whole, control], "cost": {"entries": cost}}
    text: str = module.table(summary | {"data": {"controls": ["shuffle"]}, "task": {"baseline": "b"}})
    return text.splitlines()


def test_a_share_is_shown_in_points() -> None:
    lines = table("accuracy", mean=0.5, gain=0.125, gain_low=-0.25, gain_high=0.5, needs_all_at_test=True)
    assert lines[0] == "**s**: V."
    assert "gain over b | gain over primary-only | shuffle | transferred | seconds" in lines[2]
    assert lines[-1] == "| 2 | `a` (needs all at test) | 50.0 | +12.5 [-25.0, 50.0] | – | 25.0 | – | 1.2 |"
    assert len(lines) == 5


def test_an_error_is_shown_in_its_own_unit() -> None:
    assert table("mae", mean=1.25, gain=-0.5)[-1] == "| 2 | `a` | 1.25 | -0.5 | – | 0.625 | – | 1.2 |"
    assert table("log_loss", mean=0.25)[-1] == "| 2 | `a` | 0.25 | – | – | 0.125 | – | 1.2 |"


def test_an_arm_without_a_score_has_dashes() -> None:
    assert table("accuracy")[-1] == "| 2 | `a` | – | – | – | – | – | 1.2 |"
