"""What a column is beside its cells: label, split, group and id are no inputs, and what is guessed is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from transference.core.errors import DataError
from transference.data import labels
from transference.data.manifest import ModalityConfig, guess_modalities, guess_roles, load_manifest

VECTOR = {"m": ModalityConfig(kind="vector", columns=("a",))}


def table(folder: Path, text: str) -> Path:
    path = folder / "rows.csv"
    path.write_text(text, encoding="utf-8")
    return path


def load(path: Path, **given):
    return load_manifest(path, **{"primary": "m", "label": "y", "modalities": VECTOR, **given})


# what is taken


def test_a_pattern_never_stands_for_the_label_nor_for_roles(tmp_path):
    path = table(tmp_path, "m_1,m_2,m_label,m_part,m_who,m_key\n1,2,0,train,s,7\n3,4,1,train,s,8\n5,6,1,test,t,9\n")
    roles = {"label": "m_label", "split": "m_part", "group": "m_who", "id": "m_key"}
    for kind in ("vector", "table"):
        data = load(path, **roles, modalities={"m": ModalityConfig(kind=kind, columns="m_*")})
        assert data.views["m"].tolist() == [[1, 2], [3, 4], [5, 6]]
        assert data.views.specs["m"].reading["columns"] == ["m_1", "m_2"]


@pytest.mark.parametrize(("named", "role"), [("y", "label"), ("s", "split"), ("g", "group"), ("k", "id"), ("k*", "id")])
def test_a_modality_that_names_the_label_or_a_role_is_a_fault(tmp_path, named, role):
    path = table(tmp_path, "a,y,s,g,k\n1,0,train,p,1\n2,1,train,p,2\n3,1,test,q,3\n")
    given = {"m": ModalityConfig(kind="table", columns=("a", named))}
    with pytest.raises(DataError, match=f"The column '{named[0]}' is the {role}, and the modality 'm' names it too"):
        load(path, modalities=given, split="s", group="g", id="k")


def test_columns_that_two_patterns_name_are_read_once(tmp_path):
    path = table(tmp_path, "a,b_1,y\n1,2,p\n3,4,q\n")
    overlapping = ModalityConfig(kind="vector", columns=("b_1", "b_*"))
    data = load(path, modalities={**VECTOR, "n": overlapping})
    assert data.views["n"].tolist() == [[2], [4]]
    assert load(path, primary="n", modalities={"n": overlapping}).views.names == ("n",)


# labels


def test_nan_is_an_empty_label(tmp_path):
    pl.DataFrame({"a": [1.0, 2.0, 3.0], "y": [1.0, 0.0, float("nan")]}).write_parquet(tmp_path / "rows.parquet")
    assert load(tmp_path / "rows.parquet").y.tolist() == ["1.0", "0.0", None]
    values = load(tmp_path / "rows.parquet", task="regression").y
    assert values[:2].tolist() == [1, 0]
    assert np.isnan(values[2])
    assert load(table(tmp_path, "a,y\n1,Nan\n2,NaN\n3,Bo\n")).y.tolist() == ["Nan", None, "Bo"]  # Nan is a name


@pytest.mark.parametrize(
    ("text", "given", "wording"),
    [
        ("a,y\n1,1e39\n2,3\n", {"task": "regression"}, r"row 2, column 'y': A label must be a number of at most 3\.4e"),
        ("a,y\n1,-inf\n2,3\n", {"task": "regression"}, "A label must be a finite number. Got '-inf'"),
        ("a,y\n1,1\n2,0\n", {"task": "multilabel"}, "Several labels must be of two columns or more. Got the one"),
    ],
)
def test_a_label_that_can_not_be_learned_is_a_fault(tmp_path, text, given, wording):
    with pytest.raises(DataError, match=wording):
        load(table(tmp_path, text), **given)


def test_only_labels_that_are_told_get_a_suggestion(tmp_path, monkeypatch):
    asked = []
    suggest = labels.did_you_mean
    monkeypatch.setattr(labels, "did_you_mean", lambda *given: (asked.append(given), suggest(*given))[1])
    rows = "".join(f"{k},test,cat{k}\n" for k in range(50))
    with pytest.raises(
        DataError, match=r"'cat0' of a test row occurs in no training row. Did you mean 'cat'(?s:.*)45 m"
    ):
        load(table(tmp_path, "a,s,y\n1,train,cat\n2,train,dog\n" + rows), split="s")
    assert len(asked) == 5


# guesses


@pytest.mark.parametrize(
    ("name", "cells", "role"),
    [
        ("refractive_index", "1.51 1.52 1.53", None),
        ("refractive_index", "1 2 3", None),
        ("index", "1.51 1.52 1.53", None),
        ("index", "1 2 3", "id"),
        ("row_id", "1 2 3", "id"),
        ("Sample ID", "a b c", "id"),
        ("file_name", "a b c", None),
        ("age_group", "1 1 2", None),
        ("group", "1 1 2", "group"),
        ("speaker_id", "1 1 2", "group"),
        ("the_speaker_id", "1 1 2", "group"),
        ("data_split", "train train test", "split"),
        ("accel_y", "1 2 2", None),
        ("emotion_label", "p q q", "label"),
    ],
)
def test_roles_are_found_by_whole_words(tmp_path, name, cells, role):
    path = table(tmp_path, f"{name},x\n" + "".join(f"{cell},0.5\n" for cell in cells.split()))
    roles = guess_roles(path)
    assert {each: getattr(roles, each) for each in ("label", "split", "group", "id") if getattr(roles, each)} == (
        {} if role is None else {role: name}
    )
    assert (name in guess_modalities(path)["table"].columns) == (role is None)


def test_what_a_guess_leaves_out_is_told(tmp_path):
    path = table(tmp_path, "id,who,session,a,y\n1,p,u,1,0\n2,p,u,2,1\n3,q,v,3,1\n")
    with pytest.warns(
        UserWarning, match=r"left out of the guessed modalities: 'session' \(looks like the group\), 'id' "
    ):
        data = load_manifest(path, primary="a", label="y")
    assert data.views.names == ("a", "table")
    assert data.source["left out"] == "'session' (looks like the group), 'id' (looks like the id)"
    assert "left out" not in load_manifest(path, primary="a", label="y", group="session", id="id").source
