"""Records survive JSON, whatever they hold."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from transference.core.errors import DataError
from transference.core.records import Cell, Environment, Finding, RunRecord, cell_hash


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
        card={"at_test": "all", "needs": ["labels"]},
        model="d1",
        setting={"format": 2, "parameters": {"width": 3, "rate": math.nan}},
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
    assert (again.card, again.model) == ({"at_test": "all", "needs": ["labels"]}, "d1")
    assert cell_hash(again.cell, again.setting, again.data) == cell_hash(record().cell, record().setting, "f00")


@pytest.mark.parametrize("damage", ["", "{", "{}", record().to_json()[:-40], record().to_json().replace("seed", "sed")])
def test_a_damaged_record_is_said_to_be(damage: str) -> None:
    with pytest.raises(DataError, match=r"A record is damaged: .*\. Run the study again; its cell will be repeated\.$"):
        RunRecord.from_json(damage)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("seconds",), None, r"'seconds' must be a valid number\. Got None instead"),
        (("rows", "test"), None, r"'rows.test' must be a valid integer\. Got None instead"),
        (("cell", "seed"), "0", r"'cell.seed' must be a valid integer\. Got '0' instead"),
        (("status",), "fine", r"'status' must be 'ok', 'failed', 'diverged' or 'out_of_memory'\. Got 'fine' instead"),
        (("findings", 0, "bounds"), [0], r"'findings.0.bounds.1' is missing"),
        (("history",), {"task": [1.0], "update": [1, 2]}, r"'history' must be lists of equal length\. Got \{'task': 1"),
        (("card",), [], r"'card' must be "),
        (("extra",), 1, "unexpected keyword argument 'extra'"),
    ],
)
def test_a_value_of_another_type_is_damage(place: tuple[Any, ...], value: Any, message: str) -> None:
    raw = json.loads(record().to_json())
    holder = raw
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = value
    with pytest.raises(DataError, match=f"A record is damaged: .*{message}"):
        RunRecord.from_json(json.dumps(raw))
