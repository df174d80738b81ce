"""Images of 8 by 8 pixels or more."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from transference.core.spec import ModalitySpec
from transference.nn.encoders.base import Standardised
from transference.nn.resampling import block_of, shrink

DEEP, LINEAR = 32, 16  # longest side, in pixels, that each path sees


class ImageEncoder(Standardised):
    """Standardised channels, then a linear map of coarse pixels plus two convolutions and a perceptron.

    Sides above 32 pixels are averaged down: detail that matters there is a task for a pretrained encoder.
    """

    def __init__(self, modality: ModalitySpec, width: int) -> None:
        channels, height, breadth = modality.shape
        super().__init__(modality, (channels, 1, 1))
        self.first = nn.Conv2d(channels, 16, 3, padding=1)
        self.second = nn.Conv2d(16, 32, 3, padding=1)
        pixels = 32 * _pixels(height, breadth, DEEP, 4)
        self.out = nn.Sequential(nn.Linear(pixels, width), nn.ReLU(), nn.Linear(width, width))
        self.linear = nn.Linear(channels * _pixels(height, breadth, LINEAR, 1), width)

    def fit_statistics(self, values: Tensor, lengths: Tensor | None) -> None:
        self.set_statistics(values.movedim(1, -1).flatten(0, 2))

    def body(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        straight = self.linear(shrink(x, LINEAR).flatten(1))
        x = F.relu(F.max_pool2d(self.first(shrink(x, DEEP)), 2))
        x = F.relu(F.max_pool2d(self.second(x), 2))
        return straight + self.out(x.flatten(1))


def _pixels(height: int, breadth: int, side: int, pooled: int) -> int:
    down, across = block_of((height, breadth), side)
    return (height // down // pooled) * (breadth // across // pooled)
