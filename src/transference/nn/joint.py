"""One network over all modalities, in which a modality may be absent."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from transference.core.spec import DataSpec
from transference.nn.network import Network


class Residual(nn.Module):
    """z + a perceptron of z: (n, width) -> (n, width)."""

    def __init__(self, width: int, dropout: float = 0.2) -> None:
        super().__init__()
        self.deep = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, width))

    def forward(self, z: Tensor) -> Tensor:
        return z + self.deep(z)


class JointNetwork(Network):
    """Encoders by modality name, the sum of their representations, joint layers, a head.

    Since every encoder ends in a linear map, the sum is the same family of functions as a linear map of the
    concatenation; an absent modality whose representation is zero leaves it as it is. Without joint layers the
    network on the primary modality alone is that of `unimodal`.
    """

    def __init__(self, spec: DataSpec, width: int, layers: int) -> None:
        super().__init__(spec, sorted(spec.modalities), width)
        self.joint = nn.Sequential(*[Residual(width) for _ in range(layers)])

    def fuse(self, representations: Mapping[str, Tensor]) -> Tensor:
        """Name -> (n, width), of every modality in the same order, to (n, classes) logits or (n, outputs) values."""
        total: Tensor | None = None
        for value in representations.values():
            total = value if total is None else total + value
        return self.head(self.joint(total))
