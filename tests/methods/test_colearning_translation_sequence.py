"""Sequence to sequence translation: the decoder as a slow loop, what may be read, and when it helps."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from transference.colearning.translation.sequence import Sequence, SequenceNetwork, stretches
from transference.core.errors import ConfigError, DataError
from transference.core.registry import create
from transference.core.spec import Kind
from transference.core.views import Views
from transference.data.loader import to_batch
from transference.nn.decoder import SequenceDecoder, over_real
from transference.train.schedule import Schedule

QUICK = Schedule(updates=8, batch_size=16, validation=0.0)
KINDS: dict[str, Kind] = {"words": "text", "points": "set", "film": "video"}


def data(n: int = 40, seed: int = 0, primary: str = "motion") -> tuple[Views, NDArray[Any]]:
    """One modality of every kind, the series of many lengths; the last quarter has no label."""
    g = np.random.default_rng(seed)
    y = g.integers(0, 2, n)
    X = Views.of(
        primary=primary,
        kinds=KINDS,
        x=g.normal(size=(n, 4)) + y[:, None],
        motion=g.normal(size=(n, 11, 3)) + y[:, None, None],
        film=g.uniform(size=(n, 6, 1, 8, 8)),
        picture=g.uniform(size=(n, 2, 8, 9)),
        words=np.where(np.arange(5) < g.integers(1, 6, (n, 1)), g.integers(1, 30, (n, 5)), 0),
        points=g.normal(size=(n, 6, 2)),
    )
    X = X.replace("motion", X["motion"], lengths=g.integers(2, 12, n))
    return X, np.where(np.arange(n) < 3 * n // 4, y, -1)


def small(n: int = 40, seed: int = 0) -> tuple[Views, NDArray[Any]]:
    """A series translated into a series of another length and a vector."""
    X, y = data(n, seed)
    g = np.random.default_rng(seed + 1)
    other = g.normal(size=(n, 9, 2)) + y[:, None, None]
    return Views.of(primary="motion", motion=X["motion"], t=other, x=X["x"]).replace(
        "motion", X["motion"], lengths=X.lengths["motion"]
    ), y


def decoder(steps: int = 4, size: int = 2, **more: Any) -> SequenceDecoder:
    torch.manual_seed(0)
    part = SequenceDecoder(3, steps, size, **more).double()
    for parameter in part.parameters():
        torch.nn.init.normal_(parameter)
    with torch.no_grad():
        part.out.weight.mul_(20.0)
    return part.eval()


def slow(part: SequenceDecoder, h: Tensor, states: Tensor, mask: Tensor) -> NDArray[np.float64]:
    """Row by row, step by step, with the gates written out: what is kept, what is forgotten, what is new."""
    w = {name: value.detach().numpy() for name, value in part.state_dict().items()}
    wi, wh, bi, bh = (w[f"cell.{name}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    rows = []
    for i in range(len(h)):
        s, previous, given = np.tanh(w["start.weight"] @ h[i].numpy() + w["start.bias"]), np.zeros(part.size), []
        for _ in range(part.steps):
            query = w["attention.query.weight"] @ s + w["attention.query.bias"]
            score = {
                k: math.exp(
                    float(
                        w["attention.energy.weight"][0]
                        @ np.tanh(query + w["attention.key.weight"] @ states[i, k].numpy())
                    )
                )
                for k in range(states.shape[1])
                if mask[i, k]
            }
            context = sum(value / sum(score.values()) * states[i, k].numpy() for k, value in score.items())
            given_in = np.concatenate([previous, context])
            ir, iz, inew = np.split(wi @ given_in + bi, 3)
            hr, hz, hnew = np.split(wh @ s + bh, 3)
            reset, keep = 1 / (1 + np.exp(-(ir + hr))), 1 / (1 + np.exp(-(iz + hz)))
            s = (1 - keep) * np.tanh(inew + reset * hnew) + keep * s
            previous = w["out.weight"] @ np.concatenate([s, context]) + w["out.bias"]
            given.append(previous)
        rows.append(given)
    return np.array(rows)


def test_the_decoder_against_a_slow_loop_and_beyond_the_reach_of_tanh() -> None:
    part, g = decoder(), torch.Generator().manual_seed(1)
    h, states = (torch.randn(*size, generator=g, dtype=torch.float64) for size in ((5, 3), (5, 6, 3)))
    mask = torch.arange(6) < torch.tensor([6, 1, 3, 2, 5])[:, None]
    expected = slow(part, h, states, mask)
    with torch.no_grad():
        given, looked = part.unrolled(h, states, mask)
        np.testing.assert_allclose(given, expected, rtol=1e-9)
        assert np.abs(expected).max() > 10
        torch.testing.assert_close(looked.sum(2), torch.ones(5, 4, dtype=torch.float64))
        assert looked[~mask[:, None].expand_as(looked)].abs().max() == 0
        poisoned = torch.where(mask[:, :, None], states, 1e3)
        torch.testing.assert_close(part(h, poisoned, mask), given, rtol=0, atol=0)


def test_a_row_without_a_real_step_looks_nowhere() -> None:
    weights = over_real(torch.tensor([[5.0, 1.0], [5.0, 1.0]]), torch.tensor([[False, False], [False, True]]))
    assert weights.tolist() == [[0.0, 0.0], [0.0, 1.0]]


def test_forcing_gives_true_steps_in_training_alone() -> None:
    g = torch.Generator().manual_seed(1)
    h, states = (torch.randn(*size, generator=g, dtype=torch.float64) for size in ((400, 3), (400, 2, 3)))
    mask, truth = torch.ones(400, 2, dtype=torch.bool), torch.full((400, 4, 2), 3.0, dtype=torch.float64)
    with torch.no_grad():
        free = decoder()(h, states, mask)
        for share in (0.0, 1.0):
            torch.testing.assert_close(decoder(forcing=share)(h, states, mask, truth), free, rtol=0, atol=0)
        always = decoder(forcing=1.0).train()
        forced = always(h, states, mask, truth)
        torch.testing.assert_close(forced[:, 0], free[:, 0], rtol=0, atol=0)
        later = truth.clone()
        later[:, 2:] = 99.0  # the last true step is never shown, the third one reaches the fourth alone
        changed = always(h, states, mask, later)
        torch.testing.assert_close(changed[:, :3], forced[:, :3], rtol=0, atol=0)
        assert (changed[:, 3] != forced[:, 3]).any(1).float().mean() > 0.9
        sometimes = decoder(forcing=0.3).train()(h, states, mask, truth)
        share = (sometimes[:, 1] != free[:, 1]).any(1).float().mean().item()
        assert share == pytest.approx(0.3, abs=4 * (0.21 / 400) ** 0.5)


def test_stretches_against_a_slow_loop() -> None:
    lengths, most, length = torch.tensor([0, 1, 3, 7, 10]), 4, 10
    found = stretches(lengths, lengths.clamp_max(most), most, length)
    for i, real in enumerate(lengths.tolist()):
        count = min(real, most)
        for k in range(most):
            first, last = (k * real // count, (k + 1) * real // count) if k < count else (0, 0)
            assert found[i, k].tolist() == [first <= place < last for place in range(length)]


def test_an_encoded_step_is_what_the_encoder_makes_of_that_step_alone() -> None:
    X, y = data()
    X = Views.of(primary="motion", motion=np.repeat(X["motion"], 2, 1)[:, :16], x=X["x"])
    net: Any = Sequence(steps=4, schedule=QUICK).fit(X, y).net_
    net.eval()
    encoder = net.encoders["motion"]
    with torch.no_grad():
        found, real = net.parts(torch.from_numpy(X["motion"]), None)
        assert real.all()
        for k in range(4):
            alone = encoder.mean.expand(40, 16, 3).clone()
            alone[:, 4 * k : 4 * k + 4] = torch.from_numpy(X["motion"])[:, 4 * k : 4 * k + 4]
            torch.testing.assert_close(found[:, k], encoder(alone, None), rtol=1e-4, atol=1e-5)
        values = torch.from_numpy(X["motion"])
        twice_as_slow, _ = net.parts(values[:, :8].repeat_interleave(2, 1), None)
        half, _ = net.parts(torch.cat([values[:, :8], 50 + values[:, 8:]], 1), torch.full((40,), 8))
        torch.testing.assert_close(half, twice_as_slow, rtol=1e-4, atol=1e-5)


def test_encoded_steps_of_words_are_their_vectors_and_padding_is_no_step() -> None:
    X, y = data(primary="words")
    net: Any = Sequence(schedule=QUICK).fit(X.only(["words", "x"]), y).net_
    found, real = net.parts(torch.from_numpy(X["words"]), None)
    assert real.tolist() == (X["words"] > 0).tolist()
    words, linear = torch.from_numpy(X["words"]).long(), net.encoders["words"].linear
    expected = linear.weight.T[words] + linear.bias
    torch.testing.assert_close(found[real], expected[real])


def test_nothing_reaches_the_decoder_but_through_the_encoder() -> None:
    X, y = small()
    net: Any = Sequence(schedule=QUICK).fit(X, y).net_
    net.eval()
    batch = to_batch(X.replace("motion", X["motion"], lengths=np.full(40, 11)))
    with torch.no_grad():
        before = net.translate(batch, net.encode(batch, "motion"), ("t",))["t"]
        assert before.std(0).min() > 1e-3
        for parameter in net.encoders.parameters():
            parameter.zero_()
        after = net.translate(batch, net.encode(batch, "motion"), ("t",))["t"]
    assert after.std(0).max() < 1e-6


def test_the_losses_by_hand() -> None:
    X, y = small()
    there = np.arange(40) % 3 > 0
    X = X.replace("t", np.where(there[:, None, None], X["t"], np.nan).astype(np.float32), present=there)
    model = Sequence(translation=3.0, schedule=QUICK).fit(X, y)
    net: Any = model.net_.eval()
    batch = to_batch(X, y)
    losses = {name: value.item() for name, value in model.losses(net, batch).items()}
    with torch.no_grad():
        h = net.encode(batch, "motion")
        log_p = net.head(h).log_softmax(1)[np.arange(30), y[:30]]
        states, real = net.memory(batch, h)
        assert real.sum(1).tolist() == np.minimum(X.lengths["motion"], 8).tolist()
        t = np.stack(
            [[X["t"][i, :, c].repeat(8).reshape(8, 9).mean(1) for c in range(2)] for i in np.flatnonzero(there)]
        )
        t = (t - t.mean(0)) / t.std(0)  # (rows, 2, 8): the means of eight stretches of nine steps
        answer = net.decoders["t"](h, states, real).numpy()[there].transpose(0, 2, 1)
        x = (X["x"] - X["x"].mean(0)) / X["x"].std(0)
        of_x = ((net.decoders["x"](h, states, real).numpy()[:, 0] - x) ** 2).sum(1).mean() / 4
    assert losses["task"] == pytest.approx(-log_p.mean().item(), rel=1e-4)
    of_t = ((answer - t) ** 2).sum((1, 2)).mean() / 16
    assert losses["translation"] == pytest.approx(3 * (of_t + of_x) / 2, rel=1e-4)


@pytest.mark.parametrize("primary", ["x", "motion", "film", "picture", "words", "points"])
def test_every_kind_can_be_primary_and_every_parameter_gets_a_gradient(primary: str) -> None:
    X, y = data(24, primary=primary)
    model = Sequence(width=8, schedule=Schedule(updates=2, batch_size=8)).fit(X, y)
    model.net_.zero_grad()
    sum(model.losses(model.net_, to_batch(X[:9], y[:9])).values()).backward()
    for name, parameter in model.net_.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_the_translation_loss_reaches_the_encoder_through_its_steps_and_through_the_start() -> None:
    X, y = small()
    model = Sequence(schedule=QUICK).fit(X, y)
    net: Any = model.net_
    outputs: list[Tensor] = []
    net.encoders["motion"].cells.register_forward_hook(lambda part, given, answer: outputs.append(answer))
    loss = model.losses(net, to_batch(X, y))["translation"]
    assert [len(value) for value in outputs] == [40, 40 * 8]
    start, parts = torch.autograd.grad(loss, outputs)
    assert (start.abs().sum(1) > 0).all()
    real = np.arange(8) < X.lengths["motion"][:, None]
    assert (parts.abs().sum(1).view(40, 8).numpy() > 0).tolist() == real.tolist()


def test_with_weight_zero_it_is_unimodal() -> None:
    X, y = data()
    same = Sequence(translation=0.0, forcing=0.5, schedule=QUICK, seed=4).fit(X, y)
    alone = create("unimodal", schedule=QUICK, seed=4).fit(X, y)
    np.testing.assert_array_equal(same.predict_proba(X), alone.predict_proba(X))
    assert same.history_ == alone.history_
    assert set(same.net_.state_dict()) == set(alone.net_.state_dict())


@pytest.mark.parametrize("primary", ["x", "motion", "words"])
def test_nothing_but_the_primary_modality_of_the_row_itself_is_read(primary: str) -> None:
    X, y = data(primary=primary)
    model = Sequence(forcing=0.5, schedule=QUICK).fit(X, y)
    other_name = "points" if primary == "motion" else "motion"
    answer, made = model.predict_proba(X), model.generate(X, other_name)
    poisoned = X
    for name in X.secondary:
        poisoned = poisoned.replace(name, np.full_like(X[name], np.nan))
    for other in (X.only([primary]), poisoned, X.without(other_name)):
        np.testing.assert_array_equal(model.predict_proba(other), answer)
        np.testing.assert_array_equal(model.generate(other, other_name), made)
    rows = np.array([17, 3])
    np.testing.assert_allclose(model.predict_proba(X[rows]), answer[rows], atol=1e-6)
    np.testing.assert_allclose(model.generate(X[rows], other_name), made[rows], atol=1e-5)
    np.testing.assert_allclose(model.generate(X[5], other_name), made[5:6], atol=1e-5)


def test_padding_changes_no_loss() -> None:
    X, y = small()
    model = Sequence(schedule=QUICK).fit(X, y)
    beyond = np.arange(11) >= X.lengths["motion"][:, None]
    garbage = np.where(beyond[:, :, None], 50.0, X["motion"]).astype(np.float32)
    model.net_.eval()
    first, second = (model.losses(model.net_, to_batch(views, y)) for views in (X, X.replace("motion", garbage)))
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=0, atol=0)


def test_it_learns_to_translate_without_labels() -> None:
    X = planted(0, noise=False, n=150)[0]
    model = Sequence(width=16, schedule=Schedule(updates=100, learning_rate=1e-2, batch_size=48)).fit(X)
    test = planted(0, noise=False, n=300)[0][150:]
    missed = np.square(model.generate(test, "t") - test["t"]).mean() / np.square(test["t"] - test["t"].mean(0)).mean()
    assert missed < 0.6


def test_what_can_not_be_generated_is_refused() -> None:
    X, y = data(primary="x")
    X = X.only(["x", "words", "motion"])
    model = Sequence(schedule=QUICK).fit(X, y)
    with pytest.raises(DataError, match="The modality 'words' to generate must be numbers"):
        model.generate(X, "words")
    with pytest.raises(DataError, match="no modality 'moton' to generate. Did you mean 'motion'"):
        model.generate(X, "moton")
    with pytest.raises(ConfigError, match="'translation' of a Sequence that generates must be above 0"):
        Sequence(translation=0.0, schedule=QUICK).fit(X, y).generate(X, "motion")
    assert isinstance(model.net_, SequenceNetwork)


def planted(
    seed: int, noise: bool, n: int = 450, labelled: int = 48
) -> tuple[Views, NDArray[np.float64], NDArray[np.float64]]:
    """y = tanh of how two slow factors change from one half of the time to the other; t = A x shows them step by step.

    x mixes them with ten louder ones. Few labels, many pairs.
    """
    g = np.random.default_rng(seed)
    mixing = np.random.default_rng([seed, 1])

    def slow_ones(count: int) -> NDArray[np.float64]:
        white = g.normal(size=(n, 20, count))
        return np.stack([white[:, k : k + 16] for k in range(5)]).sum(0) / 5**0.5

    turn = np.linalg.qr(mixing.normal(size=(12, 12)))[0]
    factors, others = slow_ones(2), slow_ones(10)
    x = np.concatenate([factors, 1.5 * others], 2) @ turn  # so that t = x @ (the first two columns of its inverse)
    angle = mixing.uniform(0, 2 * np.pi)
    weight = np.array([np.cos(angle), np.sin(angle)])
    y = np.tanh(2 * (factors[:, 8:].mean(1) - factors[:, :8].mean(1)) @ weight)
    t = slow_ones(2) if noise else (x @ turn.T)[:, :, :2]
    few = y.copy()
    few[labelled:] = np.nan
    return Views.of(primary="x", x=x, t=t), y, few


def test_translation_regresses_what_is_shared_better_and_noise_gives_nothing() -> None:
    gains: dict[bool, list[float]] = {False: [], True: []}
    schedule = Schedule(updates=60, learning_rate=1e-2, batch_size=32)
    for seed in range(2):
        for noise, gain in gains.items():
            X, y, few = planted(seed, noise)
            alone, translated = (
                create(name, schedule=schedule, width=16, seed=seed).fit(X[:250], few[:250]).score(X[250:], y[250:])
                for name in ("unimodal", "colearning.translation.sequence")
            )
            gain.append(translated - alone)
    assert np.mean(gains[False]) > 0.08
    assert np.mean(gains[True]) < 0.02
