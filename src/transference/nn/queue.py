"""A memory of unit vectors: what a contrast can be held against besides the rows of its batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

UNKNOWN = -1


class UnitQueue(nn.Module):
    """A ring of the latest `size` vectors of length 1; draws no random numbers and has no parameters.

    `enqueue` overwrites the oldest. As a memory bank, one place a training row, `follow` moves places towards new
    vectors instead. Nothing that is held has a gradient.

    A place may hold several vectors, such as one a modality: ``UnitQueue(size, modalities, width)`` is as many queues
    that move in step. A vector of zeros stays one, for a modality that is not there.

    Attributes
    ----------
    vectors
        (size, width), or (size, ..., width); places that nothing has reached yet hold zeros.
    rows
        (size,) number of the row that each place holds; `UNKNOWN` where none was given.
    place, count
        Where the next one goes; how many have come, up to `size`.

    Examples
    --------
    >>> queue = UnitQueue(2, 2)
    >>> queue.enqueue(torch.tensor([[3.0, 4.0], [0.0, 2.0], [5.0, 0.0]]))
    >>> queue.held().tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """

    vectors: Tensor
    rows: Tensor
    place: Tensor
    count: Tensor

    def __init__(self, size: int, *shape: int) -> None:
        super().__init__()
        self.register_buffer("vectors", torch.zeros(size, *shape))
        self.register_buffer("rows", torch.full((size,), UNKNOWN))
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def enqueue(self, values: Tensor, rows: Tensor | None = None) -> None:
        """Take in (n, ..., width) vectors, the last ones of them where there are more than places.

        Parameters
        ----------
        values
            Of any length.
        rows
            (n,) different row numbers. A row that is held already gets its new vectors in its place, so that no row is
            held twice; the others go where the oldest are.
        """
        size, values = len(self.vectors), F.normalize(values, dim=-1)
        if rows is None:
            rows = torch.full((len(values),), UNKNOWN, device=values.device)
        else:
            filled = torch.arange(size, device=values.device) < self.count
            same = (self.rows == rows[:, None]) & filled  # (n, size)
            known = same.any(1)
            self.vectors[same[known].int().argmax(1)] = values[known]
            values, rows = values[~known], rows[~known]
        n = len(values)
        places = ((self.place + torch.arange(n, device=values.device)) % size)[-size:]
        self.vectors[places], self.rows[places] = values[-size:], rows[-size:]
        self.place.copy_((self.place + n) % size)
        self.count.copy_((self.count + n).clamp_max(size))

    @torch.no_grad()
    def follow(self, places: Tensor, values: Tensor, momentum: float = 0.5) -> None:
        """Move the vectors at different `places` (n,) towards (n, width): normalised momentum * old + the rest * new.

        A place that held nothing takes the new vector.
        """
        moved = momentum * self.vectors[places] + (1 - momentum) * F.normalize(values, dim=-1)
        self.vectors[places] = F.normalize(moved, dim=-1)

    def held(self) -> Tensor:
        """(count, ..., width) what has been enqueued."""
        return self.vectors[: int(self.count)]
