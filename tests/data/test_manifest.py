"""Tables of rows: what is read, and every fault at once."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from transference.core.errors import ConfigError, DataError
from transference.core.spec import ModalitySpec
from transference.data.manifest import ModalityConfig, guess_modalities, guess_roles, load_manifest, read_rows

TEXT = {"t": ModalityConfig(kind="text")}


def table(folder: Path, text: str, name: str = "rows.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def faults(path: Path, **given) -> list[str]:
    """The messages of the one error, without their numbers."""
    with pytest.raises(DataError) as caught:
        load_manifest(path, **{"primary": "t", "label": "y", "modalities": TEXT, **given})
    return [line.partition(". ")[2] for line in str(caught.value).splitlines()[1:]]


def zoo(folder: Path) -> Path:
    """A table with every kind of modality; row 3 (the second example) lacks all but the table."""
    rng = np.random.default_rng(0)
    for k in range(4):
        Image.fromarray(rng.integers(0, 255, (5, 6, 3), np.uint8)).save(folder / f"{k}.png")
        soundfile.write(folder / f"{k}.wav", rng.uniform(-0.5, 0.5, 800 * (k + 1)), 8000)
        np.save(folder / f"{k}.npy", rng.normal(size=(k + 2, 3)))
        np.save(folder / f"v{k}.npy", rng.integers(0, 255, (k + 1, 4, 4), np.uint8))
    lines = ["photo,sound,note,wave,clip,points,profile_0,profile_1,age,sex,emotion,speaker,part"]
    for k in range(4):
        full = f'{k}.png,{k}.wav,"one, two three {"four " * k}x",{k}.npy,v{k}.npy,"[[1, 2], [3, {k}]]",{k},0.5'
        empty = ",,,,,,,"
        lines.append(
            f"{empty if k == 1 else full},{30 + k},{'mf'[k % 2]},{'' if k == 2 else 'ab'[k % 2]},s{k // 2},"
            f"{'train' if k < 2 else 'test'}"
        )
    return table(folder, "\n".join(lines) + "\n")


def test_a_table_of_everything_becomes_views(tmp_path):
    data = load_manifest(zoo(tmp_path), primary="sound", label="emotion", group="speaker", split="part")
    assert {name: (spec.kind, spec.shape) for name, spec in data.views.specs.items()} == {
        "photo": ("image", (3, 5, 6)),
        "sound": ("audio", (41, 40)),
        "note": ("text", (7,)),
        "wave": ("series", (5, 3)),
        "clip": ("video", (4, 1, 4, 4)),
        "points": ("series", (2, 2)),
        "profile": ("vector", (2,)),
        "table": ("table", (4,)),
    }
    assert data.views.primary == "sound"
    assert data.y.tolist() == ["a", "b", None, "b"]
    assert data.ids.tolist() == ["2", "3", "4", "5"]
    assert data.split.tolist() == ["train", "train", "test", "test"]
    assert data.group.tolist() == ["s0", "s0", "s1", "s1"]
    for name in data.views.names:
        assert data.views.present[name].tolist() == [True, name == "table", True, True]
    assert data.views.lengths["wave"].tolist() == [2, 0, 4, 5]
    assert data.views["profile"].tolist() == [[0, 0.5], [0, 0], [2, 0.5], [3, 0.5]]


def test_csv_and_parquet_give_the_same_rows(tmp_path):
    csv = table(tmp_path, 'v,t,y,r\n"[1, 2]",red fox,a,0.25\n"[3, 4]",,b,\n,sea,,1e3\n')
    columns = {"v": [[1.0, 2.0], [3.0, 4.0], None], "t": ["red fox", None, "sea"], "y": ["a", "b", None]}
    pl.DataFrame({**columns, "r": [0.25, None, 1e3]}).write_parquet(tmp_path / "rows.parquet")
    kinds = {"v": ModalityConfig(kind="vector"), "t": ModalityConfig(kind="text"), "r": ModalityConfig(kind="table")}
    one, other = (
        load_manifest(path, primary="v", label="y", modalities=kinds) for path in (csv, tmp_path / "rows.parquet")
    )
    assert one.views.fingerprint() == other.views.fingerprint()
    assert one.y.tolist() == other.y.tolist() == ["a", "b", None]
    assert other.ids.tolist() == ["1", "2", "3"]


def test_primary_and_secondary_choose_the_modalities(tmp_path):
    path = zoo(tmp_path)
    assert load_manifest(path, primary="note", label="emotion", secondary=["profile"]).views.names == (
        "note",
        "profile",
    )
    assert load_manifest(path, primary="age", label="emotion", secondary=[]).views.specs["age"].kind == "table"
    given = {"person": ModalityConfig(kind="table", columns=["age", "sex"]), "note": ModalityConfig(kind="text")}
    data = load_manifest(path, primary="person", label="emotion", modalities=given)
    assert data.views.names == ("note", "person")
    wider = load_manifest(path, primary="person", label="emotion", modalities=given, secondary=["photo"])
    assert wider.views.names == ("person", "photo")


def test_regression_and_several_labels(tmp_path):
    path = table(tmp_path, "t,y,tag_a,tag_b\nx,1.5,0,1\ny,,1,1\nz,2,,\n")
    y = load_manifest(path, primary="t", label="y", modalities=TEXT, task="regression").y
    assert (y.dtype, y[[0, 2]].tolist(), np.isnan(y[1])) == (np.float32, [1.5, 2], True)
    y = load_manifest(path, primary="t", label="tag_*", modalities=TEXT, task="multilabel").y
    assert y[:2].tolist() == [[0, 1], [1, 1]]
    assert np.isnan(y[2]).all()
    with pytest.raises(ConfigError, match="The 'task' of a table must be one of 'classification', 'regression'"):
        load_manifest(path, primary="t", label="y", task="generation")


def test_blank_lines_are_left_out_and_rows_keep_their_numbers(tmp_path):
    path = table(tmp_path, "\ufefft , y\nred,a\n\nfox,b\n,\nsea,a\n\n")
    data = load_manifest(path, primary="t", label="y", modalities=TEXT)
    assert data.y.tolist() == ["a", "b", "a"]
    assert data.ids.tolist() == ["2", "4", "6"]


def test_every_fault_is_told_at_once(tmp_path):
    (tmp_path / "ok.png").write_text("no image")
    lines = ["t,p,v_1,v_2,y,who,key,part", "a,ok.png,1,2,a,s1,k1,train", "b,gone.png,1,x,b,s1,k2,test"]
    lines += ["c,,nan,2,c,s2,k1,test", "d,../up.png,1,,b,s3,k4,dev"]
    modalities = {
        **TEXT,
        "p": ModalityConfig(kind="image"),
        "v": ModalityConfig(kind="vector", columns="v_*"),
        "w": ModalityConfig(kind="text", column="tt"),
    }
    told = faults(
        table(tmp_path, "\n".join(lines)),
        modalities=modalities,
        split="part",
        group="who",
        id="key",
        secondary=["p", "v", "w", "u"],
    )
    wanted = [
        "rows.csv, row 4, column 'key': An id must be unique. Got 'k1', which row 2 has too (train, test) instead.",
        "rows.csv, row 5, column 'part': A split must be 'train' or 'test'. Got 'dev' instead. Write 'train' for",
        "rows.csv, row 3, column 'who': A group must be in one split. Got 's1' in train (row 2) and in test instead.",
        "rows.csv, row 4, column 'y': The label 'c' of a test row occurs in no training row.",
        "rows.csv, row 2, column 'p': The image 'ok.png' must be a readable image file. Got another file instead.",
        "rows.csv, row 3, column 'p': There is no file 'gone.png'.",
        "rows.csv, row 5, column 'p': The path '../up.png' leads out of the table's folder.",
        "rows.csv, row 3, column 'v_2': A cell of a number column must be a number. Got 'x' instead.",
        "rows.csv, row 4, column 'v_1': A cell of a number column must be a finite number. Got 'nan' instead.",
        "rows.csv, row 5, column 'v_2': A cell of a vector must be a number where others of the row are filled.",
        "rows.csv: There is no column 'tt' for the modality 'w'. Did you mean 't'?",
        "rows.csv: There is no modality 'u', and no column of this name.",
    ]
    for message in wanted:
        assert any(line.startswith(message) for line in told), (message, told)
    assert len(told) == len(wanted)


@pytest.mark.parametrize(
    ("rows", "given", "wording"),
    [
        ("t,y\na,x\nb,x\n", {}, "column 'y': The labels must be of two classes or more. Got 1 ('x' in 2 rows)"),
        ("t,y\na,\nb,\n", {}, "column 'y': The labels must be of two classes or more. Got no label at all"),
        ("t,y\n,x\n,z\n", {}, "column 't': The modality 't' is absent in every row. Fill its cells"),
        ("t,lable\na,x\n", {"label": "label"}, "There is no column 'label' for the label. Did you mean 'lable'?"),
        ("t,y\na,x\nb,z\n", {"group": "g"}, "There is no column 'g' for the group"),
        ("t,y\na,1\nb,high\n", {"task": "regression"}, "A label must be a finite number. Got 'high' instead."),
        ("t,y\na,2\nb,2\n", {"task": "regression"}, "The labels must be of two values or more. Got 2 in every row"),
        ("t,y_1,y_2\na,0,3\nb,1,0\n", {"task": "multilabel", "label": "y_*"}, "must be 0 or 1. Got '3'"),
        ("t,y_1,y_2\na,0,3\nb,1,0\n", {"label": "y_*"}, "The label 'y_*' stands for 2 columns. Name one"),
        ("t,y,s\na,x,train\nb,z,train\n", {"split": "s"}, "There is no 'test' row"),
        ("t,y,s\na,x,train\nb,z,test\n", {"split": "s"}, "The labels of the training rows must be of two classes"),
        ("t,y,s\na,x,train\nb,z,\n", {"split": "s"}, "row 3, column 's': A split must be 'train' or 'test'. Got"),
        ("t,y,g\na,x,\nb,z,h\n", {"group": "g"}, "row 2, column 'g': A group must be named."),
        ("t,y,i\na,x,\nb,z,h\n", {"id": "i"}, "row 2, column 'i': An id must be filled."),
    ],
)
def test_a_fault_of_labels_and_roles_is_told(tmp_path, rows, given, wording):
    assert any(wording in line for line in faults(table(tmp_path, rows), **given))


@pytest.mark.parametrize(
    ("content", "wording"),
    [
        (b"", "must be of a header and one row or more. Got an empty file"),
        (b"t,y\n", "must be of one row or more. Got 'none' instead. Add rows"),
        (b"t,y\n,\n\n", "must be of one row or more"),
        (b"t;y\na;b\n", "must be separated by commas. Got semicolons instead. Save it again with commas"),
        (b"t\ty\na\tb\n", "Got tabs instead. Save it again with commas, or rename it to .tsv"),
        ("t,y\na,x\ncaf\xe9,z\n".encode("latin-1"), "must be UTF-8 text. Got byte 0xe9 in line 3 instead."),
        ("t,y\na,x\n".encode("utf-16"), "must be UTF-8 text. Got UTF-16 instead. Save it as 'CSV UTF-8'"),
        (b"t,t\na,x\n", "must be unique. Got 't' twice"),
        (b"t,\na,x\n", "Column 2 of 'rows.csv' must be named in the header"),
        (b"t,y\na,x\nb,y,z\n", "rows.csv, row 3 must be of 2 cells, as the header has. Got 3 instead. Put cells"),
        (b't,y\n"a,x\nb,y\n', "Look for a stray double quote"),
    ],
)
def test_a_file_that_is_no_table_is_told(tmp_path, content, wording):
    (tmp_path / "rows.csv").write_bytes(content)
    with pytest.raises(DataError) as caught:
        load_manifest(tmp_path / "rows.csv", primary="t", label="y", modalities=TEXT)
    assert wording in str(caught.value)


def test_a_missing_or_foreign_file_is_told(tmp_path):
    table(tmp_path, "t,y\na,x\n")
    with pytest.raises(DataError, match=r"There is no file .*row.csv'. Did you mean 'rows.csv'"):
        load_manifest(tmp_path / "row.csv", primary="t", label="y")
    (tmp_path / "rows.xlsx").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"must be a .csv, .tsv or .parquet file. Got '.xlsx'"):
        load_manifest(tmp_path / "rows.xlsx", primary="t", label="y")
    (tmp_path / "rows.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="must be a readable Parquet file"):
        load_manifest(tmp_path / "rows.parquet", primary="t", label="y")


def test_many_faults_of_one_column_leave_room_for_others(tmp_path):
    lines = [f"{k}.png,{'x' if k == 7 else k},{k % 2}" for k in range(30)]
    kinds = {"p": ModalityConfig(kind="image"), "v": ModalityConfig(kind="vector")}
    told = faults(table(tmp_path, "p,v,y\n" + "\n".join(lines)), primary="p", modalities=kinds)
    assert len(told) == 7
    assert told[5] == "rows.csv, column 'p': 25 more rows have a fault like these: 7, 8, 9, 10, 11 ..."
    assert told[6].startswith("rows.csv, row 9, column 'v'")


def test_new_rows_are_read_the_same_way(tmp_path):
    path = zoo(tmp_path)
    data = load_manifest(path, primary="sound", label="emotion", group="speaker")
    specs = {}
    for name, spec in data.views.specs.items():
        raw = json.loads(json.dumps(asdict(spec)))
        specs[name] = ModalitySpec(**{**raw, "shape": tuple(raw["shape"])})
    again = read_rows(path, specs, primary="sound", complete=False)
    for name in data.views.names:
        assert (again[name] == data.views[name]).all(), name
        assert (again.present[name] == data.views.present[name]).all()
    new = table(tmp_path, "sound\n3.wav\n\n0.wav\n", "new.csv")
    rows = read_rows(new, {"sound": specs["sound"]})
    assert (rows["sound"] == data.views["sound"][[3, 0]]).all()
    assert rows.rows.tolist() == [0, 2]


def test_faults_of_new_rows_are_told(tmp_path):
    spec = ModalitySpec("v", "vector", (2,), reading={"columns": ["a", "b"], "width": 2})
    text = ModalitySpec("t", "text", (3,), lengths=True, vocabulary=10, reading={"column": "t"})
    new = table(tmp_path, "a,b,t\n1,2,x\n1,x,\n,,y\n", "new.csv")
    with pytest.raises(DataError) as caught:
        read_rows(new, {"v": spec, "t": text})
    told = str(caught.value)
    assert "new.csv, row 3, column 'b': A cell of a number column must be a number. Got 'x'" in told
    assert "new.csv, row 4, column 'a': The cell is empty, and an answer needs it." in told
    assert "new.csv, row 3, column 't': The cell is empty, and an answer needs it." in told
    assert "3 faults" in told
    with pytest.raises(DataError, match="There is no column 'b' for the modality 'v'"):
        read_rows(table(tmp_path, "a\n1\n", "short.csv"), {"v": spec})
    sound = ModalitySpec("s", "audio", (5, 4), lengths=True)
    with pytest.raises(DataError, match="does not say how its rows were read"):
        read_rows(table(tmp_path, "s\na.wav\n", "s.csv"), {"s": sound})


def test_modalities_are_guessed_from_the_cells(tmp_path):
    got = guess_modalities(zoo(tmp_path), exclude=["emotion"])
    assert {name: (config.kind, config.column or config.columns) for name, config in got.items()} == {
        "photo": ("image", "photo"),
        "sound": ("audio", "sound"),
        "note": ("text", "note"),
        "wave": ("series", "wave"),
        "clip": ("video", "clip"),
        "points": ("series", "points"),
        "profile": ("vector", ("profile_*",)),
        "table": ("table", ("age", "sex", "part")),
    }
    apart = guess_modalities(zoo(tmp_path), exclude=["emotion", "part"], apart=["age"])
    assert apart["age"].columns == ("age",)
    assert apart["table"].columns == ("sex",)


def test_a_column_that_sounds_like_a_label_is_an_input_where_the_label_is_known(tmp_path):
    path = table(tmp_path, "category,price,y\na,1,u\nb,2,v\n")
    assert guess_modalities(path)["table"].columns == ("price", "y")
    assert guess_modalities(path, exclude=["y"])["table"].columns == ("category", "price")


def test_columns_that_share_a_beginning_are_one_modality(tmp_path):
    path = table(tmp_path, "vital_pulse,vital_smoker,px1,px2,px10,other,y\n70,no,1,2,3,1,a\n80,yes,1,2,3,2,b\n")
    got = guess_modalities(path)
    assert got["vital"] == ModalityConfig(kind="table", columns="vital_*")
    assert got["px"] == ModalityConfig(kind="vector", columns="px*")
    assert got["table"] == ModalityConfig(kind="table", columns="other")


def test_roles_are_guessed_from_names_and_cells(tmp_path):
    path = table(tmp_path, "id,speaker_id,split,class,t\n1,a,train,x,u\n2,b,test,z,v\n3,b,test,z,w\n")
    roles = guess_roles(path)
    assert (roles.id, roles.group, roles.split, roles.label) == ("id", "speaker_id", "split", "class")
    twice = table(tmp_path, "id,split,t\n1,dev,u\n1,test,v\n", "twice.csv")
    assert guess_roles(twice).columns() == []


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(
            st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8)),
            st.one_of(st.none(), st.floats(-1e6, 1e6, width=32)),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_what_is_present_is_exactly_what_is_filled(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("any")
    cells = [(text, number) for text, number in rows] + [("last", 1.0), ("last", 2.0)]
    frame = pl.DataFrame(
        {
            "t": [text for text, _ in cells],
            "v": [number for _, number in cells],
            "y": ["ab"[k % 2] for k in range(len(cells))],
        },
        schema={"t": pl.String, "v": pl.Float64, "y": pl.String},
    )
    frame.write_csv(folder / "rows.csv")
    kinds = {"t": ModalityConfig(kind="text", length=4), "v": ModalityConfig(kind="vector")}
    data = load_manifest(folder / "rows.csv", primary="t", label="y", modalities=kinds)
    assert len(data) == len(cells)
    assert data.views.present["t"].tolist() == [bool(text and text.strip()) for text, _ in cells]
    assert data.views.present["v"].tolist() == [number is not None for _, number in cells]
    np.testing.assert_array_equal(data.views["v"][:, 0], np.float32([number or 0 for _, number in cells]))
    assert (data.views["t"].any(1) == data.views.present["t"]).all()
