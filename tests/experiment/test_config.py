"""A study file becomes a Config, or one error that names every fault."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from transference.core.errors import ConfigError
from transference.experiment.config import budget_name, load, parse
from transference.train.schedule import Schedule

LEAST: dict[str, Any] = {"name": "s", "data": {"set": "digits"}, "arms": {"unimodal": {}}}


def refused(**changes: Any) -> str:
    with pytest.raises(ConfigError) as raised:
        parse(LEAST | changes)
    return str(raised.value)


def test_what_is_left_out_gets_its_default() -> None:
    config = parse(LEAST)
    assert (config.study.seeds, config.study.budgets, config.study.workers) == ((0, 1, 2, 3, 4), ("all",), 1)
    assert (config.data.test, config.data.task, config.schedule) == (0.25, "classification", Schedule())


def test_a_file_is_read_relative_to_itself(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("audio,mood\n")
    (tmp_path / "study.toml").write_text(
        """
        name = "moods"
        [data]
        manifest = "rows.csv"
        primary = "audio"
        secondary = ["text"]
        label = "mood"
        [data.modalities.audio]
        kind = "audio"
        rate = 8000
        [study]
        seeds = [3, 1]
        budgets = [2, 0.5, "all", { happy = 3, sad = 9 }]
        [schedule]
        updates = 7
        clip = 1.0
        [arms.unimodal]
        [arms.wide]
        method = "unimodal"
        width = 128
        """
    )
    config = load(tmp_path / "study.toml")
    assert config.data.manifest == str(tmp_path / "rows.csv")
    assert config.data.modalities["audio"].rate == 8000
    assert config.study.seeds == (3, 1)
    assert config.study.budgets == (2, 0.5, "all", {"happy": 3, "sad": 9})
    assert config.schedule == Schedule(updates=7, clip=1.0)
    assert (config.arms["wide"].method, config.arms["wide"].parameters) == ("unimodal", {"width": 128})
    assert parse(config.to_json()) == config


def test_the_baseline_is_added_where_it_is_no_arm() -> None:
    config = parse(LEAST | {"arms": {"wide": {"method": "unimodal", "width": 128}}})
    assert sorted(config.arms) == ["unimodal", "wide"]
    assert config.arms["unimodal"].parameters == {}
    assert "The baseline 'wid' of [study] is no arm. Did you mean 'wide'?" in refused(
        study={"baseline": "wid"}, arms={"wide": {"method": "unimodal"}}
    )


def test_the_baseline_of_what_is_asked_of_two_modalities_is_the_first_arm_that_can() -> None:
    arms: dict[str, Any] = {
        "transfer.distillation": {},
        "narrow": {"method": "colearning.alignment.contrastive", "width": 8},
        "colearning.alignment.contrastive": {},
    }
    config = parse(LEAST | {"arms": arms, "task": {"kind": "retrieval"}})
    assert (config.study.baseline, set(config.arms)) == ("narrow", set(arms))
    assert parse(config.to_json()).study.baseline == "narrow"
    named = parse(LEAST | {"arms": arms, "task": {"kind": "retrieval"}, "study": {"baseline": "unimodal"}})
    assert named.study.baseline == "unimodal"
    control = {"first": {"method": "colearning.alignment.contrastive", "control_of": "narrow"}}
    assert parse(LEAST | {"arms": control | arms, "task": {"kind": "retrieval"}}).study.baseline == "narrow"
    told = refused(arms={"contrastive": {}}, task={"kind": "retrieval"})
    assert told.count("no method 'contrastive'") == 1
    assert "one arm or more" in refused(arms={}, task={"kind": "retrieval"})


def test_every_fault_is_told_at_once() -> None:
    message = refused(
        name="a/b",
        dta={},
        data={"set": "digits", "labl": 1, "test": "0.2"},
        study={"sead": 1, "budgets": [-1], "metric": "acuracy", "controls": ["shufle"], "workers": 0, "seeds": "five"},
        schedule={"update": 3, "clip": "tight"},
        arms={"unimodl": {}, "x": {"method": "unimodal", "widht": 3, "seed": 4}},
    )
    for part in (
        "'name' must be letters, digits, '.', '_' and '-', up to 100. Got 'a/b' instead. It names a folder under runs.",
        "There is no key 'dta'. Did you mean 'data'?",
        "There is no key 'labl' in [data]. Did you mean 'label'?",
        "'test' in [data] must be a valid number. Got '0.2' instead. It is the share of the rows that test.",
        "There is no key 'sead' in [study]. Did you mean 'seeds'?",
        "A budget in [study] must be labelled rows per class (an integer), a share in (0, 1)",
        "There is no metric 'acuracy'. Did you mean 'accuracy'?",
        "There is no control 'shufle'. Did you mean 'shuffle'?",
        "'workers' in [study] must be greater than or equal to 1. Got 0 instead.",
        "'seeds' in [study] must be a number or a list of integers of at least 0. Got 'five' instead. Write seeds = 5.",
        "There is no key 'update' in [schedule]. Did you mean 'updates'?",
        "'clip' in [schedule] must be a valid number. Got 'tight' instead.",
        "There is no method 'unimodl'. Did you mean 'unimodal'?",
        "[arms.\"x\"]: unimodal has no parameter 'widht'. Did you mean 'width'?",
        "[arms.\"x\"] may not set 'seed': it is the study's. Write seeds in [study].",
    ):
        assert part in message
    assert "15 faults" in message


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({}, "[data] must be either a 'set' or a 'manifest'. Got 'neither' instead."),
        ({"set": "digits", "manifest": "rows.csv"}, "Got 'both' instead."),
        ({"set": "digits", "label": "y"}, "'label' in [data] belongs to a manifest"),
        ({"manifest": "no.csv", "primary": "a", "label": "y"}, "There is no manifest 'no.csv' beside the study file."),
        ({"manifest": "no.csv"}, "[data] must say 'primary' where it has a manifest."),
        ({"set": "digits", "primary": "a", "secondary": ["a"]}, "'a' in [data] is primary and secondary."),
        ({"set": "digits", "secondary": "full"}, "'secondary' in [data] must be a valid list. Got 'full' instead."),
        ({"set": "digits", "test": 1.0}, "'test' in [data] must be less than 1. Got 1.0 instead."),
    ],
)
def test_faults_of_the_data_table(data: dict[str, Any], expected: str) -> None:
    assert expected in refused(data=data)


def test_what_must_be_a_table_is_told_to_be_one() -> None:
    message = refused(study=5, schedule="quick", data={"set": "digits", "modalities": 3})
    assert "'study' must be a table. Got 5 instead. Write [study] and keys below it." in message
    assert "'schedule' must be a table. Got 'quick' instead. Write [schedule] and keys below it." in message
    assert "'modalities' in [data] must be a table. Got 3 instead. Write [data.modalities]" in message


def test_faults_of_a_modality_are_told_with_their_place(tmp_path: Path) -> None:
    message = refused(
        data={
            "manifest": "rows.csv",
            "primary": "a",
            "label": "y",
            "modalities": {
                "a": {"kind": "image", "sise": 3},
                "b": {"kind": "vector", "size": 3},
                "c": {"kind": "smell"},
            },
        }
    )
    assert "There is no key 'sise' in [data.modalities.a]. Did you mean 'size'?" in message
    assert "[data.modalities.b]: The option 'size' has no meaning for the kind 'vector'." in message
    assert "'kind' in [data.modalities.c] must be 'image', 'audio'" in message


def test_faults_of_arms() -> None:
    assert 'An id with dots needs quotes: [arms."transfer.distillation"]' in refused(
        arms={"transfer": {"distillation": {}}}
    )
    assert "The method 'nowhere:Method' could not be imported" in refused(arms={"nowhere:Method": {}})
    assert "The class behind 'pathlib:Path' must be a transference Method" in refused(arms={"pathlib:Path": {}})
    assert "A study needs one arm or more." in refused(arms={})
    assert "'arms.unimodal' must be a table. Got 3 instead." in refused(arms={"unimodal": 3})
    assert "'method' must be the id of a method. Got 3 instead." in refused(arms={"a": {"method": 3}})


def test_faults_of_constraints_name_the_parameter() -> None:
    message = refused(arms={"constrained": {"method": "small_constraint:Narrow", "width": 0}})
    assert "The 'width' parameter of Narrow must be an integer of at least 1. Got 0 instead." in message


def test_faults_of_the_schedule_keep_their_wording() -> None:
    assert "The 'updates' of the schedule must be an integer of at least 1. Got 0 instead." in refused(
        schedule={"updates": 0}
    )


def test_a_file_that_is_missing_or_no_toml_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"There is no study file .*none\.toml.* Write one with 'transference init'"):
        load(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("name = demo\n")
    with pytest.raises(ConfigError, match=r"bad\.toml' is not TOML: .*line 1.* strings need quotes"):
        load(tmp_path / "bad.toml")


def test_budgets_have_one_name_each() -> None:
    assert [budget_name(each) for each in (2, 0.5, "all", {"b": 9, "a": 3})] == ["2", "0.5", "all", "a=3, b=9"]
    assert parse(LEAST | {"study": {"budgets": [2, 2, "all"]}}).study.budgets == (2, "all")


def test_reading_a_config_module_imports_no_torch() -> None:
    code = "import sys, transference.experiment.config, transference.experiment.plan; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
