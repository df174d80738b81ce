"""A memory of unit vectors: what a contrast can be held against besides the rows of its batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class UnitQueue(nn.Module):
    """A ring of the latest `size` vectors of length 1; draws no random numbers and has no parameters.

    `enqueue` overwrites the oldest. As a memory bank, one place a training row, `follow` moves places towards new
    vectors instead. Nothing that is held has a gradient.

    Attributes
    ----------
    vectors
        (size, width); places that nothing has reached yet hold zeros.
    place, count
        Where the next one goes; how many have come, up to `size`.

    Examples
    --------
    >>> queue = UnitQueue(size=2, width=2)
    >>> queue.enqueue(torch.tensor([[3.0, 4.0], [0.0, 2.0], [5.0, 0.0]]))
    >>> queue.held().tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """

    vectors: Tensor
    place: Tensor
    count: Tensor

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.register_buffer("vectors", torch.zeros(size, width))
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def enqueue(self, values: Tensor) -> None:
        """Take in (n, width) vectors, the last ones of them where there are more than places."""
        size, n = len(self.vectors), len(values)
        places = (self.place + torch.arange(n, device=values.device)) % size
        self.vectors[places[-size:]] = F.normalize(values[-size:], dim=1)
        self.place.copy_((self.place + n) % size)
        self.count.copy_((self.count + n).clamp_max(size))

    @torch.no_grad()
    def follow(self, places: Tensor, values: Tensor, momentum: float = 0.5) -> None:
        """Move the vectors at different `places` (n,) towards (n, width): normalised momentum * old + the rest * new.

        A place that held nothing takes the new vector.
        """
        moved = momentum * self.vectors[places] + (1 - momentum) * F.normalize(values, dim=1)
        self.vectors[places] = F.normalize(moved, dim=1)

    def held(self) -> Tensor:
        """(count, width) what has been enqueued."""
        return self.vectors[: int(self.count)]
