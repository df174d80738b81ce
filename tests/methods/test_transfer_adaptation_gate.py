"""An adaptation gate: how far a state is shifted, where, by what, and what it can tell that words alone cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import save_bert, save_gpt2
from torch import nn
from torch.nn import functional as F

from transference.core.errors import ConfigError
from transference.core.registry import create
from transference.core.spec import ModalitySpec
from transference.core.views import Views
from transference.data.loader import to_batch
from transference.data.modality import ModalityConfig
from transference.data.pretrained import load_backbone
from transference.data.readers import read_column
from transference.deploy.export import export
from transference.nn.shift import shifted
from transference.train.schedule import Schedule
from transference.transfer.adaptation_gate import Gate, beside

torch.set_num_threads(1)
METHOD = "transfer.adaptation_gate"
BRIEF = Schedule(updates=6, batch_size=16, device="cpu")
CELLS = ["red fox", "dog sea", "sea sea dog red", "fox"] * 6


def spoken(folder: Path) -> Views:
    """24 rows of text, as the tokens of a small encoder, with a tone and a series of frames beside them."""
    how = ModalityConfig(kind="text", column="t", encoder=f"hf:{save_bert(folder / 'model').name}", fine_tune=True)
    column = read_column(CELLS, how, folder, name="t", cache=folder / "cache")
    rng = np.random.default_rng(0)
    arrays = {"t": column.array, "tone": rng.normal(size=(24, 3)).astype(np.float32)}
    arrays["frames"] = rng.normal(size=(24, 8, 2)).astype(np.float32)
    specs = {
        "t": column.spec,
        "tone": ModalitySpec("tone", "vector", (3,)),
        "frames": ModalitySpec("frames", "series", (8, 2)),
    }
    return Views(arrays, specs, "t", lengths={"t": column.lengths})  # type: ignore[dict-item]


Y = ["a", "b", "a", "b"] * 6


def test_a_shift_is_never_longer_than_its_share() -> None:
    torch.manual_seed(0)
    z, by = torch.randn(4, 5, 8), torch.randn(4, 5, 8) * torch.logspace(-3, 3, 5)[:, None]
    moved = torch.linalg.vector_norm(shifted(z, by, 0.5) - z, dim=2)
    longest, length = 0.5 * torch.linalg.vector_norm(z, dim=2), torch.linalg.vector_norm(by, dim=2)
    assert torch.allclose(moved, torch.minimum(longest, length), rtol=1e-4, atol=1e-5)
    assert torch.equal(shifted(z, torch.zeros_like(by), 0.5), z)
    assert torch.isfinite(shifted(torch.zeros(2, 8), torch.zeros(2, 8), 0.5)).all()


def test_the_gate_by_a_loop() -> None:
    torch.manual_seed(0)
    gate = Gate(6, 3, ("heard", "seen"), share=0.7, normalised=True)
    nn.init.normal_(gate.bias)
    z, others = torch.randn(2, 4, 6), {"heard": torch.randn(2, 4, 3), "seen": torch.randn(2, 4, 3)}
    told = gate(z, others)
    for row in range(2):
        for place in range(4):
            own, shift = z[row, place], gate.bias.clone()
            for name, value in others.items():
                said = value[row, place]
                asked, moved = gate.gates[name], gate.shifts[name]
                opened = torch.relu(asked.weight @ torch.cat([own, said]) + asked.bias)  # type: ignore[operator]
                shift = shift + opened * (moved.weight @ said)  # type: ignore[operator]
            scale = min(0.7 * own.norm() / shift.norm(), 1.0)
            assert torch.allclose(told[row, place], F.layer_norm(own + scale * shift, (6,)), atol=1e-5)


def test_silence_without_a_bias_is_the_layer_norm_alone() -> None:
    gate = Gate(6, 3, ("heard",), share=1.0, normalised=True)
    z = torch.randn(2, 4, 6)
    assert torch.allclose(gate(z, {"heard": torch.zeros(2, 4, 3)}), F.layer_norm(z, (6,)), atol=1e-6)


def test_pieces_are_spread_over_the_real_places() -> None:
    pieces = torch.arange(1.0, 5)[None, :, None]
    of, real = torch.ones(1, 4, dtype=torch.bool), torch.tensor([[True, True, False]])
    assert beside(pieces, of, real)[0, :2, 0].tolist() == [1.0, 3.0]
    one = beside(torch.tensor([[[7.0]]]), torch.tensor([[True]]), torch.ones(1, 3, dtype=torch.bool))
    assert one.flatten().tolist() == [7.0] * 3


def test_a_silent_gate_leaves_the_encoder_as_it_came(tmp_path: Path) -> None:
    X = spoken(tmp_path)
    method: Any = create(METHOD, normalised=False, frozen=True, schedule=BRIEF).fit(X, Y)
    gated = method.net_.gated
    for shift in gated.gate.shifts.values():
        nn.init.zeros_(shift.weight)
    nn.init.zeros_(gated.gate.bias)
    model = load_backbone(tmp_path / "model", "hf:model", "text").model
    with torch.no_grad():
        for row in range(4):
            length = int(X.lengths["t"][row])
            numbers = torch.from_numpy(X["t"][[row], :length]).long() - 1
            plain = model(input_ids=numbers).last_hidden_state.mean(1)
            assert np.allclose(method.embed(X.take([row]))["t"], plain.numpy(), atol=1e-5)


@pytest.mark.parametrize("layer", [0, 1])
def test_states_before_the_layer_are_those_of_the_encoder(layer: int, tmp_path: Path) -> None:
    X, y = Views.of(primary="x", x=np.eye(4)[np.arange(24) % 4], tone=np.ones((24, 2))), Y
    more = {"language_model": f"hf:{save_gpt2(tmp_path)}", "layer": layer, "share": 1.0}
    method: Any = create(METHOD, schedule=BRIEF, **more).fit(X, y)
    gated = method.net_.gated
    seen: list[list[torch.Tensor]] = [[], []]
    for k, part in enumerate(gated.reader.trunk.layers):
        part.register_forward_hook(lambda module, given, answer, k=k: seen[k].append(_first(answer)))
    with torch.no_grad():
        gated(to_batch(X))
        gated.reader(torch.from_numpy(X["x"]), None)
    same = [torch.allclose(*pair, atol=1e-6) for pair in seen]
    assert same == [layer > 0, False]


def _first(answer: Any) -> torch.Tensor:
    return answer if isinstance(answer, torch.Tensor) else answer[0]


def test_a_frozen_trunk_keeps_its_weights_and_another_one_moves(tmp_path: Path) -> None:
    X = spoken(tmp_path)
    came = load_backbone(tmp_path / "model", "hf:model", "text").model.state_dict()
    for frozen in (True, False):
        method: Any = create(METHOD, frozen=frozen, schedule=BRIEF).fit(X, Y)
        trunk = method.net_.gated.reader.trunk.model.state_dict()
        assert all(torch.equal(value, came[name]) for name, value in trunk.items()) == frozen


def test_a_tone_that_turns_the_meaning_of_a_word_is_heard() -> None:
    """The label is the sign of the word times that of the tone: neither alone tells it."""

    def rows(n: int, seed: int) -> tuple[Views, list[str]]:
        rng = np.random.default_rng(seed)
        word, tone = rng.integers(0, 2, n), rng.integers(0, 2, n)
        text = np.stack([1 + rng.integers(0, 2, n), 3 + word, 1 + rng.integers(0, 2, n)], 1).astype(np.float32)
        arrays = {"t": text, "tone": (2 * tone - 1 + 0.2 * rng.normal(size=n))[:, None].astype(np.float32)}
        specs = {"t": ModalitySpec("t", "text", (3,), vocabulary=5), "tone": ModalitySpec("tone", "vector", (1,))}
        return Views(arrays, specs, "t"), ["good" if each else "bad" for each in word ^ tone]

    X, y = rows(256, 0)
    new, truth = rows(256, 1)
    schedule = Schedule(updates=200, batch_size=64, device="cpu")
    assert create(METHOD, width=32, schedule=schedule).fit(X, y).score(new, truth) > 0.95
    noise = np.random.default_rng(2).normal(size=(256, 1)).astype(np.float32)
    deaf = create(METHOD, width=32, schedule=schedule).fit(X.replace("tone", noise), y)
    assert abs(deaf.score(new.replace("tone", noise), truth) - 0.5) < 0.12
    assert abs(create("unimodal", width=32, schedule=schedule).fit(X, y).score(new, truth) - 0.5) < 0.12


def test_it_is_restored_and_exported(tmp_path: Path) -> None:
    X = spoken(tmp_path)
    method: Any = create(METHOD, schedule=BRIEF).fit(X, Y)
    again = create(METHOD, schedule=BRIEF).restore(method.spec_, method.net_.state_dict())
    assert np.array_equal(method.predict_proba(X), again.predict_proba(X))
    export(method, X, tmp_path / "out.onnx")


def test_a_layer_that_is_not_there_is_told() -> None:
    X = Views.of(primary="x", x=np.eye(4), tone=np.ones((4, 2)))
    with pytest.raises(ConfigError, match="'layer' parameter of AdaptationGate must be below the number of layers, 2"):
        create(METHOD, layer=2, schedule=BRIEF).fit(X, ["a", "b"] * 2)
