"""Cells to arrays."""

from __future__ import annotations

import json
import subprocess
import sys
import zlib
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from transference.core.errors import DataError
from transference.core.spec import ModalitySpec
from transference.data import readers
from transference.data.decoders import audio
from transference.data.modality import ModalityConfig
from transference.data.readers import read_column


def again(spec: ModalitySpec) -> ModalitySpec:
    """The spec after a trip through JSON, as an exported model keeps it."""
    raw = json.loads(json.dumps(asdict(spec)))
    return ModalitySpec(**{**raw, "shape": tuple(raw["shape"])})


def tone(path: Path, seconds: float, rate: int = 8000, pitch: float = 440.0, channels: int = 1) -> None:
    wave = 0.5 * np.sin(2 * np.pi * pitch * np.arange(round(seconds * rate)) / rate)
    soundfile.write(path, np.repeat(wave[:, None], channels, 1), rate)


# text


def test_words_are_hashed_and_cut_and_padded(tmp_path):
    config = ModalityConfig(kind="text", column="t", vocabulary=100, length=3)
    column = read_column(["Red fox, RED", None, "", "a b c d e"], config, tmp_path, name="words")
    red, fox = (zlib.crc32(word) % 99 + 1 for word in (b"red", b"fox"))
    assert column.array[0].tolist() == [red, fox, red]
    assert column.lengths.tolist() == [3, 0, 0, 3]
    assert column.present.tolist() == [True, False, False, True]
    assert not column.array[1:3].any()
    assert (column.spec.vocabulary, column.spec.shape, column.spec.name) == (100, (3,), "words")


def test_html_keeps_its_tags_and_text_without_words_its_marks(tmp_path):
    column = read_column(["<h1>Hi</h1>", "?!", "日本 go"], ModalityConfig(kind="text", column="t"), tmp_path)
    assert column.lengths.tolist() == [3, 2, 3]
    assert column.array[0, 0] == column.array[0, 2] > 0


def test_a_fitted_spec_pads_and_cuts_to_its_shape(tmp_path):
    spec = read_column(["one two three"], ModalityConfig(kind="text", column="t"), tmp_path).spec
    assert spec.shape == (3,)
    column = read_column(["one", "three two one zero"], again(spec), tmp_path)
    assert column.array.shape == (2, 3)
    assert column.lengths.tolist() == [1, 3]
    assert column.spec == again(spec)


# images


def test_images_have_channels_first_in_the_unit_range(tmp_path):
    pixels = np.zeros((2, 3, 3), np.uint8)
    pixels[0, 1] = (255, 51, 0)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    column = read_column(["a.png", None], ModalityConfig(kind="image", column="p"), tmp_path)
    assert column.array.shape == (2, 3, 2, 3)
    np.testing.assert_allclose(column.array[0, :, 0, 1], [1, 0.2, 0], atol=1e-6)
    assert column.array[0].sum() == pytest.approx(1.2)
    assert not column.array[1].any()


def test_grey_images_have_one_channel_and_colour_among_them_makes_three(tmp_path):
    Image.new("L", (4, 4), 51).save(tmp_path / "grey.png")
    Image.new("RGB", (4, 4), (255, 0, 0)).save(tmp_path / "red.png")
    config = ModalityConfig(kind="image", column="p")
    assert read_column(["grey.png"], config, tmp_path).array.shape == (1, 1, 4, 4)
    both = read_column(["grey.png", "red.png"], config, tmp_path)
    assert both.array.shape == (2, 3, 4, 4)
    np.testing.assert_allclose(both.array[0], 0.2, atol=1e-6)


def test_transparent_pixels_are_white(tmp_path):
    Image.new("RGBA", (2, 2), (0, 0, 0, 0)).save(tmp_path / "a.png")
    assert (read_column(["a.png"], ModalityConfig(kind="image", column="p"), tmp_path).array == 1).all()


def test_exif_orientation_turns_the_image_upright(tmp_path):
    pixels = np.zeros((2, 4), np.uint8)
    pixels[0, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise: top left becomes top right
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    column = read_column(["a.png"], ModalityConfig(kind="image", column="p"), tmp_path)
    assert column.spec.shape == (1, 4, 2)
    assert column.array[0, 0, 0].tolist() == [0, 1]


def test_sizes_that_differ_become_64_or_what_is_asked_for(tmp_path):
    Image.new("L", (10, 20)).save(tmp_path / "a.png")
    Image.new("L", (20, 10)).save(tmp_path / "b.png")
    for given, shape in ((None, (1, 64, 64)), (8, (1, 8, 8)), ((5, 7), (1, 5, 7))):
        config = ModalityConfig(kind="image", column="p", size=given)
        assert read_column(["a.png", "b.png"], config, tmp_path).spec.shape == shape


def test_sixteen_bits_and_arrays_are_scaled(tmp_path):
    Image.fromarray(np.full((3, 3), 13107, np.uint16)).save(tmp_path / "deep.png")
    np.save(tmp_path / "a.npy", np.full((3, 3, 1), 51, np.uint8))
    np.save(tmp_path / "f.npy", np.full((3, 3), 0.2))
    column = read_column(["deep.png", "a.npy", "f.npy"], ModalityConfig(kind="image", column="p"), tmp_path)
    np.testing.assert_allclose(column.array, np.full((3, 1, 3, 3), 0.2), atol=1e-6)


# video


def test_frames_are_in_natural_order_and_padded(tmp_path):
    (tmp_path / "clip").mkdir()
    for number in (1, 2, 10):
        Image.new("L", (4, 4), number).save(tmp_path / "clip" / f"frame{number}.png")
    np.save(tmp_path / "b.npy", np.full((2, 4, 4), 255, np.uint8))
    column = read_column(["clip", "b.npy"], ModalityConfig(kind="video", column="v"), tmp_path)
    assert column.spec.shape == (3, 1, 4, 4)
    assert column.lengths.tolist() == [3, 2]
    np.testing.assert_allclose(column.array[0, :, 0, 0, 0] * 255, [1, 2, 10], rtol=1e-5)
    assert column.array[1, :, 0, 0, 0].tolist() == [1, 1, 0]


# audio


def test_a_tone_is_loudest_in_its_band(tmp_path):
    tone(tmp_path / "low.wav", 0.5, pitch=300)
    tone(tmp_path / "high.wav", 0.25, pitch=3000, channels=2)
    column = read_column(["low.wav", "high.wav"], ModalityConfig(kind="audio", column="s", mels=20), tmp_path)
    assert column.spec.reading["rate"] == 8000
    assert column.array.shape == (2, 51, 20)  # 100 frames a second and one
    assert column.lengths.tolist() == [51, 26]
    bank = audio.filters(8000, 20)
    frequencies = np.linspace(0, 4000, bank.shape[1])
    for row, (frame, pitch) in enumerate(((25, 300), (12, 3000))):
        band = int(column.array[row, frame].argmax())
        centre = frequencies[bank[band].argmax()]
        width = np.ptp(frequencies[bank[band] > 0])
        assert abs(centre - pitch) <= width / 2
    assert not column.array[1, 26:].any()


def test_the_spectrogram_is_the_logarithm_of_power(tmp_path):
    tone(tmp_path / "a.wav", 0.5)
    wave, _ = soundfile.read(tmp_path / "a.wav")
    soundfile.write(tmp_path / "half.wav", wave / 2, 8000)
    column = read_column(["a.wav", "half.wav"], ModalityConfig(kind="audio", column="s"), tmp_path)
    band = column.array[0, 25].argmax()
    assert column.array[0, 25, band] - column.array[1, 25, band] == pytest.approx(np.log(4), abs=1e-2)


def test_another_rate_is_resampled_and_a_click_is_one_window(tmp_path):
    tone(tmp_path / "a.wav", 0.5, rate=16000)
    tone(tmp_path / "b.wav", 0.002, rate=8000)
    fitted = read_column(["a.wav"], ModalityConfig(kind="audio", column="s", rate=8000), tmp_path)
    assert fitted.lengths.tolist() == [51]
    assert read_column(["b.wav", "a.wav"], again(fitted.spec), tmp_path).lengths.tolist() == [4, 51]


# series, sets, vectors


def test_series_from_files_and_lists(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(6).reshape(3, 2))
    (tmp_path / "b.csv").write_text("x,y\n1,2\n")
    (tmp_path / "c.csv").write_text("1;2\n3;4\n\n")
    cells = ["a.npy", "b.csv", "c.csv", "[[5, 6]]", [[7, 8], [9, 10]], None]
    column = read_column(cells, ModalityConfig(kind="series", column="s"), tmp_path)
    assert column.lengths.tolist() == [3, 1, 2, 1, 2, 0]
    assert column.array[:, 0].tolist() == [[0, 1], [1, 2], [1, 2], [5, 6], [7, 8], [0, 0]]
    flat = read_column(["1 2 3", "[4]"], ModalityConfig(kind="series", column="s"), tmp_path)
    assert flat.array[:, :, 0].tolist() == [[1, 2, 3], [4, 0, 0]]


def test_the_length_option_cuts_and_never_pads(tmp_path):
    config = ModalityConfig(kind="set", column="s", length=2)
    assert read_column([[[1.0]], [[1.0], [2.0], [3.0]]], config, tmp_path).spec.shape == (2, 1)
    assert read_column([[[1.0]]], config, tmp_path).spec.shape == (1, 1)


def test_vectors_are_read_from_every_notation(tmp_path):
    np.save(tmp_path / "a.npy", np.array([1, 2.5]))
    cells = ["[1, 2.5]", "1 2.5", "1;2.5", [1, 2.5], "a.npy"]
    column = read_column(cells, ModalityConfig(kind="vector", column="v"), tmp_path)
    assert column.array.tolist() == [[1, 2.5]] * 5
    assert column.lengths is None


def test_table_columns_become_numbers_and_places(tmp_path):
    config = ModalityConfig(kind="table", columns=["age", "sex", "code"], categories=["code"])
    rows = [("10", "f", "1"), ("30", "m", "2"), ("", "", "1"), (None, None, None), ("80", "f", "1")]
    column = read_column(rows, config, tmp_path, name="person")
    assert column.array.tolist() == [
        [10, 1, 0, 0, 1, 0, 0],  # age; f, m, other; 1, 2, other
        [30, 0, 1, 0, 0, 1, 0],
        [30, 0, 0, 1, 1, 0, 0],  # the median of 10, 30, 80
        [0, 0, 0, 0, 0, 0, 0],
        [80, 1, 0, 0, 1, 0, 0],
    ]
    assert column.present.tolist() == [True, True, True, False, True]
    new = read_column([("", "x", "2")], again(column.spec), tmp_path)
    assert new.array.tolist() == [[30, 0, 0, 1, 0, 1, 0]]


# faults


@pytest.mark.parametrize(
    ("kind", "cell", "wording"),
    [
        ("image", "text.txt", r"The image 'text.txt' must be a readable image file. Got another file"),
        ("image", "cut.png", r"The image 'cut.png' must be a readable image file"),
        ("image", "big.npy", r"must be unsigned integers, or floats in \[0, 1\]"),
        ("image", "gone.png", r"There is no file 'gone.png'. Paths are relative"),
        ("image", "cat.png", r"There is no file 'cat.png'. Did you mean 'cut.png'"),
        ("audio", "text.txt", r"The sound 'text.txt' must be a readable sound file"),
        ("audio", "empty.wav", r"The sound 'empty.wav' must be at least one sample long"),
        ("series", "text.txt", r"Row 1, column 1 of 'text.txt' must be a number. Got 'hello' instead"),
        ("series", "mixed.csv", r"Row 3, column 2 of 'mixed.csv' must be a number. Got 'oops' instead"),
        ("series", "nan.npy", r"The file 'nan.npy' must be made of finite numbers. Got nan at \[1, 0\]"),
        ("series", "object.npy", r"The file 'object.npy' must be a readable .npy array of numbers"),
        ("series", "cube.npy", r"The array 'cube.npy' must be of shape \(length, d\). Got \(2, 2, 2\)"),
        ("series", "[[1, 2], [3]]", r"a list of lists of numbers, all of one width"),
        ("vector", "1 two", r"must be a list of numbers such as"),
        ("vector", "1 nan", r"A vector must be made of finite numbers. Got nan at \[1\]"),
        ("video", "nothing", r"The folder 'nothing' must be a folder with one image a frame"),
    ],
)
def test_a_cell_that_cannot_be_read_is_told(tmp_path, kind, cell, wording):
    (tmp_path / "text.txt").write_text("hello\n")
    (tmp_path / "mixed.csv").write_text("a,b\n1,2\n3,oops\n")
    noise = np.random.default_rng(0).integers(0, 255, (30, 30), np.uint8)
    Image.fromarray(noise).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:300])
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 8000)
    np.save(tmp_path / "big.npy", np.full((3, 3), 7.0))
    np.save(tmp_path / "nan.npy", np.array([[1.0], [np.nan]]))
    np.save(tmp_path / "object.npy", np.array([{}]), allow_pickle=True)
    np.save(tmp_path / "cube.npy", np.zeros((2, 2, 2)))
    (tmp_path / "nothing").mkdir()
    with pytest.raises(DataError, match=rf"(?s)The modality 'm': 1 fault.*Row 0, column 'c'.*{wording}"):
        read_column([cell], ModalityConfig(kind=kind, column="c"), tmp_path, name="m")


def test_paths_do_not_leave_the_folder(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    np.save(tmp_path / "secret.npy", np.zeros((2, 2)))
    np.save(inside / "own.npy", np.zeros((2, 2)))
    (inside / "link.npy").symlink_to(tmp_path / "secret.npy")
    cells = ["../secret.npy", str(tmp_path / "secret.npy"), "link.npy", "x/../own.npy", "bad\0name.npy"]
    column = read_column(cells, ModalityConfig(kind="series", column="s"), inside, strict=False)
    assert column.present.tolist() == [False, False, False, True, False]
    assert [fault.row for fault in column.faults] == [0, 1, 2, 4]
    assert all("leads out of the table's folder" in fault.message for fault in column.faults[:3])


def test_the_odd_width_is_named_and_the_rest_is_kept(tmp_path):
    cells = [[1, 2], [3, 4], [5, 6, 7]]
    column = read_column(cells, ModalityConfig(kind="vector", column="v"), tmp_path, strict=False)
    assert column.array.tolist() == [[1, 2], [3, 4], [0, 0]]
    assert [fault.row for fault in column.faults] == [2]
    assert "must be 2 numbers long, as most rows have. Got 3" in column.faults[0].message
    with pytest.raises(DataError, match="2 numbers wide, as the model was trained with. Got 1"):
        spec = read_column([[[1, 2]]], ModalityConfig(kind="series", column="s"), tmp_path).spec
        read_column([[[1]]], again(spec), tmp_path)


def test_too_many_mel_bands_are_refused(tmp_path):
    tone(tmp_path / "a.wav", 0.1)
    with pytest.raises(DataError, match="'mels' option must be small enough for a rate of 8000. Got 500"):
        read_column(["a.wav"], ModalityConfig(kind="audio", column="s", mels=500), tmp_path)


@pytest.mark.parametrize(
    ("given", "wording"),
    [
        ({"kind": "text", "size": 8}, "'size' has no meaning for the kind 'text'"),
        ({"kind": "image", "columns": "p_*"}, "A group of columns is a table or a vector"),
        ({"kind": "vector", "column": "a", "columns": "b"}, "either 'column' or 'columns'"),
        ({"kind": "text", "encoder": "bert"}, "must be 'hf:<id or folder>'. Got 'bert'"),
        ({"kind": "series", "encoder": "hf:x"}, "reads text, images or audio"),
        ({"kind": "text", "sizes": 8}, "Extra inputs are not permitted"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(given, wording):
    with pytest.raises(ValueError, match=wording):
        ModalityConfig(**given)


# large arrays


def test_large_arrays_are_mapped_and_decoded_once(tmp_path, monkeypatch):
    for k in range(3):
        np.save(tmp_path / f"{k}.npy", np.full((k + 1, 2), k + 1.0))
    cells, config = ["0.npy", "1.npy", None, "2.npy"], ModalityConfig(kind="series", column="s")
    plain = read_column(cells, config, tmp_path)
    calls = []
    decode = readers._decode
    monkeypatch.setattr(readers, "_decode", lambda *given: (calls.append(1), decode(*given))[1])
    for _ in range(2):
        mapped = read_column(cells, config, tmp_path, cache=tmp_path / "cache", memory=8)
        assert isinstance(mapped.array, np.memmap)
        for part in ("array", "present", "lengths"):
            assert (getattr(mapped, part) == getattr(plain, part)).all()
    assert len(calls) == 1
    np.save(tmp_path / "0.npy", np.full((2, 2), 9.0))  # another content: decoded again
    assert read_column(cells, config, tmp_path, cache=tmp_path / "cache", memory=8).array[0, 1, 0] == 9
    assert len(calls) == 2
    entries = list((tmp_path / "cache" / "columns").iterdir())
    assert len(entries) == 2
    for entry in entries:  # a damaged entry: decoded again
        (entry / "array.npy").write_bytes(b"\x93NUMPY")
    assert (read_column(cells, config, tmp_path, cache=tmp_path / "cache", memory=8).array[3] == plain.array[3]).all()


def test_reading_needs_neither_torch_nor_scikit_learn():
    heavy = "('torch', 'sklearn', 'librosa')"
    code = f"import sys, transference.data.manifest; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
