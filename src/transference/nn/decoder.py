"""A low-level input given step after step: a recurrent decoder that attends to encoded steps.

    a_k = softmax over real k of  v' tanh(Q s + K r_k)          which of the encoded steps r_k the decoder looks at
    s <- GRU(s; [y, sum_k a_k r_k]),   y = W [s, sum_k a_k r_k] + b

s starts as tanh(S h), y as 0. Nothing bounds y: a standardised target may be any number.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


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
