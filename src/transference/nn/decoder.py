"""A low-level input given step after step: a recurrent decoder that attends to encoded steps, and the way back to rows.

    a_k = softmax over real k of  v' tanh(Q s + K r_k)          which of the encoded steps r_k the decoder looks at
    s <- GRU(s; [y, sum_k a_k r_k]),   y = W [s, sum_k a_k r_k] + b

s starts as tanh(S h), y as 0. Nothing bounds y: a standardised target may be any number.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from transference.core.spec import ModalitySpec
from transference.nn.inputs import Inputs


def unexplained(answer: Tensor, target: Tensor, variance: Tensor, mask: Tensor) -> Tensor:
    """Mean over the rows in `mask` of the squared error as a share of the total variance; 0 when there is none.

    Parameters
    ----------
    answer, target
        (n, d).
    variance
        Scalar, above 0.
    mask
        (n,) bool.
    """
    missed = (answer - target).where(mask[:, None], 0.0)  # before the square: what an absent row holds has no gradient
    return missed.square().sum() / variance / mask.sum().clamp_min(1)


def over_real(energy: Tensor, mask: Tensor) -> Tensor:
    """(n, k) weights: the softmax of the energies over the real places of each row, 0 elsewhere.

    A row without any real place gets zeros.

    >>> over_real(torch.zeros(2, 3), torch.tensor([[True, True, False], [False, False, False]])).tolist()
    [[0.5, 0.5, 0.0], [0.0, 0.0, 0.0]]
    """
    least = torch.finfo(energy.dtype).min
    return energy.masked_fill(~mask, least).softmax(1) * mask


class Attention(nn.Module):
    """Additive attention: (n, width) queries and (n, k, width) states -> (n, k) weights."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.energy = nn.Linear(width, 1, bias=False)

    def forward(self, query: Tensor, states: Tensor, mask: Tensor) -> Tensor:
        hidden = torch.tanh(self.query(query)[:, None] + self.key(states))  # (n, k, width)
        return over_real(self.energy(hidden)[:, :, 0], mask)


class SequenceDecoder(nn.Module):
    """A representation and encoded steps -> (n, steps, size), one step after another.

    Parameters
    ----------
    width
        Of the representation, the encoded steps and the state.
    steps, size
        Of what is given.
    attends
        Whether there is more than one encoded step to choose from; a single one gets the whole weight.
    forcing
        Probability that, in training, a step is given the true step before it rather than the decoder's own, drawn for
        each row and step from torch's global generator. In evaluation it never is.
    """

    def __init__(self, width: int, steps: int, size: int, attends: bool = True, forcing: float = 0.0) -> None:
        super().__init__()
        self.steps = steps
        self.size = size
        self.forcing = forcing
        self.attention = Attention(width) if attends else None
        self.start = nn.Linear(width, width)
        self.cell = nn.GRUCell(size + width, width)
        self.out = nn.Linear(2 * width, size)

    def forward(self, h: Tensor, states: Tensor, mask: Tensor, truth: Tensor | None = None) -> Tensor:
        """(n, steps, size) from h (n, width), states (n, k, width), mask (n, k) bool and the true (n, steps, size)."""
        return self.unrolled(h, states, mask, truth)[0]

    def unrolled(self, h: Tensor, states: Tensor, mask: Tensor, truth: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What `forward` gives, and (n, steps, k): where each step looked."""
        forced = self.training and self.forcing > 0 and truth is not None
        state, previous = torch.tanh(self.start(h)), h.new_zeros(h.shape[0], self.size)
        given, looked = [], []
        for step in range(self.steps):
            weights = mask.to(states.dtype) if self.attention is None else self.attention(state, states, mask)
            context = torch.einsum("nk,nkw->nw", weights, states)
            state = self.cell(torch.cat([previous, context], 1), state)
            previous = self.out(torch.cat([state, context], 1))
            given.append(previous)
            looked.append(weights)
            if forced and truth is not None and step + 1 < self.steps:
                coin = torch.rand(h.shape[0], 1, device=h.device) < self.forcing
                previous = torch.where(coin, truth[:, step], previous)
        return torch.stack(given, 1), torch.stack(looked, 1)


class Translatable(Inputs):
    """A low-level input with a way back to rows.

    Attributes
    ----------
    duration
        Mean real length of the training rows, in steps; what is generated lasts that long, for its own length is
        not known.
    """

    duration: Tensor

    def __init__(self, modality: ModalitySpec, steps: int = 8, side: int = 32) -> None:
        super().__init__(modality, steps, side)
        self.register_buffer("duration", torch.tensor(float(modality.shape[0])))

    def fit_statistics(self, values: Tensor, lengths: Tensor | None) -> None:
        super().fit_statistics(values, lengths)
        if lengths is not None and len(lengths):
            self.duration.copy_(lengths.float().mean().clamp_min(1.0))

    def rows(self, x: Tensor) -> Tensor:
        """(n, size) standardised numbers -> (n, *shape) in the unit of the modality; not for texts.

        Between the middles of two stretches of a sequence it goes straight, and stays as it is after the last; pixels
        of a block are alike; every element of a set is the mean of the set.
        """
        shape = self.modality.shape
        raw = torch.where(self.scale > 0, x / self.scale.clamp_min(1e-30), 0.0) + self.mean
        if self.modality.kind == "image":
            return _enlarged(raw, shape, self.side)
        if self.modality.kind == "set" and len(shape) > 1:
            mean = raw[:, : math.prod(shape[1:])]
            return mean.view(-1, 1, *shape[1:]).expand(-1, *shape).contiguous()
        if self.size == math.prod(shape) and self.steps == 1:
            return raw.view(-1, *shape)
        parts = raw.unflatten(1, (self.steps, -1))  # (n, steps, numbers)
        place = (torch.arange(shape[0], device=x.device) + 0.5) * self.steps / self.duration - 0.5  # (length,)
        place = place.clamp(0, self.steps - 1)
        low = place.floor().long()
        high = (low + 1).clamp_max(self.steps - 1)
        share = (place - low)[None, :, None]
        long = (1 - share) * parts[:, low] + share * parts[:, high]  # (n, length, numbers)
        if self.modality.kind == "video" and len(shape) == 4:
            return _enlarged(long.flatten(0, 1), shape[1:], self.side).unflatten(0, (-1, shape[0]))
        return long.reshape(-1, *shape)


def _enlarged(pixels: Tensor, shape: tuple[int, ...], side: int) -> Tensor:
    """(n, channels, height, width) from the numbers (n, m) that `shrink` left of such pixels."""
    height, width = shape[-2:]
    down, across = -(-height // side), -(-width // side)
    small = pixels.view(-1, *shape[:-2], height // down, width // across)
    row = (torch.arange(height, device=pixels.device) // down).clamp_max(height // down - 1)
    column = (torch.arange(width, device=pixels.device) // across).clamp_max(width // across - 1)
    return small[..., row, :][..., column]
