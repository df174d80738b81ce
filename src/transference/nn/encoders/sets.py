"""Sets of vectors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from transference.core.spec import ModalitySpec
from transference.nn.encoders.base import Standardised, mask_of


class SetEncoder(Standardised):
    """Standardised elements, each through a perceptron; their mean and maximum, whatever their order.

    Beside it a linear map of the elements' mean and mean square.
    """

    def __init__(self, modality: ModalitySpec, width: int) -> None:
        channels = modality.shape[1]
        super().__init__(modality, (channels,))
        self.element = nn.Sequential(nn.Linear(channels, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.linear = nn.Linear(2 * channels, width)
        self.out = nn.Linear(2 * width, width)

    def fit_statistics(self, values: Tensor, lengths: Tensor | None) -> None:
        self.set_statistics(values[mask_of(lengths, values) > 0])

    def standard(self, values: Tensor, lengths: Tensor | None) -> Tensor:
        return super().standard(values, lengths) * mask_of(lengths, values)[:, :, None]

    def body(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        mask = mask_of(lengths, x)[:, :, None]  # (n, elements, 1)
        count = mask.sum(1).clamp_min(1)
        y = self.element(x) * mask  # at least 0, so that a masked element is never the maximum
        straight = self.linear(torch.cat([(x * mask).sum(1) / count, (x.square() * mask).sum(1) / count], 1))
        return straight + self.out(torch.cat([y.sum(1) / count, y.amax(1)], 1))
