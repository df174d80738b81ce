"""Modality dropout: how often what is dropped, the ridge that it amounts to, and no dropping at test time."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from transference.colearning.fusion.modality_dropout import ModalityDropout, keep_by_batch, keep_by_row
from transference.core.errors import ConfigError
from transference.core.registry import create
from transference.core.views import Views
from transference.data.loader import to_batch
from transference.train.schedule import Schedule

QUICK = Schedule(updates=12, batch_size=16, validation=0.0)


def data(n: int = 48, seed: int = 0) -> tuple[Views, NDArray[Any]]:
    g = np.random.default_rng(seed)
    y = g.integers(0, 2, n)
    X = Views.of(
        primary="x",
        x=g.normal(size=(n, 4)) + y[:, None],
        t=g.normal(size=(n, 3)) - y[:, None],
        s=g.normal(size=(n, 6, 2)) + y[:, None, None],
    )
    return X, y


def test_independent_drops_are_a_ridge_on_each_contribution() -> None:
    """E|y - sum k_m u_m|^2 = |y - sum (1 - p_m) u_m|^2 + sum p_m (1 - p_m) |u_m|^2, over a grid of all draws."""
    g = torch.Generator().manual_seed(0)
    y, u = torch.randn(5, generator=g, dtype=torch.float64), torch.randn(3, 5, generator=g, dtype=torch.float64)
    p = torch.tensor([0.25, 0.5, 0.875])
    points = (torch.arange(8) + 0.5) / 8
    draws = torch.cartesian_prod(points, points, points)  # every cell of the cube once
    kept = keep_by_row(torch.ones(512, 3, dtype=torch.bool), p, draws, keep_one=False).double()
    expected_loss = (y - kept @ u).square().sum(1).mean()
    ridge = (y - (1 - p.double()) @ u).square().sum() + (p * (1 - p)).double() @ u.square().sum(1)
    torch.testing.assert_close(expected_loss, ridge)


def test_every_row_keeps_one_and_the_frequencies_are_right() -> None:
    n, p = 40000, 0.5
    present = torch.ones(n, 2, dtype=torch.bool)
    kept = keep_by_row(present, torch.tensor([p, p]), torch.rand(n, 2, generator=torch.Generator().manual_seed(0)))
    assert kept.any(1).all()
    share = {
        pattern: (kept == torch.tensor(pattern)).all(1).float().mean().item()
        for pattern in product([True, False], repeat=2)
    }
    expected = {(True, True): 0.25, (True, False): 0.375, (False, True): 0.375, (False, False): 0.0}
    for pattern, value in expected.items():
        assert share[pattern] == pytest.approx(value, abs=4 * 0.5 / n**0.5), pattern


def test_the_method_draws_for_each_row_or_for_the_batch() -> None:
    here = torch.ones(20000, 3, dtype=torch.bool)  # the primary modality is the second
    torch.manual_seed(0)
    rows = ModalityDropout(drop=0.3, drop_primary=0.6)._drop(here, 1)
    assert len(rows.unique(dim=0)) == 7  # all patterns but the empty one
    lost = 0.3 * 0.6 * 0.3  # whose rows keep one of three
    assert rows.float().mean(0).tolist() == pytest.approx([0.7 + lost / 3, 0.4 + lost / 3, 0.7 + lost / 3], abs=0.015)
    method = ModalityDropout(drop=0.3, drop_primary=0.6, per="batch")
    batches = torch.stack([method._drop(here[:4], 1) for _ in range(4000)])
    assert (batches == batches[:, :1]).all()
    dropped = (~batches[:, 0]).float().mean(0).tolist()
    assert dropped == pytest.approx([0.3 * 0.4, 0.3 * 0.6, 0.3 * 0.4], abs=0.025)


def test_what_is_kept_is_not_rescaled() -> None:
    X, y = data()
    net, batch = ModalityDropout(schedule=QUICK).fit(X, y).net_.train(), to_batch(X)
    kept = torch.rand(len(X), 3, generator=torch.Generator().manual_seed(0)) < 0.5
    for k, (name, value) in enumerate(net.represent(batch, kept).items()):
        torch.testing.assert_close(value[kept[:, k]], net.encode(batch, name)[kept[:, k]])


def test_what_a_row_keeps_that_would_lose_all_is_any_of_it_with_equal_chance() -> None:
    """However unlike the rates are, among what the row has: of three modalities a third each, of two a half."""
    n, rates = 60000, torch.tensor([0.3, 0.9, 0.6])
    draws = torch.rand(n, 3, generator=torch.Generator().manual_seed(0))
    for present, expected in (([True, True, True], [1 / 3, 1 / 3, 1 / 3]), ([True, True, False], [0.5, 0.5, 0.0])):
        has = torch.tensor(present).expand(n, 3)
        lost = ~keep_by_row(has, rates, draws, keep_one=False).any(1)
        share = keep_by_row(has, rates, draws)[lost].float().mean(0)
        assert lost.float().mean().item() == pytest.approx(rates[torch.tensor(present)].prod().item(), abs=0.01)
        assert share.tolist() == pytest.approx(expected, abs=0.02)


def test_only_what_a_row_has_can_be_kept() -> None:
    present = torch.tensor([[True, False, False], [False, True, True]])
    certain = torch.ones(3)
    kept = keep_by_row(present, certain, torch.tensor([[0.1, 0.9, 0.5], [0.9, 0.2, 0.3]]))
    assert kept.tolist() == [[True, False, False], [False, False, True]]
    assert not keep_by_row(present, certain, torch.rand(2, 3), keep_one=False).any()


@pytest.mark.parametrize(
    ("draws", "kept"),
    [
        ([0.6, 0.0], [[True, True, True], [True, False, True]]),
        ([0.4, 0.1], [[False, True, True], [False, False, True]]),
        ([0.4, 0.3], [[True, False, False], [True, False, False]]),
    ],
)
def test_a_batch_loses_one_side(draws: list[float], kept: list[list[bool]]) -> None:
    present = torch.tensor([[True, True, True], [True, False, True]])
    assert keep_by_batch(present, 0, 0.5, 0.25, torch.tensor(draws)).tolist() == kept


def test_a_row_with_the_primary_modality_alone_keeps_it() -> None:
    present = torch.tensor([[True, False], [True, True]])
    assert keep_by_batch(present, 0, 1.0, 1.0, torch.tensor([0.5, 0.5])).tolist() == [[True, False], [False, True]]


@pytest.mark.parametrize("per", ["row", "batch"])
def test_seeing_the_primary_modality_alone_is_unimodal(per: Any) -> None:
    X, y = data()
    same = ModalityDropout(drop=1.0, drop_primary=0.0, per=per, layers=0, schedule=QUICK, seed=5).fit(X, y)
    alone = create("unimodal", schedule=QUICK, seed=5).fit(X, y)
    np.testing.assert_array_equal(same.predict_proba(X), alone.predict_proba(X))
    assert same.history_ == alone.history_


@pytest.mark.parametrize("per", ["row", "batch"])
def test_nothing_is_dropped_at_test_time(per: Any) -> None:
    X, y = data()
    model = ModalityDropout(drop=0.9, drop_primary=0.9, per=per, schedule=QUICK).fit(X, y)
    batch = to_batch(X)
    with torch.no_grad():
        net = model.net_
        everything = net.head(net.joint(net.encode(batch, "s") + net.encode(batch, "t") + net.encode(batch, "x")))
        for _ in range(3):
            torch.testing.assert_close(model.joint_scores(net, batch), everything)


@pytest.mark.parametrize("fill", ["zeros", "learned"])
def test_nothing_of_the_secondary_modalities_is_read(fill: Any) -> None:
    X, y = data()
    model = ModalityDropout(fill=fill, schedule=QUICK).fit(X, y)
    answer = model.predict_proba(X)
    poisoned = X.replace("t", np.full_like(X["t"], np.nan)).replace("s", X["s"] * 1e6)
    for other in (X.only(["x"]), X.without("t"), poisoned):
        np.testing.assert_array_equal(model.predict_proba(other), answer)
    with torch.no_grad():
        held_out = model.scores(model.net_, to_batch(X)).softmax(1).numpy()
    np.testing.assert_array_equal(held_out, answer)  # also where checkpoints are chosen


@pytest.mark.parametrize("per", ["row", "batch"])
def test_every_parameter_is_trained_also_in_batches_of_one(per: Any) -> None:
    X, y = data(8)
    first, last = (
        ModalityDropout(
            per=per, fill="learned", width=8, schedule=Schedule(updates=k, batch_size=1, warmup=0.0, weight_decay=0.0)
        ).fit(X, y)
        for k in (1, 30)
    )
    state = last.net_.state_dict()
    for name, parameter in first.net_.named_parameters():
        assert not torch.equal(parameter, state[name]), name


def test_the_global_generator_is_left_alone() -> None:
    X, y = data(16)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    ModalityDropout(schedule=QUICK).fit(X, y)
    assert torch.equal(torch.rand(3), expected)


def test_a_probability_above_one_is_refused() -> None:
    X, y = data(8)
    with pytest.raises(ConfigError, match=r"The 'drop' parameter of ModalityDropout must be a number in \[0, 1\]"):
        ModalityDropout(drop=1.5).fit(X, y)
