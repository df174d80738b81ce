"""Arms that are controls of other arms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_study import small_config, small_data

from transference.core.errors import ConfigError
from transference.experiment.config import parse
from transference.experiment.plan import plan
from transference.experiment.publish import publish
from transference.experiment.runner import run
from transference.experiment.store import Store


def refused(**changes: Any) -> str:
    with pytest.raises(ConfigError) as raised:
        small_config(**changes)
    return str(raised.value)


def test_an_arm_may_be_a_control_of_another_one() -> None:
    arms = {"small_study:Means": {}, "plain": {"method": "unimodal", "control_of": "small_study:Means"}}
    config = small_config(study={"seeds": [7], "budgets": ["all"], "controls": ["shuffle"]}, arms=arms)
    assert [(cell.arm, cell.method, cell.control) for cell in plan(config, small_data())] == [
        ("small_study:Means", "small_study:Means", None),
        ("small_study:Means", "small_study:Means", "shuffle"),
        ("small_study:Means", "unimodal", "plain"),
        ("unimodal", "unimodal", None),
    ]
    assert parse(config.to_json()) == config


def test_an_arm_that_is_a_control_is_trained_as_it_is_and_can_not_win(tmp_path: Path) -> None:
    arms = {"unimodal": {"width": 8}, "small_study:Means": {}}
    arms["plain"] = {"method": "unimodal", "width": 8, "control_of": "small_study:Means"}
    config = small_config(arms=arms, study={"seeds": 1, "budgets": ["all"], "controls": []})
    folder = run(config, folder=tmp_path, data=small_data())
    store = Store(folder)
    found = {(record.cell.arm, record.cell.control): record for record in store.records()}
    assert set(found) == {("unimodal", None), ("small_study:Means", None), ("small_study:Means", "plain")}
    baseline, control = (
        store.predictions(found[key].hash) for key in (("unimodal", None), ("small_study:Means", "plain"))
    )
    np.testing.assert_array_equal(baseline.scores, control.scores)
    entries = {(each["arm"], each["control"]): each for each in publish(folder)["entries"]}
    arm, plain = entries["small_study:Means", None], entries["small_study:Means", "plain"]
    assert not arm["primary_only"]  # though its control is
    assert arm["best_control"] == "plain"
    assert arm["transferred"] == pytest.approx(arm["mean"] - plain["mean"])


def test_a_control_names_an_arm_that_can_have_one_and_is_not_called_as_another() -> None:
    arms = {"a": {"method": "unimodal", "width": 8}, "b": {"method": "unimodal", "control_of": "a"}}
    assert "'control_of' in [arms.\"c\"]: 'b' is no arm that can have controls. Choose one of" in refused(
        arms=arms | {"c": {"method": "unimodal", "control_of": "b"}}
    )
    shuffle = arms | {"shuffle": {"method": "unimodal", "control_of": "a"}}
    assert '[arms."shuffle"] is a control of an arm and has the name of a control of the data.' in refused(arms=shuffle)
    told = refused(arms=arms, study={"baseline": "b"})
    assert '[arms."b"] is a control of an arm and has the name of the baseline. Rename it.' in told
