"""Cells that are read wrongly where one is not careful."""

from __future__ import annotations

import os
import resource
import tracemalloc
import unicodedata

import numpy as np
import pytest
import soundfile
from PIL import Image

from transference.core.errors import DataError
from transference.data.decoders import numbers
from transference.data.decoders.parts import Files, Source
from transference.data.decoders.text import words
from transference.data.modality import ModalityConfig
from transference.data.readers import read_column

IMAGE = ModalityConfig(kind="image", column="p")
SERIES = ModalityConfig(kind="series", column="s")
SOUND = ModalityConfig(kind="audio", column="a")


# images


def test_float_images_are_read_by_their_values(tmp_path):
    values = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    Image.fromarray(values, mode="F").save(tmp_path / "a.tif")
    Image.fromarray(values * 255, mode="F").save(tmp_path / "b.tif")
    column = read_column(["a.tif"], IMAGE, tmp_path)
    assert column.spec.shape == (1, 3, 4)
    np.testing.assert_array_equal(column.array[0, 0], values)
    with pytest.raises(
        DataError, match=r"'b.tif' must be unsigned integers, or floats in \[0, 1\]. Got float32 from 0 to"
    ):
        read_column(["b.tif"], IMAGE, tmp_path)


def test_integers_deeper_than_16_bits_are_refused(tmp_path):
    for name, top in (("a.tif", 65535), ("b.tif", 100000), ("c.tif", -1)):
        Image.fromarray(np.array([[0, top]], np.int32), mode="I").save(tmp_path / name)
    assert read_column(["a.tif"], IMAGE, tmp_path).array.ravel().tolist() == [0, 1]
    column = read_column(["b.tif", "c.tif"], IMAGE, tmp_path, strict=False)
    told = [fault.message for fault in column.faults]
    assert "'b.tif' must be integers in [0, 65535], or floats in [0, 1]. Got int32 from 0 to 100000" in told[0]
    assert "Got int32 from -1 to 0" in told[1]


# text


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("ภาษาไทย ดี", ["ภาษาไทย", "ดี"]),
        ("می‌خواهم", ["می‌خواهم"]),
        (unicodedata.normalize("NFD", "Café naïve"), ["café", "naïve"]),
        (unicodedata.normalize("NFD", "が日本"), ["が", "日", "本"]),
        ("don't", ["don", "t"]),
    ],
)
def test_letters_keep_their_marks(text, wanted):
    assert words(text) == wanted


# series


def test_a_header_that_counts_is_no_step_where_every_file_has_it(tmp_path):
    (tmp_path / "a.csv").write_text("0,1\n5,6\n7,8\n")
    (tmp_path / "b.csv").write_text("0,1\n9,9\n")
    (tmp_path / "c.csv").write_text("0,2\n1,1\n")
    fitted = read_column(["a.csv", "b.csv", "[[0, 1]]"], SERIES, tmp_path)
    assert fitted.array.tolist() == [[[5, 6], [7, 8]], [[9, 9], [0, 0]], [[0, 1], [0, 0]]]
    assert read_column(["b.csv"], fitted.spec, tmp_path).array[0].tolist() == [[9, 9], [0, 0]]
    assert read_column(["c.csv"], fitted.spec, tmp_path).array[0].tolist() == [[0, 2], [1, 1]]
    assert read_column(["a.csv", "c.csv"], SERIES, tmp_path).lengths.tolist() == [3, 2]  # then these are numbers
    assert read_column(["b.csv"], SERIES, tmp_path).lengths.tolist() == [2]


@pytest.mark.parametrize(
    ("content", "wording"),
    [
        ("1,2\n3,\n", r"Row 2, column 2 of 'a.csv' must be a number. Got an empty cell"),
        (",0,1\n0,5,6\n1,7,8\n", r"Row 1, column 1 of 'a.csv' must be a number. Got an empty cell.*index without it"),
    ],
)
def test_an_empty_cell_of_a_series_joins_the_faults(tmp_path, content, wording):
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(DataError, match=rf"(?s)2 faults.*Row 0.*{wording}.*Row 1, column 's': There is no file 'b"):
        read_column(["a.csv", "b.csv"], SERIES, tmp_path)


@pytest.mark.parametrize("cell", ["[]", "[[]]", " ( ) "])
def test_a_series_of_no_step_is_refused(tmp_path, cell):
    with pytest.raises(DataError, match=r"must be of shape \(length, d\)"):
        read_column(["[1, 2]", cell], SERIES, tmp_path)


# sound


def test_a_streamed_flac_is_read_to_its_end(tmp_path):
    soundfile.write(tmp_path / "a.flac", np.random.default_rng(0).uniform(-0.5, 0.5, 8000), 8000)
    content = bytearray((tmp_path / "a.flac").read_bytes())
    content[21] &= 0xF0  # the 36 bits that count the samples: 0 is unknown
    content[22:26] = bytes(4)
    (tmp_path / "b.flac").write_bytes(content)
    (tmp_path / "c.flac").write_bytes(content[: len(content) // 2])
    column = read_column(["a.flac", "b.flac"], SOUND, tmp_path)
    assert column.lengths.tolist() == [101, 101]
    np.testing.assert_array_equal(column.array[0], column.array[1])
    with pytest.raises(DataError, match="The sound 'c.flac' must be a readable sound file"):
        read_column(["c.flac"], SOUND, tmp_path)


# numbers


def test_vectors_from_files_leave_no_file_open(tmp_path):
    for k in range(200):
        np.save(tmp_path / f"{k}.npy", np.float32([k, 1]))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/dev/fd")) + 64, limits[1]))
    try:
        column = read_column([f"{k}.npy" for k in range(200)], ModalityConfig(kind="vector", column="v"), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert column.array[:, 0].tolist() == list(range(200))


def test_categories_take_no_more_memory_than_their_places(tmp_path):
    n, columns = 3000, ("a", "b")
    cells = {row: tuple(f"c{(row * each) % 64}" for each in (1, 3)) for row in range(n)}
    source = Source(cells, Files(tmp_path), False, "t")
    tracemalloc.start()
    prepared = numbers.prepare_table(source, {"columns": columns})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert prepared.shape == (130,)
    assert peak < 4 * n * 130  # bytes of the array that is filled from it
    row = prepared.loads[7]()
    assert row.sum() == 2
    names = [*prepared.reading["categories"]["a"], "other", *prepared.reading["categories"]["b"], "other"]
    assert [names[k] for k in np.flatnonzero(row)] == ["c7", "c21"]


def test_a_number_beyond_float32_is_a_fault(tmp_path):
    config = ModalityConfig(kind="table", columns=("a", "b"))
    column = read_column([("1", "2"), ("1e39", "3"), ("3", "")], config, tmp_path, strict=False)
    assert [(fault.row, fault.column) for fault in column.faults] == [(1, "a")]
    assert column.array.tolist() == [[1, 2], [0, 0], [3, 2.5]]
