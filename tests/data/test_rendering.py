"""Rows as texts: what comes back is what was read, numbers are short, and what can not be written out is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_models
from pydantic import ValidationError

from transference.core.errors import DataError
from transference.core.spec import ModalitySpec
from transference.core.views import Views
from transference.data.modality import ModalityConfig
from transference.data.readers import Column, read_column
from transference.data.rendering import as_texts

BYTES = ModalityConfig(kind="text", column="t", units="bytes")
TEXTS = ["Don't <B>panic</B>!", None, "naïve 日本 🙂", " x "]


def view(column: Column) -> Views:
    lengths = {} if column.lengths is None else {"t": column.lengths}
    return Views({"t": column.array}, {"t": column.spec}, "t", present={"t": column.present}, lengths=lengths)


# text in bytes


def test_text_in_bytes_comes_back_as_it_was(tmp_path: Path) -> None:
    column = read_column(TEXTS, BYTES, tmp_path, name="t")
    assert column.spec.vocabulary == 257
    assert dict(column.spec.reading) == {"column": "t", "units": "bytes", "length": 19}
    assert column.lengths is not None
    assert column.lengths.tolist() == [19, 0, 6 + 1 + 6 + 1 + 4, 3]
    assert column.array[3, :4].tolist() == [33, 121, 33, 0]  # " x " is 32, 120, 32
    assert as_texts(view(column), "t") == [text or "" for text in TEXTS]


def test_a_long_text_is_cut_between_characters_and_new_rows_are_read_alike(tmp_path: Path) -> None:
    column = read_column(["abé", "é"], BYTES.model_copy(update={"length": 3}), tmp_path, name="t")
    assert as_texts(view(column), "t") == ["ab", "é"]
    assert column.spec.shape == (2,)
    again = read_column(["xyz", "éé"], column.spec, tmp_path)
    assert as_texts(view(again), "t") == ["xy", "é"]
    assert again.array[1].tolist() == [0xC3 + 1, 0xA9 + 1]
    assert read_column(["a" * 5000], BYTES, tmp_path, name="t").spec.shape == (4096,)
    assert as_texts(view(read_column(["a\udc80"], BYTES, tmp_path, name="t")), "t") == ["a?"]


def test_units_are_of_text_and_leave_no_choice_of_a_vocabulary() -> None:
    words = ModalityConfig(kind="text", units="words", vocabulary=9)
    assert words.options() == {"units": "words", "vocabulary": 9}
    for options, told in (
        ({"kind": "text", "units": "bytes", "vocabulary": 9}, "'vocabulary' has no meaning for text in bytes"),
        ({"kind": "vector", "units": "bytes"}, "'units' has no meaning for the kind 'vector'"),
        ({"kind": "text", "units": "bytes", "encoder": "hf:x"}, "'units' has no meaning"),
        ({"kind": "text", "units": "letters"}, "Input should be 'words' or 'bytes'"),
    ):
        with pytest.raises(ValidationError, match=told):
            ModalityConfig(**options)


# other texts


def test_hashed_words_are_refused_with_the_remedy(tmp_path: Path) -> None:
    for units in (None, "words"):
        column = read_column(TEXTS, ModalityConfig(kind="text", column="t", units=units), tmp_path, name="t")
        with pytest.raises(
            DataError, match=r"'t' was read as hashed words.*units = \"bytes\" under \[data.modalities.t"
        ):
            as_texts(view(column), "t")


def test_words_made_in_memory_are_numbered() -> None:
    X = Views.of(primary="t", kinds={"t": "text"}, t=[[17, 2, 0], [3, 0, 0]])
    assert as_texts(X, "t") == ["word 17 word 2", "word 3"]


def test_a_tokenizer_writes_out_what_it_cut(tmp_path: Path) -> None:
    tiny_models.save_bert(tmp_path / "bert")
    config = ModalityConfig(kind="text", column="t", encoder="hf:bert", fine_tune=True)
    column = read_column(["red fox", None, "sea dog red"], config, tmp_path, name="t")
    assert as_texts(view(column), "t") == ["red fox", "", "sea dog red"]


# numbers


def test_numbers_have_three_digits_and_long_rows_are_shortened() -> None:
    long = np.arange(1000.0).reshape(1, 1000)
    X = Views.of(primary="v", v=[[0.123456, 1234567.0]], s=[[[1.5, -2.0], [1e-9, 4.0]]], w=long, m=long[..., None])
    assert as_texts(X, "v") == ["0.123, 1.23e+06"]
    assert as_texts(X, "s") == ["[1.5, -2] [1e-09, 4]"]
    assert as_texts(X, "w")[0].startswith("0, 1, 2, ")
    assert as_texts(X, "w")[0].endswith(", 254, 255 (the first 256 of 1000 numbers)")
    series = as_texts(X, "m")[0]
    assert series.startswith("[0] [4] [8] ")
    assert series.endswith(" [995] [999] (256 of 1000 steps, evenly spaced)")
    assert series.count("[") == 256


def test_only_real_steps_and_present_rows_are_written() -> None:
    X = Views.of(primary="v", v=[[1.0], [2.0]], s=[[[1.0], [2.0], [3.0]], [[4.0], [5.0], [6.0]]])
    X = X.replace("s", X["s"], present=np.array([False, True]), lengths=np.array([3, 2]))
    assert as_texts(X, "s") == ["", "[4] [5]"]
    some = Views(
        {"b": np.arange(900.0).reshape(1, 300, 3)}, {"b": ModalitySpec("b", "set", (300, 3), lengths=True)}, "b"
    )
    assert as_texts(some, "b")[0].endswith("[252, 253, 254] (the first 85 of 300)")


def test_a_table_names_its_columns(tmp_path: Path) -> None:
    cells = [("34", "male", "1.5"), ("", "", ""), ("36.25", "female", ""), ("36.25", "", "0")]
    config = ModalityConfig(kind="table", columns=("age", "sex", "dose"))
    column = read_column(cells, config, tmp_path, name="t", columns=("age", "sex", "dose"))
    rows = as_texts(view(column), "t")
    assert rows == ["age 34, sex male, dose 1.5", "", "age 36.2, sex female, dose 0.75", "age 36.2, sex other, dose 0"]
    assert as_texts(Views.of(primary="t", kinds={"t": "table"}, t=[[1.0, 2.0]]), "t") == ["1, 2"]


def test_pictures_are_refused_unless_they_are_small() -> None:
    X = Views.of(primary="p", p=np.full((1, 1, 2, 2), 0.25), q=np.zeros((1, 3, 64, 64)))
    assert as_texts(X, "p") == ["[0.25, 0.25] [0.25, 0.25]"]
    with pytest.raises(DataError, match="image 'q' cannot be written out as text: a row has 12288 numbers.*caption"):
        as_texts(X, "q")
