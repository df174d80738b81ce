"""A study that fine-tunes, from its file to the answers for new rows."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import safetensors.numpy
from tiny_models import save_bert, save_pictures, save_vit

from transference.core.errors import DataError
from transference.data.manifest import read_rows
from transference.deploy.predictor import predict_table
from transference.deploy.study import export_arm
from transference.experiment.config import load
from transference.experiment.plan import fingerprint
from transference.experiment.publish import publish
from transference.experiment.runner import load_method, prepare, run
from transference.experiment.store import Store

STUDY = """
name = "tuned"
[data]
manifest = "rows.csv"
primary = "note"
secondary = ["picture"]
label = "mood"
[data.modalities.note]
kind = "text"
encoder = "hf:bert"
fine_tune = {fine_tune}
[data.modalities.picture]
kind = "image"
encoder = "hf:vit"
fine_tune = {fine_tune}
[study]
seeds = 1
controls = []
[schedule]
updates = 8
batch_size = 8
learning_rate = 0.02
device = "cpu"
[arms."colearning.alignment.latent"]
width = 4
[arms.unimodal]
width = 4
"""
pytestmark = pytest.mark.slow
NOTES = ["red fox", "sea sea dog fox", "dog", "red sea"]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    save_bert(folder / "bert")
    save_vit(folder / "vit")
    pictures = save_pictures(folder, 32)
    with (folder / "rows.csv").open("w", newline="") as file:
        rows = ([NOTES[k % 4], pictures[k], ("sad", "happy")[k % 2]] for k in range(32))
        csv.writer(file).writerows([["note", "picture", "mood"], *rows])
    (folder / "study.toml").write_text(STUDY.format(fine_tune="true"))
    (folder / "frozen.toml").write_text(STUDY.format(fine_tune="false").replace("tuned", "frozen"))
    return folder


@pytest.fixture(scope="module")
def finished(study: Path) -> Path:
    return run(study / "study.toml", folder=study / "runs", workers=2)


def test_weights_move_in_the_study_and_stay_where_they_are_frozen(study: Path, finished: Path) -> None:
    given = safetensors.numpy.load_file(study / "bert" / "model.safetensors")
    for record in Store(finished).records():
        assert record.status == "ok", record.error
        model = Store(finished).model(record.hash)
        assert model is not None
        own = {name: model.state[f"encoders.note.backbone.model.{name}"] for name in given}
        moved = {name: np.abs(own[name] - given[name]).max() for name in given}
        assert 1e-5 < max(moved.values()) < 1e-2  # at a hundredth of the rate, from the weights of the model
    frozen = Store(run(study / "frozen.toml", folder=study / "runs"))
    models = [frozen.model(record.hash) for record in frozen.records()]
    assert len(models) == 2
    assert not any("backbone" in name for model in models if model for name in model.state)


def test_the_report_tells_what_it_tells_of_any_study(finished: Path) -> None:
    summary = publish(finished)
    assert not summary["failed"]
    assert "colearning.alignment.latent" in {entry["arm"] for entry in summary["entries"]}


def test_results_do_not_depend_on_workers_and_nothing_is_run_twice(study: Path, finished: Path) -> None:
    again = run(study / "study.toml", folder=study / "again", workers=1)
    two, one = ({each.hash: each.predictions for each in Store(folder).records()} for folder in (finished, again))
    assert two == one
    before = {path: path.stat().st_mtime_ns for path in again.glob("*/record.json")}
    run(study / "study.toml", folder=study / "again", workers=1)
    assert {path: path.stat().st_mtime_ns for path in again.glob("*/record.json")} == before


def test_what_is_exported_answers_new_rows_as_the_kept_model_does(study: Path, finished: Path, tmp_path: Path) -> None:
    record, difference = export_arm(finished, "colearning.alignment.latent", tmp_path / "m.onnx")
    assert difference < 1e-5
    assert str(study).encode() not in (tmp_path / "m.onnx").read_bytes()
    shutil.copytree(study / "bert", tmp_path / "bert", ignore=shutil.ignore_patterns("*.safetensors"))
    new = ["red red red", "sea", "fox dog fox dog fox dog sea"]
    pl.DataFrame({"note": new}).write_csv(tmp_path / "new.csv")
    answers = predict_table(tmp_path / "m.onnx", tmp_path / "new.csv")
    method = load_method(finished / record.hash)
    X = read_rows(tmp_path / "new.csv", {"note": method.spec_.modalities["note"]})
    probabilities = method.predict_proba(X)
    assert np.ptp(probabilities[:, 0]) > 1e-3  # the rows are told apart
    np.testing.assert_allclose(answers["probability of happy"], probabilities[:, 0], atol=1e-4)
    shutil.rmtree(tmp_path / "bert")
    with pytest.raises(DataError, match="'note' is read with the tokenizer of 'hf:bert', and there is neither such a"):
        predict_table(tmp_path / "m.onnx", tmp_path / "new.csv")


def test_what_is_read_is_part_of_what_a_cell_is_but_its_place_is_not(study: Path, finished: Path) -> None:
    moved = study / "moved"
    moved.mkdir()
    for name in ("bert", "vit"):
        shutil.copytree(study / name, moved / name)
    for path in [study / "rows.csv", study / "study.toml", *study.glob("*.png")]:
        shutil.copy(path, moved)
    known = Store(finished).study()["fingerprint"]
    assert fingerprint(prepare(load(moved / "study.toml"))[0]) == known
    save_bert(moved / "bert", seed=1)
    assert fingerprint(prepare(load(moved / "study.toml"))[0]) != known
