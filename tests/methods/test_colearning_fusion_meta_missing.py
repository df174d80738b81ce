"""SMIL: the meta-gradient by finite differences, the hull of the centroids, the perturbation, and the plain network."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import linprog
from torch import Tensor
from torch.nn import functional as F

from transference.colearning.fusion.meta_missing import (
    ImaginingNetwork,
    MetaMissing,
    Perturbation,
    centroids_of,
    combine,
    inner_rows,
    inner_step,
)
from transference.core.batch import Batch
from transference.core.errors import ConfigError
from transference.core.views import Views
from transference.data.corrupt import control
from transference.data.loader import to_batch
from transference.data.planted import planted
from transference.train.schedule import Schedule
from transference.unimodal import Unimodal

FAST = Schedule(updates=20, batch_size=16, device="cpu")
UNTRAINED = Schedule(updates=1, learning_rate=1e-12, device="cpu")


def data(n: int = 48, seed: int = 0) -> tuple[Views, NDArray[Any]]:
    g = np.random.default_rng(seed)
    y = np.arange(n) % 3
    centre = 2 * np.eye(3)[y]
    X = Views.of(
        primary="x",
        x=np.hstack([centre, centre]) + g.normal(size=(n, 6)),
        t=centre + 0.2 * g.normal(size=(n, 3)),
        s=(centre + 0.5 * g.normal(size=(n, 3)))[:, None, :] * np.ones((1, 4, 1)),
    )
    return X, y + 10


def fitted(X: Views | None = None, **parameters: Any) -> tuple[MetaMissing, ImaginingNetwork]:
    rows, y = data()
    method = MetaMissing(**{"schedule": FAST, **parameters}).fit(rows if X is None else X, y)
    net: Any = method.net_
    return method, net


def in_hull(point: Tensor, corners: Tensor) -> bool:
    """Whether weights of at least 0 that sum to 1 make the point (d,) of the corners (k, d): a linear programme."""
    k = len(corners)
    equal = np.vstack([corners.numpy().T, np.ones(k)])
    found = linprog(np.zeros(k), A_eq=equal, b_eq=np.append(point.numpy(), 1.0), bounds=(0, None))
    return bool(found.status == 0)


def test_the_meta_gradient_of_a_quadratic_is_that_of_finite_differences() -> None:
    """Inner p'Ap/2 - b'p, outer |p' - c|^2/2: the gradient is (I - rate A)(p' - c), not p' - c."""
    A = torch.tensor([[3.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
    b, c = torch.tensor([1.0, -1.0], dtype=torch.float64), torch.tensor([0.5, 2.0], dtype=torch.float64)
    rate = 0.2

    def inner(p: Mapping[str, Tensor]) -> Tensor:
        v = torch.stack([p["one"], p["two"]])
        return v @ A @ v / 2 - b @ v

    def outer(one: Tensor, two: Tensor) -> Tensor:
        moved, _ = inner_step(inner, {"one": one, "two": two}, rate)
        return (torch.stack([moved["one"], moved["two"]]) - c).square().sum() / 2

    start = torch.tensor([0.7, -0.4], dtype=torch.float64)
    at = [value.clone().requires_grad_() for value in start]
    gradient = torch.stack(torch.autograd.grad(outer(*at), at))
    step, differences = 1e-5, []
    for k in range(2):
        up, down = start.clone(), start.clone()
        up[k] += step
        down[k] -= step
        values = [outer(*(v.clone().requires_grad_() for v in p)).item() for p in (up, down)]
        differences.append((values[0] - values[1]) / (2 * step))
    moved = start - rate * (A @ start - b)
    assert gradient.tolist() == pytest.approx(differences, abs=1e-8)
    assert gradient.tolist() == pytest.approx(((torch.eye(2) - rate * A) @ (moved - c)).tolist(), abs=1e-12)
    assert abs(gradient - (moved - c)).min() > 0.1  # of first order alone


def test_the_meta_gradient_of_the_network_is_that_of_finite_differences() -> None:
    """Of the outer loss, in a random direction, through the step that the inner rows take."""
    method, net = fitted(inner_rate=0.5, imagination=0.0, schedule=UNTRAINED)
    X, y = data()
    net.double().train()
    batch = to_batch(X, y - 10)
    batch = Batch(
        {k: v.double() for k, v in batch.views.items()}, batch.present, batch.lengths, batch.target, batch.rows
    )
    parameters = [each for each in net.parameters() if each.requires_grad]

    def outer() -> Tensor:
        torch.manual_seed(0)
        return method.losses(net, batch)["outer"]

    gradient = torch.autograd.grad(outer(), parameters)
    g = torch.Generator().manual_seed(1)
    direction = [torch.randn(each.shape, generator=g, dtype=torch.float64) for each in parameters]
    slope = float(sum((a * b).sum() for a, b in zip(gradient, direction, strict=True)))
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            for each, d in zip(parameters, direction, strict=True):
                each.add_(d, alpha=sign * 1e-6 * (1 if sign > 0 else 2))
        values.append(outer().item())
    assert slope == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-3)
    method.inner_rate = 0.0
    flat = torch.autograd.grad(outer(), parameters)
    assert abs(sum(float((a * b).sum()) for a, b in zip(flat, direction, strict=True)) - slope) > 0.01 * abs(slope)


def test_what_is_imagined_lies_in_the_hull_of_the_centroids() -> None:
    _, net = fitted(clusters=6)
    X, _ = data(20, seed=3)
    part = copy.deepcopy(net.imagination["t"]).double()
    with torch.no_grad():
        imagined = part(net.encode(to_batch(X), "x").double())
    assert all(in_hull(point, part.centroids) for point in imagined)
    outside = part.centroids[0] + 1.01 * (part.centroids[0] - part.centroids.mean(0))
    assert not in_hull(outside, part.centroids)
    assert imagined.std(0).max() > 1e-3  # rows differ


def test_one_certain_weight_is_a_centroid_and_weights_need_no_scale() -> None:
    corners = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 8.0]])
    assert torch.equal(combine(torch.eye(3) * 7, corners), corners)
    assert combine(torch.tensor([[1.0, 1.0, 2.0]]), corners)[0].tolist() == [1.0, 4.0]


def test_a_single_centroid_is_the_mean_of_all_pairs_labelled_or_not() -> None:
    X, y = data()
    X = X.replace("t", X["t"], present=np.arange(48) % 5 > 0)
    labels = np.where(np.arange(48) < 24, y, -1)
    method = MetaMissing(clusters=1, schedule=FAST).fit(X, labels)
    net: Any = method.net_
    mean = method.embed(X[X.present["t"]])["t"].mean(0)
    with torch.no_grad():
        imagined = net.imagination["t"](net.encode(to_batch(X), "x"))
    assert imagined.numpy() == pytest.approx(np.tile(mean, (48, 1)), abs=1e-4)


def test_centroids_of_three_heaps_and_of_too_few_values() -> None:
    heaps = np.repeat(np.float32([[0, 0], [10, 0], [0, 10]]), 20, axis=0)
    near = heaps + np.random.default_rng(0).normal(size=heaps.shape).astype(np.float32) * 0.1
    found = centroids_of(near, 3, 0)
    assert sorted(np.round(found).tolist()) == [[0, 0], [0, 10], [10, 0]]
    few = centroids_of(heaps, 5, 0)
    assert few.shape == (5, 2)
    assert {tuple(np.round(each)) for each in few} == {(0, 0), (10, 0), (0, 10)}


def test_half_of_a_batch_takes_the_inner_step_or_all_that_lack_the_others() -> None:
    draws = torch.tensor([0.5, 0.1, 0.9, 0.2, 0.7, 0.3])
    everyone = torch.ones(6, dtype=torch.bool)
    assert inner_rows(everyone, draws).tolist() == [False, True, False, True, False, True]
    one_less = torch.tensor([True, True, False, True, True, True])
    assert inner_rows(one_less, draws).tolist() == [False, True, True, True, False, False]
    few = torch.tensor([False, False, True, False, False, True])
    assert inner_rows(few, draws).tolist() == (~few).tolist()
    assert inner_rows(everyone[:1], draws[:1]).tolist() == [False]


def test_the_perturbation_has_the_mean_of_a_softplus_of_a_gaussian() -> None:
    part = Perturbation(2, 3)
    with torch.no_grad():
        part.bias.copy_(torch.tensor([-3.0, 0.0, 2.0]))
        part.weight.zero_()
    points, weights = np.polynomial.hermite_e.hermegauss(60)
    expected = [float((weights * np.log1p(np.exp(m + points))).sum() / weights.sum()) for m in (-3.0, 0.0, 2.0)]
    torch.manual_seed(0)
    drawn = part.train()(torch.zeros(40000, 2))
    assert drawn.mean(0).tolist() == pytest.approx(expected, abs=0.02)
    assert expected[1] > math.log(2) + 0.05  # so that a mean without noise would not pass
    still = part.eval()(torch.zeros(1, 2))[0].tolist()
    assert still == pytest.approx([math.log1p(math.exp(m)) for m in (-3.0, 0.0, 2.0)], rel=1e-6)
    part.reset_parameters()
    assert part.bias.tolist() == [-3.0] * 3


def test_with_every_modality_present_it_is_the_plain_fusion_network_bit_for_bit() -> None:
    X, _ = data()
    method, net = fitted(weight=0.7)
    batch = to_batch(X)
    for part in net.imagination.values():
        part.centroids.fill_(float("nan"))  # nothing is imagined
    with torch.no_grad():
        f, s, t = (net.encode(batch, name) for name in ("x", "s", "t"))
        h = F.relu(net.hidden(torch.cat([f, s, t], 1)))
        assert torch.equal(method.joint_scores(net, batch), net.head(f + 0.7 * net.out(h)))


def test_an_answer_against_a_slow_loop() -> None:
    """Row by row; t is imagined where it is absent, and what is added has no noise."""
    X, _ = data(8, seed=2)
    X = X.replace("t", X["t"], present=np.arange(8) % 2 == 0)
    method, net = fitted(weight=0.7, clusters=4)
    batch = to_batch(X)

    def soft(v: Tensor) -> Tensor:
        return (1 + v.exp()).log()

    with torch.no_grad():
        scores, far = net(batch, True)
        total = 0.0
        for i in range(8):
            row = batch.take(torch.tensor([i]))
            f = net.encode(row, "x")[0]
            parts = [f, net.encode(row, "s")[0], net.encode(row, "t")[0]]
            if i % 2:
                some: Any = net.imagination["t"]
                o = soft(some.weights(f))
                parts[2] = sum(o[k] * some.centroids[k] for k in range(4)) / o.sum()
            clean = torch.cat(parts)
            x = clean + soft(net.perturb_joint.weight @ f + net.perturb_joint.bias)
            h = net.hidden(x).clamp_min(0)
            h = h + soft(net.perturb_hidden.weight @ x + net.perturb_hidden.bias)
            assert net.head(f + 0.7 * net.out(h)).tolist() == pytest.approx(scores[i].tolist(), abs=1e-4)
            total += float((x - clean).square().mean() + (h - net.hidden(clean).clamp_min(0)).square().mean()) / 8
        assert far.item() == pytest.approx(total, rel=1e-4)
        alone = net(batch.only(["x"]), True)[0].softmax(1).numpy()
    assert np.array_equal(method.predict_proba(X), alone)


@pytest.mark.parametrize("lacking", [6, 0])
def test_the_losses_by_hand(lacking: int) -> None:
    """Some rows take the inner step, seen through the primary alone; the others judge theta' = theta - a grad."""
    X, y = data(10)
    there = np.arange(10) >= lacking
    X = X.replace("t", X["t"], present=there).replace("s", X["s"], present=there)
    method, net = fitted(inner_rate=0.3, closeness=0.5, imagination=3.0)
    net.eval()
    batch = to_batch(X, y - 10)
    torch.manual_seed(3)
    losses = method.losses(net, batch)
    torch.manual_seed(3)
    mask = inner_rows(torch.from_numpy(there), torch.rand(10))
    assert int(mask.sum()) == max(lacking, 5)
    inner, outer, pairs = batch.take(mask), batch.take(~mask), batch.take(torch.from_numpy(there))
    before = F.cross_entropy(method.scores(net, inner.only(["x"])), inner.target)  # type: ignore[arg-type]
    assert losses["inner"].item() == pytest.approx(before.item(), rel=1e-5)
    moved = copy.deepcopy(net)
    trained = [each for each in net.parameters() if each.requires_grad]
    gradients = torch.autograd.grad(before, trained)
    with torch.no_grad():
        for each, gradient in zip([p for p in moved.parameters() if p.requires_grad], gradients, strict=True):
            each.sub_(gradient, alpha=0.3)
        scores, far = moved(outer, True)
        f = net.encode(pairs, "x")
        missed = []
        for name in "st":
            some: Any = net.imagination[name]
            missed.append(float((some(f) - net.encode(pairs, name)).square().sum() / len(pairs) / some.variance))
        task = F.cross_entropy(scores, outer.target)  # type: ignore[arg-type]
    assert losses["outer"].item() == pytest.approx(task.item(), rel=1e-4)
    assert losses["closeness"].item() == pytest.approx(0.5 * far.item(), rel=1e-4)
    assert losses["imagination"].item() == pytest.approx(3.0 * sum(missed) / 2, rel=1e-4)


def test_the_priors_are_those_of_the_fixed_encoders() -> None:
    X, y = data()
    method, net = fitted(X, clusters=1)
    start = MetaMissing(clusters=1, schedule=UNTRAINED).fit(X, y)
    for name in ("s", "t"):
        assert all(each.grad is None and not each.requires_grad for each in net.encoders[name].parameters())
        shown = method.embed(X)[name]
        prior: Any = net.imagination[name]
        assert prior.centroids[0].numpy() == pytest.approx(shown.mean(0), abs=1e-4)
        assert prior.variance.item() == pytest.approx(shown.var(0).sum(), rel=1e-4)
        assert not np.allclose(start.embed(X)[name], shown, atol=1e-3)  # they did learn, in the first stage


def test_weight_zero_is_unimodal_bit_for_bit() -> None:
    X, y = data()
    y = np.where(np.arange(48) % 4 == 3, -1, y)
    zero, plain = (m.fit(X, y) for m in (MetaMissing(weight=0, schedule=FAST, seed=4), Unimodal(schedule=FAST, seed=4)))
    assert np.array_equal(zero.decide(X), plain.decide(X))
    assert zero.history_ == plain.history_


def test_answers_are_deterministic_and_read_the_primary_alone() -> None:
    X, _ = data(12, seed=5)
    method, net = fitted()
    answer = method.predict_proba(X)
    with torch.no_grad():  # as held-out rows are asked, with everything in place
        assert np.array_equal(method.scores(net, to_batch(X)).softmax(1).numpy(), answer)
    for other in (X, X.only(["x"]), X.without("t"), X.replace("t", np.full_like(X["t"], np.nan))):
        assert np.array_equal(method.predict_proba(other), answer)


@pytest.mark.parametrize("lacking", [0, 47])
def test_batches_of_one_and_rows_that_nearly_all_lack_the_others_are_learned_from(lacking: int) -> None:
    X, y = data()
    there = np.arange(48) >= lacking
    for name in ("s", "t"):
        X = X.replace(name, np.where(there.reshape(-1, *[1] * (X[name].ndim - 1)), X[name], 0), present=there)
    method = MetaMissing(schedule=Schedule(updates=6, batch_size=1, device="cpu")).fit(X, y)
    assert np.isfinite(method.predict_proba(X)).all()


def test_unlabelled_pairs_help_where_labels_are_few_and_shuffled_ones_do_not() -> None:
    gains: dict[str, list[float]] = {"paired": [], "shuffled": []}
    brief = Schedule(updates=100, device="cpu")
    for seed in range(3):
        rows = planted("redundant", 1000, seed, width=12)
        train = np.arange(1000) < 300
        X, y, test, truth = rows.views[train], rows.y[train].copy(), rows.views[~train], rows.y[~train]
        few = np.concatenate([np.flatnonzero(y == name)[:5] for name in np.unique(y)])
        y[np.setdiff1d(np.arange(300), few)] = None
        plain = Unimodal(schedule=brief, seed=seed).fit(X, y).score(test, truth)
        for kind, found in gains.items():
            views = X if kind == "paired" else control(X, "shuffle", seed, ["z"])
            found.append(MetaMissing(schedule=brief, seed=seed).fit(views, y).score(test, truth) - plain)
    assert np.mean(gains["paired"]) > 0.05
    assert np.mean(gains["shuffled"]) < 0.02


def test_parameters_are_checked() -> None:
    with pytest.raises(ConfigError, match="The 'clusters' parameter of MetaMissing must be an integer of at least 1"):
        fitted(clusters=0)
