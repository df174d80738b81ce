"""The momentum copy: its two limits, its closed form, and that nothing else moves it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from transference.nn.momentum import Momentum, annealed


def part(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Dropout(0.5))


def test_momentum_1_never_moves_and_0_is_the_module_itself() -> None:
    module, teacher = part(0), Momentum(part(1))
    before = [value.clone() for value in teacher.average.parameters()]
    teacher.follow(module, 1.0)
    assert all(torch.equal(one, other) for one, other in zip(before, teacher.average.parameters(), strict=True))
    teacher.follow(module, 0.0)
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), teacher.average.parameters(), strict=True))


@pytest.mark.parametrize(("momentum", "updates"), [(0.9, 1), (0.5, 7), (0.99, 40)])
def test_behind_a_module_that_stands_still_it_comes_nearer_as_a_power(momentum: float, updates: int) -> None:
    module, start = part(0).double(), part(1).double()
    teacher = Momentum(start)
    for _ in range(updates):
        teacher.follow(module, momentum)
    triples = zip(teacher.average.parameters(), module.parameters(), start.parameters(), strict=True)
    for found, theta, first in triples:
        torch.testing.assert_close(found, theta - momentum**updates * (theta - first), rtol=1e-12, atol=1e-12)


def test_it_copies_and_its_buffers_are_those_of_the_module() -> None:
    module = part(0)
    teacher = Momentum(module)
    module(torch.ones(4, 3))  # moves the running mean
    teacher.start(module)
    assert torch.equal(teacher.average[1].running_mean, module[1].running_mean)
    with torch.no_grad():
        module[0].weight.add_(1.0)
    assert not torch.equal(teacher.average[0].weight, module[0].weight)


def test_it_has_no_gradient_and_does_not_drop_out() -> None:
    teacher = Momentum(part(0)).train()
    x = torch.ones(4, 3, requires_grad=True)
    assert not teacher(x).requires_grad
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert torch.equal(teacher(x), teacher.average.eval()(x))


def test_the_straight_line_from_start_to_end() -> None:
    for s in range(30):
        assert annealed(0.9, 0.99, s, 30) == pytest.approx(0.99 - (0.99 - 0.9) * (1 - s / 30), abs=1e-15)
    assert annealed(0.9, 0.99, 0, 30) == pytest.approx(0.9)
    assert annealed(0.9, 0.99, 30, 30) == annealed(0.9, 0.99, 99, 30) == 0.99
