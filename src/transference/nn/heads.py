"""From a representation to scores."""

from __future__ import annotations

from torch import nn

from transference.core.spec import Task


def head(width: int, task: Task) -> nn.Linear:
    """(n, width) -> (n, classes) logits or (n, outputs) values."""
    return nn.Linear(width, task.outputs)
