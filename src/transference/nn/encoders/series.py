"""Series of vectors, and sound as log-mel frames."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from transference.core.spec import ModalitySpec
from transference.nn.encoders.base import Standardised, mask_of
from transference.nn.resampling import resample

MOST, FEWEST = 32, 8  # cells


class Cells(nn.Module):
    """(n, length, channels) -> (n, width): the real steps averaged into cells of equal duration, then two paths.

    Both see each row minus its mean over time, so that neither a person's size and place nor a microphone's colour is
    learned once per cell. The linear path sees every cell, and the mean and the deviation over time once each. The deep
    path: three convolutions over time, halved after the first two, then the means of its stretches and the maximum over
    all; beside them a layer that reads the mean and the deviation, since what these say of a class is seldom linear.
    """

    def __init__(self, length: int, channels: int, width: int, kernel: int = 3) -> None:
        super().__init__()
        self.cells = max(FEWEST, min(MOST, 1 << (length.bit_length() - 1)))  # a power of 2
        self.stretches = min(4, self.cells // 4)
        sizes = (channels, width, width, width)
        self.convolutions = nn.ModuleList(nn.Conv1d(a, b, kernel, padding=kernel // 2) for a, b in pairwise(sizes))
        self.linear = nn.Linear((self.cells + 2) * channels, width)
        self.level = nn.Linear(2 * channels, width)
        self.out = nn.Linear((self.stretches + 2) * width, width)

    def forward(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        x = resample(x, lengths, self.cells)  # (n, cells, channels)
        mean = x.mean(1, keepdim=True)
        x = x - mean
        deviation = (x.square().mean(1, keepdim=True) + 1e-4).sqrt()  # differentiable where nothing moves
        straight = self.linear(torch.cat([x, mean, deviation], 1).flatten(1))
        first, second, third = self.convolutions
        x = F.relu(F.max_pool1d(first(x.transpose(1, 2)), 2))  # (n, width, cells / 2)
        x = F.max_pool1d(x + F.relu(second(x)), 2)  # (n, width, cells / 4)
        x = x + F.relu(third(x))
        means = x.unflatten(2, (self.stretches, -1)).mean(3).flatten(1)  # (n, width * stretches)
        level = F.relu(self.level(torch.cat([mean, deviation], 1).flatten(1)))
        return straight + self.out(torch.cat([means, x.amax(2), level], 1))


class SeriesEncoder(Standardised):
    """Standardised channels, the real steps averaged into at most 32 cells, then `Cells`."""

    def __init__(self, modality: ModalitySpec, width: int) -> None:
        length, channels = modality.shape
        super().__init__(modality, (channels,))
        self.cells = Cells(length, channels, width)

    def fit_statistics(self, values: Tensor, lengths: Tensor | None) -> None:
        self.set_statistics(values[mask_of(lengths, values) > 0])

    def standard(self, values: Tensor, lengths: Tensor | None) -> Tensor:
        return super().standard(values, lengths) * mask_of(lengths, values)[:, :, None]

    def body(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        return self.cells(x, lengths)
