"""Frozen: what never moves, vectors that stand for words, and a new word bound by two pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray
from tiny_models import quietly, save_gpt2, tokenised
from torch import Tensor
from torch.nn import functional as F

from transference.core.errors import ConfigError
from transference.core.registry import create
from transference.core.spec import ModalitySpec
from transference.core.views import Views
from transference.data.loader import to_batch
from transference.deploy.export import export
from transference.train.schedule import Schedule

torch.set_num_threads(1)
METHOD = "transfer.prefix"
BRIEF = Schedule(updates=10, batch_size=16, device="cpu")


def rows(text: ModalitySpec, n: int = 30, seed: int = 0) -> tuple[Views, NDArray[Any]]:
    """x shows three classes, t names them among other words, v is a vector. Some rows lack a label, some t."""
    g = np.random.default_rng(seed)
    number = np.arange(n) % 3
    lengths = g.integers(1, text.shape[0] + 1, n)
    t = np.where(np.arange(text.shape[0]) < lengths[:, None], g.integers(5, 9, (n, text.shape[0])), 0)
    t[:, 0] = 1 + number
    told = np.arange(n) % 5 != 2
    x = 2 * np.eye(3)[number] + g.normal(size=(n, 3))
    v = g.normal(size=(n, 2)) + number[:, None]
    X = Views(
        {"x": x.astype(np.float32), "t": (t * told[:, None]).astype(np.float32), "v": v.astype(np.float32)},
        {"x": ModalitySpec("x", "vector", (3,)), "t": text, "v": ModalitySpec("v", "vector", (2,))},
        "x",
        present={"t": told},
        lengths={"t": lengths * told},
    )
    y = np.array(["a", "b", "c"], object)[number]
    y[n - 6 :] = None
    return X, y


HASHED = ModalitySpec("t", "text", (4,), lengths=True, vocabulary=9)


def bytes_of(module: torch.nn.Module) -> dict[str, bytes]:
    return {name: value.detach().numpy().tobytes() for name, value in module.state_dict().items()}


def test_the_model_stays_to_the_bit_and_the_prefix_learns_through_it(tmp_path: Path) -> None:
    folder = save_gpt2(tmp_path, eos_token_id=3)
    came = bytes_of(transformers.GPT2LMHeadModel.from_pretrained(folder))
    X, y = rows(tokenised(folder))
    method: Any = create(METHOD, prefix=2, schedule=BRIEF).fit(X, y)
    net, before = method.net_, create(METHOD, prefix=2, schedule=BRIEF).build(method.spec_)
    assert bytes_of(net.speaker.trunk.model) == came
    net.train()
    assert not any(module.training for module in net.speaker.trunk.model.modules())  # no dropout
    net.zero_grad()
    losses = method.losses(net, to_batch(X, np.full(len(X), -1)))
    assert losses["task"].item() == 0.0
    losses["words of t"].backward()
    assert all(value.grad is None and not value.requires_grad for value in net.speaker.parameters())
    assert net.enter.weight.grad.unflatten(0, (2, 16)).abs().sum((1, 2)).min() > 1e-4  # of both vectors
    assert not torch.equal(before.enter.weight, net.enter.weight)


def test_an_own_model_learns_the_words_first_and_then_nothing() -> None:
    X, y = rows(HASHED, 90)
    method: Any = create(METHOD, width=16, weight=1.0, schedule=Schedule(updates=60, checks=6, device="cpu"))
    stages, seen = method.stages, {}

    def watched(net: Any) -> Any:
        language, captions, train = stages(net)

        def begin(net: Any, rows: Any) -> None:
            captions.begin(net, rows)
            seen.update(bytes_of(net.speaker.trunk))

        seen["at first"] = bytes_of(net.speaker.trunk)
        return language, replace(captions, begin=begin), train

    method.stages = watched
    method.fit(X, y)
    at_first = seen.pop("at first")
    assert at_first != seen
    assert bytes_of(method.net_.speaker.trunk) == seen
    assert not any(value.requires_grad for value in method.net_.speaker.parameters())
    history = method.history_
    words = np.array(history["language: words"])
    assert np.isnan(words).tolist() == [False] * 6 + [True] * 12
    assert words[5] < words[0] - 0.2
    told = history["captions: words of t"]  # the primary tells the first word
    assert told[11] < told[6] - 0.05
    assert history["words of t"][-1] < told[6] - 0.1
    assert history["update"][-1] == 120


def test_a_prefix_of_real_words_gives_the_scores_of_the_text(tmp_path: Path) -> None:
    folder = save_gpt2(tmp_path, eos_token_id=3, initializer_range=0.3)
    X, y = rows(tokenised(folder))
    net: Any = create(METHOD, prefix=2, schedule=BRIEF).fit(X, y).net_
    model, batch = net.speaker.trunk.model, to_batch(X)
    words = model.transformer.wte(torch.tensor([7, 4]))
    with torch.no_grad():
        net.enter.weight.zero_()
        net.enter.bias.copy_(words.flatten())
        numbers, real = net.speaker.tokens(batch.views["t"], batch.lengths["t"])
        states = net.read(batch, numbers[:, :-1], real[:, 1:])
        expected = model(torch.cat([torch.tensor([[7, 4]] * 30), numbers[:, :-1]], 1)).logits
        there = F.pad(real[:, 1:], (2, 0), value=True)
        assert torch.allclose(net.speaker.trunk.says(states)[there], expected[there], atol=1e-5)
        costs = F.cross_entropy(expected[:, 1:].transpose(1, 2), numbers, reduction="none")
        told = real & batch.present["t"][:, None]
        assert net.told(batch)[1]["words of t"].item() == pytest.approx(costs[told].mean().item(), rel=1e-4)


def test_no_prefix_is_the_model(tmp_path: Path) -> None:
    folder = save_gpt2(tmp_path, eos_token_id=3, initializer_range=0.3)
    X, y = rows(tokenised(folder))
    net: Any = create(METHOD, prefix=2, schedule=BRIEF).fit(X, y).net_
    batch, lead = to_batch(X), net.lead
    numbers, real = net.speaker.tokens(batch.views["t"], batch.lengths["t"])
    expected = net.speaker.trunk.model(numbers).logits[real]
    with torch.no_grad():
        with_prefix = net.speaker.trunk.says(net.read(batch, numbers, real))[:, 2:]
        net.lead = lambda batch: lead(batch)[:, :0]
        without = net.speaker.trunk.says(net.read(batch, numbers, real))
    assert torch.allclose(without[real], expected, atol=1e-5)
    assert (with_prefix[real] - expected).abs().max() > 0.1


MARK = 15  # in a toy language: words 1 to 8 are things, 9 to 14 names


@pytest.fixture(scope="module")
def speaks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the language: a thing is said again, "thing thing end"; after the mark things get names.

    "mark thing name thing name", and then six times one of the two things and its name.
    """
    form = {"vocab_size": 16, "n_positions": 17, "n_embd": 32, "bos_token_id": 0, "eos_token_id": 0}
    folder = save_gpt2(tmp_path_factory.mktemp("speaks"), initializer_range=0.2, **form)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    torch.manual_seed(0)
    for step in range(300):
        optimizer.param_groups[0]["lr"] = 3e-3 * min(1.0, step / 20, 4 * (1 - step / 300))
        text = episodes(*bindings(64), torch.randint(2, (64, 6)))
        logits = model(text[:, :-1]).logits
        loss = F.cross_entropy(logits[:, 5::2].flatten(0, 1), text[:, 6::2].flatten())
        if step % 2:
            thing = torch.randint(1, 9, (32, 1)).expand(-1, 2)
            loss = loss + F.cross_entropy(model(thing).logits.transpose(1, 2), F.pad(thing[:, 1:], (0, 1)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    quietly(model.save_pretrained, folder)
    return folder


def bindings(n: int) -> tuple[Tensor, Tensor]:
    """(n, 2) different things, (n, 2) different names."""
    return 1 + torch.rand(n, 8).argsort(1)[:, :2], 9 + torch.rand(n, 6).argsort(1)[:, :2]


def episodes(things: Tensor, names: Tensor, asked: Tensor) -> Tensor:
    """(n, 5 + 2 k): the mark, two things with their names, and k times one of them, as (n, k) `asked` says."""
    pairs = torch.stack([things, names], 2)
    again = pairs[torch.arange(len(things))[:, None], asked]
    return torch.cat([torch.full_like(asked[:, :1], MARK), pairs.flatten(1), again.flatten(1)], 1)


def pictures(things: NDArray[Any], seed: int) -> NDArray[Any]:
    g = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(9, 10))
    return (2 * centres[things] + 0.5 * g.normal(size=(len(things), 10))).astype(np.float32)


def test_two_pictures_bind_two_new_words(speaks: Path) -> None:
    """The encoder learns captions of one word; then pictures and names by turns bind names that go with no thing."""
    thing = np.arange(160) % 8 + 1
    text = tokenised(speaks, length=1)
    specs = {"x": ModalitySpec("x", "vector", (10,)), "t": text}
    values = {"x": pictures(thing, 0), "t": (thing[:, None] + 1).astype(np.float32)}
    X = Views(values, specs, "x", lengths={"t": np.ones(160, int)})
    y = np.where(thing > 4, "high", "low")
    method: Any = create(METHOD, prefix=1, schedule=Schedule(updates=200, device="cpu")).fit(X, y)
    trunk, lead = method.net_.speaker.trunk, method.net_.lead
    assert (method.generate(X, "t")[:, 0] == thing + 1).mean() > 0.9
    torch.manual_seed(1)
    (things, names), asked = bindings(400), torch.randint(2, (400,))
    truth = episodes(things, names, asked[:, None])
    right = {}
    for sight in ("seen", "blind"):
        with torch.no_grad():
            vectors = trunk.words(truth[:, :6])
            for place in (1, 3, 5):
                shown = truth[:, place] if sight == "seen" else truth[torch.randperm(400), place]
                batch = to_batch(Views.of(primary="x", x=pictures(shown.numpy(), 10 + place)))
                vectors[:, place] = lead(batch)[:, 0]
            logits = trunk.says(trunk(vectors, torch.ones(400, 6, dtype=torch.bool))[:, -1])
        two = logits.gather(1, names)
        right[sight] = (two.argmax(1) == asked).float().mean().item()
        right[f"{sight}, of all words"] = (logits.argmax(1) == truth[:, 6]).float().mean().item()
    assert right["seen"] > 0.72, right
    assert right["seen, of all words"] > 0.6, right  # half for one who knows the two
    assert abs(right["blind"] - 0.5) < 0.1, right


def test_the_losses_are_those_of_what_is_told(tmp_path: Path) -> None:
    folder = save_gpt2(tmp_path, eos_token_id=3)
    X, y = rows(tokenised(folder))
    method: Any = create(METHOD, weight=3.0, schedule=BRIEF).fit(X, y)
    net, target = method.net_, np.array([-1 if each is None else "abc".index(each) for each in y])
    batch = to_batch(X, target)
    state, costs = net.told(batch)
    losses = method.losses(net, batch)
    expected = F.cross_entropy(net.head(state[:24]), torch.from_numpy(target[:24]))
    assert losses["task"].item() == pytest.approx(expected.item(), rel=1e-5)
    for name, cost in costs.items():
        assert losses[name].item() == pytest.approx(1.5 * cost.item(), rel=1e-5)
    assert set(losses) == {"task", "words of t", "missed of v"}
    torch.testing.assert_close(method.scores(net, batch.only(["x"])), net.head(state), atol=1e-5, rtol=1e-5)


def test_at_weight_zero_nothing_is_said_and_the_secondaries_change_nothing(tmp_path: Path) -> None:
    folder = save_gpt2(tmp_path)
    X, y = rows(tokenised(folder))
    other = X.replace("t", X["t"][::-1].copy()).replace("v", -X["v"])
    silent = [create(METHOD, weight=0.0, schedule=BRIEF).fit(each, y) for each in (X, other)]
    np.testing.assert_array_equal(*[each.predict_proba(X) for each in silent])
    assert set(silent[0].history_) == {"update", "task"}
    speaking = [create(METHOD, schedule=BRIEF).fit(each, y).predict_proba(X) for each in (X, other)]
    assert not np.array_equal(*speaking)
    with pytest.raises(ConfigError, match="The 'weight' of a Prefix that generates must be above 0 in its fit"):
        silent[0].generate(X, "t")


@pytest.mark.parametrize("model", ["given", "own", "random"])
def test_it_answers_from_the_primary_alone_and_leaves_the_house(model: str, tmp_path: Path) -> None:
    given = f"hf:{save_gpt2(tmp_path / 'gpt2', initializer_range=0.3)}" if model == "given" else None
    X, y = rows(HASHED)
    X = X.only(["x"]) if model == "random" else X
    parameters: dict[str, Any] = {"language_model": given, "width": 16, "schedule": BRIEF}
    method: Any = create(METHOD, **parameters).fit(X, y)
    answer = method.predict_proba(X)
    poisoned = [X.only(["x"])]
    if model != "random":
        poisoned += [X.replace("t", np.full_like(X["t"], 1e6)).replace("v", np.full_like(X["v"], np.nan))]
        poisoned += [X.without("t")]
    for each in poisoned:
        np.testing.assert_array_equal(method.predict_proba(each), answer)
    state = {name: value.clone() for name, value in method.net_.state_dict().items()}
    np.testing.assert_array_equal(create(METHOD, **parameters).restore(method.spec_, state).predict_proba(X), answer)
    if model != "random":
        assert export(method, X, tmp_path / "it.onnx") < 1e-4
    assert ("missed of t" in method.history_) == (model == "given")  # hashed words: the model has no numbers for them
    assert ("language: words" in method.history_) == (model == "own")
