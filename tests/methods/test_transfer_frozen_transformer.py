"""A frozen transformer reads another modality: what moves, what does not, and what its form is worth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tiny_models import save_bert, save_gpt2

from transference.core.errors import ConfigError
from transference.core.registry import create
from transference.core.spec import ModalitySpec
from transference.core.views import Views
from transference.data.loader import to_batch
from transference.data.pretrained import load_backbone
from transference.deploy.export import export
from transference.train.schedule import Schedule
from transference.transfer.frozen_transformer import freeze_but, part_of

torch.set_num_threads(1)
METHOD = "transfer.frozen_transformer"
BRIEF = Schedule(updates=8, batch_size=16, device="cpu")


def bits(n: int, length: int, seed: int = 0) -> tuple[Views, np.ndarray[Any, Any]]:
    """Rows of two patterns of bits as a series; the labels are their exclusive or, bit by bit."""
    drawn = np.random.default_rng(seed).integers(0, 2, (n, 2, length))
    series = drawn.reshape(n, 2 * length, 1).astype(np.float32)
    X = Views({"bits": series}, {"bits": ModalitySpec("bits", "series", series.shape[1:])}, "bits")
    return X, (drawn[:, 0] ^ drawn[:, 1]).astype(np.float32)


def few(seed: int = 0) -> tuple[Views, list[str]]:
    X, y = bits(32, 3, seed)
    return X, ["odd" if each else "even" for each in y[:, 0]]


def test_the_trained_weights_of_gpt2_are_as_published() -> None:
    with torch.device("meta"):
        model = transformers.GPT2Model(transformers.GPT2Config())
    freeze_but(model, {"norms", "places"})
    count = {"norms": 0, "places": 0}
    for name, value in model.named_parameters():
        if value.requires_grad:
            count[part_of(name)] += value.numel()
    assert count == {"norms": 38_400, "places": 786_432}
    assert sum(value.numel() for value in model.parameters()) == 124_439_808


@pytest.mark.parametrize("form", ["gpt2", "bert"])
def test_what_is_frozen_stays_to_the_bit_and_the_rest_moves(form: str, tmp_path: Path) -> None:
    folder = save_gpt2(tmp_path) if form == "gpt2" else save_bert(tmp_path)
    X, y = few()
    method: Any = create(METHOD, language_model=f"hf:{folder}", rate=10.0, schedule=BRIEF).fit(X, y)
    came = load_backbone(folder, "hf:it", "text").model.state_dict()
    trunk = method.net_.encoders["bits"].trunk.model.state_dict()
    moved = {name for name, value in trunk.items() if "pooler" not in name and not torch.equal(value, came[name])}
    assert {part_of(name) for name in moved} == {"norms", "places"}
    norms = {name for name in trunk if part_of(name) == "norms" and name.endswith("weight")}
    assert norms <= moved
    assert all(value.grad is None for value in method.net_.parameters() if not value.requires_grad)


def test_what_is_trained_is_up_to_the_user(tmp_path: Path) -> None:
    X, y = few()
    folder = save_gpt2(tmp_path)
    method: Any = create(METHOD, language_model=f"hf:{folder}", trained=["attention"], schedule=BRIEF).fit(X, y)
    came = load_backbone(folder, "hf:it", "text").model.state_dict()
    trunk = method.net_.encoders["bits"].trunk.model.state_dict()
    assert {part_of(name) for name in trunk if not torch.equal(trunk[name], came[name])} == {"attention"}


def test_the_state_of_the_last_place_is_what_the_model_answers_to_the_same_vectors(tmp_path: Path) -> None:
    X, y = few()
    method: Any = create(METHOD, language_model=f"hf:{save_gpt2(tmp_path)}", schedule=BRIEF).fit(X, y)
    reader = method.net_.encoders["bits"]
    with torch.no_grad():
        vectors, real = reader.vectors(torch.from_numpy(X["bits"]), None)
        assert real.all()
        told = reader.trunk.model(inputs_embeds=vectors).last_hidden_state
    assert np.allclose(method.embed(X)["bits"], told[:, -1].numpy(), atol=1e-5)


def test_an_encoder_answers_with_the_mean_of_its_states(tmp_path: Path) -> None:
    X, y = few()
    method: Any = create(METHOD, language_model=f"hf:{save_bert(tmp_path)}", schedule=BRIEF).fit(X, y)
    reader = method.net_.encoders["bits"]
    with torch.no_grad():
        vectors, _ = reader.vectors(torch.from_numpy(X["bits"]), None)
        told = reader.trunk.model(inputs_embeds=vectors).last_hidden_state
    assert np.allclose(method.embed(X)["bits"], told.mean(1).numpy(), atol=1e-5)


def test_random_weights_are_those_of_the_seed_and_not_of_the_model(tmp_path: Path) -> None:
    X, y = few()
    folder = f"hf:{save_gpt2(tmp_path)}"

    def attention(**parameters: Any) -> torch.Tensor:
        method: Any = create(METHOD, language_model=folder, schedule=BRIEF, **parameters).fit(X, y)
        return method.net_.encoders["bits"].trunk.model.h[0].attn.c_attn.weight

    given, drawn, again, other = (
        attention(**each) for each in ({}, {"random": True}, {"random": True}, {"random": True, "seed": 1})
    )
    assert torch.equal(drawn, again)
    assert not torch.equal(drawn, given)
    assert not torch.equal(drawn, other)


def test_exclusive_or_of_bits_is_learned_by_frozen_attention() -> None:
    X, y = bits(2000, 5)
    new, truth = bits(500, 5, seed=1)
    schedule = Schedule(updates=700, batch_size=64, learning_rate=1e-2, device="cpu")
    method = create(METHOD, schedule=schedule).fit(X, y)
    assert (method.predict(new) == truth).mean() > 0.99


def test_it_is_restored_and_exported(tmp_path: Path) -> None:
    X, y = few()
    for parameters in ({}, {"language_model": f"hf:{save_gpt2(tmp_path / 'g')}"}):
        method: Any = create(METHOD, schedule=BRIEF, **parameters).fit(X, y)
        again = create(METHOD, schedule=BRIEF, **parameters).restore(method.spec_, method.net_.state_dict())
        assert np.array_equal(method.predict_proba(X), again.predict_proba(X))
        export(method, X, tmp_path / "out.onnx")


def test_words_of_another_model_are_refused() -> None:
    spec = ModalitySpec("t", "text", (2,), vocabulary=9, reading={"tokenizer": "hf:one"})
    X = Views({"t": np.ones((4, 2), np.float32)}, {"t": spec}, "t")
    with pytest.raises(ConfigError, match="Leave 'language_model' out"):
        create(METHOD, language_model="hf:two", schedule=BRIEF).fit(X, ["a", "b"] * 2)


def test_wrong_parts_are_told_in_words() -> None:
    X, y = few()
    with pytest.raises(ConfigError, match="'trained' of FrozenTransformer must be some of"):
        create(METHOD, trained=["norm"], schedule=BRIEF).fit(X, y)


def test_only_labelled_rows_teach() -> None:
    X, y = few()
    batch = to_batch(X, np.array([0, 1, *[-1] * 30]))
    method: Any = create(METHOD, schedule=BRIEF).fit(X, y)
    alone = method.losses(method.net_, batch.take(slice(0, 2)))["task"]
    assert method.losses(method.net_, batch)["task"].item() == pytest.approx(alone.item(), rel=1e-5)
