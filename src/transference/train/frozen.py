"""What is frozen is computed once: features of the training rows, and a head that is trained on them alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from transference.core.batch import Batch
from transference.core.spec import Task
from transference.data.loader import chunks
from transference.nn.losses import supervised
from transference.train.loop import Stage, Step


def freeze(module: nn.Module) -> None:
    """No gradient for its parameters from here on, nor one left over."""
    module.requires_grad_(False).zero_grad(set_to_none=True)


class Remembered:
    """What a frozen network makes of each of these rows, found again by their numbers.

    Parameters
    ----------
    rows
        Rows with different numbers.
    compute
        Batch -> (n, ...) tensor.
    """

    def __init__(self, rows: Batch, compute: Callable[[Batch], Tensor]) -> None:
        rows = rows.take(rows.rows.argsort(stable=True))
        self.rows = rows.rows
        with torch.no_grad():
            self.values = torch.cat([compute(chunk) for chunk in chunks(rows)])

    def of(self, batch: Batch) -> Tensor:
        """(n, ...) of rows that are among them."""
        return self.values[torch.searchsorted(self.rows, batch.rows)]


def head_alone(features: Callable[[Any, Batch], Tensor], task: Task, rate: float = 1.0) -> Stage:
    """A last stage that trains ``net.head`` on (n, width) features of labelled rows; all else is frozen.

    Parameters
    ----------
    features
        (network, batch) -> (n, width), as the method's scores read them.
    rate
        Multiple of the schedule's learning rate.
    """
    found: list[Remembered] = []

    def begin(net: Any, rows: Batch) -> None:
        freeze(net)
        net.head.requires_grad_(True)
        found.append(Remembered(rows.labelled, lambda batch: features(net, batch)))

    def losses(net: Any, batch: Batch) -> dict[str, Tensor]:
        known = batch.labelled
        return {"task": supervised(net.head(found[-1].of(known)), known.target, task)}

    return Stage("head", (Step(losses, parameters=lambda net: net.head.parameters(), rate=rate),), begin=begin)
