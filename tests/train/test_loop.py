"""The loop: the same as one written by hand, and every promise of its docstrings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, AdamW, Optimizer

from transference.core.batch import Batch
from transference.core.errors import DivergenceError
from transference.data.loader import batches
from transference.train.loop import Stage, Step, rate_at, train
from transference.train.schedule import Schedule

CALM = Schedule(updates=40, batch_size=8, learning_rate=0.1, weight_decay=0.0, warmup=0.0, checks=4)


def rows(n: int = 24, labelled: int | None = None) -> Batch:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 3, generator=generator)
    y = (x[:, 0] > 0).long()
    y[n if labelled is None else labelled :] = -1
    return Batch({"x": x}, {"x": torch.ones(n, dtype=torch.bool)}, {}, y, torch.arange(n))


class Point(nn.Module):
    """Two numbers that can be moved."""

    def __init__(self, a: float = 0.0, b: float = 0.0) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(a))
        self.b = nn.Parameter(torch.tensor(b))


def classify(net: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
    assert batch.target is not None
    known = batch.target >= 0
    return {"task": F.cross_entropy(net(batch.views["x"][known]), batch.target[known])}


def linear() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(3, 2)


def sgd(parameters: list[nn.Parameter], rate: float) -> Optimizer:
    return SGD(parameters, lr=rate)


def test_equals_a_loop_written_by_hand_bit_for_bit() -> None:
    schedule = Schedule(updates=30, batch_size=8, learning_rate=0.01, weight_decay=0.1, warmup=0.2, checks=3)
    ours, theirs, data = linear(), linear(), rows()
    history = train(ours, [Stage("train", (Step(classify),))], data, schedule, seed=5)

    optimizer = AdamW(theirs.parameters(), lr=0.01, weight_decay=0.1, fused=True)
    seen = []
    for update, batch in enumerate(batches(data, 8, 30, 5, False), 1):
        share = update / 6 if update <= 6 else 0.5 * (1 + math.cos(math.pi * (update - 7) / 23))
        loss = F.cross_entropy(theirs(batch.views["x"]), batch.target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.param_groups[0]["lr"] = 0.01 * share
        optimizer.step()
        seen.append(loss.item())
    assert torch.equal(ours.weight, theirs.weight)
    assert torch.equal(ours.bias, theirs.bias)
    assert [line["update"] for line in history] == [10, 20, 30]
    assert [line["task"] for line in history] == pytest.approx([sum(seen[k : k + 10]) / 10 for k in (0, 10, 20)])


def test_the_same_seed_gives_the_same_bits_and_another_one_does_not() -> None:
    nets = []
    for seed in (1, 1, 2):
        net = linear()
        train(net, [Stage("train", (Step(classify),))], rows(), CALM, seed)
        nets.append(net.weight)
    assert torch.equal(nets[0], nets[1])
    assert not torch.equal(nets[0], nets[2])


def test_a_quadratic_reaches_its_minimum() -> None:
    """(a - 3)² + 2 (b + 1)², two named losses, has its minimum at (3, -1)."""
    net = Point()
    step = Step(lambda net, batch: {"a": (net.a - 3) ** 2, "b": 2 * (net.b + 1) ** 2}, optimizer=sgd)
    history = train(net, [Stage("train", (step,))], rows(), replace(CALM, updates=100), seed=0)
    assert (net.a.item(), net.b.item()) == pytest.approx((3, -1), abs=1e-3)
    assert history[0]["a"] > history[-1]["a"]
    assert set(history[0]) == {"update", "a", "b"}


def test_alternating_steps_move_their_own_parameters_on_the_same_batch() -> None:
    """One plain step each: a by the first loss, then b by the second, which sees the new a."""
    seen: list[list[int]] = []

    def first(net: Point, batch: Batch) -> Mapping[str, Tensor]:
        seen.append(batch.rows.tolist())
        return {"first": (net.a - 1) ** 2 + net.b}

    def second(net: Point, batch: Batch) -> Mapping[str, Tensor]:
        seen.append(batch.rows.tolist())
        return {"second": (net.b - net.a) ** 2}

    net = Point()
    steps = (
        Step(first, parameters=lambda net: [net.a], optimizer=sgd),
        Step(second, parameters=lambda net: [net.b], optimizer=sgd, rate=2.0),
    )
    schedule = Schedule(updates=1, batch_size=8, learning_rate=0.1, warmup=0.0)
    train(net, [Stage("train", steps)], rows(), schedule, seed=0)
    assert net.a.item() == pytest.approx(0.2)  # 0 - 0.1 * 2 (0 - 1)
    assert net.b.item() == pytest.approx(0.08)  # 0 - 0.2 * 2 (0 - 0.2)
    assert seen[0] == seen[1]


def test_every_stage_has_its_multiple_of_the_updates_and_tells_when() -> None:
    calls: list[tuple[str, int]] = []

    def stage(name: str, share: float) -> Stage:
        return Stage(
            name,
            (Step(lambda net, batch: {name: net.a**2}, parameters=lambda net: [net.a]),),
            share=share,
            begin=lambda net, data: calls.append((f"begin {name}", len(data))),
            after=lambda net, done: calls.append((name, done)),
            answers=name == "two",
        )

    schedule = Schedule(updates=4, batch_size=8, checks=2)
    history = train(Point(1.0), [stage("one", 0.5), stage("two", 1.0)], rows(), schedule, seed=0)
    assert calls == [
        *(("begin one", 24), ("one", 1), ("one", 2)),
        *(("begin two", 24), ("two", 3), ("two", 4), ("two", 5), ("two", 6)),
    ]
    assert [sorted(line) for line in history] == [["one: one", "update"]] * 2 + [["two", "update"]] * 2
    assert [line["update"] for line in history] == [1, 2, 4, 6]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_named(bad: float) -> None:
    def losses(net: Point, batch: Batch) -> Mapping[str, Tensor]:
        return {"fine": net.a**2, "wild": net.b * bad}

    with pytest.raises(
        DivergenceError, match=r"The loss 'wild' of stage 'warm' became (nan|inf) by update 10\. Lower .*learning_rate"
    ):
        train(Point(1.0, 1.0), [Stage("warm", (Step(losses),))], rows(), CALM, seed=0)


def test_the_best_held_out_state_comes_back() -> None:
    """a falls from 1 by 0.01 an update; held-out rows like it best near 0.8, which is update 20."""
    net = Point(1.0)
    step = Step(lambda net, batch: {"a": net.a, "b": 0 * net.b}, optimizer=lambda p, rate: Fixed(p))
    asked = []

    def held_out() -> float:
        asked.append(net.a.item())
        net.eval()
        return abs(net.a.item() - 0.79)

    history = train(net, [Stage("train", (step,))], rows(), CALM, seed=0, held_out=held_out)
    assert asked == pytest.approx([0.9, 0.8, 0.7, 0.6])
    assert net.a.item() == pytest.approx(0.8)
    assert [line["held out"] for line in history] == pytest.approx([0.11, 0.01, 0.09, 0.19], abs=1e-5)
    assert net.training


def test_a_stage_that_does_not_answer_is_not_scored() -> None:
    step = Step(lambda net, batch: {"a": net.a**2}, parameters=lambda net: [net.a])
    stage = Stage("pretext", (step,), answers=False)
    history = train(Point(1.0), [stage], rows(), CALM, seed=0, held_out=lambda: pytest.fail("was asked"))
    assert all("held out" not in line for line in history)


class Fixed(SGD):
    """Every step is 0.01 down the sign of the gradient, whatever the rate."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        super().__init__(parameters, lr=1.0)

    @torch.no_grad()
    def step(self, closure: object = None) -> None:  # type: ignore[override]
        for parameter in self.param_groups[0]["params"]:
            if parameter.grad is not None:
                parameter -= 0.01 * parameter.grad.sign()


def test_the_gradient_is_clipped() -> None:
    """Gradient (30, 40) has norm 50; clipped to 5 it is (3, 4)."""
    net = Point()
    step = Step(lambda net, batch: {"steep": 30 * net.a + 40 * net.b}, optimizer=sgd)
    schedule = Schedule(updates=1, batch_size=8, learning_rate=0.1, warmup=0.0, clip=5.0)
    train(net, [Stage("train", (step,))], rows(), schedule, seed=0)
    assert (net.a.item(), net.b.item()) == pytest.approx((-0.3, -0.4), rel=1e-4)


def test_labelled_rows_come_alike_whether_unlabelled_ones_are_used_or_not() -> None:
    orders: list[list[list[int]]] = []
    for unlabelled in (False, True):
        seen: list[list[int]] = []

        def losses(net: nn.Module, batch: Batch, seen: list[list[int]] = seen) -> Mapping[str, Tensor]:
            seen.append(batch.rows.tolist())
            return classify(net, batch)

        stage = Stage("train", (Step(losses),))
        train(linear(), [stage], rows(labelled=10), CALM, seed=3, unlabelled=unlabelled)
        orders.append(seen)
    alone, both = orders
    assert all(len(step) == 8 and max(step) < 10 for step in alone)
    assert [step[:8] for step in both] == alone
    assert all(len(step) == 16 and min(step[8:]) >= 10 for step in both)


def test_an_epoch_holds_every_row_once() -> None:
    seen = [row for batch in batches(rows(), 8, 3, 0, False) for row in batch.rows.tolist()]
    assert sorted(seen) == list(range(24))


def test_fewer_rows_than_a_batch_are_all_used() -> None:
    assert [sorted(batch.rows.tolist()) for batch in batches(rows(5), 8, 3, 0, False)] == [list(range(5))] * 3


@pytest.mark.parametrize(
    ("update", "share"),
    [(1, 0.25), (4, 1.0), (5, 1.0), (8, 0.75), (11, 0.25), (14, 0.0)],
    # 14 updates, 4 of them rising; then half a cosine over 9 intervals: 8 is a third of it, 11 two thirds
)
def test_the_rate_rises_then_falls_along_a_cosine(update: int, share: float) -> None:
    assert rate_at(update, 14, 0.3) == pytest.approx(share)


def test_a_single_update_is_taken_at_the_full_rate() -> None:
    assert rate_at(1, 1, 0.05) == 1.0
