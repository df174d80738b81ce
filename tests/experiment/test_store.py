"""A cell is on disk in one piece or not at all."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest

from transference.core.errors import DataError
from transference.core.records import Cell, Environment, Predictions, RunRecord
from transference.experiment.store import Model, Store, prediction_bytes


def a_record(key: str = "ab" * 16, error: str = "") -> RunRecord:
    return RunRecord(
        key,
        "s",
        Cell("unimodal", "unimodal", {}, None, 0, "all"),
        "failed",
        error,
        Environment("3", "p", "c", {}, 1, "cpu"),
        {"kind": "classification", "classes": ["a", "b"], "metric": "accuracy"},
        "f",
        {"labelled": 1, "unlabelled": 0, "test": 2},
        {},
        (),
        "",
        1.0,
        2,
    )


def a_store(folder: Path) -> Store:
    store = Store(folder / "s")
    store.begin({"cells": [a_record().hash]})
    return store


def test_what_is_written_is_read(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    model = Model('{"method": "x"}', {"weight": np.arange(6, dtype=np.float32).reshape(2, 3).T, "count": np.array(3)})
    store.write(a_record(), None, model)
    assert store.records() == [a_record()]
    found = store.model(a_record().hash)
    assert found is not None
    assert found.about == model.about
    np.testing.assert_array_equal(found.state["weight"], [[0, 3], [1, 4], [2, 5]])
    assert found.state["count"].shape == ()


def test_equal_predictions_have_equal_bytes() -> None:
    first = Predictions(np.arange(3), np.array([0, 1, 0]), np.full((3, 2), 0.5, np.float32))
    again = Predictions(np.arange(6)[:3], np.array([0, 1, 0]), np.full((2, 3), 0.5, np.float32).T)
    other = Predictions(np.arange(3), np.array([0, 1, 1]), first.scores)
    assert prediction_bytes(first) == prediction_bytes(again) != prediction_bytes(other)


def test_a_matrix_in_column_order_keeps_its_numbers(tmp_path: Path) -> None:
    scores = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(3, 2))
    from safetensors.numpy import load

    read = load(prediction_bytes(Predictions(np.arange(3), np.zeros(3), scores)))
    np.testing.assert_array_equal(read["scores"], [[0, 1], [2, 3], [4, 5]])


def test_a_cell_that_is_not_of_the_study_is_not_shown(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    store.write(a_record("cd" * 16), None)
    assert store.records() == []


def test_a_later_record_takes_the_place_of_an_earlier_one(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    store.write(a_record(), None, Model("{}", {"w": np.ones(2)}))
    store.write(a_record(error="later"), None)
    assert store.records()[0].error == "later"
    assert store.model(a_record().hash) is None


@pytest.mark.parametrize(
    ("code", "message"), [(errno.ENOSPC, "is full. Free some space"), (errno.EACCES, "can not be written")]
)
def test_a_full_disk_is_one_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, message: str
) -> None:
    store = a_store(tmp_path)
    before = sorted(path.name for path in store.folder.rglob("*"))

    def fail(handle: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(DataError, match=message):
        store.write(a_record(), None)
    assert sorted(path.name for path in store.folder.rglob("*")) == before
    monkeypatch.undo()
    store.write(a_record(), None)
    assert len(store.records()) == 1


def test_leftovers_of_a_killed_run_are_cleared(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    (store.folder / ".partial-x").mkdir()
    (store.folder / ".partial-x" / "record.json").write_text("{")
    store.begin({"cells": []})
    assert not (store.folder / ".partial-x").exists()


def test_damage_is_told_with_its_remedy(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    key = a_record().hash
    store.write(a_record(), None, Model("{}", {"w": np.ones(2)}))
    path = store.folder / key / "record.json"
    whole = path.read_text()
    for text in ("", whole[:50], "[]", json.dumps({"hash": key}), whole.replace(key, "cd" * 16)):
        path.write_text(text)
        with pytest.raises(DataError, match=r"(damaged|belongs to cell).*[Rr]un the study again"):
            store.record(key)
        assert list(store.damaged()) == [key]
    (store.folder / key / "model.safetensors").write_bytes(b"half")
    with pytest.raises(DataError, match=r"The model in .* is damaged"):
        store.model(key)
    (store.folder / "study.json").write_text("{")
    with pytest.raises(DataError, match=r"study\.json' is damaged"):
        store.records()


def test_a_folder_without_a_study_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"There is no study in .* such as runs/demo"):
        Store(tmp_path).records()
