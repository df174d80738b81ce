"""What a decoder is asked for: a low-level input of which every number weighs alike, and the way back to rows.

Of a text it is the `WORDS` words that most training rows have, in one unit for all of them, so that a word deviates by
1 on average; see `nn.inputs` for the rest.

What was averaged comes back as the smoothest signal with these averages: read again, it is the same low-level input. A
sequence lasts as long as the training rows on average, then its last step is held; every element of a set is its mean.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from transference.core.errors import DataError, must_be
from transference.core.spec import ModalitySpec
from transference.nn.encoders import word_counts
from transference.nn.inputs import Inputs
from transference.nn.resampling import block_of, resample

WORDS = 1024  # of a text, padding among them
ROUGHNESS = 1e-7  # what a smooth answer may cost in exactness


def undo(means: Tensor) -> Tensor:
    """(size, cells): the smoothest signals that have given means, as a linear map of these.

    Parameters
    ----------
    means
        (cells, size): how each cell is averaged from a signal. Where there are as many cells as numbers or more, the
        signal is known, and its smoothness does not matter.

    >>> halves = torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]])
    >>> (halves @ undo(halves) @ torch.tensor([1.0, 4.0])).round(decimals=3).tolist()
    [1.0, 4.0]
    """
    average = means.cpu().double()
    steps = torch.eye(average.shape[1], dtype=torch.double).diff(dim=0)
    return torch.linalg.solve(average.T @ average + ROUGHNESS * steps.T @ steps, average.T).to(means)


class Reversible(Inputs):
    """A low-level input with a way back to rows.

    Attributes
    ----------
    duration
        Mean real length of the training rows, in steps; what is generated lasts that long, for its own length is
        not known.
    frequent
        The word numbers of a text that are kept, in ascending order, padding first.
    """

    duration: Tensor
    frequent: Tensor
    place: Tensor

    def __init__(self, modality: ModalitySpec, steps: int = 8, side: int = 32) -> None:
        super().__init__(replace(modality, vocabulary=min(modality.vocabulary, WORDS)), steps, side)
        self.register_buffer("duration", torch.tensor(float(modality.shape[0])))
        if modality.kind == "text":
            self.register_buffer("frequent", torch.arange(self.size))
            self.register_buffer("place", torch.zeros(modality.vocabulary, dtype=torch.int64))

    def words(self, values: Tensor) -> Tensor:
        return self.place[values.long()]

    def fit_statistics(self, values: Tensor, lengths: Tensor | None) -> None:
        if self.modality.kind == "text":
            documents = (word_counts(values, len(self.place)) > 0).sum(0)
            documents[0] = len(values) + 1  # padding is always first
            self.frequent.copy_(documents.topk(self.size).indices.sort().values)
            self.place.zero_()[self.frequent] = torch.arange(self.size, device=self.place.device)
        super().fit_statistics(values, lengths)
        if self.modality.kind == "text":
            self.scale.fill_((self.size / self.variance).sqrt())
            self.variance.fill_(float(self.size))
        if lengths is not None and len(lengths):
            self.duration.copy_(lengths.float().mean().clamp_min(1.0))

    def rows(self, x: Tensor) -> Tensor:
        """(n, size) standardised numbers -> (n, *shape) in the unit of the modality.

        Raises
        ------
        DataError
            For a text, whose words have no order in its low-level input.
        """
        return self.spread(torch.where(self.scale > 0, x / self.scale.clamp_min(1e-30), 0.0) + self.mean)

    def spread(self, raw: Tensor) -> Tensor:
        """As `rows`, from numbers (n, size) in the unit of the modality."""
        kind, shape = self.modality.kind, self.modality.shape
        if kind == "text":
            remedy = "A text has no order here: words cannot be put together from their weights. Ask for retrieval."
            raise DataError(must_be(f"The modality {self.modality.name!r} to generate", "numbers", "text", remedy))
        if kind == "set" and len(shape) > 1:
            mean = raw[:, : raw.shape[1] // 2].unflatten(1, (1, *shape[1:]))
            return mean.expand(-1, *shape).contiguous()
        if kind == "image":
            return self._enlarged(raw)
        if self.steps == 1:
            return raw.view(-1, *shape)
        parts = raw.unflatten(1, (self.steps, -1))  # (n, steps, numbers)
        if kind == "video" and len(shape) == 4:
            parts = self._enlarged(parts.flatten(0, 1)).flatten(1).unflatten(0, (-1, self.steps))
        length = int(self.duration.round())
        means = resample(torch.eye(length, device=raw.device)[None], None, self.steps)[0]  # (steps, length)
        signal = torch.einsum("ls,nsd->nld", undo(means), parts)
        held = signal[:, -1:].expand(-1, shape[0] - length, -1)
        return torch.cat([signal, held], 1).unflatten(2, shape[1:])

    def _enlarged(self, values: Tensor) -> Tensor:
        """(n, channels, height, width) from pixels (n, m) averaged over blocks."""
        channels, height, width = self.modality.shape[-3:]
        block = block_of((height, width), self.side)
        down, across = _blocks(height, block[0], values), _blocks(width, block[1], values)
        pixels = values.view(-1, channels, len(down), len(across))
        return torch.einsum("hi,wj,ncij->nchw", undo(down), undo(across), pixels)


def _blocks(size: int, block: int, like: Tensor) -> Tensor:
    """(cells, size): means over whole blocks; what is left over at the end counts in none."""
    cells = size // block
    means = torch.eye(cells, device=like.device).repeat_interleave(block, 1) / block
    return F.pad(means, (0, size - cells * block))
