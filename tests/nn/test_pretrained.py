"""A transformer as encoder: frozen or trained, never shuffled, never re-initialised."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from transference.core.batch import Batch
from transference.core.spec import ModalitySpec
from transference.nn.encoders import encoder
from transference.nn.initial import initialise
from transference.nn.pretrained import TokenEncoder
from transference.train.loop import PRETRAINED_SHARE, Stage, Step, train
from transference.train.schedule import Schedule

transformers = pytest.importorskip("transformers", reason="the extra 'pretrained' is not installed")
TOKENS = torch.tensor([[5.0, 7.0, 9.0, 0.0], [3.0, 0.0, 0.0, 0.0], [2.0, 4.0, 6.0, 8.0]])
LENGTHS = torch.tensor([3, 1, 4])


def tiny() -> nn.Module:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=12, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    return transformers.BertModel(config, add_pooling_layer=False)


def text(**reading: object) -> ModalitySpec:
    return ModalitySpec("m", "text", (4,), lengths=True, vocabulary=12, reading=reading)


def net(trained: bool) -> nn.ModuleDict:
    holder = nn.ModuleDict({"m": TokenEncoder(text(), 4, tiny(), trained)})
    initialise(holder, 0)
    return holder


@pytest.mark.parametrize("trained", [False, True])
def test_only_trained_weights_move_and_they_move_slowly(trained: bool) -> None:
    model = net(trained)
    before = {name: value.clone() for name, value in model.named_parameters()}
    batch = Batch({"m": TOKENS}, {"m": torch.ones(3, dtype=torch.bool)}, {"m": LENGTHS}, torch.zeros(3).long(), LENGTHS)

    def losses(model: nn.ModuleDict, batch: Batch) -> Mapping[str, Tensor]:
        return {"size": model["m"](batch.views["m"], batch.lengths["m"]).square().sum()}

    schedule = Schedule(updates=1, learning_rate=0.1, weight_decay=0.0, warmup=0.0)
    train(model, [Stage("train", (Step(losses),))], batch, schedule, seed=0)
    moved = {name: (p - before[name]).abs().max().item() for name, p in model.named_parameters()}
    assert moved["m.out.weight"] == pytest.approx(0.1, rel=1e-3)  # the first step of Adam is the rate
    largest = max(value for name, value in moved.items() if name.startswith("m.model."))
    assert largest == (pytest.approx(0.1 * PRETRAINED_SHARE, rel=1e-2) if trained else 0.0)


def test_initial_weights_are_those_of_the_model() -> None:
    kept, fresh = net(True)["m"].model.state_dict(), tiny().state_dict()
    assert all(torch.equal(kept[name], fresh[name]) for name in fresh)


def test_padding_never_matters_and_nothing_is_random() -> None:
    part = net(True)["m"].train()
    dirty = TOKENS.clone()
    dirty[1, 1:] = 11
    torch.testing.assert_close(part(TOKENS, LENGTHS), part(dirty, LENGTHS))
    torch.testing.assert_close(part(TOKENS[1:2], LENGTHS[1:2])[0], part(TOKENS, LENGTHS)[1], atol=1e-5, rtol=1e-4)
    assert torch.equal(part(TOKENS, LENGTHS), part(TOKENS, LENGTHS))


def test_a_modality_with_a_tokenizer_is_read_by_its_model(tmp_path: object) -> None:
    model = tiny()
    model.save_pretrained(tmp_path)  # type: ignore[operator]
    part = encoder(text(tokenizer=f"hf:{tmp_path}", trained=True), 4)
    assert isinstance(part, TokenEncoder)
    assert part.trained
    saved = part.model.state_dict()
    assert all(torch.equal(saved[name], value) for name, value in model.state_dict().items())
