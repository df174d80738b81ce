"""Tokens of every kind of modality by hand, and a transformer in which what is not read changes nothing."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from transference.core.spec import Kind, ModalitySpec
from transference.nn.tokens import Numbers, Pieces, Tokens, Transformer, Words


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


SHAPES: list[tuple[Kind, tuple[int, ...], int]] = [
    ("vector", (7,), 1),
    ("table", (3,), 1),
    ("set", (5, 2), 1),
    ("image", (1, 4, 4), 1),
    ("image", (2, 8, 9), 16),
    ("image", (3, 70, 33), 16),
    ("series", (5, 3), 5),
    ("series", (62, 4), 16),
    ("audio", (100, 8), 16),
    ("video", (20, 1, 8, 12), 16),
    ("video", (3, 2, 24, 8), 3),
]


@pytest.mark.parametrize(("kind", "shape", "length"), SHAPES)
def test_every_kind_becomes_few_standardised_tokens(kind: Kind, shape: tuple[int, ...], length: int) -> None:
    part = Tokens(ModalitySpec("m", kind, shape), 6)
    values = 5 + 3 * drawn(50, *shape)
    assert isinstance(part.content, Numbers)
    part.content.pieces.fit_statistics(values, None)
    pieces = part.content.pieces(values, None)
    if isinstance(part.content.pieces, Pieces):
        each = pieces.flatten(0, 1)
        moving = each.std(0, correction=0) > 0  # not what pads an image
        torch.testing.assert_close(each.mean(0), torch.zeros(each.shape[1]), atol=1e-4, rtol=0)
        torch.testing.assert_close(
            each[:, moving].std(0, correction=0), torch.ones(int(moving.sum())), rtol=1e-4, atol=0
        )
    tokens, real = part(values, None)
    assert tokens.shape == (50, length, 6)
    assert part.places().shape == (length, 6)
    assert real.all()
    by_hand = pieces.reshape(50, length, -1) @ part.content.linear.weight.T + part.content.linear.bias
    torch.testing.assert_close(tokens, by_hand)


def test_a_token_of_a_series_is_four_means_of_a_sixteenth_of_its_real_steps() -> None:
    part = Pieces(ModalitySpec("m", "series", (128, 2), lengths=True))
    values = drawn(2, 128, 2)
    found = part.raw(values, torch.tensor([128, 64]))  # (2, 16, 8)
    for row, steps in ((0, 2), (1, 1)):  # of one mean
        for token in range(16):
            first = 4 * token * steps
            means = [values[row, first + k * steps : first + (k + 1) * steps].mean(0) for k in range(4)]
            torch.testing.assert_close(found[row, token], torch.cat(means))
    garbage = values.clone()
    garbage[1, 64:] = 99.0
    torch.testing.assert_close(part.raw(garbage, torch.tensor([128, 64])), found)


def test_a_token_of_an_image_is_a_field() -> None:
    part = Pieces(ModalitySpec("m", "image", (2, 8, 10)))
    values = drawn(3, 2, 8, 10)
    found = part.raw(values, None)  # (3, 16, 2 * 2 * 3)
    padded = torch.zeros(3, 2, 8, 12)
    padded[..., :10] = values
    for down in range(4):
        for across in range(4):
            field = padded[:, :, 2 * down : 2 * down + 2, 3 * across : 3 * across + 3]
            torch.testing.assert_close(found[:, 4 * down + across], field.flatten(1))


@pytest.mark.parametrize(("room", "sizes"), [(5, (0, 2, 5)), (40, (1, 17, 40)), (200, (3, 64, 130))])
def test_tokens_of_a_text_are_means_of_words(room: int, sizes: tuple[int, ...]) -> None:
    part = Words(ModalitySpec("m", "text", (room,), lengths=True, vocabulary=300), 4)
    numbers = torch.randint(1, 300, (3, room), generator=torch.Generator().manual_seed(0)).float()
    lengths = torch.tensor(sizes)
    numbers[2, 1] = 0.0  # padding in the midst counts for nothing
    tokens, real = part(numbers, lengths)
    per = 1 if room <= 16 else 4
    most = per * tokens.shape[1]
    assert most == (room if room <= 16 else min(64, 4 * math.ceil(room / 4)))
    for row, size in enumerate(sizes):
        words = [int(numbers[row, k]) for k in range(size)]
        if size > most:
            words = [words[k * size // most] for k in range(most)]
        for token in range(tokens.shape[1]):
            chosen = [word for word in words[per * token : per * (token + 1)] if word]
            assert bool(real[row, token]) == bool(chosen)
            expected = part.table.weight[chosen].mean(0) if chosen else torch.zeros(4)
            torch.testing.assert_close(tokens[row, token], expected)


def test_a_text_without_words_has_one_token_that_can_be_read() -> None:
    part = Tokens(ModalitySpec("m", "text", (5,), lengths=True, vocabulary=9), 4)
    tokens, real = part(torch.tensor([[0.0] * 5, [2.0, 3.0, 0.0, 0.0, 0.0]]), torch.tensor([0, 2]))
    assert real.tolist() == [[True, False, False, False, False], [True, True, False, False, False]]
    assert (tokens[0] == 0).all()


def test_places_and_modalities_are_vectors_of_their_own() -> None:
    part = Tokens(ModalitySpec("m", "series", (9, 2)), 4)
    torch.testing.assert_close(part.places()[2], part.place.value[2] + part.modality.value)
    assert part.places().std().item() == pytest.approx(0.3 * math.sqrt(2), rel=0.5)
    assert not torch.allclose(part.places()[0], part.places()[1])


def test_a_layer_against_a_slow_loop() -> None:
    net = Transformer(8, 1, 2)
    x, read = drawn(2, 3, 8), torch.tensor([[True, True, False], [True, False, True]])
    block = net.blocks[0]
    (found,) = net(x, read)
    with torch.no_grad():
        for row in range(2):
            normal = block.before(x[row])
            query, key, value = block.asked(normal).split(8, 1)  # (3, 8), two heads of 4 numbers
            for asks in range(3):
                gathered = torch.zeros(8)
                for head in range(2):
                    part = slice(4 * head, 4 * head + 4)
                    weights = [
                        math.exp(float(query[asks, part] @ key[k, part]) / 2.0) if read[row, k] else 0.0
                        for k in range(3)
                    ]
                    for k in range(3):
                        gathered[part] += weights[k] / sum(weights) * value[k, part]
                mid = x[row, asks] + block.out(gathered)
                expected = mid + block.deep(block.between(mid))
                torch.testing.assert_close(found[row, asks], expected, rtol=1e-4, atol=1e-5)


def test_what_is_not_read_changes_no_other_token() -> None:
    net = Transformer(8, 2, 2)
    x, read = drawn(4, 5, 8), torch.tensor([[True, True, False, True, False]]).expand(4, -1)
    other = torch.where(read[:, :, None], x, drawn(4, 5, 8, seed=9))
    one, two = net(x, read), net(other, read)
    assert len(one) == 2
    for first, second in zip(one, two, strict=True):
        torch.testing.assert_close(first[read], second[read])
    alone = net(x[:, [0, 1, 3]], torch.ones(4, 3, dtype=torch.bool))[-1]
    torch.testing.assert_close(one[-1][:, [0, 1, 3]], alone)
    assert not torch.allclose(one[-1][:, 2], two[-1][:, 2])
