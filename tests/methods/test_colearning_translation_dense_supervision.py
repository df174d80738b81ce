"""Dense supervision: attention and targets by hand, what is read, and what it buys where labels are few."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from transference.colearning.translation.dense_supervision import DenseSupervision, Timeline, over_steps
from transference.core.errors import ConfigError
from transference.core.registry import create
from transference.core.spec import Kind, ModalitySpec
from transference.core.views import Views
from transference.data.loader import to_batch
from transference.train.schedule import Schedule

QUICK = Schedule(updates=6, batch_size=16, validation=0.0)
KINDS: dict[str, Kind] = {"words": "text", "points": "set", "film": "video"}


def data(n: int = 40, seed: int = 0, primary: str = "motion") -> tuple[Views, NDArray[Any]]:
    """One modality of every kind, two series of many lengths; the last quarter has no label."""
    g = np.random.default_rng(seed)
    y = g.integers(0, 2, n)
    X = Views.of(
        primary=primary,
        kinds=KINDS,
        x=g.normal(size=(n, 4)) + y[:, None],
        motion=g.normal(size=(n, 11, 3)) + y[:, None, None],
        other=g.normal(size=(n, 30, 2)) - y[:, None, None],
        film=g.uniform(size=(n, 6, 1, 8, 8)),
        picture=g.uniform(size=(n, 2, 8, 9)),
        words=np.where(np.arange(5) < g.integers(1, 6, (n, 1)), g.integers(1, 30, (n, 5)), 0),
        points=g.normal(size=(n, 6, 2)),
    )
    X = X.replace("motion", X["motion"], lengths=g.integers(2, 12, n))
    return X.replace("other", X["other"], lengths=g.integers(3, 31, n)), np.where(np.arange(n) < 3 * n // 4, y, -1)


def averaged(values: NDArray[Any], length: int, grid: int) -> NDArray[np.float64]:
    """(grid, d): a slow average over equal stretches of the first `length` steps, by a finer division of both."""
    fine = values[:length].astype(float).repeat(grid, 0)  # every step in `grid` equal pieces
    return fine.reshape(grid, length, -1).mean(1)


def slow(part: Timeline, row: NDArray[Any], length: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(grid, width) and (grid,) of one row, tap by tap."""
    w = {name: value.detach().double().numpy() for name, value in part.state_dict().items()}
    x = (row[:length] - w["mean"]) * w["scale"]

    def convolved(values: NDArray[Any], name: str, reach: int) -> NDArray[np.float64]:
        kernel = w[f"{name}.weight"]  # (out, in, taps)
        found = np.tile(w[f"{name}.bias"], (len(values), 1))
        for t in range(len(values)):
            for tap in range(kernel.shape[2]):
                at = t + (tap - kernel.shape[2] // 2) * reach
                if 0 <= at < len(values):
                    found[t] += kernel[:, :, tap] @ values[at]
        return np.maximum(found, 0)

    padded = np.concatenate([x, np.zeros((row.shape[0] - length, x.shape[1]))])
    z = averaged(convolved(padded, "first", 1), length, part.grid)
    for k, reach in enumerate((1, 2, 4)):
        z = z + convolved(z, f"further.{k}", reach)
    energy = np.tanh(z) @ w["energy.weight"][0]
    return z, np.exp(energy) / np.exp(energy).sum()


def test_steps_attention_and_losses_against_a_slow_loop() -> None:
    X, y = data()
    X = X.only(["motion", "other", "x"])
    there = np.arange(40) % 3 > 0
    X = X.replace("other", np.where(there[:, None, None], X["other"], np.nan).astype(np.float32), present=there)
    model = DenseSupervision(dense=3.0, grid=4, schedule=QUICK).fit(X, y)
    net: Any = model.net_.eval()
    found = [slow(net.timeline, X["motion"][i], int(X.lengths["motion"][i])) for i in range(40)]
    p = np.stack([weights @ z for z, weights in found])
    np.testing.assert_allclose(model.embed(X)["motion"], p, atol=1e-4)
    target = np.stack([averaged(X["other"][i], int(X.lengths["other"][i]), 4) for i in np.flatnonzero(there)])
    target = (target - target.mean(0)) / target.std(0)
    linear = {
        name: (part.weight.detach().numpy(), part.bias.detach().numpy()) for name, part in net.predictions.items()
    }
    answer = np.stack([z for z, _ in found])[there] @ linear["other"][0].T + linear["other"][1]
    of_other = ((answer - target) ** 2).sum((1, 2)).mean() / 8
    of_x = ((p @ linear["x"][0].T + linear["x"][1] - (X["x"] - X["x"].mean(0)) / X["x"].std(0)) ** 2).sum(1).mean() / 4
    losses = {name: value.item() for name, value in model.losses(net, to_batch(X, y)).items()}
    assert losses["dense"] == pytest.approx(3 * (of_other + of_x) / 2, rel=1e-4)
    logits = p @ net.head.weight.detach().numpy().T + net.head.bias.detach().numpy()
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    assert losses["task"] == pytest.approx(-log_p[np.arange(30), y[:30]].mean(), rel=1e-4)


def test_weights_of_stretches_are_divided_among_their_steps() -> None:
    weights = torch.tensor([[0.1, 0.9], [0.1, 0.9], [0.1, 0.9]])
    own = over_steps(weights, torch.tensor([4, 1, 3]), 4)
    expected = [[0.05, 0.05, 0.45, 0.45], [1.0, 0.0, 0.0, 0.0], [0.1 / 1.5, 0.05 / 1.5 + 0.45 / 1.5, 0.9 / 1.5, 0.0]]
    torch.testing.assert_close(own, torch.tensor(expected))


@pytest.mark.parametrize("primary", ["motion", "words", "film", "x"])
def test_attention_sums_to_one_over_the_real_steps(primary: str) -> None:
    X, y = data(primary=primary)
    model = DenseSupervision(grid=4, schedule=QUICK).fit(X, y)
    weights = model.attention(X)
    length = {"motion": X.lengths["motion"], "words": (X["words"] > 0).sum(1), "film": np.full(40, 6)}
    real = np.arange(weights.shape[1]) < length.get(primary, np.ones(40))[:, None]
    np.testing.assert_allclose(weights.sum(1), 1.0, atol=1e-5)
    assert (weights[real] > 0).all()
    assert (weights[~real] == 0).all()
    np.testing.assert_allclose(model.attention(X[[17, 3]]), weights[[17, 3]], atol=1e-6)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("primary", ["x", "motion", "film", "picture", "words", "points"])
def test_every_kind_can_be_primary_and_every_parameter_gets_a_gradient(primary: str, whole: bool) -> None:
    X, y = data(24, primary=primary)
    model = DenseSupervision(whole=whole, grid=4, width=8, schedule=Schedule(updates=1, batch_size=8)).fit(X, y)
    net = model.net_
    net.zero_grad()
    torch.stack(list(model.losses(net, to_batch(X[:9], y[:9])).values())).sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("primary", ["x", "motion"])
def test_with_weight_zero_it_is_unimodal(primary: str) -> None:
    X, y = data(primary=primary)
    same = DenseSupervision(dense=0.0, whole=True, schedule=QUICK, seed=4).fit(X, y)
    alone = create("unimodal", schedule=QUICK, seed=4).fit(X, y)
    np.testing.assert_array_equal(same.predict_proba(X), alone.predict_proba(X))
    assert same.history_ == alone.history_
    assert set(same.net_.state_dict()) == set(alone.net_.state_dict())
    with pytest.raises(ConfigError, match="The 'dense' parameter of DenseSupervision must be above 0 for attention"):
        same.attention(X)


def test_with_whole_the_baseline_is_added() -> None:
    X, y = data()
    model = DenseSupervision(whole=True, schedule=QUICK).fit(X, y)
    net: Any = model.net_
    batch = to_batch(X)
    with torch.no_grad():
        z, weights = net.found(batch)
        read = (weights[:, :, None] * z).sum(1) + net.encoders["motion"](batch.views["motion"], batch.lengths["motion"])
        torch.testing.assert_close(model.scores(net, batch), net.head(read))
    assert "motion" not in DenseSupervision(schedule=QUICK).fit(X, y).net_.encoders  # type: ignore[operator]


@pytest.mark.parametrize("primary", ["motion", "words", "x"])
def test_nothing_but_the_primary_modality_of_the_row_itself_is_read(primary: str) -> None:
    X, y = data(primary=primary)
    model = DenseSupervision(schedule=QUICK).fit(X, y)
    answer, weights = model.predict_proba(X), model.attention(X)
    poisoned = X
    for name in X.secondary:
        poisoned = poisoned.replace(name, np.full_like(X[name], np.nan))
    for other in (X.only([primary]), poisoned, X.without("other")):
        np.testing.assert_array_equal(model.predict_proba(other), answer)
        np.testing.assert_array_equal(model.attention(other), weights)
    np.testing.assert_allclose(model.predict_proba(X[[17, 3]]), answer[[17, 3]], atol=1e-6)
    np.testing.assert_allclose(model.predict_proba(X[5]), answer[5:6], atol=1e-6)


def test_padding_changes_no_loss() -> None:
    X, y = data()
    model = DenseSupervision(schedule=QUICK).fit(X, y)
    garbage = X
    for name in ("motion", "other"):
        beyond = np.arange(X[name].shape[1]) >= X.lengths[name][:, None]
        garbage = garbage.replace(name, np.where(beyond[:, :, None], 50.0, X[name]).astype(np.float32))
    first, second = (model.losses(model.net_, to_batch(views, y)) for views in (X, garbage))
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=0, atol=0)


def test_first_the_signal_alone_is_learned() -> None:
    X, y = data()
    model = DenseSupervision(schedule=QUICK).fit(X, y)
    signal, both = model.stages(model.net_)
    assert (signal.answers, both.answers) == (False, True)
    (step,) = signal.steps
    assert set(step.losses(model.net_, to_batch(X, y))) == {"dense"}
    assert len(model.history_["update"]) == 2 * QUICK.updates


def test_attention_starts_even() -> None:
    X, y = data()
    still = Schedule(updates=1, learning_rate=1e-12, batch_size=16)
    net: Any = DenseSupervision(grid=4, schedule=still).fit(X, y).net_
    z, weights = net.found(to_batch(X))
    assert z.std(1).mean() > 0.01
    torch.testing.assert_close(weights, torch.full((40, 4), 0.25))


def test_statistics_are_those_of_the_real_steps() -> None:
    g = np.random.default_rng(0)
    film = g.normal(size=(5, 6, 2, 3, 3)).astype(np.float32) * 4 + 7
    part = Timeline(ModalitySpec("film", "video", (6, 2, 3, 3), lengths=True), 4, 3)
    lengths = np.array([6, 1, 2, 3, 5])
    part.fit_statistics(torch.from_numpy(film), torch.from_numpy(lengths))
    shown = np.concatenate([film[i, :length] for i, length in enumerate(lengths)])
    np.testing.assert_allclose(part.mean[:, 0, 0], shown.mean((0, 2, 3)), rtol=1e-4)
    np.testing.assert_allclose(part.scale[:, 0, 0], 1 / shown.std((0, 2, 3)), rtol=1e-4)


@cache
def planted(seed: int, noise: bool = False, strength: float = 1.2, n: int = 450) -> tuple[Views, Any, Any, Any]:
    """Noise of 64 steps with a marked and an unmarked segment of 12, one in each half, each of one of two patterns.

    The label is the pattern of the marked one; the secondary modality shows it while it lasts. Returns rows, labels,
    where the marked segment is, and the logarithm of the exact ratio of the likelihoods.
    """
    g, length, size, half = np.random.default_rng(seed), 64, 12, 32
    y, other, side = g.integers(0, 2, (3, n))
    at = g.integers(0, half - size + 1, (2, n))
    time = np.arange(size)[:, None]
    waves = [np.sin(2 * np.pi * time / period + np.array([0, np.pi / 2])) for period in (4, 8)]
    pattern = strength * np.stack([np.concatenate([wave, np.zeros((size, 1))], 1) for wave in waves])  # (2, 12, 3)
    mark = strength * np.array([0.0, 0.0, 1.0])
    x, t, where = g.normal(size=(n, length, 3)), 0.3 * g.normal(size=(n, length, 1)), np.zeros((n, length), bool)
    for i in range(n):
        here, there = side[i] * half + at[0, i], (1 - side[i]) * half + at[1, i]
        x[i, here : here + size] += pattern[y[i]] + mark
        x[i, there : there + size] += pattern[other[i]]
        t[i, here : here + size] += 2 * y[i] - 1
        where[i, here : here + size] = True

    def likelihood(template: NDArray[Any], k: int) -> NDArray[np.float64]:
        """(n,) of a template somewhere in a half, as a multiple of that of noise alone."""
        part = x[:, k * half : (k + 1) * half]
        places = range(half - size + 1)
        scores = np.stack([(part[:, s : s + size] * template).sum((1, 2)) for s in places], 1)
        return np.exp(scores - (template**2).sum() / 2).mean(1)

    unmarked = [(likelihood(pattern[0], k) + likelihood(pattern[1], k)) / 2 for k in (0, 1)]
    evidence = [sum(likelihood(each + mark, k) * unmarked[1 - k] for k in (0, 1)) for each in pattern]
    if noise:
        t = g.normal(size=t.shape)
    return Views.of(primary="x", x=x, t=t), y, where, np.log(evidence[1] / evidence[0])


def area(seed: int, name: str, noise: bool = False, **more: Any) -> float:
    """Under the curve, on 200 rows, after 24 labels and 226 pairs."""
    X, y, _, _ = planted(seed, noise)
    few = np.where(np.arange(450) < 24, y, -1)
    schedule = Schedule(updates=40, learning_rate=5e-3, batch_size=40)
    model = create(name, schedule=schedule, width=24, seed=seed, **more).fit(X[:250], few[:250])
    return float(roc_auc_score(y[250:], model.predict_proba(X[250:])[:, 1]))


def test_with_few_labels_the_signal_comes_near_the_best_rule_and_noise_gives_no_gain() -> None:
    """No gain beside the same network without a signal: that network is another one than the baseline's."""
    name = "colearning.translation.dense_supervision"
    for seed in (0, 1):
        best = roc_auc_score(planted(seed)[1][250:], planted(seed)[3][250:])
        taught, untaught, by_noise = area(seed, name), area(seed, name, dense=1e-6), area(seed, name, noise=True)
        alone = area(seed, "unimodal")
        assert taught > best - 0.15
        assert taught > untaught + 0.05
        assert taught > alone + 0.2
        assert by_noise < untaught + 0.03


def test_attention_finds_the_segment_that_the_label_depends_on() -> None:
    X, y, where, _ = planted(3, strength=2.0)
    schedule = Schedule(updates=60, learning_rate=5e-3, batch_size=48)
    model = DenseSupervision(schedule=schedule, width=32).fit(X[:250], y[:250])
    weights = model.attention(X[250:])
    assert np.mean([roc_auc_score(where[250 + i], weights[i]) for i in range(200)]) > 0.9
