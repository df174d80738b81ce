"""The main job on real data, small: the inertial signal teaches the skeleton at two labels a class; shuffled, not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from transference.experiment.config import parse
from transference.experiment.publish import publish
from transference.experiment.runner import run

STUDY = {
    "name": "smoke",
    "data": {"set": "utd_mhad", "primary": "skeleton", "secondary": ["inertial"]},
    "study": {"seeds": [0, 1], "budgets": [2], "controls": ["shuffle"]},
    "schedule": {"updates": 200},
    "arms": {"unimodal": {}, "transfer.distillation": {}},
}


@pytest.mark.real
@pytest.mark.skipif(not os.environ.get("TRANSFERENCE_DATA"), reason="TRANSFERENCE_DATA is not set")
def test_distillation_transfers_and_its_control_does_not(tmp_path: Path) -> None:
    folder = run(parse(STUDY), folder=tmp_path)
    summary = publish(folder)
    gains = {entry["control"]: entry["gain"] for entry in summary["entries"] if entry["arm"] == "transfer.distillation"}
    assert not summary["failed"]
    assert gains[None] > 0.05
    assert gains["shuffle"] < 0.0
