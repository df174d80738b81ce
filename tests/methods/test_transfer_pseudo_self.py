"""Pseudo-self attention: one softmax over words and context, what it equals, and what is new in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray
from tiny_models import save_gpt2, save_vit, tokenised
from torch.nn import functional as F

from transference.core.errors import ConfigError
from transference.core.registry import create
from transference.core.spec import ModalitySpec
from transference.core.views import Views
from transference.data.hub import identities
from transference.data.loader import to_batch
from transference.deploy.export import export
from transference.nn.captions import Reading
from transference.train.schedule import Schedule

torch.set_num_threads(1)
METHOD = "transfer.pseudo_self"
BRIEF = Schedule(updates=10, batch_size=16, device="cpu")
LOUD = {"initializer_range": 0.3, "eos_token_id": 3, "bos_token_id": 2}
HASHED = ModalitySpec("t", "text", (4,), lengths=True, vocabulary=9)


def rows(text: ModalitySpec, n: int = 30, seed: int = 0) -> tuple[Views, NDArray[Any]]:
    """x, four steps long at most, shows three classes, and t names them. Some rows lack a label, some t."""
    g = np.random.default_rng(seed)
    number = np.arange(n) % 3
    lengths, steps = g.integers(1, text.shape[0] + 1, n), g.integers(1, 5, n)
    t = np.where(np.arange(text.shape[0]) < lengths[:, None], g.integers(5, 9, (n, text.shape[0])), 0)
    t[:, 0] = 1 + number
    told = np.arange(n) % 5 != 2
    x = 2 * np.eye(3)[number][:, None] + g.normal(size=(n, 4, 3))
    X = Views(
        {"x": x.astype(np.float32), "t": (t * told[:, None]).astype(np.float32)},
        {"x": ModalitySpec("x", "series", (4, 3), lengths=True), "t": text},
        "x",
        present={"t": told},
        lengths={"x": steps, "t": lengths * told},
    )
    y = np.array(["a", "b", "c"], object)[number]
    y[n - 6 :] = None
    return X, y


def fitted(folder: Path, **more: Any) -> tuple[Any, Views, NDArray[Any]]:
    X, y = rows(tokenised(folder))
    return create(METHOD, width=16, schedule=BRIEF, **more).fit(X, y), X, y


def projected_as_words(net: Any) -> None:
    """U = W in every layer."""
    with torch.no_grad():
        for k, layer in enumerate(net.speaker.trunk.layers):
            _, *parts = layer.attn.c_attn.weight.split(16, 1)
            _, *biases = layer.attn.c_attn.bias.split(16)
            for linear, weight, bias in zip(
                (net.projections.keys[k], net.projections.values[k]), parts, biases, strict=True
            ):
                linear.weight.copy_(weight.T)
                linear.bias.copy_(bias)


def test_context_that_is_not_seen_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    method, X, _ = fitted(save_gpt2(tmp_path, **LOUD))
    net, batch = method.net_, to_batch(X)
    numbers, real = net.speaker.tokens(batch.views["t"], batch.lengths["t"])
    model, context = net.speaker.trunk.model, net.context
    read = torch.cat([torch.full((30, 1), 2), numbers], 1)
    seen = torch.cat([torch.ones(30, 1, dtype=torch.bool), real], 1)
    with torch.no_grad():
        expected = model(read).logits[seen]
        with_context = net.speaker.trunk.says(net.read(batch, numbers, real))[seen]
        past, there = context(batch)
        net.context = lambda batch: (past, there & False)
        masked = net.speaker.trunk.says(net.read(batch, numbers, real))[seen]
    assert torch.allclose(masked, expected, atol=1e-5)
    assert (with_context - expected).abs().max() > 0.1


def test_projected_as_words_the_context_is_words_before(tmp_path: Path) -> None:
    """One layer: the whole model on [X; Y]. Two: the keys and values of each layer are those of X's own states."""
    for depth in (1, 2):
        method, X, _ = fitted(save_gpt2(tmp_path / str(depth), n_layer=depth, **LOUD))
        net, batch = method.net_, to_batch(X[:5])
        projected_as_words(net)
        trunk = net.speaker.trunk
        base, before = trunk.model.transformer, torch.tensor([[5, 7, 4]] * 5)
        numbers = torch.tensor([[6, 8, 3]] * 5)
        whole = torch.cat([before, torch.full((5, 1), 2), numbers], 1)
        places = torch.tensor([[0, 1, 2, 0, 1, 2, 3]])
        with torch.no_grad():
            expected = trunk.model(whole, position_ids=places).logits[:, 3:]
            states = base(before, output_hidden_states=True).hidden_states[:depth]
            inner = [layer.ln_1(state) for layer, state in zip(base.h, states, strict=True)]
            own = [net.projections(x)[k] for k, x in enumerate(inner)]
            for mine, kept in zip(own, trunk.keep(trunk.words(before), before > 0), strict=True):
                for one, other in zip(mine, kept, strict=True):
                    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
            words = torch.cat([net.lead(batch), trunk.words(numbers)], 1)
            read = Reading(trunk, own).on(words, torch.ones(5, 4, dtype=torch.bool))
            assert torch.allclose(trunk.says(read), expected, atol=1e-4)
            if depth == 1:
                net.encoders["x"].tokens = lambda values, lengths: (inner[0], torch.ones(5, 3, dtype=torch.bool))  # noqa: B023
                read = net.read(batch, numbers, numbers > 0)
                assert torch.allclose(trunk.says(read), expected, atol=1e-4)


def test_the_attention_as_a_slow_loop(tmp_path: Path) -> None:
    """Each head, each place: one softmax over the row's own tokens and the words up to it."""
    method, X, _ = fitted(save_gpt2(tmp_path, n_layer=1, **LOUD))
    net, batch = method.net_, to_batch(X)
    trunk, out = net.speaker.trunk, {}
    layer = trunk.layers[0]
    layer.attn.register_forward_hook(lambda module, given, answer: out.update(found=answer[0]))
    numbers = torch.tensor([[6, 8]] * 30)
    with torch.no_grad():
        net.read(batch, numbers, numbers > 0)
        x, real = net.encoders["x"].tokens(batch.views["x"], batch.lengths["x"])
        assert real.all()  # of a series each token is a stretch of what is real
        y = layer.ln_1(
            torch.cat([net.lead(batch), trunk.words(numbers)], 1) + trunk.model.transformer.wpe(torch.arange(3))
        )
        q, k, v = (y @ layer.attn.c_attn.weight + layer.attn.c_attn.bias).split(16, 2)
        u, w = (part[0](x) for part in (net.projections.keys, net.projections.values))
        for i in (0, 7):
            for place in range(3):
                heads = []
                for h in (slice(0, 8), slice(8, 16)):
                    keys, values = (
                        torch.cat([u[i, :, h], k[i, : place + 1, h]]),
                        torch.cat([w[i, :, h], v[i, : place + 1, h]]),
                    )
                    weights = [float(q[i, place, h] @ key) / 8**0.5 for key in keys]
                    total = sum(np.exp(each) for each in weights)
                    heads.append(sum(np.exp(each) / total * value for each, value in zip(weights, values, strict=True)))
                expected = torch.cat(heads) @ layer.attn.c_proj.weight + layer.attn.c_proj.bias
                torch.testing.assert_close(out["found"][i, place], expected.float(), atol=1e-4, rtol=1e-4)


def test_what_is_new_beside_the_encoder_and_the_head(tmp_path: Path) -> None:
    method, _, _ = fitted(save_gpt2(tmp_path, n_layer=3, **LOUD))
    trained = {name: value.numel() for name, value in method.net_.named_parameters() if value.requires_grad}
    assert {name.partition(".")[0] for name in trained} == {"encoders", "projections", "head"}
    new = sum(count for name, count in trained.items() if name.startswith("projections"))
    assert new == 2 * 3 * 16 * (16 + 1)


def test_the_model_stays_to_the_bit_and_every_projection_learns_through_it(tmp_path: Path) -> None:
    folder = save_gpt2(tmp_path, **LOUD)
    came = transformers.GPT2LMHeadModel.from_pretrained(folder).state_dict()
    method, X, _ = fitted(folder)
    net = method.net_
    for name, value in net.speaker.trunk.model.state_dict().items():
        assert torch.equal(value, came[name])
    net.zero_grad()
    net.told(to_batch(X))[1]["words of t"].backward()
    assert all(value.grad is None and not value.requires_grad for value in net.speaker.parameters())
    assert all(each.weight.grad.abs().max() > 1e-4 for each in [*net.projections.keys, *net.projections.values])


def test_word_by_word_it_says_what_the_whole_would(tmp_path: Path) -> None:
    method, X, _ = fitted(save_gpt2(tmp_path, **LOUD))
    net, batch = method.net_, to_batch(X)
    for linear in (*net.projections.keys, *net.projections.values):
        torch.nn.init.normal_(linear.weight, std=1.0)
    said = torch.zeros(30, 0, dtype=torch.int64)
    with torch.no_grad():
        for _ in range(net.speaker.longest):
            states = net.read(batch, said, torch.ones_like(said, dtype=torch.bool))
            said = torch.cat([said, net.speaker.trunk.says(states[:, -1]).argmax(1, keepdim=True)], 1)
        net.speaker.end = int(said[:, 2].mode().values)  # so that some texts end
        ended = (said == net.speaker.end).cumsum(1) > 0
        made = net.say(batch)
    assert torch.equal(made, said.where(~ended, -1))
    assert 0 < ended.sum() < ended.numel()
    assert len(made[:, 0].unique()) > 2
    expected = np.where(ended.numpy(), 0, said.numpy() + 1)[:, :4]
    np.testing.assert_array_equal(method.generate(X.only(["x"]), "t"), expected)


def test_a_text_is_seen_as_far_as_it_goes() -> None:
    g = np.random.default_rng(0)
    lengths = 1 + np.arange(24) % 5
    words = np.where(np.arange(5) < lengths[:, None], g.integers(1, 9, (24, 5)), 0)
    X = Views.of(primary="x", kinds={"x": "text"}, x=words)
    X = Views(X.arrays, X.specs, "x", lengths={"x": lengths})
    method: Any = create(METHOD, width=16, schedule=BRIEF).fit(X, np.arange(24) % 2)
    assert np.isfinite(method.history_["language: words"][:3]).all()  # an own model learns the primary's words
    past, shown = method.net_.context(to_batch(X))
    assert shown.sum(1).tolist() == lengths.tolist()
    whole = method.net_.state(to_batch(X))
    cut = [tuple(each[:1, :, :1] for each in pair) for pair in past]
    alone = Reading(method.net_.speaker.trunk, cut).on(
        method.net_.speaker.starts(1, 1), torch.ones(1, 1, dtype=torch.bool)
    )
    torch.testing.assert_close(alone[0, 0], whole[0], atol=1e-5, rtol=1e-5)


def test_what_a_pretrained_model_is_fine_tuned_on_is_one_token(tmp_path: Path) -> None:
    folder = save_vit(tmp_path)
    reading = {"processor": f"hf:{folder}", **identities(folder, "processor"), "trained": True}
    pixels = np.random.default_rng(0).normal(size=(12, 3, 16, 16)).astype(np.float32)
    X = Views({"x": pixels}, {"x": ModalitySpec("x", "image", (3, 16, 16), reading=reading)}, "x")
    method: Any = create(METHOD, width=16, schedule=BRIEF).fit(X, np.arange(12) % 2)
    (keys, _), _ = method.net_.context(to_batch(X))[0]
    assert keys.shape == (12, 4, 1, 4)
    assert np.isfinite(method.predict_proba(X)).all()


def planted(seed: int, noise: bool, n: int = 2000) -> tuple[Views, NDArray[Any], NDArray[Any]]:
    """x holds a score, the label its sign, among twenty louder factors; a text says it twice, coarsely and finely.

    Rows, all labels, and labels of which but 16 are -1.
    """
    g = np.random.default_rng(seed)
    factors, loud = g.normal(size=(n, 2)), g.normal(size=(n, 20))
    score = factors[:, 0] * 0.8 + factors[:, 1] * 0.6
    x = factors @ g.normal(size=(2, 40)) + 0.67 * loud @ g.normal(size=(20, 40)) + 0.3 * g.normal(size=(n, 40))
    said = g.normal(size=n) if noise else score
    t = np.stack([1 + np.digitize(said, [-0.5, 0.5]), 5 + np.digitize(said, [-1, -0.5, 0, 0.5, 1])], 1)
    y = (score > 0).astype(int)
    return Views.of(primary="x", kinds={"t": "text"}, x=x, t=t), y, np.where(np.arange(n) < 16, y, -1)


def test_a_text_of_the_score_helps_and_one_of_noise_gives_nothing() -> None:
    """Here and for `transfer.prefix`, against the primary modality alone."""
    brief: dict[str, Any] = {
        "schedule": Schedule(updates=60, batch_size=32, learning_rate=4e-3, device="cpu"),
        "width": 32,
    }
    gains: dict[tuple[str, bool], list[float]] = {}
    for seed in range(3):
        right = {}
        for noise in (False, True):
            X, y, few = planted(seed, noise)
            for name in ("transfer.prefix", METHOD) if noise else ("unimodal", "transfer.prefix", METHOD):
                method = create(name, seed=seed, **brief).fit(X[:500], few[:500])
                right[name, noise] = method.score(X[500:], y[500:])
        alone = right.pop(("unimodal", False))
        for arm, share in right.items():
            gains.setdefault(arm, []).append(share - alone)
    for (_, noise), gain in gains.items():
        assert np.mean(gain) < 0.02 if noise else np.mean(gain) > 0.06, gains


def test_the_losses_are_those_of_what_is_told(tmp_path: Path) -> None:
    method, X, y = fitted(save_gpt2(tmp_path, **LOUD), weight=3.0)
    net, target = method.net_, np.array([-1 if each is None else "abc".index(each) for each in y])
    batch = to_batch(X, target)
    state, costs = net.told(batch)
    losses = method.losses(net, batch)
    expected = F.cross_entropy(net.head(state[:24]), torch.from_numpy(target[:24]))
    assert losses["task"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert losses["words of t"].item() == pytest.approx(3 * costs["words of t"].item(), rel=1e-5)
    assert set(losses) == {"task", "words of t"}
    torch.testing.assert_close(method.scores(net, batch.only(["x"])), net.head(state), atol=1e-5, rtol=1e-5)


def test_at_weight_zero_nothing_is_said(tmp_path: Path) -> None:
    folder = save_gpt2(tmp_path)
    silent, X, y = fitted(folder, weight=0.0)
    other = create(METHOD, width=16, weight=0.0, schedule=BRIEF).fit(X.replace("t", X["t"][::-1].copy()), y)
    np.testing.assert_array_equal(silent.predict_proba(X), other.predict_proba(X))
    assert set(silent.history_) == {"update", "task"}
    with pytest.raises(ConfigError, match="The 'weight' of a PseudoSelf that generates must be above 0 in its fit"):
        silent.generate(X, "t")


@pytest.mark.parametrize("model", ["given", "own", "random"])
def test_it_answers_from_the_primary_alone_and_leaves_the_house(model: str, tmp_path: Path) -> None:
    given = f"hf:{save_gpt2(tmp_path / 'gpt2', **LOUD)}" if model == "given" else None
    X, y = rows(HASHED)
    X = X.only(["x"]) if model == "random" else X
    parameters: dict[str, Any] = {"language_model": given, "width": 16, "schedule": BRIEF}
    method: Any = create(METHOD, **parameters).fit(X, y)
    answer = method.predict_proba(X)
    poisoned = [X.only(["x"])]
    if model != "random":
        poisoned += [X.replace("t", np.full_like(X["t"], 1e6)), X.without("t")]
    for each in poisoned:
        np.testing.assert_array_equal(method.predict_proba(each), answer)
    state = {name: value.clone() for name, value in method.net_.state_dict().items()}
    np.testing.assert_array_equal(create(METHOD, **parameters).restore(method.spec_, state).predict_proba(X), answer)
    if model != "random":
        assert export(method, X, tmp_path / "it.onnx") < 1e-4
    assert ("language: words" in method.history_) == (model == "own")
