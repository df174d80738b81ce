"""A small encoder for every kind of modality: (n, *shape) -> (n, width).

Each learns its input statistics once, before training, from the training rows that have the modality
(`fit_statistics`), and keeps them as buffers, so that raw rows go in at training, prediction and export alike.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from transference.core.spec import ModalitySpec


class Encoder(nn.Module, ABC):
    """One modality's encoder.

    `forward` takes values (n, *shape) and, for modalities whose rows differ in length, lengths (n,).
    """

    def __init__(self, modality: ModalitySpec) -> None:
        super().__init__()
        self.modality = modality

    @abstractmethod
    def fit_statistics(self, values: Tensor, lengths: Tensor | None) -> None:
        """Learn means, scales or document frequencies from rows that have the modality."""

    @abstractmethod
    def forward(self, values: Tensor, lengths: Tensor | None) -> Tensor:
        """(n, width)."""


def encoder(modality: ModalitySpec, width: int) -> Encoder:
    """The default encoder for a modality."""
    if modality.kind == "text":
        return WordEncoder(modality, width)
    if modality.kind == "image" and min(modality.shape[1:]) >= 8:
        return ImageEncoder(modality, width)
    if modality.kind in ("series", "audio") and len(modality.shape) == 2:
        return SeriesEncoder(modality, width)
    return VectorEncoder(modality, width)


def mask_of(lengths: Tensor | None, values: Tensor) -> Tensor:
    """(n, length) float32, 1 where a step is real."""
    steps = torch.arange(values.shape[1], device=values.device)
    if lengths is None:
        return torch.ones(values.shape[:2], device=values.device)
    return (steps < lengths[:, None]).to(values.dtype)


class VectorEncoder(Encoder):
    """Standardised numbers, then a linear map plus a two-layer perceptron: never less than a linear model."""

    mean: Tensor
    scale: Tensor

    def __init__(self, modality: ModalitySpec, width: int, dropout: float = 0.2) -> None:
        super().__init__(modality)
        size = int(torch.Size(modality.shape).numel())
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))
        self.linear = nn.Linear(size, width)
        self.deep = nn.Sequential(nn.Linear(size, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, width))

    def fit_statistics(self, values: Tensor, lengths: Tensor | None) -> None:
        flat = values.flatten(1)
        self.mean.copy_(flat.mean(0))
        deviation = flat.std(0, correction=0)
        self.scale.copy_(torch.where(deviation > 1e-6, 1 / deviation.clamp_min(1e-6), 0.0))

    def forward(self, values: Tensor, lengths: Tensor | None) -> Tensor:
        x = (values.flatten(1) - self.mean) * self.scale
        return self.linear(x) + self.deep(x)


class WordEncoder(Encoder):
    """Word numbers to tf-idf, unit length, then a linear map. Number 0 is padding and counts for nothing."""

    rarity: Tensor

    def __init__(self, modality: ModalitySpec, width: int) -> None:
        super().__init__(modality)
        self.register_buffer("rarity", torch.ones(modality.vocabulary))
        self.linear = nn.Linear(modality.vocabulary, width)

    def counts(self, words: Tensor) -> Tensor:
        """(n, vocabulary) how often each word occurs."""
        empty = torch.zeros(words.shape[0], self.modality.vocabulary, device=words.device)
        number = words.long()
        return empty.scatter_add(1, number, (number > 0).to(empty.dtype))

    def fit_statistics(self, values: Tensor, lengths: Tensor | None) -> None:
        documents = (self.counts(values) > 0).sum(0)
        self.rarity.copy_(torch.log((1 + len(values)) / (1 + documents)) + 1)

    def forward(self, values: Tensor, lengths: Tensor | None) -> Tensor:
        weight = torch.log1p(self.counts(values)) * self.rarity
        return self.linear(F.normalize(weight, dim=1) * weight.shape[1] ** 0.25)


class SeriesEncoder(Encoder):
    """Standardised channels, three 1-d convolutions, then mean and maximum over the real steps."""

    mean: Tensor
    scale: Tensor

    def __init__(self, modality: ModalitySpec, width: int, kernel: int = 5) -> None:
        super().__init__(modality)
        channels = modality.shape[1]
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("scale", torch.ones(channels))
        sizes = (channels, width, width, width)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(a, b, kernel, padding=kernel // 2) for a, b in zip(sizes[:-1], sizes[1:], strict=True)
        )
        self.out = nn.Linear(2 * width, width)

    def fit_statistics(self, values: Tensor, lengths: Tensor | None) -> None:
        real = values[mask_of(lengths, values) > 0]
        self.mean.copy_(real.mean(0))
        deviation = real.std(0, correction=0)
        self.scale.copy_(torch.where(deviation > 1e-6, 1 / deviation.clamp_min(1e-6), 0.0))

    def forward(self, values: Tensor, lengths: Tensor | None) -> Tensor:
        mask = mask_of(lengths, values)[:, None, :]  # (n, 1, length)
        x = ((values - self.mean) * self.scale).transpose(1, 2) * mask  # (n, channels, length)
        for k, convolution in enumerate(self.convolutions):
            y = F.relu(convolution(x)) * mask
            x = y + x if k else y
        mean = x.sum(2) / mask.sum(2).clamp_min(1)
        return self.out(torch.cat([mean, x.amax(2)], 1))


class ImageEncoder(Encoder):
    """Centred pixels, two convolutions with pooling, then a perceptron."""

    mean: Tensor
    scale: Tensor

    def __init__(self, modality: ModalitySpec, width: int) -> None:
        super().__init__(modality)
        channels, height, breadth = modality.shape
        self.register_buffer("mean", torch.zeros(channels, 1, 1))
        self.register_buffer("scale", torch.ones(channels, 1, 1))
        self.first = nn.Conv2d(channels, 16, 3, padding=1)
        self.second = nn.Conv2d(16, 32, 3, padding=1)
        self.out = nn.Sequential(nn.Linear(32 * (height // 4) * (breadth // 4), width), nn.ReLU(), nn.Linear(width, width))

    def fit_statistics(self, values: Tensor, lengths: Tensor | None) -> None:
        self.mean.copy_(values.mean((0, 2, 3))[:, None, None])
        self.scale.copy_(1 / values.std((0, 2, 3), correction=0).clamp_min(1e-6)[:, None, None])

    def forward(self, values: Tensor, lengths: Tensor | None) -> Tensor:
        x = (values - self.mean) * self.scale
        x = F.relu(F.max_pool2d(self.first(x), 2))
        x = F.relu(F.max_pool2d(self.second(x), 2))
        return self.out(x.flatten(1))
