"""Every kind's default encoder: what must never matter, what must, and statistics worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from transference.core.spec import SEQUENCES, ModalitySpec
from transference.nn.encoders import Encoder, VectorEncoder, WordEncoder, encoder, mask_of
from transference.nn.encoders.base import scale_of
from transference.nn.encoders.series import Cells
from transference.nn.initial import initialise
from transference.nn.resampling import resample, shrink

WIDTH = 6
SPECS = {
    "vector": ModalitySpec("m", "vector", (5,)),
    "table": ModalitySpec("m", "table", (7,)),
    "two pixels": ModalitySpec("m", "image", (1, 2, 2)),
    "image": ModalitySpec("m", "image", (3, 12, 9)),
    "large image": ModalitySpec("m", "image", (1, 70, 40)),
    "audio": ModalitySpec("m", "audio", (37, 5), lengths=True),
    "short series": ModalitySpec("m", "series", (3, 2), lengths=True),
    "series": ModalitySpec("m", "series", (19, 4), lengths=True),
    "set": ModalitySpec("m", "set", (6, 3), lengths=True),
    "video": ModalitySpec("m", "video", (9, 1, 20, 6), lengths=True),
    "text": ModalitySpec("m", "text", (8,), lengths=True, vocabulary=30),
}
EVERY = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
SEQUENTIAL = pytest.mark.parametrize("name", [name for name, spec in SPECS.items() if spec.kind in SEQUENCES])
PADDED = pytest.mark.parametrize("name", ["audio", "short series", "series", "set", "video"])  # a text's padding is 0


def rows(spec: ModalitySpec, n: int = 7, seed: int = 0) -> tuple[Tensor, Tensor | None]:
    """Values with zeros beyond the lengths, and lengths from 1 to the longest."""
    draw = np.random.default_rng(seed)
    if spec.kind == "text":
        values = draw.integers(1, spec.vocabulary, (n, *spec.shape)).astype(np.float32)
    else:
        values = draw.normal(2.0, 3.0, (n, *spec.shape)).astype(np.float32)
    if not spec.lengths:
        return torch.from_numpy(values), None
    lengths = np.linspace(1, spec.shape[0], n).astype(np.int64)
    for row, length in zip(values, lengths, strict=True):
        row[length:] = 0
    return torch.from_numpy(values), torch.from_numpy(lengths)


def ready(spec: ModalitySpec) -> Encoder:
    part = encoder(spec, WIDTH)
    holder = torch.nn.ModuleDict({"m": part})
    initialise(holder, 0)
    part.fit_statistics(*rows(spec, 40, seed=1))
    return part


@EVERY
def test_every_kind_gives_width_numbers_a_row(spec: ModalitySpec) -> None:
    values, lengths = rows(spec)
    part = ready(spec)
    assert part(values, lengths).shape == (7, WIDTH)
    assert part.standard(values, lengths).shape == (7, *part.standard_shape)
    assert part(values[:1], None if lengths is None else lengths[:1]).isfinite().all()


@EVERY
def test_rows_do_not_see_one_another(spec: ModalitySpec) -> None:
    values, lengths = rows(spec)
    part = ready(spec).train()
    alone = [part(values[i : i + 1], None if lengths is None else lengths[i : i + 1]) for i in range(7)]
    torch.testing.assert_close(torch.cat(alone), part(values, lengths), atol=1e-5, rtol=1e-5)


@EVERY
def test_training_and_evaluation_agree_and_no_random_number_is_drawn(spec: ModalitySpec) -> None:
    values, lengths = rows(spec)
    part = ready(spec)
    before = torch.get_rng_state()
    assert torch.equal(part.train()(values, lengths), part.eval()(values, lengths))
    assert torch.equal(before, torch.get_rng_state())


@EVERY
def test_every_parameter_gets_a_gradient(spec: ModalitySpec) -> None:
    values, lengths = rows(spec)
    part = ready(spec)
    part(values, lengths).square().sum().backward()
    idle = [name for name, p in part.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert idle == []


@EVERY
def test_one_batch_of_statistics_equals_another_order_of_it(spec: ModalitySpec) -> None:
    values, lengths = rows(spec, 40, seed=1)
    part, other = ready(spec), ready(spec)
    other.fit_statistics(values.flip(0), None if lengths is None else lengths.flip(0))
    for one, two in zip(part.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-5)


@PADDED
def test_what_lies_beyond_the_length_never_matters(name: str) -> None:
    spec = SPECS[name]
    values, lengths = rows(spec)
    assert lengths is not None
    dirty = values.clone()
    for row, length in zip(dirty, lengths.tolist(), strict=True):
        row[length:] = 1e3
    part, other = ready(spec), ready(spec)
    assert torch.equal(part(values, lengths), part(dirty, lengths))
    part.fit_statistics(values, lengths)
    other.fit_statistics(dirty, lengths)
    for one, two in zip(part.buffers(), other.buffers(), strict=True):
        assert torch.equal(one, two)


@PADDED
def test_how_much_padding_there_is_never_matters(name: str) -> None:
    values, lengths = rows(SPECS[name])
    longer = torch.cat([values, torch.zeros_like(values)], 1)
    part = ready(SPECS[name])
    torch.testing.assert_close(part(values, lengths), part(longer, lengths), atol=1e-5, rtol=1e-5)


@SEQUENTIAL
def test_what_lies_before_it_does(name: str) -> None:
    spec = SPECS[name]
    values, lengths = rows(spec)
    part = ready(spec)
    other = values.clone()
    other[:, 0] = other[:, 0] + 1
    assert not torch.allclose(part(values, lengths), part(other, lengths), atol=1e-4)


def test_a_full_length_is_the_same_as_none() -> None:
    spec = SPECS["series"]
    values, _ = rows(ModalitySpec("m", "series", spec.shape))
    torch.testing.assert_close(ready(spec)(values, None), ready(spec)(values, torch.full((7,), spec.shape[0])))


def test_a_set_has_no_order_and_a_series_has() -> None:
    for kind, same in (("set", True), ("series", False)):
        part = ready(SPECS[kind])
        values, _ = rows(ModalitySpec("m", kind, SPECS[kind].shape))  # type: ignore[arg-type]
        turned = values.flip(1)
        assert torch.allclose(part(values, None), part(turned, None), atol=1e-4) == same


def test_repeating_every_element_does_not_change_a_set() -> None:
    values, _ = rows(ModalitySpec("m", "set", (6, 3)))
    part = ready(SPECS["set"])
    torch.testing.assert_close(part(values, None), part(torch.cat([values, values], 1), None), atol=1e-4, rtol=1e-4)


def test_a_series_played_at_half_speed_is_the_same() -> None:
    spec = ModalitySpec("m", "series", (32, 4), lengths=True)
    values, _ = rows(ModalitySpec("m", "series", (32, 4)))
    slow = values.repeat_interleave(2, dim=1)
    part = ready(spec)
    torch.testing.assert_close(part.body(values, None), part.body(slow, None), atol=1e-4, rtol=1e-4)


def test_a_series_is_its_cells_around_their_mean_then_mean_and_deviation_once_each() -> None:
    part = Cells(8, 1, 10)
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.zero_()
        part.linear.weight.copy_(torch.eye(10))
    steps = torch.tensor([1.0, 1, 1, 1, 3, 3, 3, 3]).view(1, 8, 1)
    expected = torch.tensor([[-1.0] * 4 + [1.0] * 4 + [2.0, 1.0]])
    torch.testing.assert_close(part(steps, None), expected, atol=1e-3, rtol=0)


def test_numbers_are_standardised_and_a_constant_one_counts_for_nothing() -> None:
    part = VectorEncoder(ModalitySpec("m", "vector", (3,)), WIDTH)
    values = torch.tensor([[1.0, 10.0, 5.0], [3.0, 30.0, 5.0]])
    part.fit_statistics(values, None)
    assert part.mean.tolist() == [2.0, 20.0, 5.0]
    assert part.scale.tolist() == pytest.approx([1.0, 0.1, 0.0])
    assert part.standard(torch.tensor([[4.0, 20.0, 99.0]]), None).tolist() == [[2.0, 0.0, 0.0]]


@pytest.mark.parametrize("unit", [1e-9, 1e-3, 1e6])
def test_the_unit_of_a_number_does_not_matter(unit: float) -> None:
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)) + 2
    plain, scaled = (VectorEncoder(ModalitySpec("m", "vector", (3,)), WIDTH) for _ in range(2))
    plain.fit_statistics(x, None)
    scaled.fit_statistics(x * unit, None)
    torch.testing.assert_close(scaled.standard(x * unit, None), plain.standard(x, None), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, -12345.678])
def test_a_constant_counts_for_nothing_however_many_rows_there_are(value: float) -> None:
    assert scale_of(torch.full((1_000_003, 2), value)).tolist() == [0.0, 0.0]


def test_words_count_however_they_are_ordered_and_padding_does_not() -> None:
    part = ready(SPECS["text"])
    one = torch.tensor([[3.0, 4.0, 3.0, 0.0, 0.0, 0.0, 0.0, 0.0]])
    two = torch.tensor([[0.0, 0.0, 3.0, 3.0, 0.0, 4.0, 0.0, 0.0]])
    assert torch.equal(part.standard(one, None), part.standard(two, None))
    assert part.standard(one, None)[0, 0] == 0


def test_word_weights_by_hand() -> None:
    """Word 1 is in both documents, word 2 in one of two; the first holds word 2 twice."""
    part = WordEncoder(ModalitySpec("m", "text", (3,), lengths=True, vocabulary=3), WIDTH)
    texts = torch.tensor([[1.0, 2.0, 2.0], [1.0, 0.0, 0.0]])
    part.fit_statistics(texts, None)
    common = (np.log(3 / 3) + 1) * (3 / 3) ** 0.25
    rare = (np.log(3 / 2) + 1) * (2 / 3) ** 0.25
    assert part.rarity[1:].tolist() == pytest.approx([common, rare])
    weight = np.array([0, np.log(2) * common, np.log(3) * rare])
    expected = weight / np.linalg.norm(weight) * 3**0.25
    assert part.standard(texts, None)[0].tolist() == pytest.approx(expected.tolist(), abs=1e-6)


def test_masks_and_averages_by_hand() -> None:
    values = torch.tensor([[[1.0], [2.0], [3.0]], [[4.0], [9.0], [9.0]]])
    assert mask_of(torch.tensor([2, 1]), values).tolist() == [[1, 1, 0], [1, 0, 0]]
    # 2 steps in 4 cells: each step fills two; 3 steps in 2 cells: the middle one is shared
    assert resample(values[:1], torch.tensor([2]), 4).flatten().tolist() == [1, 1, 2, 2]
    assert resample(values[:1], torch.tensor([3]), 2).flatten().tolist() == pytest.approx([4 / 3, 8 / 3])
    pixels = torch.arange(16.0).view(1, 1, 4, 4)
    assert shrink(pixels, 2).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert shrink(pixels, 4) is pixels


def test_other_modalities_keep_to_shapes_an_encoder_can_read() -> None:
    """A series of single numbers, or an image with a short side, is read as a vector."""
    assert isinstance(encoder(ModalitySpec("m", "series", (9,)), WIDTH), VectorEncoder)
    assert isinstance(encoder(ModalitySpec("m", "image", (3, 64, 7)), WIDTH), VectorEncoder)


@SEQUENTIAL
def test_rows_without_a_step_leave_the_statistics_as_they_are(name: str) -> None:
    part, empty = encoder(SPECS[name], WIDTH), torch.zeros(3, dtype=torch.int64)
    values = torch.zeros(3, *SPECS[name].shape)
    part.fit_statistics(values, empty)
    assert torch.isfinite(part(values, empty)).all()
