"""Prompts and prefixes: as good as real words, the only thing that moves, and a row's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import WORDS, save_bert, save_gpt2
from torch.nn import functional as F

from transference.core.errors import ConfigError
from transference.core.registry import create
from transference.core.views import Views
from transference.data.modality import ModalityConfig
from transference.data.pretrained import load_backbone
from transference.data.readers import read_column
from transference.deploy.export import export
from transference.nn.trunk import Trunk, given_trunk, own_trunk
from transference.train.schedule import Schedule
from transference.transfer.prompt import Prefixed, prompted

torch.set_num_threads(1)
METHOD = "transfer.prompt"
BRIEF = Schedule(updates=8, batch_size=16, device="cpu")
CELLS = ["red fox", "dog sea", "sea sea dog red", "fox"] * 6
NUMBERS = torch.tensor([[2, 5, 6, 3], [2, 7, 3, 0]])
REAL = torch.tensor([[True] * 4, [True, True, True, False]])


def texts(folder: Path) -> Views:
    """24 rows of text, as the tokens of a small encoder."""
    how = ModalityConfig(kind="text", column="t", encoder=f"hf:{save_bert(folder / 'model').name}", fine_tune=True)
    column = read_column(CELLS, how, folder, name="t", cache=folder / "cache")
    return Views({"t": column.array}, {"t": column.spec}, "t", lengths={"t": column.lengths})  # type: ignore[dict-item]


def vectors(n: int = 24) -> tuple[Views, list[str]]:
    number = np.arange(n) % 2
    x = np.random.default_rng(0).normal(size=(n, 3)) + 2 * number[:, None]
    return Views.of(primary="x", x=x), ["even" if each else "odd" for each in number]


@pytest.fixture(params=["gpt2", "bert"])
def trunk(request: pytest.FixtureRequest, tmp_path: Path) -> Trunk:
    folder = save_gpt2(tmp_path) if request.param == "gpt2" else save_bert(tmp_path)
    return given_trunk(f"hf:{folder}")


def test_a_prompt_of_words_is_those_words(trunk: Trunk) -> None:
    told = prompted(trunk, trunk.words(NUMBERS[:1, :2])[0], trunk.words(NUMBERS[:1, 2:]), REAL[:1, 2:])
    assert torch.allclose(told, trunk(trunk.words(NUMBERS[:1]), REAL[:1])[:, 2:], atol=1e-6)


def test_rows_with_prompts_of_their_own_answer_as_if_alone(trunk: Trunk) -> None:
    prompts, words = torch.randn(2, 3, trunk.width), trunk.words(NUMBERS)
    together = prompted(trunk, prompts, words, REAL)
    for row in range(2):
        alone = prompted(trunk, prompts[row], words[[row]], REAL[[row]])
        assert torch.allclose(together[[row]][REAL[[row]]], alone[REAL[[row]]], atol=1e-6)
    assert not torch.allclose(together[0], prompted(trunk, prompts[1], words, REAL)[0], atol=1e-3)


def test_padding_before_and_behind_changes_nothing(trunk: Trunk) -> None:
    prompt, words = torch.randn(3, trunk.width), trunk.words(NUMBERS[1:, :3])
    alone = prompted(trunk, prompt, words, REAL[1:, :3])
    noise = torch.randn(1, 2, trunk.width)
    behind = prompted(trunk, prompt, torch.cat([words, noise], 1), torch.tensor([[True] * 3 + [False] * 2]))
    assert torch.allclose(behind[:, :3], alone, atol=1e-6)
    if trunk.causal:
        before = prompted(trunk, prompt, torch.cat([noise, words], 1), torch.tensor([[False] * 2 + [True] * 3]))
        assert torch.allclose(before[:, 2:], alone, atol=1e-6)


def test_a_prefix_of_what_words_leave_behind_is_those_words(tmp_path: Path) -> None:
    X, y = vectors()
    method: Any = create(METHOD, form="prefix", length=2, language_model=f"hf:{save_gpt2(tmp_path)}", schedule=BRIEF)
    told: Prefixed = method.fit(X, y).net_.encoders["x"]
    trunk = told.reader.trunk
    words = trunk.words(NUMBERS[:1])
    kept = trunk.keep(words[:, :2], REAL[:1, :2])
    with torch.no_grad():  # the affine map answers with what the words left, whatever goes in
        every = torch.stack([torch.stack(pair) for pair in kept])[:, :, 0]  # (depth, 2, heads, length, head)
        assert (every[:, :, :, 0] - every[:, :, :, 1]).abs().max() > 1e-3
        features = told.deep(told.given.weight).tanh()
        solved = torch.linalg.lstsq(
            F.pad(features, (0, 1), value=1.0), every.permute(3, 0, 1, 2, 4).flatten(1)
        ).solution
        told.out.weight.copy_(solved[:-1].T)
        told.out.bias.copy_(solved[-1])
        answered = trunk(words[:, 2:], REAL[:1, 2:], told.past(1), first=2)
        assert torch.allclose(answered, trunk(words, REAL[:1])[:, 2:], atol=1e-4)
        own, real = told.reader.vectors(torch.from_numpy(X["x"]), None)
        before = torch.cat([words[:, :2].expand(len(X), -1, -1), own], 1)
        whole = trunk(before, torch.cat([REAL[:1, :2].expand(len(X), -1), real], 1))
    assert np.allclose(method.embed(X)["x"], whole[:, -1].numpy(), atol=1e-4)


@pytest.mark.parametrize(("form", "parts"), [("prompt", {"prompt"}), ("prefix", {"given", "deep", "out"})])
def test_only_what_is_new_moves(form: str, parts: set[str], tmp_path: Path) -> None:
    X, y = vectors()
    folder = save_gpt2(tmp_path)
    method: Any = create(METHOD, form=form, language_model=f"hf:{folder}", schedule=BRIEF).fit(X, y)
    came = load_backbone(folder, "hf:it", "text").model.state_dict()
    told = method.net_.encoders["x"]
    assert all(torch.equal(value, came[name]) for name, value in told.reader.trunk.model.state_dict().items())
    moving = {name.split(".")[0] for name, value in told.named_parameters() if value.requires_grad}
    assert moving == parts | {"reader"}  # the map by which vectors enter
    assert {name for name, value in told.reader.named_parameters() if value.requires_grad} == {
        "enter.linear.weight",
        "enter.linear.bias",
    }


def test_a_text_of_the_model_needs_a_prompt_and_a_head_alone(tmp_path: Path) -> None:
    X, y = texts(tmp_path), ["a", "b", "a", "b"] * 6
    method: Any = create(METHOD, length=5, schedule=BRIEF).fit(X, y)
    trained = {name: value.numel() for name, value in method.net_.named_parameters() if value.requires_grad}
    assert trained == {"encoders.t.prompt": 5 * 16, "head.weight": 2 * 16, "head.bias": 2}
    start: Any = create(METHOD, length=5, schedule=BRIEF).build(method.spec_).encoders["t"]
    torch.manual_seed(0)
    start.reset_parameters()
    known = start.reader.trunk.words(torch.arange(len(WORDS))[None])[0]
    assert all((known == row).all(1).any() for row in start.prompt)
    assert not torch.equal(method.net_.encoders["t"].prompt, start.prompt)


def test_two_prompts_switch_what_a_frozen_model_does() -> None:
    """One trunk, two tasks that contradict each other: the prompt alone tells which."""
    torch.manual_seed(0)
    trunk = own_trunk(4, 32, 8, causal=True)
    trunk.reset_parameters()
    trunk.requires_grad_(False)
    words = torch.randint(4, (256, 3))
    answers = {"first": words[:, 0], "last": words[:, 2]}
    head = torch.nn.Linear(32, 4)
    prompts = torch.nn.ParameterDict({name: torch.nn.Parameter(0.3 * torch.randn(4, 32)) for name in answers})
    optimiser = torch.optim.Adam([*prompts.parameters(), *head.parameters()], lr=0.03)
    real = torch.ones_like(words, dtype=torch.bool)

    def scores(rows: torch.Tensor) -> torch.Tensor:
        return head(prompted(trunk, rows, trunk.words(words), real)[:, -1])

    for _ in range(300):
        loss = sum(F.cross_entropy(scores(prompts[name]), truth) for name, truth in answers.items())
        optimiser.zero_grad()
        loss.backward()  # type: ignore[union-attr]
        optimiser.step()
    switched = torch.arange(256) % 2 == 0
    mixed = torch.where(switched[:, None, None], prompts["first"], prompts["last"])
    truth = torch.where(switched, answers["first"], answers["last"])
    assert (scores(mixed).argmax(1) == truth).float().mean() > 0.9
    wrong = torch.where(switched, answers["last"], answers["first"])
    assert (scores(mixed).argmax(1) == wrong).float().mean() < 0.4  # by chance it is the same word in 1/4


@pytest.mark.parametrize("form", ["prompt", "prefix"])
def test_it_is_restored_and_exported(form: str, tmp_path: Path) -> None:
    X, y = vectors()
    more = {"form": form, "language_model": f"hf:{save_gpt2(tmp_path)}"}
    method: Any = create(METHOD, schedule=BRIEF, **more).fit(X, y)
    again = create(METHOD, schedule=BRIEF, **more).restore(method.spec_, method.net_.state_dict())
    assert np.array_equal(method.predict_proba(X), again.predict_proba(X))
    export(method, X, tmp_path / "out.onnx")


def test_an_encoder_takes_no_prefix(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Use form='prompt', or name a causal 'language_model'"):
        create(METHOD, form="prefix", schedule=BRIEF).fit(texts(tmp_path), ["a", "b", "a", "b"] * 6)
