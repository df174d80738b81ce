"""Product of experts: the losses as slow loops, missing experts, what the pairing can tell, and what is frozen."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from two_factors import two_factors

from transference.colearning.alignment.experts import Experts, others
from transference.core.errors import ConfigError, DataError
from transference.core.registry import create
from transference.core.spec import Kind
from transference.core.views import Views
from transference.data.loader import to_batch
from transference.train.schedule import Schedule

QUICK = Schedule(updates=10, batch_size=16, device="cpu")
KINDS: dict[str, Kind] = {"words": "text", "points": "set"}
TURN = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]


def data(n: int = 40, seed: int = 0) -> tuple[Views, NDArray[Any]]:
    """A vector x, and t and s which some rows lack; the last quarter has no label."""
    g = np.random.default_rng(seed)
    y = g.integers(0, 2, n)
    X = Views.of(
        primary="x",
        x=g.normal(size=(n, 4)) + y[:, None],
        t=3 * g.normal(size=(n, 5)) - y[:, None],
        s=g.normal(size=(n, 9, 2)) + y[:, None, None],
    )
    t, s = np.arange(n) % 4 != 1, np.arange(n) % 3 != 2
    X = X.replace("t", X["t"] * t[:, None], present=t).replace("s", X["s"] * s[:, None, None], present=s)
    return X, np.where(np.arange(n) < 3 * n // 4, y, -1)


def streams(n: int, seed: int, how: str = "locked") -> Views:
    """Three tones at random phases, and the same tones, shifted and mixed: of the same row, of another one, or new."""
    g = np.random.default_rng(seed)
    phase, elsewhere = g.uniform(0, 2 * np.pi, (2, n, 1, 3))
    time = 2 * np.pi * np.arange(8)[None, :, None] / 8 * np.array([1, 2, 3])
    sight = np.sin(time + phase)
    force = np.cos(time + (elsewhere if how == "independent" else phase) + np.array([0.3, 1.0, 2.0])) @ TURN
    force = force[g.permutation(n)] if how == "randomised" else force
    noise = 0.1 * g.normal(size=(2, *sight.shape))
    return Views.of(primary="sight", sight=sight + noise[0], force=force + noise[1])


def asked(model: Experts, X: Views) -> tuple[float, float]:
    """Balanced accuracy and AUC of the log odds: each row with its own other modality, and with those of all others."""
    odds = model.match(X.only(["sight"]), X.only(["force"], primary="force"))
    own = np.eye(len(X), dtype=bool)
    right = ((odds[own] > 0).mean() + (odds[~own] < 0).mean()) / 2
    return float(right), float(roc_auc_score(own.ravel(), odds.ravel()))


def numbers(model: Experts, X: Views, name: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Mean and variance of one expert, by the network's own linear maps, in numpy."""
    net: Any = model.net_
    with torch.no_grad():
        h = net.encode(to_batch(X), name).numpy().astype(float)
    linear = net.experts[name].linear
    raw = h @ linear.weight.detach().numpy().T + linear.bias.detach().numpy()
    d = raw.shape[1] // 2
    return raw[:, :d], np.log1p(np.exp(raw[:, d:])) + 1e-4


def test_the_losses_against_a_slow_loop() -> None:
    X, y = data()
    model = Experts(pairing=2.0, kl=0.3, width=8, schedule=QUICK).fit(X, y)
    net: Any = model.net_
    names, n = ("x", "s", "t"), len(X)
    torch.manual_seed(11)
    found = {name: value.item() for name, value in model.without_labels(net, to_batch(X, y)).items()}
    torch.manual_seed(11)
    alone = torch.rand(n) < 0.5
    noise = torch.randn(n, 8).numpy()
    belief = {name: numbers(model, X, name) for name in names}
    z, kl = np.zeros((n, 8)), 0.0
    for i in range(n):
        for k in range(8):
            precision, weighted = 1.0, 0.0
            for name in names:
                if X.present[name][i] and (name == "x" or not alone[i]):
                    precision += 1 / belief[name][1][i, k]
                    weighted += belief[name][0][i, k] / belief[name][1][i, k]
            mean, variance = weighted / precision, 1 / precision
            z[i, k] = mean + math.sqrt(variance) * noise[i, k]
            kl += 0.5 * (variance + mean**2 - 1 - math.log(variance)) / (n * 8)
    assert found["kl"] == pytest.approx(0.3 * kl, rel=1e-4)
    for name in names:
        there = X.present[name]
        values = X[name] if name != "s" else np.stack([stretch(row) for row in X[name]])
        values = values.reshape(n, -1)
        mean, deviation = values[there].mean(0), values[there].std(0)
        with torch.no_grad():
            answer = net.decoders[name](torch.from_numpy(z).float()).numpy()
        errors = [((answer[i] - (values[i] - mean) / deviation) ** 2).sum() for i in range(n) if there[i]]
        assert found[f"telling {name}"] == pytest.approx(np.mean(errors) / values.shape[1] / 3, rel=1e-3), name
    for name in ("s", "t"):
        rows = np.flatnonzero(X.present[name])
        other = others(len(rows)).numpy()
        noise = torch.randn(2 * len(rows), 8).numpy()
        cost = 0.0
        for k in range(2 * len(rows)):
            own = k < len(rows)
            i = rows[k % len(rows)]
            j = i if own else rows[other[k % len(rows)]]
            (a, u), (b, v) = ([part[row] for part in belief[m]] for m, row in (("x", i), (name, j)))
            precision = 1 + 1 / u + 1 / v
            shown = (a / u + b / v) / precision + noise[k] / np.sqrt(precision)
            with torch.no_grad():
                odds = net.pairing[name](torch.from_numpy(shown).float()).item()
            cost += math.log1p(math.exp(-odds if own else odds)) / (2 * len(rows))
        assert found[f"pairing with {name}"] == pytest.approx(2.0 * cost / 2, rel=1e-4), name


def stretch(row: NDArray[Any]) -> NDArray[Any]:
    """(8, d) means of (9, d) over stretches of 9 / 8 steps."""
    fine = np.repeat(row, 8, axis=0)  # eighths of a step
    return fine.reshape(8, 9, -1).mean(1)


def test_every_row_gets_another_one() -> None:
    torch.manual_seed(0)
    for n in (2, 3, 40):
        cycle = others(n)
        assert (cycle != torch.arange(n)).all()
        assert cycle.sort().values.tolist() == list(range(n))
    assert not torch.equal(others(40), others(40))


def test_one_row_alone_has_nothing_to_be_mistaken_for() -> None:
    X, y = data()
    model = Experts(joint=True, schedule=QUICK).fit(X, y)
    losses = model.without_labels(model.net_, to_batch(X[:1], y[:1]))
    assert losses["pairing with t"].item() == 0.0
    sum(losses.values()).backward()


def test_what_is_learned_of_the_primary_is_its_expert_and_the_prior_alone() -> None:
    X, y = data()
    model = Experts(width=8, schedule=QUICK).fit(X, y)
    for name in X.names:
        mean, variance = numbers(model, X, name)
        np.testing.assert_allclose(model.embed(X)[name], mean / variance / (1 / variance + 1), rtol=1e-3, atol=1e-5)
    net: Any = model.net_
    z = torch.from_numpy(model.embed(X)["x"])
    np.testing.assert_allclose(model.predict_proba(X), net.head(z).softmax(1).detach().numpy(), rtol=1e-4)


def test_matches_are_the_odds_of_the_joint_mean() -> None:
    X, y = data(12)
    model = Experts(width=8, schedule=QUICK).fit(X, y)
    net: Any = model.net_
    candidates = X.only(["t"], primary="t")[[0, 2, 6]]
    (a, u), (b, v) = numbers(model, X, "x"), numbers(model, X[[0, 2, 6]], "t")
    precision = 1 + 1 / u[:, None] + 1 / v
    z = (a[:, None] / u[:, None] + b / v) / precision
    with torch.no_grad():
        by_hand = net.pairing["t"](torch.from_numpy(z).float())[:, :, 0].numpy()
    np.testing.assert_allclose(model.match(X, candidates), by_hand, rtol=1e-3, atol=1e-4)
    with pytest.raises(DataError, match="rows lack 't', through which they are asked"):
        model.match(X, X.only(["t"], primary="t"))
    without = Experts(pairing=0.0, width=8, schedule=QUICK).fit(X, y)
    assert "pairing with t" not in without.history_
    x, t = without.embed(X)["x"], without.embed(candidates)["t"]
    cosine = (x / np.linalg.norm(x, axis=1, keepdims=True)) @ (t / np.linalg.norm(t, axis=1, keepdims=True)).T
    np.testing.assert_allclose(without.match(X, candidates), cosine, atol=1e-5)


def test_phase_locked_streams_are_told_from_those_of_other_rows() -> None:
    for seed in range(2):
        model = Experts(width=32, schedule=Schedule(updates=120, learning_rate=5e-3), seed=seed)
        right, auc = asked(model.fit(streams(400, seed)), streams(200, 100 + seed))
        assert right > 0.95
        assert auc > 0.98


@pytest.mark.parametrize("how", ["randomised", "independent"])
def test_streams_that_share_nothing_leave_the_pairing_at_chance(how: str) -> None:
    found = []
    for seed in range(2):
        model = Experts(width=32, schedule=Schedule(updates=60, learning_rate=5e-3), seed=seed)
        found.append(asked(model.fit(streams(400, seed, how)), streams(200, 100 + seed, how)))
        assert model.history_["alignment: pairing with force"][-1] == pytest.approx(0.5 * math.log(2), abs=0.015)
    right, auc = np.mean(found, 0)
    assert right == pytest.approx(0.5, abs=0.06)
    assert auc == pytest.approx(0.5, abs=0.06)


def test_encoders_are_frozen_when_the_head_learns() -> None:
    X, y = data()
    model, blind = (Experts(width=8, schedule=QUICK).fit(X, target) for target in (y, None))
    other = Experts(width=8, schedule=QUICK).fit(X, np.where(y < 0, y, 1 - y))
    state, same = model.net_.state_dict(), other.net_.state_dict()
    for name, value in blind.net_.state_dict().items():
        if not name.startswith("head."):
            assert torch.equal(value, state[name]) == torch.equal(value, same[name])
            assert torch.equal(state[name], same[name]), name  # no label reached it
    for name, parameter in model.net_.named_parameters():
        assert parameter.requires_grad == name.startswith("head."), name
        assert (parameter.grad is None) != name.startswith("head."), name
    joint = Experts(joint=True, width=8, schedule=QUICK).fit(X, y)
    assert all(parameter.requires_grad for parameter in joint.net_.parameters())
    assert "task" in joint.history_
    assert "telling t" in joint.history_


def test_the_weight_multiplies_all_but_the_task() -> None:
    X, y = data()
    model = Experts(joint=True, weight=3.0, schedule=QUICK).fit(X, y)
    batch, found = to_batch(X, y), []
    for part in (model.losses, model.without_labels):
        torch.manual_seed(2)
        found.append({name: value.item() for name, value in part(model.net_, batch).items()})
    whole, plain = found
    assert set(whole) - set(plain) == {"task"}
    assert {name: 3 * value for name, value in plain.items()} == pytest.approx(
        {name: whole[name] for name in plain}, rel=1e-5
    )
    log_p = np.log(model.predict_proba(X)[np.arange(30), y[:30]])
    assert whole["task"] == pytest.approx(-log_p.mean(), rel=1e-4)


@pytest.mark.parametrize("joint", [False, True])
def test_with_weight_0_it_is_unimodal_bit_for_bit(joint: bool) -> None:
    X, y = data()
    same = Experts(weight=0, joint=joint, schedule=QUICK, seed=4).fit(X, y)
    alone = create("unimodal", schedule=QUICK, seed=4).fit(X, y)
    np.testing.assert_array_equal(same.predict_proba(X), alone.predict_proba(X))
    assert same.history_ == alone.history_
    with pytest.raises(DataError, match="seen through 's' or 't'"):
        same.match(X, X[X.present["t"]].only(["t"], primary="t"))


def test_rows_that_choose_the_best_state_teach_nothing() -> None:
    X, y = data(80)
    taught: set[int] = set()
    judged: set[int] = set()

    class Watched(Experts):
        def without_labels(self, net: Any, batch: Any) -> dict[str, torch.Tensor]:
            taught.update(batch.rows.tolist())
            return super().without_labels(net, batch)

        def scores(self, net: Any, batch: Any) -> torch.Tensor:
            (taught if net.training else judged).update(batch.rows.tolist())
            return super().scores(net, batch)

    Watched(schedule=Schedule(updates=20, batch_size=64, validation=0.25)).fit(X, y)
    assert len(judged) > 10
    assert taught == set(range(80)) - judged


@pytest.mark.parametrize("joint", [False, True])
def test_nothing_but_the_primary_modality_is_read(joint: bool) -> None:
    X, y = data()
    model = Experts(joint=joint, schedule=QUICK).fit(X, y)
    answer, made = model.predict_proba(X), model.generate(X, "t")
    poisoned = X.replace("t", np.full_like(X["t"], np.nan)).replace("s", 1e6 + X["s"])
    for other in (X.only(["x"]), X.without("t"), poisoned):
        np.testing.assert_array_equal(model.predict_proba(other), answer)
        np.testing.assert_array_equal(model.generate(other, "t"), made)


def test_what_is_generated_comes_near_in_its_own_unit() -> None:
    g = np.random.default_rng(0)
    x = g.normal(size=(500, 3))
    t = 50 + 10 * np.column_stack([x[:, 0] + x[:, 1], -x[:, 2], np.zeros(500)])
    X = Views.of(primary="x", x=x, t=t)
    model = Experts(width=32, schedule=Schedule(updates=80, learning_rate=1e-2)).fit(X[:400])
    made, truth = model.generate(X[400:], "t"), X["t"][400:]
    assert np.square(made - truth).sum() / np.square(truth - truth.mean(0)).sum() < 0.15
    np.testing.assert_allclose(made[:, 2], 50.0, atol=1e-3)


def test_every_kind_of_numbers_is_generated_in_its_shape() -> None:
    g = np.random.default_rng(0)
    X = Views.of(
        primary="x",
        kinds=KINDS,
        x=g.normal(size=(9, 4)),
        picture=g.uniform(size=(9, 2, 70, 33)),
        motion=g.normal(size=(9, 20, 3)),
        film=g.uniform(size=(9, 5, 1, 8, 40)),
        points=g.normal(size=(9, 6, 2)),
        words=g.integers(1, 30, (9, 5)),
    )
    model = Experts(width=8, schedule=QUICK).fit(X)
    net: Any = model.net_
    for name in ("picture", "motion", "film", "points"):
        part, form = net.decoders[name][2], net.forms[name]
        torch.nn.init.zeros_(part.weight)
        part.bias.data = form(to_batch(X).views[name], None)[4].clone()  # exactly that of row 4
        made = model.generate(X, name)
        assert made.shape == X[name].shape
        np.testing.assert_allclose(made[0], made[8])
        wanted = form.rows(part.bias[None].detach())[0].numpy()
        np.testing.assert_allclose(made[0], wanted, atol=1e-5)
    with pytest.raises(DataError, match="'words' to generate must be numbers"):
        model.generate(X, "words")
    with pytest.raises(DataError, match=r"no modality 'notion' to generate. Did you mean 'motion'\?"):
        model.generate(X, "notion")


@pytest.mark.parametrize(("joint", "seeds"), [(False, 3), (True, 2)])
def test_pairs_teach_what_is_shared_and_noise_gives_nothing(joint: bool, seeds: int) -> None:
    gains: dict[bool, list[float]] = {False: [], True: []}
    schedule = Schedule(updates=80, learning_rate=1e-2)
    for seed in range(seeds):
        for noise, gain in gains.items():
            X, y, few = two_factors(seed, noise, 1000)
            models = (create("unimodal", width=16, schedule=schedule, seed=seed),)
            models += (Experts(joint=joint, width=16, schedule=schedule, seed=seed),)
            alone, ours = (model.fit(X[:600], few[:600]).score(X[600:], y[600:]) for model in models)
            gain.append(ours - alone)
    assert np.mean(gains[False]) > 0.08
    assert np.mean(gains[True]) < 0.05


def test_what_it_is_given_is_checked() -> None:
    X, y = data()
    with pytest.raises(ConfigError, match=r"The 'kl' parameter of Experts must be a number of at least 0"):
        Experts(kl=-1.0).fit(X, y)
    with pytest.raises(ConfigError, match=r"The 'joint' parameter of Experts must be one of False, True"):
        Experts(joint=1).fit(X, y)  # type: ignore[arg-type]
