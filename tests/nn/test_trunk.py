"""A transformer that is given vectors: the same answers as for words, whatever the padding, and with a past."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_models import save_bert, save_gpt2

from transference.core.errors import ConfigError
from transference.core.spec import ModalitySpec
from transference.data.hub import identities
from transference.nn.initial import initialise
from transference.nn.trunk import Trunk, given_trunk, is_tokenised, numbers_of, own_trunk, says_words, trunk_of

torch.set_num_threads(1)


@pytest.fixture(params=["gpt2", "bert"])
def trunk(request: pytest.FixtureRequest, tmp_path: Path) -> Trunk:
    folder = save_gpt2(tmp_path) if request.param == "gpt2" else save_bert(tmp_path)
    return given_trunk(f"hf:{folder}")


NUMBERS = torch.tensor([[2, 5, 6, 3], [2, 7, 3, 0]])
REAL = torch.tensor([[True] * 4, [True, True, True, False]])


def test_vectors_of_words_give_the_states_of_the_words(trunk: Trunk) -> None:
    states = trunk(trunk.words(NUMBERS), REAL)
    own = trunk.model(input_ids=NUMBERS, attention_mask=REAL.long()).last_hidden_state
    assert torch.allclose(states[REAL], own[REAL], atol=1e-6)
    assert trunk.causal == (trunk.model.config.model_type == "gpt2")
    assert (trunk.width, trunk.out, trunk.depth) == (16, 16, len(trunk.layers))


def test_padding_changes_nothing_before_or_behind(trunk: Trunk) -> None:
    words = trunk.words(NUMBERS[1:, :3])
    alone = trunk(words, REAL[1:, :3])
    noise = torch.randn(1, 2, trunk.width)
    behind = trunk(torch.cat([words, noise], 1), torch.tensor([[True] * 3 + [False] * 2]))
    assert torch.allclose(behind[:, :3], alone, atol=1e-6)
    if trunk.causal:
        before = trunk(torch.cat([noise, words], 1), torch.tensor([[False] * 2 + [True] * 3]))
        assert torch.allclose(before[:, 2:], alone, atol=1e-6)


def test_what_was_kept_stands_for_the_places_it_came_from(tmp_path: Path) -> None:
    trunk = given_trunk(f"hf:{save_gpt2(tmp_path)}", says=True)
    words, real = trunk.words(NUMBERS[:1]), REAL[:1]
    whole = trunk(words, real)
    past = trunk.keep(words[:, :2], real[:, :2])
    assert [tuple(keys.shape) for keys, _ in past] == [(1, trunk.heads, 2, trunk.head)] * trunk.depth
    assert torch.allclose(trunk(words[:, 2:], real[:, 2:], past, first=2), whole[:, 2:], atol=1e-6)
    without_places = trunk(words[:, 2:], real[:, 2:], past)
    assert not torch.allclose(without_places, whole[:, 2:], atol=1e-3)  # the past is seen; places begin anew
    assert torch.allclose(trunk.says(whole), trunk.model(input_ids=NUMBERS[:1]).logits, atol=1e-6)


def test_a_past_of_other_places_changes_the_states_and_has_gradients(tmp_path: Path) -> None:
    trunk = given_trunk(f"hf:{save_gpt2(tmp_path)}").requires_grad_(False)
    past = [tuple(torch.randn(2, trunk.heads, 3, trunk.head, requires_grad=True) for _ in range(2)) for _ in range(2)]
    words = trunk.words(NUMBERS)
    states = trunk(words, REAL, past)  # type: ignore[arg-type]
    assert not torch.allclose(states[REAL], trunk(words, REAL)[REAL], atol=1e-3)
    states.sum().backward()
    assert all(part.grad is not None and part.grad.abs().sum() > 0 for pair in past for part in pair)
    assert all(weight.grad is None for weight in trunk.parameters())


@pytest.mark.parametrize("causal", [True, False])
def test_an_own_trunk_starts_by_its_name_and_seed(causal: bool) -> None:
    first, second = (torch.nn.ModuleDict({"trunk": own_trunk(9, 16, 8, causal=causal)}) for _ in range(2))
    initialise(first, 3)
    initialise(second, 3)
    assert all(torch.equal(one, two) for one, two in zip(first.parameters(), second.parameters(), strict=True))
    trunk = first["trunk"]
    assert isinstance(trunk, Trunk)
    assert trunk.causal == causal
    assert not trunk.pretrained
    assert trunk.words(NUMBERS).std().item() == pytest.approx(0.02 * (768 / 16) ** 0.5, rel=0.3)
    initialise(second, 4)
    assert not torch.equal(trunk.words(NUMBERS), second["trunk"].words(NUMBERS))  # type: ignore[operator]


def test_a_given_trunk_keeps_its_weights_and_never_trains_with_dropout(trunk: Trunk) -> None:
    before = {name: value.clone() for name, value in trunk.state_dict().items()}
    whole = torch.nn.ModuleDict({"trunk": trunk})
    initialise(whole, 0)
    whole.train()
    assert all(torch.equal(value, before[name]) for name, value in trunk.state_dict().items())
    states = [trunk(trunk.words(NUMBERS), REAL) for _ in range(2)]
    assert torch.equal(*states)


def test_words_keep_their_numbers_and_tokens_lose_one() -> None:
    values, lengths = torch.tensor([[3.0, 1.0, 0.0], [0.0, 0.0, 0.0]]), torch.tensor([2, 0])
    hashed = ModalitySpec("t", "text", (3,), lengths=True, vocabulary=9)
    tokens = ModalitySpec("t", "text", (3,), lengths=True, vocabulary=9, reading={"tokenizer": "hf:x"})
    assert numbers_of(hashed, values, lengths)[0].tolist() == [[3, 1, 0], [0, 0, 0]]
    numbers, real = numbers_of(tokens, values, lengths)
    assert numbers.tolist() == [[2, 0, 0], [0, 0, 0]]
    assert real.tolist() == [[True, True, False], [True, False, False]]
    assert trunk_of(hashed) is None
    assert is_tokenised(tokens)


def test_a_language_model_is_known_by_its_settings(tmp_path: Path) -> None:
    for save, says in ((save_gpt2, True), (save_bert, False)):
        folder = save(tmp_path / save.__name__)
        reading = {"tokenizer": f"hf:{folder}", **identities(folder, "tokenizer")}
        assert says_words(ModalitySpec("t", "text", (3,), vocabulary=9, reading=reading)) == says
    assert not says_words(ModalitySpec("t", "text", (3,), vocabulary=9))


def test_what_is_no_language_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"language model .* lacks weights"):
        given_trunk(f"hf:{save_bert(tmp_path)}", says=True)
