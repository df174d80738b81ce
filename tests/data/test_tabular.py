"""Views as one matrix."""

from __future__ import annotations

import numpy as np
import pytest

from transference.core.spec import ModalitySpec
from transference.core.views import Views
from transference.data.tabular import features, resample, summary


def views(spec: ModalitySpec, array: np.ndarray, lengths=None, present=None) -> Views:
    return Views(
        {"m": array.astype(np.float32)},
        {"m": spec},
        "m",
        lengths=None if lengths is None else {"m": np.array(lengths)},
        present=None if present is None else {"m": np.array(present)},
    )


def test_text_becomes_word_counts_without_padding():
    spec = ModalitySpec("m", "text", (4,), lengths=True, vocabulary=5)
    got = features(views(spec, np.array([[1, 3, 3, 0], [4, 0, 0, 0]]), [3, 1]), ["m"])
    assert got.tolist() == [[0, 1, 0, 2, 0], [0, 0, 0, 0, 1]]
    assert got.dtype == np.float32


def test_a_sequence_is_resampled_over_its_real_steps_only():
    # 3 real steps 0, 2, 4 and padding 99: five instants are 0, 1, 2, 3, 4
    array = np.array([[[0.0], [2.0], [4.0], [99.0], [99.0]], [[7.0], [99.0], [99.0], [99.0], [99.0]]])
    got = resample(array, np.array([3, 1]), 5)
    assert got[:, :, 0].tolist() == [[0, 1, 2, 3, 4], [7, 7, 7, 7, 7]]


def test_resampling_equals_interpolation_channel_by_channel():
    generator = np.random.default_rng(0)
    array = generator.normal(size=(4, 9, 2, 3)).astype(np.float32)
    lengths = np.array([9, 2, 5, 1])
    got = resample(array, lengths, 6)
    for row, length in enumerate(lengths):
        for a in range(2):
            for b in range(3):
                instants = np.linspace(0, length - 1, 6)
                wanted = np.interp(instants, np.arange(length), array[row, :length, a, b])
                np.testing.assert_allclose(got[row, :, a, b], wanted, atol=1e-6)


def test_a_series_is_told_part_by_part():
    # four real steps 1, 5, 2, 2 and padding 99; the quarters are single steps, the eighths each step twice
    array = np.array([[[1.0], [5.0], [2.0], [2.0], [99.0]], [[99.0]] * 5])
    got = summary(array, np.array([4, 0])).reshape(2, 13, 4)
    assert got[0, 0].tolist() == [2.5, 1.5, 1, 5]  # mean, deviation, minimum, maximum
    assert got[0, 1:5].tolist() == [[1, 0, 1, 1], [5, 0, 5, 5], [2, 0, 2, 2], [2, 0, 2, 2]]
    assert got[0, 5:, 0].tolist() == [1, 1, 5, 5, 2, 2, 2, 2]
    assert not got[1].any()


def test_the_summary_equals_a_slow_loop():
    generator = np.random.default_rng(0)
    array = generator.normal(3, 2, (6, 37, 5)).astype(np.float32)
    lengths = np.array([37, 8, 13, 1, 36, 24])
    got = summary(array, lengths).reshape(6, 13, 4, 5)
    for row, length in enumerate(lengths):
        bounds = [(k * length // parts, (k + 1) * length // parts) for parts in (1, 4, 8) for k in range(parts)]
        for part, (first, last) in enumerate(bounds):
            steps = array[row, first : max(last, first + 1)]
            wanted = [steps.mean(0), steps.std(0), steps.min(0), steps.max(0)]
            np.testing.assert_allclose(got[row, part], wanted, atol=1e-4)


def test_a_set_does_not_depend_on_the_order_nor_on_the_padding():
    spec = ModalitySpec("m", "set", (4, 2), lengths=True)
    rows = np.array([[[1, -5], [3, -1], [0, 0], [0, 0]], [[3, -1], [1, -5], [8, 8], [8, 8]]])
    got = features(views(spec, rows, [2, 2]), ["m"])
    assert got.tolist() == [[2, -3, 3, -1]] * 2


def test_absent_rows_are_zero_and_modalities_stand_side_by_side():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    both = Views(
        {"a": array, "b": array[:, None, None, :]},
        {"a": ModalitySpec("a", "vector", (3,)), "b": ModalitySpec("b", "image", (1, 1, 3))},
        "a",
        present={"b": np.array([True, False])},
    )
    assert features(both, ["b", "a"]).tolist() == [[0, 1, 2, 0, 1, 2], [0, 0, 0, 3, 4, 5]]


@pytest.mark.parametrize("kind", ["series", "audio"])
def test_the_width_does_not_depend_on_the_rows(kind):
    spec = ModalitySpec("m", kind, (50, 2), lengths=True)
    array = np.zeros((3, 50, 2))
    assert features(views(spec, array, [50, 1, 0]), ["m"]).shape == (3, 104)
    assert features(views(spec, array[:1], [0]), ["m"]).shape == (1, 104)


def test_absent_rows_may_hold_anything():
    array = np.full((3, 6, 2), np.nan)
    array[1] = 1
    present, lengths = [False, True, False], [6, 6, 0]
    for kind, row in (("series", [1, 0, 1, 1]), ("set", [1, 1])):
        spec = ModalitySpec("m", kind, (6, 2), lengths=True)
        got = features(views(spec, array, lengths, present), ["m"])
        assert not got[[0, 2]].any()
        assert got[1, ::2][: len(row)].tolist() == row
    spec = ModalitySpec("m", "vector", (6,))
    assert features(views(spec, array[:, :, 0], present=present), ["m"])[:, 0].tolist() == [0, 1, 0]


@pytest.mark.parametrize(("shape", "width"), [((3,), 3), ((5, 2), 104), ((1, 2, 2), 4), ((4, 1, 2, 2), 16)])
def test_no_rows_have_their_width(shape, width):
    assert features(Views.of(primary="m", m=np.zeros((0, *shape))), ["m"]).shape == (0, width)
