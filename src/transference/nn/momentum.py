"""A copy of a module that follows it slowly: the teacher of self-distillation and of momentum contrast."""

from __future__ import annotations

import copy
from typing import Any, Self

import torch
from torch import nn


def annealed(start: float, end: float, step: int, steps: int) -> float:
    """From `start` at step 0 in a straight line to `end` at `steps`, and there it stays.

    >>> [annealed(0.5, 1.0, step, 4) for step in (0, 1, 4, 9)]
    [0.5, 0.625, 1.0, 1.0]
    """
    return end - (end - start) * max(0.0, 1 - step / steps)


class Momentum(nn.Module):
    """An exponential moving average of a module's parameters; its buffers are copied.

    It has no gradient, is in evaluation mode throughout, and is called as the module is. Since parts with other names
    start from other weights, call `start` before training.

    Examples
    --------
    >>> part = nn.Linear(1, 1)
    >>> teacher = Momentum(part)
    >>> _ = nn.init.constant_(part.weight, 1.0), nn.init.constant_(teacher.average.weight, 3.0)
    >>> teacher.follow(part, 0.75)
    >>> teacher.average.weight.item()
    2.5
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.average = copy.deepcopy(module).requires_grad_(False).eval()

    def forward(self, *inputs: Any) -> Any:
        with torch.no_grad():
            return self.average(*inputs)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.average.eval()
        return self

    def start(self, module: nn.Module) -> None:
        """Become equal to the module."""
        self.follow(module, 0.0)

    @torch.no_grad()
    def follow(self, module: nn.Module, momentum: float) -> None:
        """momentum * this + (1 - momentum) * the module, parameter by parameter."""
        for mean, value in zip(self.average.parameters(), module.parameters(), strict=True):
            mean.data.lerp_(value.data, 1 - momentum)
        for held, given in zip(self.average.buffers(), module.buffers(), strict=True):
            held.copy_(given)
