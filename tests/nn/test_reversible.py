"""The way back: read again, what comes back is the same low-level input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from transference.core.errors import DataError
from transference.core.spec import Kind, ModalitySpec
from transference.nn.resampling import resample
from transference.nn.reversible import Reversible, undo


def there_and_back(kind: Kind, values: NDArray[Any], **more: Any) -> tuple[Reversible, NDArray[Any]]:
    """The part, fitted to these rows, and the rows after the low-level input."""
    part = Reversible(ModalitySpec("m", kind, values.shape[1:], lengths="lengths" in more), side=4)
    given, lengths = torch.from_numpy(values.astype(np.float32)), more.get("lengths")
    part.fit_statistics(given, lengths)
    return part, part.rows(part(given, lengths)).numpy()


@pytest.mark.parametrize("length", [1, 2, 3, 5, 6, 7, 8, 9, 16, 50])
def test_a_signal_comes_back_as_the_smoothest_with_its_means(length: int) -> None:
    """It is the signal itself where there are as many means as steps or more."""
    means = resample(torch.eye(length)[None], None, 8)[0]
    noise = torch.randn(length, generator=torch.Generator().manual_seed(0))
    for signal in (torch.ones(length), torch.linspace(-1, 1, length), torch.sin(torch.linspace(0, 3, length)), noise):
        back = undo(means) @ (means @ signal)
        torch.testing.assert_close(means @ back, means @ signal, atol=1e-3, rtol=0)
        assert back.diff().square().sum() <= signal.diff().square().sum() + 1e-3
        assert (back - signal).abs().max() < (1e-3 if length <= 8 else 0.2 if signal is not noise else 5)


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("vector", (9,)),
        ("series", (11, 3)),
        ("series", (5, 3)),
        ("image", (2, 4, 3)),
        ("image", (2, 9, 16)),
        ("video", (9, 1, 5, 8)),
        ("video", (9, 7)),
    ],
)
def test_what_comes_back_is_read_as_the_same_in_the_unit_of_the_modality(kind: Kind, shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).normal(size=(24, *shape)) * 5 + 100
    values[..., -1] = 4.0  # a number that never changes
    part, back = there_and_back(kind, values)
    assert (back.shape, back.dtype) == (values.shape, np.float32)
    given = torch.from_numpy(values.astype(np.float32))
    torch.testing.assert_close(part(torch.from_numpy(back), None), part(given, None), atol=0.02, rtol=0)
    if part.size == values[0].size:  # nothing was averaged
        np.testing.assert_allclose(back, values, atol=0.01)


def test_a_set_comes_back_as_its_mean() -> None:
    points = np.random.default_rng(0).normal(size=(6, 4, 2))
    back = there_and_back("set", points)[1]
    np.testing.assert_allclose(back, points.mean(1, keepdims=True).repeat(4, 1), atol=1e-5)


def test_a_sequence_lasts_as_long_as_the_training_rows_on_average_and_stays_as_it_ends() -> None:
    slope = np.arange(16.0)[None, :, None] * np.random.default_rng(0).normal(size=(6, 1, 1))
    part, back = there_and_back("series", slope, lengths=torch.tensor([6, 10, 8, 8, 7, 9]))
    assert part.duration == 8
    at_8 = part.rows(part(torch.from_numpy(slope.astype(np.float32)), torch.full((6,), 8))).numpy()
    np.testing.assert_allclose(at_8[:, :8], slope[:, :8], atol=1e-3)
    np.testing.assert_array_equal(at_8[:, 8:], at_8[:, 7:8].repeat(8, 1))
    assert back.shape == slope.shape


def test_a_text_does_not_come_back() -> None:
    part = Reversible(ModalitySpec("words", "text", (4,), lengths=True, vocabulary=5))
    with pytest.raises(DataError, match=r"The modality 'words' to generate must be numbers. Got .text. instead"):
        part.rows(torch.zeros(1, 5))


def text(rows: list[list[int]], vocabulary: int = 5000) -> tuple[Reversible, torch.Tensor]:
    part = Reversible(ModalitySpec("words", "text", (len(rows[0]),), lengths=True, vocabulary=vocabulary))
    values = torch.tensor(rows, dtype=torch.float32)
    part.fit_statistics(values, None)
    return part, values


def test_of_a_text_the_words_that_most_rows_have_are_kept() -> None:
    common = torch.arange(1000, 1000 + 1023)  # in two rows each; 3 and 4999 in one
    rows = [[*common.tolist(), 3, 3, 3], [*common.flip(0).tolist(), 4999, 0, 0]]
    part, values = text(rows)
    assert part.size == 1024
    assert part.frequent.tolist() == [0, *common.tolist()]
    assert part.words(torch.tensor([[1001.0, 3, 0, 2022]])).tolist() == [[2, 0, 0, 1023]]
    torch.testing.assert_close(part(values, None), torch.zeros(2, 1024))  # alike in what is kept


def test_words_deviate_by_1_on_average_and_in_one_unit() -> None:
    g = torch.Generator().manual_seed(0)
    part, values = text((torch.rand(300, 12, generator=g).pow(3) * 600).long().tolist(), vocabulary=700)
    x = part(values, None)
    assert x.var(0, correction=0).mean().item() == pytest.approx(1, rel=1e-4)
    assert part.variance == part.size == 700
    assert part.scale.unique().numel() == 1
    torch.testing.assert_close(x.mean(0), torch.zeros(700), atol=1e-4, rtol=0)
