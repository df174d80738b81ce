"""The catalogue says what the source says, and what was measured."""

from __future__ import annotations

import importlib.util
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from transference.core.errors import ConfigError
from transference.core.metrics import METRICS
from transference.core.registry import FAMILIES, find, names
from transference.core.spec import KINDS
from transference.data.corrupt import CONTROLS
from transference.data.modality import ModalityConfig
from transference.experiment.arms import Arm
from transference.experiment.config import DataConfig, ScheduleConfig, StudyConfig, TaskConfig, parse

DOCS = Path(__file__).resolve().parent.parent / "docs"


@pytest.fixture(scope="module")
def build() -> Any:
    spec = importlib.util.spec_from_file_location("build_docs", DOCS / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pages_are_those_of_the_source(build: Any) -> None:
    made = build.pages(build.read())
    there = {file.name: file.read_text(encoding="utf-8") for file in (DOCS / "methods").glob("*.md")}
    stale = sorted(name for name in made.keys() | there.keys() if made.get(name) != there.get(name))
    assert not stale, f"Run 'python docs/build.py': {stale}"


def test_every_key_of_a_study_file_is_told() -> None:
    told = (DOCS / "study-file.md").read_text(encoding="utf-8")
    tables = (DataConfig, StudyConfig, TaskConfig, ScheduleConfig, ModalityConfig)
    keys = {key for table in tables for key in table.model_fields} | set(METRICS) | set(KINDS) | {"without"}
    assert not [key for key in sorted(keys) if f"`{key}`" not in told]
    assert "`control_of = " in told
    assert "control_of" in Arm.model_fields
    assert not [control for control in CONTROLS if f'`"{control}"`' not in told]
    example = tomllib.loads(re.findall(r"```toml\n(.*?)```", told, re.DOTALL)[0])
    example["data"] = {"set": "digits"}
    assert set(parse(example).arms) == {"unimodal", "transfer.distillation", "boosted"}


def test_every_method_has_its_source_in_the_references(build: Any) -> None:
    sources = build.references((DOCS / "references.bib").read_text(encoding="utf-8"))
    for name in (name for family in FAMILIES for name in names(family)):
        assert find(name).card.reference in {*sources, ""}, name
    assert all(re.search(r"\w+.* \(\d{4}\), \w", told) for told in sources.values())


def test_a_gain_is_named_by_what_is_told_from_0(build: Any) -> None:
    row = {"gain": "3.0", "p": "0.01", "transferred_low": "0.5"}
    assert build._meaning(row) == "**+3.0 transfers**"
    assert build._meaning(row | {"transferred_low": "-0.5"}) == "+3.0 *regularises*"
    assert build._meaning(row | {"transferred_low": ""}) == "+3.0 (no control)"
    assert build._meaning(row | {"p": "0.05"}) == "+3.0"
    assert build._meaning(row | {"gain": "-3.0"}) == "-3.0 *hurts*"


def study(folder: Path, arms: dict[str, Any], **numbers: float) -> Path:
    """A finished study of two arms and a control, with what `build.taken` reads of it."""
    zero = {f"{name}{end}": None for name in ("gain", "gain_semi", "transferred") for end in ("", "_low", "_high")}
    entries = [
        {**zero, "arm": name, "method": arm["method"], "control": control, "budget": 3, "n_seeds": seeds}
        | {"mean": 0.5, "p_adjusted": None}
        | (numbers if name != "unimodal" else {})
        for name, arm, control, seeds in (
            (name, arm, control, seeds) for name, arm in arms.items() for control, seeds in ((None, 4), ("shuffle", 9))
        )
    ]
    told = {
        "study": "some-data",
        "metric": "accuracy",
        "task": {"primary": "x", "secondary": ["z"], "baseline": next(iter(arms))},
        "cost": {"entries": [{**each, "seconds": 1.25} for each in entries]},
        "entries": entries,
    }
    (folder / "summary.json").write_text(json.dumps(told))
    (folder / "study.json").write_text(json.dumps({"config": {"arms": arms}}))
    return folder


PLAIN = {"method": "unimodal"}
ARM = "transfer.distillation"


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ({"gain": 0.031, "p_adjusted": 0.01, "transferred_low": 0.0004}, "**+3.1 transfers**"),
        ({"gain": 0.031, "p_adjusted": 0.01, "transferred_low": -1e-9}, "+3.1 *regularises*"),
        ({"gain": -0.0004, "p_adjusted": 0.01, "transferred_low": 0.1}, "-0.0 *hurts*"),
        ({"gain": 0.031, "p_adjusted": 0.049999, "transferred_low": 0.1}, "**+3.1 transfers**"),
        ({"gain": 0.031, "p_adjusted": 0.050001, "transferred_low": 0.1}, "+3.1"),
    ],
)
def test_a_gain_is_named_before_numbers_are_rounded(
    build: Any, tmp_path: Path, numbers: dict[str, float], expected: str
) -> None:
    rows = build.taken(study(tmp_path, {"unimodal": PLAIN, ARM: {"method": ARM}}, **numbers))
    assert [row["method"] for row in rows] == ["unimodal", ARM]
    assert build._meaning(rows[1]) == expected


def test_numbers_are_rounded_where_they_are_shown(build: Any, tmp_path: Path) -> None:
    numbers = {"mean": 0.51234, "gain": 0.03456, "gain_low": 0.00012, "gain_high": 0.06789}
    rows = build.taken(study(tmp_path, {"unimodal": PLAIN, ARM: {"method": ARM}}, **numbers))
    assert build._table(rows[1:]).splitlines()[2:] == [
        "| data: x ← z | 3 | 51.2 accuracy | +3.5 [0.0, 6.8] | – | – | 1.2 |"
    ]


def test_arms_and_baselines_that_are_not_the_defaults_are_left_out(build: Any, tmp_path: Path) -> None:
    for arms in ({"unimodal": PLAIN, ARM: {"method": ARM, "width": 8}}, {"unimodal": PLAIN, "mine": {"method": ARM}}):
        assert [row["method"] for row in build.taken(study(tmp_path, arms))] == ["unimodal"]
    for baseline in ({ARM: {"method": ARM}}, {"unimodal": {**PLAIN, "width": 8}}):
        with pytest.raises(ConfigError, match="The baseline of 'some-data' must be 'unimodal' with its defaults"):
            build.taken(study(tmp_path, {**baseline, "more": PLAIN}))


def test_the_index_tells_the_seeds_of_the_studies(build: Any, tmp_path: Path) -> None:
    rows = build.taken(study(tmp_path, {"unimodal": PLAIN, ARM: {"method": ARM}}, gain=0.1))
    assert "the primary one); 4 seeds. A word" in build.index(rows)
    assert "the primary one); 3 to 4 seeds. A word" in build.index([*rows, rows[1] | {"seeds": "3"}])
    assert "## At a glance" not in build.index([])
