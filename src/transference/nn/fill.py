"""What stands for a modality that is absent."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Kind = Literal["zeros", "mean", "learned"]


class Fill(nn.Module):
    """One value of a fixed shape in the place of an absent modality: zeros, a mean, or a learned parameter.

    `follow` and `set` move it towards data; a learned fill is moved by its gradient.
    """

    value: Tensor

    def __init__(self, kind: Kind, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.kind = kind
        if kind == "learned":
            self.value = nn.Parameter(torch.zeros(shape))
        else:
            self.register_buffer("value", torch.zeros(shape))

    def reset_parameters(self) -> None:
        with torch.no_grad():
            self.value.zero_()

    def set(self, value: Tensor) -> None:
        """Become this value, (*shape)."""
        with torch.no_grad():
            self.value.copy_(value)

    def follow(self, values: Tensor, momentum: float = 0.1) -> None:
        """Step towards the mean of (n, *shape) values: an exponential moving average; nothing when n is 0."""
        if len(values):
            with torch.no_grad():
                self.value.lerp_(values.mean(0), momentum)
