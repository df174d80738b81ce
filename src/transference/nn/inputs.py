"""A modality's low-level input as one vector of fixed size, without learned weights: (n, *shape) -> (n, size).

What early fusion lays side by side, and what a decoder is asked to reconstruct. By kind: a text is its tf-idf vector;
a sequence (series, audio, video) is the mean of its steps in each of `steps` equal stretches of its real length; a set
is the mean and the standard deviation of its elements; pixels are averaged until no side exceeds `side`; anything else
is flattened. Every number but a word's weight is then standardised over the training rows that have the modality.
"""

from __future__ import annotations

import torch
from torch import Tensor

from transference.core.spec import ModalitySpec
from transference.nn.encoders import Encoder, mask_of, rarity, weighted_words
from transference.nn.encoders.base import scale_of
from transference.nn.resampling import resample, shrink

ROUNDING = 1e-5  # of a number, by which its averages over rows of different lengths may differ


class Inputs(Encoder):
    """The low-level input of one modality.

    Attributes
    ----------
    size
        How many numbers it has.
    steps
        How many steps in time these numbers are, laid flat; 1 where there is no time.
    variance
        Total variance over the training rows: the squared error of answering with the mean; `size` where all are alike.
    """

    mean: Tensor
    scale: Tensor
    variance: Tensor
    rarity: Tensor

    def __init__(self, modality: ModalitySpec, steps: int = 8, side: int = 32) -> None:
        super().__init__(modality)
        ordered = modality.kind in ("series", "audio", "video") and len(modality.shape) > 1
        self.steps = steps if ordered else 1
        self.side = side
        self.register_buffer("rarity", torch.ones(modality.vocabulary))
        text = modality.kind == "text"
        self.size = modality.vocabulary if text else self.raw(torch.zeros(1, *modality.shape), None).shape[1]
        self.register_buffer("mean", torch.zeros(self.size))
        self.register_buffer("scale", torch.ones(self.size))
        self.register_buffer("variance", torch.ones(()))

    def raw(self, values: Tensor, lengths: Tensor | None) -> Tensor:
        """(n, size), not yet standardised."""
        if self.modality.kind == "text":
            return weighted_words(self.words(values), self.rarity)
        if self.modality.kind == "image":
            return shrink(values, self.side).flatten(1)
        if self.modality.kind == "set" and values.ndim > 2:
            mask = mask_of(lengths, values)[:, :, None]  # (n, elements, 1)
            x, count = values.flatten(2), mask.sum(1).clamp_min(1)
            mean = (x * mask).sum(1) / count
            spread = ((x - mean[:, None]).square() * mask).sum(1) / count
            return torch.cat([mean, (spread - (ROUNDING * mean).square()).clamp_min(0).sqrt()], 1)
        if self.steps == 1:
            return values.flatten(1)
        if self.modality.kind == "video" and values.ndim == 5:
            values = shrink(values.flatten(0, 1), self.side).unflatten(0, values.shape[:2])
        return resample(values, lengths, self.steps).flatten(1)

    def words(self, values: Tensor) -> Tensor:
        """(n, steps) word numbers as they are counted."""
        return values

    def fit_statistics(self, values: Tensor, lengths: Tensor | None) -> None:
        if self.modality.kind == "text":
            self.rarity.copy_(rarity(self.words(values), self.modality.vocabulary))
        x = self.raw(values, lengths)
        self.mean.copy_(x.mean(0))
        if self.modality.kind != "text":
            self.scale.copy_(scale_of(x, 1e-7 if self.modality.kind in ("vector", "table") else ROUNDING))
        variance = (x.std(0, correction=0) * self.scale).square().sum()
        self.variance.copy_(torch.where(variance > 1e-6, variance, float(self.size)))

    def standard(self, values: Tensor, lengths: Tensor | None) -> Tensor:
        return (self.raw(values, lengths) - self.mean) * self.scale

    def body(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        return x
