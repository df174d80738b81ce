"""One file, several studies: what each is made of, what is refused, and that they are run one after the other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from transference.cli import app
from transference.core.errors import ConfigError
from transference.experiment.config import load
from transference.experiment.variants import expand, load_all

FILE = """
name = "both"
[data]
set = "digits"
[study]
seeds = 1
budgets = [2]
controls = []
[schedule]
updates = 5
device = "cpu"
[arms.unimodal]
width = 8
[arms."fusion.late"]
[[variants]]
name = "few"
[[variants]]
name = "more"
study = { budgets = [3] }
schedule = { updates = 6 }
without = ["fusion.late"]
[variants.arms.small]
method = "unimodal"
width = 4
"""


def written(folder: Path, text: str = FILE) -> Path:
    path = folder / "both.toml"
    path.write_text(text)
    return path


def test_a_variant_is_laid_over_the_file_table_by_table(tmp_path: Path) -> None:
    few, more = load_all(written(tmp_path))
    assert (few.name, more.name) == ("both-few", "both-more")
    assert (few.study.budgets, more.study.budgets) == ((2,), (3,))
    assert (few.study.seeds, more.study.seeds) == ((0,), (0,))
    assert (few.schedule.updates, more.schedule.updates) == (5, 6)
    assert (list(few.arms), list(more.arms)) == (["unimodal", "fusion.late"], ["unimodal", "small"])
    assert more.data.set == "digits"


def test_a_file_without_variants_is_one_study(tmp_path: Path) -> None:
    path = written(tmp_path, FILE.partition("[[variants]]")[0])
    assert load_all(path) == [load(path)]
    with pytest.raises(ConfigError, match="holds several studies"):
        load(written(tmp_path))


def test_what_is_not_a_variant_is_refused_all_at_once(tmp_path: Path) -> None:
    raw = {"name": "a", "arms": {"unimodal": {}}, "variants": [{"nam": "b"}, {"name": "c", "without": ["unimodel"]}]}
    with pytest.raises(ConfigError) as raised:
        expand({**raw, "variants": [*raw["variants"], {"name": "c", "study": 3}]})
    for part in (
        "There is no key 'nam' in variant 1. Did you mean 'name'?",
        "'name' in variant 1 is missing. Add name = \"...\".",
        "'without' in variant 2: there is no arm 'unimodel'. Did you mean 'unimodal'?",
        "'study' in variant 3 must be a table. Got 3 instead.",
        "Two variants are called 'c'.",
    ):
        assert part in str(raised.value)
    with pytest.raises(ConfigError, match="'variants' of 'study' must be tables. Got 3 instead"):
        expand({"variants": 3})
    broken = FILE.replace("budgets = [3]", "budgets = [-3]").replace("width = 8", "wdth = 8")
    with pytest.raises(ConfigError) as raised:
        load_all(written(tmp_path, broken))
    assert "both-more: A budget in [study] must be" in str(raised.value)
    assert str(raised.value).count("unimodal has no parameter 'wdth'") == 2


def test_what_all_share_is_checked_as_what_is_laid_over_it(tmp_path: Path) -> None:
    shared = {"name": "a", "data": [], "study": 5, "task": 3, "schedule": 2, "arms": 7}
    variants = [{"name": "b", "task": {"kind": "few_shot"}, "without": 3}, {"name": "c", "without": "unimodal"}]
    variants.append({"name": "e", "without": ["unimodal"]})
    with pytest.raises(ConfigError) as raised:
        expand({**shared, "variants": [*variants, {"name": "d", "without": [3]}]})
    told = raised.value.faults
    assert [fault.partition(" Got")[0] for fault in told] == [
        *(f"'{key}' must be a table." for key in ("data", "study", "task", "schedule", "arms")),
        *(f"'without' in variant {k} must be a list of arms." for k in (1, 2, 4)),
    ]
    assert told[1].endswith("Got 5 instead. Write study = { ... }.")
    assert told[6].endswith("Got 'unimodal' instead. Write without = [\"unimodal\"].")
    path = written(
        tmp_path,
        FILE.replace("[study]\nseeds = 1\nbudgets = [2]\ncontrols = []\n", "").replace(
            'name = "both"', 'name = "both"\nstudy = 5'
        ),
    )
    checked = CliRunner().invoke(app, ["check", str(path), "--json"])
    assert checked.exit_code == 2
    assert json.loads(checked.stdout)["faults"] == ["'study' must be a table. Got 5 instead. Write study = { ... }."]


def test_all_are_checked_and_run(tmp_path: Path) -> None:
    path = written(tmp_path)
    checked = CliRunner().invoke(app, ["check", str(path), "--json"])
    assert [(each["name"], each["cells"]) for each in json.loads(checked.stdout)] == [("both-few", 2), ("both-more", 2)]
    ran = CliRunner().invoke(app, ["run", str(path), "--runs", str(tmp_path / "runs")])
    assert ran.exit_code == 0
    assert ran.stdout.count("Report: ") == 2
    for name in ("both-few", "both-more"):
        assert (tmp_path / "runs" / name / "report.html").is_file()


def test_faults_of_the_rows_name_the_variant(tmp_path: Path) -> None:
    path = written(tmp_path, FILE.replace("budgets = [3]", "budgets = [5000]"))
    told = CliRunner().invoke(app, ["check", str(path), "--json"])
    assert told.exit_code == 2
    (fault,) = json.loads(told.stdout)["faults"]
    assert fault.startswith("both-more: Budget '5000': ")
