"""What every encoder is, and the statistics and masks they share."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from transference.core.spec import ModalitySpec


class Encoder(nn.Module, ABC):
    """One modality's encoder.

    `forward` takes values (n, *shape) and, for modalities whose rows differ in length, lengths (n,). What lies beyond
    a row's length never matters, and no row depends on another one.

    Attributes
    ----------
    standard_shape
        Of one row of `standard`.
    """

    standard_shape: tuple[int, ...]

    def __init__(self, modality: ModalitySpec) -> None:
        super().__init__()
        self.modality = modality
        self.standard_shape = modality.shape

    @abstractmethod
    def fit_statistics(self, values: Tensor, lengths: Tensor | None) -> None:
        """Learn means, scales or document frequencies from rows that have the modality."""

    @abstractmethod
    def standard(self, values: Tensor, lengths: Tensor | None) -> Tensor:
        """What the first layer sees: values in the unit of the training rows' statistics; no learned weights."""

    @abstractmethod
    def body(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        """(n, width) from such standard values; a sequence may have any number of steps."""

    def forward(self, values: Tensor, lengths: Tensor | None) -> Tensor:
        """(n, width)."""
        return self.body(self.standard(values, lengths), lengths)


class Standardised(Encoder):
    """An encoder that subtracts a mean and multiplies by a scale.

    Parameters
    ----------
    size
        Shape of the statistics; it broadcasts against a row.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, modality: ModalitySpec, size: tuple[int, ...]) -> None:
        super().__init__(modality)
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))

    def set_statistics(self, samples: Tensor) -> None:
        """From (samples, numbers): mean 0 and deviation 1 for each number; one that is constant becomes 0.

        Without a sample, as where every row is of length 0, numbers stay as they are.
        """
        if not len(samples):
            return
        self.mean.copy_(samples.mean(0).view_as(self.mean))
        self.scale.copy_(scale_of(samples).view_as(self.scale))

    def standard(self, values: Tensor, lengths: Tensor | None) -> Tensor:
        return (values - self.mean) * self.scale


def scale_of(samples: Tensor, least: float = 1e-7) -> Tensor:
    """(numbers,) one over the deviation of each of (samples, numbers), whatever its unit; 0 where it is constant.

    Constant is what deviates by no more than `least` of its largest value, by default what float32 can hold.

    >>> scale_of(torch.tensor([[0.25, 7.0], [0.75, 7.0]])).tolist()
    [4.0, 0.0]
    """
    deviation = samples.std(0, correction=0)
    constant = deviation <= least * torch.maximum(samples.amax(0), -samples.amin(0))
    return torch.where(constant, 0.0, 1 / deviation.clamp_min(1e-30))


def mask_of(lengths: Tensor | None, values: Tensor) -> Tensor:
    """(n, length) float32, 1 where a step is real."""
    steps = torch.arange(values.shape[1], device=values.device)
    if lengths is None:
        return torch.ones(values.shape[:2], device=values.device)
    return (steps < lengths[:, None]).to(values.dtype)
