"""Every command on a study of seconds: what it prints, what it writes, its exit code, and one error of each."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from transference.cli import main
from transference.core.registry import names

STUDY = """
name = "small"
[data]
manifest = "rows.csv"
primary = "a"
secondary = ["b"]
label = "y"
{split}
[study]
seeds = 1
metric = "{metric}"
controls = {controls}
baseline = "linear"
[schedule]
updates = 3
device = "{device}"
[arms.linear]
method = "unimodal"
estimator = "sklearn.linear_model.LogisticRegression"
[arms.early]
method = "fusion.early"
width = 4
{more}
"""
REMEDY = "Check the path, its permissions and the space on its disk."
Called = tuple[int, str, str]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Called]:
    """The exit code, standard output and standard error of a command line."""

    def run(*words: object) -> Called:
        monkeypatch.setattr(sys, "argv", ["transference", *map(str, words)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code
        assert code is None or isinstance(code, int)
        return code or 0, *capfd.readouterr()

    return run


def write_study(folder: Path, *, copies: int = 1, metric: str = "accuracy", **blanks: str) -> Path:
    """40 rows of two classes and two modalities, each row `copies` times; the last ten rows are all of one class."""
    rng = np.random.default_rng(0)
    rows = [
        [f"r{k}", *(rng.normal(size=4) + 2 * (k % 2)).round(3), "yes" if k % 2 else "no", "train" if k < 30 else "test"]
        for k in range(40)
    ]
    for row in rows[30:]:
        row[5] = "yes"
    with (folder / "rows.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "a_1", "a_2", "b_1", "b_2", "y", "part"])
        writer.writerows([f"{row[0]}-{copy}", *row[1:]] for copy in range(copies) for row in rows)
    study = folder / "study.toml"
    filled = {"split": "", "device": "cpu", "more": "", "controls": "[]"} | blanks
    study.write_text(STUDY.format(metric=metric, **filled))
    return study


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study that ran, beside its study file and rows."""
    from transference.experiment.runner import run

    folder = tmp_path_factory.mktemp("study")
    return run(write_study(folder, controls='["shuffle"]'), folder=folder / "runs")


def test_check_says_what_there_is_and_trains_nothing(tmp_path: Path, call: Callable[..., Called]) -> None:
    study = write_study(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    code, out, err = call("check", study)
    assert (code, err) == (0, "")
    assert f"{study}: no fault found. 40 rows, 40 with a label; 2 cells to run." in out
    assert "primary   a: vector 2, in 40 rows" in out
    code, out, _ = call("check", study, "--json")
    facts = json.loads(out)
    assert (code, facts["cells"], facts["leaks"], facts["primary"]) == (0, 2, [], "a")
    assert facts["modalities"]["b"] == {"kind": "vector", "shape": [2], "present": 40}
    assert sorted(tmp_path.rglob("*")) == before


def test_check_and_run_warn_of_a_leak(tmp_path: Path, call: Callable[..., Called]) -> None:
    study = write_study(tmp_path, copies=2)
    message = "test rows hold the same 'a' as a training row"
    code, out, _ = call("check", study)
    assert code == 0
    assert out.count(message) == 1
    assert "Warning: Seed 0: " in out
    assert message in json.loads(call("check", study, "--json")[1])["leaks"][0]
    code, _, err = call("run", study, "--runs", tmp_path / "runs")
    assert code == 0
    assert err.count(message) == 1


def test_wrong_input_is_one_line_and_exit_code_2(tmp_path: Path, call: Callable[..., Called]) -> None:
    for words, message in (
        (("check", tmp_path / "none.toml"), "There is no study file"),
        (("run", tmp_path / "none.toml"), "There is no study file"),
        (("report", tmp_path), "There is no study in"),
        (("export", tmp_path, "--arm", "x"), "There is no study in"),
        (("predict", tmp_path / "none.onnx", tmp_path / "rows.csv"), "There is no file"),
        (("show", "fusion.erly"), "There is no method 'fusion.erly'. Did you mean 'fusion.early'?"),
        (("data", "path", "digit"), "digits"),
    ):
        code, out, err = call(*words)
        assert (code, out) == (2, ""), words
        assert err.startswith("Error: ")
        assert message in err
        assert "Traceback" not in err


def test_folders_are_made_and_what_can_not_be_one_is_one_line(tmp_path: Path, call: Callable[..., Called]) -> None:
    write_study(tmp_path)
    words = ("init", tmp_path / "rows.csv", "--primary", "a", "--label", "y", "-o")
    code, out, err = call(*words, tmp_path / "rows.csv" / "x.toml")
    assert (code, out) == (2, "")
    assert err == f"Error: {str(tmp_path / 'rows.csv')!r}: File exists. {REMEDY}\n"
    assert call(*words, tmp_path / "new" / "x.toml")[0] == 0
    assert call("check", tmp_path / "new" / "x.toml")[0] == 0


def test_check_tells_faults_as_json(tmp_path: Path, call: Callable[..., Called]) -> None:
    study = write_study(tmp_path)
    study.write_text(study.read_text().replace("seeds = 1", "seeds = 0\nsedes = 1"))
    code, out, err = call("check", study, "--json")
    assert (code, err) == (2, "")
    faults = json.loads(out)["faults"]
    assert len(faults) == 2
    assert any("'seeds' in [study] must be" in fault for fault in faults)
    assert any("sedes" in fault for fault in faults)


def test_check_tells_the_faults_of_the_file_and_of_its_rows_together(
    tmp_path: Path, call: Callable[..., Called]
) -> None:
    study = write_study(tmp_path, metric="acuracy")
    rows = (tmp_path / "rows.csv").read_text().splitlines()
    (tmp_path / "rows.csv").write_text("\n".join([*rows, "new,1,2,3,what,no,test", "more,1,inf,3,4,no,test"]))
    code, _, err = call("check", study)
    assert code == 2
    assert "3 faults" in err
    assert "There is no metric 'acuracy'. Did you mean 'accuracy'?" in err
    assert "row 42, column 'b_2'" in err
    assert "row 43, column 'a_2'" in err


def test_export_wants_the_rows_that_the_model_was_trained_on(tmp_path: Path, call: Callable[..., Called]) -> None:
    call("run", write_study(tmp_path), "--runs", tmp_path)
    rows = tmp_path / "rows.csv"
    rows.write_text(rows.read_text().replace(",yes,", ",maybe,"))
    code, out, err = call("export", tmp_path / "small", "--arm", "linear", "-o", tmp_path / "m.onnx")
    assert (code, out) == (2, "")
    assert "The rows of the study 'small' have changed since the arm 'linear' was trained" in err
    assert not (tmp_path / "m.onnx").exists()


def test_an_arm_is_exported_without_the_plug_ins_of_others(
    tmp_path: Path, call: Callable[..., Called], monkeypatch: pytest.MonkeyPatch
) -> None:
    plug_in = tmp_path / "plug_in_of_others.py"
    plug_in.write_text("from transference.unimodal import Unimodal\n\n\nclass Other(Unimodal):\n    pass\n")
    with monkeypatch.context() as there:
        there.syspath_prepend(tmp_path)
        more = '[arms."plug_in_of_others:Other"]\nwidth = 4'
        assert call("run", write_study(tmp_path, more=more), "--runs", tmp_path)[0] == 0
    monkeypatch.delitem(sys.modules, plug_in.stem)
    plug_in.unlink()
    assert call("export", tmp_path / "small", "--arm", "linear", "-o", tmp_path / "m.onnx")[0] == 0


def test_show_finds_a_method_of_another_package(call: Callable[..., Called], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent / "experiment")
    code, out, _ = call("show", "small_study:Careless")
    assert code == 0
    assert out.startswith("small_study:Careless")
    assert "At test time it reads: primary." in out


def test_a_device_that_is_not_there_is_found_by_check(tmp_path: Path, call: Callable[..., Called]) -> None:
    study = write_study(tmp_path, device="cuda:99")
    for verb in ("check", "run"):
        code, _, err = call(verb, study)
        assert code == 2
        assert "Error: The device 'cuda:99' of [schedule] can not be used on this machine" in err
        assert 'device = "auto"' in err


def test_a_metric_without_a_value_is_found_by_check(tmp_path: Path, call: Callable[..., Called]) -> None:
    code, _, err = call("check", write_study(tmp_path, metric="auroc", split='split = "part"'))
    assert code == 2
    assert "those of seed 0 hold 'yes' alone" in err


def test_run_writes_the_page_and_goes_on_where_it_was(tmp_path: Path, call: Callable[..., Called]) -> None:
    study = write_study(tmp_path)
    code, out, err = call("run", study, "--runs", tmp_path / "runs")
    page = tmp_path / "runs" / "small" / "report.html"
    assert (code, page.is_file()) == (0, True)
    assert f"Report: {page}" in out
    assert "2/2" in err
    assert "0 of 2 cells are finished." in err
    assert "2 of 2 cells are finished." in err
    records = {path: path.stat().st_mtime_ns for path in page.parent.glob("*/record.json")}
    assert len(records) == 2
    assert call("run", study, "--runs", tmp_path / "runs")[0] == 0
    assert {path: path.stat().st_mtime_ns for path in records} == records


def test_a_failed_cell_is_exit_code_1_with_its_remedy(tmp_path: Path, call: Callable[..., Called]) -> None:
    broken = '{ class = "sklearn.linear_model.LogisticRegression", C = -1 }'
    more = f'[arms.broken]\nmethod = "unimodal"\nestimator = {broken}'
    code, out, err = call("run", write_study(tmp_path, more=more), "--runs", tmp_path / "runs")
    assert code == 1
    assert "1 cells have no score; the report names them. Run them again with --retry." in out
    assert "broken seed 0 failed: InvalidParameterError" in err


def test_retry_is_not_offered_for_cells_that_it_would_not_repeat(
    tmp_path: Path, call: Callable[..., Called], monkeypatch: pytest.MonkeyPatch
) -> None:
    from transference.experiment import plan

    monkeypatch.setattr(plan, "_check_rows", lambda *_: None)  # what the planner does not foresee
    study = write_study(tmp_path, metric="auroc", split='split = "part"')
    code, out, _ = call("run", study, "--runs", tmp_path / "runs")
    assert code == 1
    assert "2 cells have no score; the report names them." in out
    assert "--retry" not in out


def test_report_writes_the_page_again(finished: Path, call: Callable[..., Called]) -> None:
    code, out, _ = call("report", finished)
    assert code == 0
    assert f"Wrote {finished / 'report.html'} and {finished / 'summary.json'}." in out
    summary = json.loads(call("report", finished, "--json")[1])
    assert summary == json.loads((finished / "summary.json").read_text())
    assert {(entry["arm"], entry["control"]) for entry in summary["entries"]} == {
        ("linear", None),
        ("early", None),
        ("early", "shuffle"),
    }
    assert summary["verdict"] in out


def test_report_counts_the_cells_that_have_not_run(tmp_path: Path, call: Callable[..., Called]) -> None:
    study = write_study(tmp_path)
    call("run", study, "--runs", tmp_path)
    next((tmp_path / "small").glob("*/record.json")).unlink()
    code, out, _ = call("report", tmp_path / "small", "--json")
    assert code == 0
    assert "1 of 2 cells have not run yet, or are damaged." in json.loads(out)["notes"]
    next((tmp_path / "small").glob("*/record.json")).write_text("{}")
    code, _, err = call("report", tmp_path / "small")
    assert code == 2
    assert "holds no whole finished cell" in err
    assert "Run the study again" in err


def test_a_full_disk_leaves_the_page_as_it_was(
    tmp_path: Path, finished: Path, call: Callable[..., Called], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = tmp_path / "small"
    shutil.copytree(finished, study)
    for name in ("summary.json", "report.html"):
        (study / name).write_text("old")
    before = {path: path.read_bytes() for path in study.iterdir() if path.is_file()}
    synced: list[int] = []

    def full(handle: int) -> None:
        synced.append(handle)
        if len(synced) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    code, out, err = call("report", study)
    assert (code, out) == (2, "")
    assert "is full. Free some space" in err
    assert {path: path.read_bytes() for path in study.iterdir() if path.is_file()} == before


def test_an_exported_arm_answers_new_rows(tmp_path: Path, finished: Path, call: Callable[..., Called]) -> None:
    model, answers = tmp_path / "linear.onnx", tmp_path / "answers.csv"
    code, out, _ = call("export", finished, "--arm", "linear", "-o", model)
    assert code == 0
    assert f"Wrote {model}: linear, seed 0, budget all." in out
    (tmp_path / "new.csv").write_text("a_1,a_2\n-5,-5\n9,9\n")
    code, out, _ = call("predict", model, tmp_path / "new.csv", "-o", answers)
    assert (code, out) == (0, f"Wrote {answers}: 2 rows.\n")
    printed = call("predict", model, tmp_path / "new.csv")[1]
    assert printed == answers.read_text()
    assert [line.split(",")[1] for line in printed.splitlines()[1:]] == ["no", "yes"]
    assert call("predict", model, tmp_path / "new.csv", "-o", tmp_path / "folder" / "x.csv")[0] == 0
    assert (tmp_path / "folder" / "x.csv").read_text() == printed
    code, _, err = call("export", finished, "--arm", "liner")
    assert code == 2
    assert "has no finished arm 'liner'. Did you mean 'linear'?" in err


def test_the_methods_are_listed_and_shown(call: Callable[..., Called]) -> None:
    code, out, _ = call("list")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == names()
    assert list(json.loads(call("list", "--json")[1])) == names()
    code, out, _ = call("show", "transfer.distillation")
    assert code == 0
    assert "At test time it reads: primary. Needs: labels, paired, unlabelled." in out
    assert "\n  width = 64" in out


def test_the_data_sets_are_listed(call: Callable[..., Called]) -> None:
    code, out, _ = call("data", "list")
    assert code == 0
    listed: dict[str, Any] = json.loads(call("data", "list", "--json")[1])
    assert [line.split()[0] for line in out.splitlines()] == list(listed)
    assert "digits" in listed
