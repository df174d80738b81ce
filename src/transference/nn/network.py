"""The network most methods start from: an encoder a modality, and a head."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Self

from torch import Tensor, nn

from transference.core.batch import Batch
from transference.core.spec import DataSpec, Task
from transference.nn.encoders import Encoder, encoder
from transference.nn.heads import head
from transference.nn.named import ByModality


class Network(nn.Module):
    """Encoders by modality name, each (n, *shape) -> (n, width), and a head over `inputs` of them side by side."""

    def __init__(self, spec: DataSpec, names: Iterable[str], width: int, inputs: int = 1) -> None:
        super().__init__()
        self.encoders = ByModality({name: encoder(spec.modalities[name], width) for name in names})
        self.head = head(width * inputs, spec.task)

    @classmethod
    def of(cls, encoders: Mapping[str, nn.Module], width: int, task: Task) -> Self:
        """From encoders that are there already, and a head over (n, width)."""
        net = cls.__new__(cls)
        nn.Module.__init__(net)
        net.encoders = ByModality(dict(encoders))
        net.head = head(width, task)
        return net

    def encode(self, batch: Batch, name: str) -> Tensor:
        """(n, width) representation of one modality; what a row that lacks it gets means nothing."""
        part: Encoder = self.encoders[name]  # type: ignore[assignment]
        return part(batch.views[name], batch.lengths.get(name))
