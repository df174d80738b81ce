"""Records survive JSON, whatever they hold."""

from __future__ import annotations

import json
import math

import pytest

from transference.core.errors import DataError
from transference.core.records import Cell, Environment, Finding, RunRecord


def record() -> RunRecord:
    return RunRecord(
        hash="abc",
        study="s",
        cell=Cell("arm", "fusion.late", {"width": 3, "nested": {"a": [1, None]}}, None, 0, "all"),
        status="ok",
        error="",
        environment=Environment("3.11", "linux", "x", {"torch": "2"}, 1, "cpu"),
        task={"kind": "classification", "classes": ["a", "b"], "metric": "accuracy"},
        data="f00",
        rows={"labelled": 3, "unlabelled": 0, "test": 2},
        history={"task": [1.0, math.nan, math.inf]},
        findings=(Finding("accuracy", 0.5, 0.1, 0.9, "share", "higher", (0, 1), 2, {"split": "test"}),),
        predictions="",
        seconds=1.5,
        peak_memory=10,
    )


def test_round_trip_is_exact_even_for_what_json_lacks() -> None:
    text = record().to_json()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    again = RunRecord.from_json(text)
    assert again.to_json() == text
    assert math.isnan(again.history["task"][1])
    assert again.history["task"][2] == math.inf
    assert again.findings == record().findings
    assert again.cell == record().cell


@pytest.mark.parametrize("damage", ["", "{", "{}", record().to_json()[:-40], record().to_json().replace("seed", "sed")])
def test_a_damaged_record_is_said_to_be(damage: str) -> None:
    with pytest.raises(DataError, match=r"A record is damaged: .* Delete its folder and run the study again"):
        RunRecord.from_json(damage)
