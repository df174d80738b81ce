"""Vectors, rows of a table, tiny images."""

from __future__ import annotations

import math

from torch import Tensor, nn

from transference.core.spec import ModalitySpec
from transference.nn.encoders.base import Standardised


class VectorEncoder(Standardised):
    """Standardised numbers, then a linear map plus a perceptron with one hidden layer."""

    def __init__(self, modality: ModalitySpec, width: int) -> None:
        size = math.prod(modality.shape)
        super().__init__(modality, (size,))
        self.standard_shape = (size,)
        self.linear = nn.Linear(size, width)
        self.deep = nn.Sequential(nn.Linear(size, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))

    def fit_statistics(self, values: Tensor, lengths: Tensor | None) -> None:
        self.set_statistics(values.flatten(1))

    def standard(self, values: Tensor, lengths: Tensor | None) -> Tensor:
        return super().standard(values.flatten(1), lengths)  # (n, size)

    def body(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        return self.linear(x) + self.deep(x)
