"""Signals of any size brought to a fixed one by averaging: no learned weights."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def resample(values: Tensor, lengths: Tensor | None, steps: int) -> Tensor:
    """(n, length, *d) -> (n, steps, *d): means over equal stretches of each row's real steps.

    A step that two stretches share counts in each by its share. What lies beyond a row's length counts for nothing;
    a row of length 0 gives zeros.

    >>> values = torch.tensor([[[1.0], [2.0], [3.0], [6.0], [99.0]]])
    >>> resample(values, torch.tensor([4]), 2).flatten().tolist()
    [1.5, 4.5]
    """
    n, length = values.shape[:2]
    real = torch.full((1,), length, device=values.device) if lengths is None else lengths
    start = torch.arange(length, device=values.device)  # (length,)
    edges = torch.arange(steps + 1, device=values.device) * real[:, None] / steps  # (n or 1, steps + 1)
    low, high = edges[:, :-1, None], edges[:, 1:, None]
    overlap = (torch.minimum(start + 1, high) - torch.maximum(start, low)).clamp_min(0)  # (n or 1, steps, length)
    share = (overlap / overlap.sum(2, keepdim=True).clamp_min(1e-6)).to(values.dtype)  # sums to 1, however rounded
    return torch.matmul(share, values.flatten(2)).view(n, steps, *values.shape[2:])


def block_of(size: tuple[int, int], side: int) -> tuple[int, int]:
    """How many pixels, down and across, become one so that neither side exceeds `side`."""
    return -(-size[0] // side), -(-size[1] // side)


def shrink(pixels: Tensor, side: int) -> Tensor:
    """(n, channels, height, width), averaged over whole blocks until neither side exceeds `side`."""
    block = block_of((pixels.shape[2], pixels.shape[3]), side)
    return pixels if max(block) == 1 else F.avg_pool2d(pixels, block)
