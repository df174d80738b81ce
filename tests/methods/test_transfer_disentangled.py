"""The beta-VAE: losses by hand, the linear closed form, the evidence, what beta and a capacity do, when it helps."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import multivariate_normal, random_correlation
from sklearn.metrics import mutual_info_score
from torch import Tensor
from torch.distributions import Normal, kl_divergence
from two_factors import two_factors

from transference.core.batch import Batch
from transference.core.errors import ConfigError
from transference.core.registry import create
from transference.core.views import Views
from transference.data.loader import to_batch
from transference.train.schedule import Schedule
from transference.transfer.disentangled import Disentangled

torch.set_num_threads(1)

Array = NDArray[Any]
QUICK = Schedule(updates=8, batch_size=16, checks=2)


def believes(net: Any, slope: float, intercept: float, variance: float) -> None:
    """One number of z from one number of x."""
    with torch.no_grad():
        net.expert.linear.weight.copy_(torch.tensor([[slope], [0.0]]))
        net.expert.linear.bias.copy_(torch.tensor([intercept, math.log(math.expm1(variance - 1e-4))]))


def seeded(model: Any, batch: Batch) -> dict[str, Tensor]:
    torch.manual_seed(3)
    return model.without_labels(model.net_, batch)


def test_the_losses_of_two_rows_by_hand() -> None:
    """x is 1 and -1, u is (1, -1) and (-1, 1); q is N(2 x + 0.5, 0.36); x is told as 3 z, u as (z + 1, -z)."""
    X = Views.of(primary="x", x=[[5.0], [3.0]], u=[[2.0, 0.0], [-8.0, 7.0]])
    settings: Any = {
        "depth": 0,
        "latent": 1,
        "noise": 0.25,
        "beta": 5.0,
        "others": 3.0,
        "schedule": Schedule(updates=1),
    }
    model = Disentangled(weight=7.0, head="beside", **settings).fit(X, ["a", "b"])
    net: Any = model.net_
    believes(net, 2.0, 0.5, 0.36)
    with torch.no_grad():
        net.decoders["x"][0].weight.fill_(3.0)
        net.decoders["x"][0].bias.zero_()
        net.decoders["u"][0].weight.copy_(torch.tensor([[1.0], [-1.0]]))
        net.decoders["u"][0].bias.copy_(torch.tensor([1.0, 0.0]))
    batch = to_batch(X, np.array([0, 1]))
    losses = seeded(model, batch)
    torch.manual_seed(3)
    draws = torch.randn(2, 1)[:, 0].tolist()
    z = [2.5 + 0.6 * draws[0], -1.5 + 0.6 * draws[1]]
    nats = [0.5 * (m**2 + 0.36 - 1 - math.log(0.36)) for m in (2.5, -1.5)]
    telling_x = ((3 * z[0] - 1) ** 2 + (3 * z[1] + 1) ** 2) / 2 / 0.5
    telling_u = ((z[0] + 1 - 1) ** 2 + (-z[0] + 1) ** 2 + (z[1] + 1 + 1) ** 2 + (-z[1] - 1) ** 2) / 2 / 0.5
    assert losses["telling x"].item() == pytest.approx(telling_x, rel=1e-4)
    assert losses["telling u"].item() == pytest.approx(3 * telling_u / 2, rel=1e-4)  # u has two numbers, x one
    assert losses["divergence"].item() == pytest.approx(5 * sum(nats) / 2, rel=1e-4)
    torch.manual_seed(3)
    beside = model.losses(net, batch)
    logits = net.head(torch.tensor([[2.5], [-1.5]])).log_softmax(1)
    assert beside["task"].item() == pytest.approx(-(logits[0, 0] + logits[1, 1]).item() / 2, rel=1e-4)
    assert beside["divergence"].item() == pytest.approx(7 * losses["divergence"].item(), rel=1e-4)
    model.set_params(capacity=10.0, gamma=2.0)
    for progress in (0.0, 0.5, 1.0):
        net.progress.fill_(progress)
        expected = 2 * abs(sum(nats) / 2 - 10 * progress)
        assert seeded(model, batch)["divergence"].item() == pytest.approx(expected, rel=1e-4)


def data(n: int = 24, primary: str = "motion") -> tuple[Views, Array]:
    """Half of the rows lack t, a quarter a label."""
    g = np.random.default_rng(0)
    y = np.arange(n) % 2
    X = Views.of(
        primary=primary,
        kinds={"words": "text"},
        motion=g.normal(size=(n, 11, 3)) + y[:, None, None],
        t=g.normal(size=(n, 9)) * 5 - y[:, None],
        picture=g.uniform(size=(n, 1, 8, 9)),
        words=g.integers(1, 30, (n, 5)),
    )
    X = X.replace("motion", X["motion"], lengths=2 + np.arange(n) % 10)
    there = g.permutation(n) % 2 == 0
    return X.replace("t", X["t"] * there[:, None], present=there), np.where(np.arange(n) % 4 == 3, -1, y)


def test_errors_are_summed_over_numbers_and_meaned_over_the_rows_that_have_them() -> None:
    X, _ = data()
    model = Disentangled(width=8, latent=3, noise=0.2, beta=2.0, others=0.5, schedule=QUICK).fit(X)
    net: Any = model.net_
    batch = to_batch(X)
    losses = seeded(model, batch)
    torch.manual_seed(3)
    draws = torch.randn(24, 3)
    with torch.no_grad():
        h = net.encoders["motion"](batch.views["motion"], batch.lengths["motion"])
        mean, raw = net.expert.linear(h).chunk(2, 1)
        z = mean + (raw.exp() + 1).log().add(1e-4).sqrt() * draws
        for name in X.names:
            part = net.forms[name]
            truth = part(batch.views[name], batch.lengths.get(name))
            costs = []
            for i in range(24):
                if X.present[name][i]:
                    told = net.decoders[name](z[i])
                    costs.append(sum((a - b) ** 2 for a, b in zip(told.tolist(), truth[i].tolist(), strict=True)) / 0.4)
            share = 1.0 if name == "motion" else 0.5 * 24 / truth.shape[1]
            assert losses[f"telling {name}"].item() == pytest.approx(share * np.mean(costs), rel=1e-4), name
    assert len(losses) == 5


def test_beta_1_is_the_evidence_lower_bound_and_tight_where_the_posterior_is_exact() -> None:
    """x = w z + e in four numbers: log p(x) is a normal density. A larger beta lowers it by the divergence alone."""
    g = np.random.default_rng(0)
    noise, n = 0.3, 4000
    s = g.normal(size=(n, 1))
    X = Views.of(primary="x", x=s @ [[0.9, -0.8, 0.7, 0.2]] + 0.5 * g.normal(size=(n, 4)))
    settings: Any = {"depth": 0, "latent": 1, "noise": noise, "schedule": Schedule(updates=1)}
    model = Disentangled(beta=1.0, **settings).fit(X)
    net: Any = model.net_
    w = torch.tensor([0.8, -0.7, 0.6, 0.1])
    variance = noise / (float(w @ w) + noise)
    with torch.no_grad():
        net.decoders["x"][0].weight.copy_(w[:, None])
        net.decoders["x"][0].bias.zero_()
        net.expert.linear.weight.copy_(torch.stack([w * variance / noise, torch.zeros(4)]))
        net.expert.linear.bias.copy_(torch.tensor([0.0, math.log(math.expm1(variance - 1e-4))]))
    batch = to_batch(X)
    standard = (X["x"] - X["x"].mean(0)) / X["x"].std(0)
    covariance = np.outer(w, w) + noise * np.eye(4)
    evidence = multivariate_normal(np.zeros(4), covariance).logpdf(standard).mean()
    constant = -2 * math.log(2 * math.pi * noise)
    losses = {name: value.item() for name, value in seeded(model, batch).items()}
    assert constant - sum(losses.values()) == pytest.approx(evidence, abs=0.03)
    assert losses["divergence"] > 0.3
    model.beta = 4.0
    larger = sum(value.item() for value in seeded(model, batch).values())
    assert larger == pytest.approx(sum(losses.values()) + 3 * losses["divergence"], rel=1e-4)


def test_the_divergence_is_the_slope_in_beta_and_that_of_the_distributions() -> None:
    X, _ = data()
    model = Disentangled(width=8, latent=3, schedule=QUICK).fit(X)
    net: Any = model.net_
    beta = torch.tensor(2.5, requires_grad=True)
    model.beta = beta  # type: ignore[assignment]
    torch.stack(list(seeded(model, to_batch(X)).values())).sum().backward()
    with torch.no_grad():
        mean, variance = net.belief(to_batch(X))
        each = kl_divergence(Normal(mean, variance.sqrt()), Normal(0.0, 1.0))  # (n, latent)
    assert beta.grad is not None
    assert beta.grad.item() == pytest.approx(each.sum(1).mean().item(), rel=1e-4)
    np.testing.assert_allclose(model.nats(X), each.mean(0), rtol=1e-3)
    np.testing.assert_array_equal(model.embed(X)["motion"], mean)


def planted(values: Array, sources: Array) -> Views:
    """Rows in units of their own, whose correlation matrix has the sources as axes, with these eigenvalues."""
    scale, axes = np.linalg.eigh(random_correlation.rvs(values, random_state=0))
    x = sources * np.sqrt(scale[::-1]) @ axes[:, ::-1].T
    return Views.of(primary="x", x=x * np.arange(1, len(values) + 1) + 7)


FALLING = np.array([5.0, 3.0, 1.5, *[0.5 / 7] * 7])


def uncorrelated(n: int = 512) -> Array:
    noise = np.random.default_rng(0).normal(size=(n, len(FALLING)))
    u, _, _ = np.linalg.svd(noise - noise.mean(0), full_matrices=False)
    return np.asarray(u * n**0.5)


def test_a_linear_one_ends_at_the_closed_form() -> None:
    """Eigenvalues 5, 3, 1.5 and less, noise 0.5, beta 4: two numbers tell .458 and .203 nats, all others nothing."""
    X = planted(FALLING, uncorrelated())
    assert np.linalg.eigvalsh(np.corrcoef(X["x"].T))[::-1] == pytest.approx(FALLING, abs=1e-4)
    schedule = Schedule(updates=400, learning_rate=3e-2, batch_size=512, weight_decay=0.0)
    model = Disentangled(beta=4.0, noise=0.5, latent=4, depth=0, schedule=schedule).fit(X)
    net: Any = model.net_
    squares = np.linalg.svd(net.decoders["x"][0].weight.detach().numpy())[1] ** 2
    np.testing.assert_allclose(squares, [3.0, 1.0, 0.0, 0.0], atol=0.1)
    np.testing.assert_allclose(np.sort(model.nats(X))[::-1], [0.458, 0.203, 0.0, 0.0], atol=0.008)


def test_a_capacity_is_used_up() -> None:
    X = planted(FALLING, uncorrelated())
    schedule = Schedule(updates=200, learning_rate=1e-2, batch_size=512, weight_decay=0.0)
    for capacity in (0.5, 3.0):
        model = Disentangled(capacity=capacity, noise=0.5, latent=4, depth=0, schedule=schedule).fit(X)
        assert model.nats(X).sum() == pytest.approx(capacity, rel=0.1)
    progress = []

    class Watched(Disentangled):
        def without_labels(self, net: Any, batch: Batch) -> dict[str, Tensor]:
            progress.append(net.progress.item())
            return super().without_labels(net, batch)

    Watched(capacity=1.0, schedule=QUICK).fit(X)
    assert progress == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0]


def gap(z: Array, factors: Array) -> float:
    """MIG: how much more the best number tells of a factor than the second best, as a share of all; mean of factors."""

    def binned(values: Array) -> Array:
        return np.digitize(values, np.histogram_bin_edges(values, 12)[1:-1])

    shares = []
    for factor in factors.T:
        told = [float(mutual_info_score(binned(each), factor)) for each in z.T]
        second, best = sorted(told)[-2:]
        shares.append((best - second) / mutual_info_score(factor, factor))
    return float(np.mean(shares))


def test_the_gap_is_1_for_the_factors_themselves_and_0_for_what_mixes_them() -> None:
    g = np.random.default_rng(0)
    factors, noise = g.integers(0, 4, (4000, 2)), g.normal(size=(4000, 1))
    assert gap(np.hstack([noise, 3 * factors]), factors) > 0.95
    assert gap(factors @ np.array([[1.0, 1.0], [1.0, -1.0]]), factors) < 0.05
    assert gap(np.hstack([factors, factors]), factors) == pytest.approx(0.0)


LEVELS = np.array([-3.0, -1.0, 1.0, 3.0]) / 5**0.5
OVERTONE = np.array([-1.0, 3.0, -3.0, 1.0]) / 5**0.5


def overtones(seed: int) -> tuple[Views, Array]:
    """Two independent factors of four levels, each shown by its level and, dimly, by its levels in another order."""
    g = np.random.default_rng(seed)
    factors = g.integers(0, 4, (512, 2))
    sources = np.hstack([LEVELS[factors], OVERTONE[factors], g.normal(size=(512, 56))])
    return planted(np.array([40.0, 10.0, 0.95, 0.8, *[8.25 / 56] * 56]), sources), factors


def test_a_larger_beta_keeps_the_factors_apart() -> None:
    """The overtones pay for their nats where beta is 1, and then two numbers tell of each factor."""
    gaps: dict[float, list[float]] = {1.0: [], 4.0: []}
    schedule = Schedule(updates=200, learning_rate=6e-2, batch_size=512, weight_decay=0.0)
    for seed in range(10):
        X, factors = overtones(seed)
        for beta, found in gaps.items():
            model = Disentangled(beta=beta, noise=0.25, latent=5, depth=0, schedule=schedule, seed=seed).fit(X)
            torch.manual_seed(seed)
            with torch.no_grad():
                mean, variance = model.net_.belief(to_batch(X))  # type: ignore[operator]
                found.append(gap((mean + variance.sqrt() * torch.randn(mean.shape)).numpy(), factors))
    assert np.mean(gaps[4.0]) > np.mean(gaps[1.0]) + 0.08


def test_the_head_comes_after_and_labels_choose_nothing_that_is_told() -> None:
    X, y = data()
    one, other = (Disentangled(width=8, schedule=QUICK).fit(X, labels) for labels in (y, np.where(y < 0, y, 1 - y)))
    np.testing.assert_array_equal(one.embed(X)["motion"], other.embed(X)["motion"])
    assert one.embed(X)["motion"].shape == (24, 16)
    assert not np.array_equal(one.predict_proba(X)[:, 0], other.predict_proba(X)[:, 0])
    assert {name for name, value in one.net_.named_parameters() if value.grad is not None} == {
        "head.weight",
        "head.bias",
    }
    means = torch.from_numpy(one.embed(X)["motion"])
    np.testing.assert_allclose(one.predict_proba(X), one.net_.head(means).softmax(1).detach(), rtol=1e-4)  # type: ignore[operator]
    both: Any = {"head": "beside", "width": 8, "schedule": QUICK}
    one, other = (Disentangled(**both).fit(X, labels) for labels in (y, np.where(y < 0, y, 1 - y)))
    assert not np.array_equal(one.embed(X)["motion"], other.embed(X)["motion"])


def test_with_weight_0_it_is_unimodal_and_without_others_they_change_nothing() -> None:
    X, y = data()
    same = Disentangled(weight=0, schedule=QUICK, seed=4).fit(X, y)
    baseline = create("unimodal", schedule=QUICK, seed=4).fit(X, y)
    np.testing.assert_array_equal(same.predict_proba(X), baseline.predict_proba(X))
    assert set(same.net_.state_dict()) == set(baseline.net_.state_dict())
    one, other = (Disentangled(others=0, schedule=QUICK).fit(rows, y) for rows in (X, X.only(["motion"])))
    np.testing.assert_array_equal(one.predict_proba(X), other.predict_proba(X))
    assert set(one.net_.state_dict()) == set(other.net_.state_dict())
    with pytest.raises(ConfigError, match="The 'weight' of a Disentangled that tells must be above 0 in its fit"):
        same.nats(X)


def test_telling_the_others_helps_and_noise_gives_nothing() -> None:
    gains: dict[bool, list[float]] = {False: [], True: []}
    schedule = Schedule(updates=100, learning_rate=1e-2)
    for seed in range(3):
        for noise, gain in gains.items():
            X, y, few = two_factors(seed, noise, 1000)
            settings: Any = {"width": 32, "latent": 4, "schedule": schedule, "seed": seed}
            ours = Disentangled(**settings).fit(X[:600], few[:600])
            alone = Disentangled(others=0.0, **settings).fit(X[:600], few[:600])
            gain.append(ours.score(X[600:], y[600:]) - alone.score(X[600:], y[600:]))
    assert np.mean(gains[False]) > 0.1
    assert np.mean(gains[True]) < 0.05
