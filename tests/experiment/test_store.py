"""A cell is on disk in one piece or not at all."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from transference.core.errors import DataError
from transference.core.records import Cell, Environment, Predictions, RunRecord, cell_hash
from transference.experiment.config import load
from transference.experiment.store import Model, Store, model_digest, prediction_bytes


def a_record(seed: int = 0, error: str = "", model: Model | None = None) -> RunRecord:
    cell = Cell("unimodal", "unimodal", {}, None, seed, "all")
    return RunRecord(
        cell_hash(cell, {"test": 0.5}, "f"),
        "s",
        cell,
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
        model="" if model is None else model_digest(model),
        setting={"test": 0.5},
    )


WEIGHTS = Model('{"method": "x"}', {"w": np.ones(2)})


def a_study() -> dict[str, Any]:
    return {"config": {}, "cells": [a_record().hash], "data": {}, "fingerprint": "f"}


def a_store(folder: Path) -> Store:
    store = Store(folder / "s")
    store.begin(a_study())
    return store


def test_what_is_written_is_read(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    model = Model('{"method": "x"}', {"weight": np.arange(6, dtype=np.float32).reshape(2, 3).T, "count": np.array(3)})
    store.write(a_record(model=model), None, model)
    assert store.records() == [a_record(model=model)]
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
    store.write(a_record(seed=1), None)
    assert store.records() == []


def test_a_later_record_takes_the_place_of_an_earlier_one(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    store.write(a_record(model=WEIGHTS), None, WEIGHTS)
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
    store.begin(a_study())
    assert not (store.folder / ".partial-x").exists()


def test_damage_is_told_with_its_remedy(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    key = a_record().hash
    store.write(a_record(model=WEIGHTS), None, WEIGHTS)
    path = store.folder / key / "record.json"
    whole = path.read_text()
    for text in ("", whole[:50], "[]", json.dumps({"hash": key}), whole.replace(key, "cd" * 16)):
        path.write_text(text)
        with pytest.raises(DataError, match=r"(damaged|belongs to cell).*[Rr]un the study again"):
            store.record(key)
        assert list(store.damaged()) == [key]
    path.write_text(whole)
    assert store.damaged() == {}


def test_a_finished_cell_whose_record_states_no_sum_is_damaged(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    answers = Predictions(np.arange(2), np.zeros(2, np.int64), np.ones((2, 2), np.float32))
    store.write(replace(a_record(), status="ok"), answers)
    assert store.records() == []
    assert "are damaged: they lack the sum that its record states" in store.damaged()[a_record().hash]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("{", "Expecting property name"),
        ("[]", "list indices"),
        (json.dumps({**a_study(), "cells": "ab"}), "cells is of another type"),
        (json.dumps({**a_study(), "cells": [1]}), "cells is of another type"),
        *((json.dumps({k: v for k, v in a_study().items() if k != key}), f"it has no '{key}'") for key in a_study()),
    ],
)
def test_a_damaged_study_is_one_error_wherever_it_is_read(tmp_path: Path, text: str, what: str) -> None:
    store = a_store(tmp_path)
    (store.folder / "study.json").write_text(text)
    message = rf"study\.json' is damaged: .*{what}.*Run the study again from its study file; finished cells are kept"
    for read in (store.study, store.records, lambda: load(store.folder)):
        with pytest.raises(DataError, match=message):
            read()


def test_files_of_a_study_are_written_together_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = a_store(tmp_path)
    store.put({"a": "old", "b": "old"})
    before = sorted(path.name for path in store.folder.iterdir())
    written: list[int] = []

    def fail_at_the_second(handle: int) -> None:
        written.append(handle)
        if len(written) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail_at_the_second)
    with pytest.raises(DataError, match="is full. Free some space"):
        store.put({"a": "new", "b": "new"})
    assert [(store.folder / name).read_text() for name in "ab"] == ["old", "old"]
    assert sorted(path.name for path in store.folder.iterdir()) == before


@pytest.mark.parametrize("file", ["model.safetensors", "model.json"])
def test_a_network_that_was_changed_or_lost_is_damaged(tmp_path: Path, file: str) -> None:
    store = a_store(tmp_path)
    key = a_record().hash
    store.write(a_record(model=WEIGHTS), None, WEIGHTS)
    path = store.folder / key / file
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"The model of cell {key} is damaged: .* the cell will be repeated"):
        store.model(key)
    path.unlink()
    with pytest.raises(DataError, match=f"The model of cell {key} can not be read: .* the cell will be repeated"):
        store.model(key)
    assert list(store.damaged()) == [key]


@pytest.mark.parametrize(("was", "now"), [('"arm": "unimodal"', '"arm": "other"'), ('"test": 0.5', '"test": 0.6')])
def test_a_record_that_was_changed_by_hand_is_damaged(tmp_path: Path, was: str, now: str) -> None:
    store = a_store(tmp_path)
    store.write(a_record(), None)
    path = store.folder / a_record().hash / "record.json"
    assert was in path.read_text()
    path.write_text(path.read_text().replace(was, now))
    assert store.records() == []
    assert "do not give its hash. Run the study again" in store.damaged()[a_record().hash]


def test_a_folder_without_a_study_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"There is no study in .* such as runs/demo"):
        Store(tmp_path).records()
