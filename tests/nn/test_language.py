"""Descriptions: which tokens a text becomes, what saying them costs, what is said, and how it is read."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from transference.core.spec import ModalitySpec
from transference.nn.language import (
    FormDecoder,
    Sentences,
    WordDecoder,
    WordReader,
    describer,
    drawn,
    reader,
)

TEXT = ModalitySpec("t", "text", (4,), lengths=True, vocabulary=9)
ROWS = torch.tensor([[7.0, 3, 0, 0], [7, 7, 3, 0], [0, 7, 0, 5], [8, 7, 3, 5]])


def decoder(width: int = 6, rows: torch.Tensor = ROWS, seed: int = 0) -> WordDecoder:
    torch.manual_seed(seed)
    part = WordDecoder(TEXT, width)
    part.form.fit_statistics(rows, None)
    return part


def test_words_are_numbered_by_frequency_and_leave_no_gap() -> None:
    """7 occurs five times, 3 three times, 5 twice, 8 once."""
    form = Sentences(TEXT)
    form.fit_statistics(ROWS, None)
    assert form(ROWS, None).tolist() == [[1, 2, 0, 0, 0], [1, 1, 2, 0, 0], [1, 3, 0, 0, 0], [4, 1, 2, 3, 0]]
    few = Sentences(TEXT, steps=3, words=3)  # the end marker, 7 and 3
    few.fit_statistics(ROWS, None)
    assert few(ROWS, None).tolist() == [[1, 2, 0], [1, 1, 2], [1, 0, 0], [1, 2, 0]]


def test_words_beyond_the_length_are_none() -> None:
    form = Sentences(TEXT)
    form.fit_statistics(ROWS, None)
    assert form(torch.full((1, 4), 7.0), torch.tensor([2])).tolist() == [[1, 1, 0, 0, 0]]
    poisoned, lengths = ROWS.clone(), torch.tensor([2, 3, 4, 4])
    poisoned[0, 2:], poisoned[1, 3:] = torch.nan, 8
    again = Sentences(TEXT)
    again.fit_statistics(poisoned, lengths)
    assert torch.equal(again.prior, form.prior)
    assert torch.equal(again(poisoned, lengths), form(ROWS, None))


def test_frequencies_count_the_end_marker() -> None:
    """Of 15 true tokens 4 are end markers, 5, 3, 2 and 1 words."""
    form = Sentences(TEXT)
    form.fit_statistics(ROWS, None)
    share = [4 / 15, 5 / 15, 3 / 15, 2 / 15, 1 / 15]
    torch.testing.assert_close(form.prior.exp()[:5], torch.tensor(share))
    assert form.prior[5:].max() < -15
    assert form.surprise.item() == pytest.approx(-sum(p * math.log(p) for p in share), rel=1e-6)


def test_one_who_knows_frequencies_alone_pays_1_a_token() -> None:
    part = decoder()
    torch.nn.init.zeros_(part.out.weight)
    torch.nn.init.zeros_(part.out.bias)
    tokens = part.form(ROWS, None)
    nats = part.nats(torch.randn(4, 6), tokens)
    assert nats.sum().item() == pytest.approx(15 * part.form.surprise.item(), rel=1e-5)
    assert nats[0].item() == pytest.approx(-sum(math.log(k / 15) for k in (5, 3, 4)), rel=1e-5)
    cost = part.cost(torch.randn(4, 6), tokens)
    torch.testing.assert_close(cost, nats / (torch.tensor([3.0, 4, 3, 5]) * part.form.surprise))


def test_the_cost_is_that_of_a_slow_loop_over_true_tokens() -> None:
    part, concept = decoder(), torch.randn(4, 6)
    tokens = part.form(ROWS, None)
    expected = []
    for row, c in zip(tokens.tolist(), concept, strict=True):
        total, state, before = 0.0, part.start(c)[None, None], 0
        for token in row:
            after, state = part.cell(part.embedding(torch.tensor([[before]])), state)
            total -= (part.out(after[0, 0]) + part.form.prior).log_softmax(0)[token].item()
            before = token
            if token == 0:
                break
        expected.append(total)
    torch.testing.assert_close(part.nats(concept, tokens), torch.tensor(expected))


def test_padding_has_neither_cost_nor_gradient() -> None:
    part, concept = decoder(), torch.randn(2, 6)
    found = []
    for tokens in (torch.tensor([[1, 2, 0, 0, 0], [1, 0, 0, 0, 0]]), torch.tensor([[1, 2, 0], [1, 0, 0]])):
        part.zero_grad()
        nats = part.nats(concept, tokens)
        nats.sum().backward()
        found.append([nats.detach(), *(parameter.grad.clone() for parameter in part.parameters())])  # type: ignore[union-attr]
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_a_text_without_room_has_no_end_marker() -> None:
    part = decoder()
    part.out.bias.data[0] = -50.0  # the end is never said
    tokens = torch.tensor([[1, 2, 3, 1, 2], [1, 2, 3, 1, 0]])
    nats = part.nats(torch.zeros(2, 6), tokens)
    assert nats[0] < 30 < nats[1]


def test_the_likeliest_words_are_said_until_the_end() -> None:
    part, concept = decoder(), torch.randn(40, 6)
    part.out.bias.data[0] = 0.5
    said = part.say(concept)
    ended = (said == 0).long().cumsum(1) > 0
    assert not said[ended].any()
    assert ended.any()
    for row, c in zip(said.tolist(), concept, strict=True):
        state, before = part.start(c)[None, None], 0
        for token in row:
            after, state = part.cell(part.embedding(torch.tensor([[before]])), state)
            assert token == (part.out(after[0, 0]) + part.form.prior).argmax()
            before = token
            if token == 0:
                break


def test_words_are_drawn_as_likely_as_they_are() -> None:
    part, n = decoder(), 20000
    concept = torch.randn(1, 6)
    uniform = torch.rand(n, part.draws, generator=torch.Generator().manual_seed(3))
    said = part.say(concept.expand(n, 6), uniform)
    ended = (said == 0).long().cumsum(1) > 0
    assert not said[ended].any()
    after, state = part.cell(part.embedding(torch.tensor([[0]])), part.start(concept)[None])
    first = (part.out(after[0, 0]) + part.form.prior).softmax(0)
    torch.testing.assert_close(said[:, 0].bincount(minlength=9) / n, first, atol=0.015, rtol=0)
    after, _ = part.cell(part.embedding(torch.tensor([[1]])), state)
    second = (part.out(after[0, 0]) + part.form.prior).softmax(0)
    after_7 = said[said[:, 0] == 1, 1]
    torch.testing.assert_close(after_7.bincount(minlength=9) / len(after_7), second, atol=0.025, rtol=0)


def test_a_draw_of_almost_1_is_a_token() -> None:
    logits = torch.tensor([[0.0, 0.0, -200.0]])
    assert drawn(logits, torch.tensor([1 - 1e-7])).tolist() == [1]


def test_descriptions_are_learned_in_their_order() -> None:
    rows = torch.tensor([[1.0, 2, 3, 0], [3, 2, 1, 0], [2, 1, 0, 0]])
    part = decoder(width=16, rows=rows)
    concept, tokens = torch.eye(16)[:3], part.form(rows, None)
    optimizer = torch.optim.Adam(part.parameters(), lr=0.02)
    for _ in range(120):
        optimizer.zero_grad()
        part.cost(concept, tokens).mean().backward()
        optimizer.step()
    assert torch.equal(part.say(concept), tokens)


def test_what_has_no_words_is_said_at_once_and_drawn_about_that() -> None:
    part = describer(ModalitySpec("v", "vector", (3,)), 5)
    assert isinstance(part, FormDecoder)
    values = torch.randn(50, 3) * torch.tensor([1.0, 10.0, 0.1]) + 4
    part.form.fit_statistics(values, None)
    target, concept = part.form(values, None), torch.randn(50, 5)
    error = (part.say(concept) - target).square()
    torch.testing.assert_close(part.eval().cost(concept, target), error.sum(1) / 3)  # standardised: a variance of 3
    assert part.spread.tolist() == [1.0, 1.0, 1.0]
    part.train()
    for _ in range(100):
        part.cost(concept, target)
    torch.testing.assert_close(part.spread, error.mean(0).sqrt().detach(), rtol=1e-3, atol=0)
    many = part.say(concept[:1].expand(20000, 5), torch.rand(20000, 3, generator=torch.Generator().manual_seed(1)))
    torch.testing.assert_close(many.mean(0), part.say(concept[:1])[0], atol=0.05, rtol=0)
    torch.testing.assert_close(many.std(0), part.spread, rtol=0.05, atol=0)


def test_reading_ends_with_the_last_word_and_minds_the_order() -> None:
    torch.manual_seed(0)
    read = WordReader(9, 6)
    short, long = torch.tensor([[1, 2, 0]]), torch.tensor([[1, 2, 0, 0, 0]])
    torch.testing.assert_close(read(short), read(long))
    assert (read(torch.tensor([[2, 1, 0]])) - read(short)).abs().max() > 1e-3
    full = torch.tensor([[1, 2, 3], [1, 2, 0]])
    torch.testing.assert_close(read(full)[1:], read(full[1:]))
    state = read.cell(read.embedding(full[:1]))[1][0]
    words = read.embedding(full[:1]).mean(1)
    torch.testing.assert_close(read(full)[:1], read.linear(words) + read.out(state))
    assert F.mse_loss(read(torch.zeros(1, 3, dtype=torch.int64)), read(short)) > 0


def test_what_is_said_can_be_read() -> None:
    for spec in (TEXT, ModalitySpec("v", "vector", (3,)), ModalitySpec("s", "series", (5, 2), lengths=True)):
        part = describer(spec, 6)
        assert isinstance(part, WordDecoder) is (spec is TEXT)
        for said in (part.say(torch.randn(4, 6)), part.say(torch.randn(4, 6), torch.rand(4, part.draws))):
            assert reader(part, 6)(said).shape == (4, 6)
