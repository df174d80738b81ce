"""A frozen language model that says a row's text: which one, what it is given, and that it may read bit by bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tiny_models import WORDS, quietly, save_bert, save_gpt2, tokenised
from torch import Tensor
from torch.nn import functional as F

from transference.core.batch import Batch
from transference.core.errors import ConfigError
from transference.core.spec import DataSpec, ModalitySpec, Task
from transference.nn.captions import Captioner, Reading, Speaker
from transference.nn.trunk import Trunk, given_trunk

torch.set_num_threads(1)

VECTOR = ModalitySpec("x", "vector", (3,))
HASHED = ModalitySpec("h", "text", (5,), lengths=True, vocabulary=9)
TASK = Task("classification", ("a", "b"), 2)
NUMBERS = torch.tensor([[2, 5, 6, 3, 8], [2, 7, 3, 0, 0]])
REAL = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
LOUD = {"initializer_range": 0.3}


def of(*modalities: ModalitySpec) -> DataSpec:
    """The first is primary."""
    return DataSpec({each.name: each for each in modalities}, modalities[0].name, TASK)


@pytest.fixture
def trunk(tmp_path: Path) -> Trunk:
    return given_trunk(f"hf:{save_gpt2(tmp_path, **LOUD)}", says=True).requires_grad_(False)


def a_context(trunk: Trunk, m: int = 3) -> list[tuple[Tensor, Tensor]]:
    torch.manual_seed(1)
    return [tuple(torch.randn(2, trunk.heads, m, trunk.head) for _ in range(2)) for _ in range(trunk.depth)]  # type: ignore[misc]


def test_word_by_word_is_the_same_as_all_at_once_before_and_behind_padding(trunk: Trunk) -> None:
    words, context = trunk.words(NUMBERS), a_context(trunk)
    shown = torch.tensor([[True, False, True], [True] * 3])
    for given in ((), (context, shown)):
        whole = Reading(trunk, *given).on(words, REAL)
        reading = Reading(trunk, *given)
        parts = [reading.on(words[:, k : k + 1], REAL[:, k : k + 1]) for k in range(5)]
        assert torch.allclose(torch.cat(parts, 1)[REAL], whole[REAL], atol=1e-5)
        first, rest = torch.tensor([[False, True], [True, True]]), REAL[:, :3]
        reading, both = Reading(trunk, *given), torch.cat([first, rest], 1)
        padded = torch.cat([trunk.words(torch.full((2, 2), 4)), words[:, :3]], 1)
        halves = torch.cat([reading.on(padded[:, :2], first), reading.on(padded[:, 2:], rest)], 1)
        assert torch.allclose(halves[both], Reading(trunk, *given).on(padded, both)[both], atol=1e-5)


def test_without_a_context_it_is_the_model_and_so_it_is_where_none_of_it_is_shown(trunk: Trunk) -> None:
    words, context = trunk.words(NUMBERS), a_context(trunk)
    own = trunk.model(input_ids=NUMBERS, attention_mask=REAL.long()).logits
    assert torch.allclose(trunk.says(Reading(trunk).on(words, REAL))[REAL], own[REAL], atol=1e-5)
    hidden = Reading(trunk, context, torch.zeros(2, 3, dtype=torch.bool)).on(words, REAL)
    assert torch.allclose(trunk.says(hidden)[REAL], own[REAL], atol=1e-5)
    whole = Reading(trunk, context).on(words, REAL)
    assert torch.allclose(whole[REAL], trunk(words, REAL, context)[REAL], atol=1e-5)
    assert (trunk.says(whole) - own)[REAL].abs().max() > 0.1
    part = Reading(trunk, context, torch.tensor([[True, True, False]] * 2)).on(words, REAL)
    cut = [(keys[:, :, :2], values[:, :, :2]) for keys, values in context]
    assert torch.allclose(part[REAL], Reading(trunk, cut).on(words, REAL)[REAL], atol=1e-5)


def test_what_a_given_model_is_to_say_of_a_text(tmp_path: Path) -> None:
    """[SEP], number 3, ends a text where the model has an end; rows hold one more than its numbers."""
    rows, lengths = torch.tensor([[6, 7, 0, 0], [1, 1, 9, 5], [0] * 4]), torch.tensor([2, 4, 0])
    folder = save_gpt2(tmp_path / "ends", eos_token_id=3, bos_token_id=2)
    speaker = Speaker(of(VECTOR, tokenised(folder)), None, 8, lead=2)
    assert (speaker.text, speaker.heard, speaker.start, speaker.end, speaker.longest) == ("t", None, 2, 3, 5)
    numbers, real = speaker.tokens(rows.float(), lengths)
    assert numbers.tolist() == [[5, 6, 3, 3, 3], [0, 0, 8, 4, 3], [3] * 5]
    assert real.int().tolist() == [[1, 1, 1, 0, 0], [1] * 5, [1, 0, 0, 0, 0]]
    assert torch.equal(speaker.starts(2, 3), speaker.trunk.words(torch.full((2, 3), 2)))
    said = torch.tensor([[5, 6, -1, -1, -1], [0, 0, 8, 4, -1], [-1] * 5])
    assert torch.equal(speaker.rows(said), rows.float())
    endless = Speaker(of(VECTOR, tokenised(save_gpt2(tmp_path / "endless"))), None, 8, lead=2)  # its end is no word
    assert (endless.start, endless.end, endless.longest) == (0, None, 4)
    numbers, real = endless.tokens(rows.float(), lengths)
    assert real.int().tolist() == [[1, 1, 0, 0], [1] * 4, [0] * 4]
    assert numbers[real].tolist() == [5, 6, 0, 0, 8, 4]
    short = save_gpt2(tmp_path / "short", n_positions=6, eos_token_id=3)
    assert Speaker(of(VECTOR, tokenised(short)), None, 8, lead=4).longest == 3
    with pytest.raises(ConfigError, match=r"number of vectors before the words of .* must be at most 6. Got 7"):
        Speaker(of(VECTOR), f"hf:{short}", 8, lead=7)


def test_which_model_and_which_text(tmp_path: Path) -> None:
    folder = save_gpt2(tmp_path / "gpt2")
    read, given = tokenised(folder), f"hf:{folder}"
    found = {
        "read": Speaker(of(VECTOR, HASHED, read), None, 8, 2),
        "given": Speaker(of(VECTOR, HASHED, read), given, 8, 2),
        "unread": Speaker(of(VECTOR, HASHED), given, 8, 2),
        "own": Speaker(of(VECTOR, HASHED), None, 8, 2),
        "primary": Speaker(of(HASHED, VECTOR), None, 8, 2),
        "read primary": Speaker(of(read, VECTOR), None, 8, 2),
        "none": Speaker(of(VECTOR), None, 8, 2),
    }
    assert {name: (each.text, each.heard) for name, each in found.items()} == {
        "read": ("t", None),
        "given": ("t", None),
        "unread": (None, None),
        "own": ("h", "h"),
        "primary": (None, "h"),
        "read primary": (None, None),
        "none": (None, None),
    }
    assert {name: each.trunk.width for name, each in found.items() if each.trunk.width != 16} == {
        "own": 8,
        "primary": 8,
        "none": 8,
    }
    assert not any(value.requires_grad for each in found.values() for value in each.parameters())
    assert found["own"].longest == 6
    assert found["own"].trunk.model.config.n_positions == 2 + 5


def test_an_encoder_is_refused(tmp_path: Path) -> None:
    config = transformers.BertConfig.from_pretrained(save_bert(tmp_path / "bert"))
    quietly(transformers.BertLMHeadModel(config).save_pretrained, tmp_path / "masked")
    with pytest.raises(ConfigError, match=r"language model must be causal. Got 'hf:.*masked', an encoder instead"):
        Speaker(of(VECTOR), f"hf:{tmp_path / 'masked'}", 8, 2)


def test_an_own_model_says_frequent_words_and_gives_them_back() -> None:
    speaker = Speaker(of(VECTOR, HASHED), None, 8, 2)
    rows, lengths = torch.tensor([[7.0, 2, 7, 4, 0], [7, 2, 0, 0, 0]]), torch.tensor([4, 2])
    assert speaker.form is not None
    speaker.form.fit_statistics(rows, lengths)
    numbers, real = speaker.tokens(rows, lengths)
    assert numbers.tolist() == [[1, 2, 1, 3, 0, 0], [1, 2, 0, 0, 0, 0]]
    assert real.int().tolist() == [[1, 1, 1, 1, 1, 0], [1, 1, 1, 0, 0, 0]]
    assert torch.equal(speaker.rows(numbers.where(numbers > 0, -1)), rows)


def test_nats_by_a_loop(tmp_path: Path) -> None:
    speaker = Speaker(of(VECTOR, tokenised(save_gpt2(tmp_path, eos_token_id=3, **LOUD))), None, 8, 2)
    torch.manual_seed(0)
    states = torch.randn(2, 5, 16)
    head = speaker.trunk.model.lm_head.weight
    costs = [
        -F.log_softmax(head @ states[i, k], 0)[NUMBERS[i, k]].item() for i in range(2) for k in range(5) if REAL[i, k]
    ]
    assert speaker.nats(states, NUMBERS, REAL).item() == pytest.approx(sum(costs) / 8, rel=1e-5)
    assert speaker.nats(states, NUMBERS, REAL & False).item() == 0.0


class Fixed(Captioner):
    """x of three numbers, padded with zeros, is the only vector before the words."""

    def lead(self, batch: Batch) -> Tensor:
        return F.pad(batch.views["x"], (0, 13))[:, None]


def a_batch(**absent: list[int]) -> tuple[Batch, Tensor, Tensor]:
    torch.manual_seed(0)
    t, lengths, v = torch.tensor([[6.0, 7, 0], [8, 0, 0], [2, 6, 9]]), torch.tensor([2, 1, 3]), torch.randn(3, 2)
    there = {name: torch.tensor([k not in absent.get(name, []) for k in range(3)]) for name in "xtv"}
    views = {"x": torch.randn(3, 3), "t": t * there["t"][:, None], "v": v * there["v"][:, None]}
    return Batch(views, there, {"t": lengths * there["t"]}, None, torch.arange(3)), t, lengths


def test_what_is_told_as_a_slow_loop(tmp_path: Path) -> None:
    """Each row alone, through the model of the library; a row costs nothing in what it lacks."""
    text = tokenised(save_gpt2(tmp_path, eos_token_id=3, **LOUD), length=3)
    net = Fixed(of(VECTOR, text, ModalitySpec("v", "vector", (2,))), None, 8, 1, says=True)
    form: Any = net.forms["v"]
    form.variance.fill_(5.0)
    model = net.speaker.trunk.model
    for absent in ({}, {"t": [1], "v": [0, 2]}, {"t": [0, 1, 2], "v": [0, 1, 2]}):
        batch, t, lengths = a_batch(**absent)
        state, costs = net.told(batch)
        words, missed = [], []
        for i in range(3):
            tokens = [*(t[i, : lengths[i]].long() - 1).tolist(), 3]
            vectors = torch.cat([net.lead(batch)[i], model.transformer.wte(torch.tensor(tokens))])[None]
            answer = model(inputs_embeds=vectors, output_hidden_states=True)
            torch.testing.assert_close(state[i], answer.hidden_states[-1][0, 0], atol=1e-5, rtol=1e-5)
            if i not in absent.get("t", []):
                words += [-answer.logits[0, k].log_softmax(0)[each].item() for k, each in enumerate(tokens)]
            if i not in absent.get("v", []):
                missed.append(F.mse_loss(net.others["v"](state[i]), batch.views["v"][i], reduction="sum").item() / 5)
        assert costs["words of t"].item() == pytest.approx(sum(words) / max(1, len(words)), rel=1e-4)
        assert costs["missed of v"].item() == pytest.approx(sum(missed) / max(1, len(missed)), rel=1e-4)
        torch.testing.assert_close(net.state(batch), state, atol=1e-5, rtol=1e-5)
    silent = Fixed(of(VECTOR, text), None, 8, 1, says=False)
    assert silent.told(batch)[1] == {}


def test_what_is_generated_is_the_likeliest_word_each_time(tmp_path: Path) -> None:
    text = tokenised(save_gpt2(tmp_path, eos_token_id=3, **LOUD), length=6)
    net = Fixed(of(VECTOR, text), None, 8, 1, says=True)
    model = net.speaker.trunk.model
    torch.manual_seed(5)
    x = 3 * torch.randn(40, 3)
    batch = Batch({"x": x}, {"x": torch.ones(40, dtype=torch.bool)}, {}, None, torch.arange(40))
    made, ended = net.generated(batch, "t"), 0
    for i in range(40):
        vectors, said = net.lead(batch)[i], []
        for _ in range(6):
            number = int(model(inputs_embeds=vectors[None]).logits[0, -1].argmax())
            if number == 3:
                ended += 1
                break
            said.append(number + 1)
            vectors = torch.cat([vectors, model.transformer.wte(torch.tensor([number]))])
        assert made[i].tolist() == said + [0] * (6 - len(said))
    assert made.dtype == torch.float32
    assert 0 < ended < 40  # both happen
    assert len(WORDS) > made.unique().numel() > 3
