"""Short videos."""

from __future__ import annotations

import math

from torch import Tensor

from transference.core.spec import ModalitySpec
from transference.nn.encoders.base import Standardised, mask_of
from transference.nn.encoders.series import Cells
from transference.nn.resampling import block_of, shrink

SIDE = 16  # pixels


class VideoEncoder(Standardised):
    """Standardised channels, frames averaged down to at most 16 by 16 pixels, then read as a series of vectors.

    It sees what moves where; detail within a frame is a task for a pretrained encoder.
    """

    def __init__(self, modality: ModalitySpec, width: int) -> None:
        length, channels, height, breadth = modality.shape
        super().__init__(modality, (channels, 1, 1))
        down, across = block_of((height, breadth), SIDE)
        self.cells = Cells(length, channels * math.prod((height // down, breadth // across)), width)

    def fit_statistics(self, values: Tensor, lengths: Tensor | None) -> None:
        frames = values[mask_of(lengths, values) > 0]  # (frames of all rows, channels, height, width)
        self.set_statistics(frames.movedim(1, -1).flatten(0, 2))

    def standard(self, values: Tensor, lengths: Tensor | None) -> Tensor:
        return super().standard(values, lengths) * mask_of(lengths, values)[:, :, None, None, None]

    def body(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        frames = shrink(x.flatten(0, 1), SIDE).flatten(1)  # (n * length, pixels)
        return self.cells(frames.unflatten(0, (-1, x.shape[1])), lengths)
