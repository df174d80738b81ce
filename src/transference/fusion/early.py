"""Early fusion: the inputs of all modalities side by side, and one network over them.

Use it when every modality is there at test time and their *interaction* matters: one hidden layer over the
concatenated inputs can learn any interaction (XOR, for one), which late fusion cannot.

    x = [x_1, ..., x_M]                           low-level inputs, standardised over the training rows
    f(x) = H (A x + B ReLU(C x + c) + a) + h      minimise  mean CE(f(x), y)

Shapes: x_m (n, d_m); A, C (width, sum of d_m); B (width, width); H (classes, width). Every modality becomes a vector
of fixed size first, see `nn.inputs`: pixels averaged to at most 32 a side, sequences as the means of 8 stretches,
texts as tf-idf. Images and sequences therefore meet without learned encoders, which is what makes this fusion early;
where local structure carries the label, fusing representations is stronger.

A and C are stored as one block a modality, each with the usual initial scale for d_m inputs, so that a modality with
few numbers is not drowned by one with many. The function is that of one matrix over the concatenation.

Cost: one perceptron, O(width * sum of d_m) a row; encoders run for none of the modalities.

Source: the taxonomy of baltrusaitis2019. Departs from it: where papers concatenate aligned sequences step by step,
sequences of any lengths are summarised here, so that all kinds of modalities can be fused early.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from transference.core.batch import Batch
from transference.core.method import Card
from transference.core.spec import DataSpec
from transference.nn.heads import head
from transference.nn.inputs import Inputs
from transference.nn.losses import supervised
from transference.nn.named import ByModality
from transference.train.neural import NeuralMethod


class EarlyNetwork(nn.Module):
    """One linear map plus one hidden layer over all inputs, block by block, and a head."""

    def __init__(self, spec: DataSpec, width: int, dropout: float = 0.2) -> None:
        super().__init__()
        inputs = {name: Inputs(modality) for name, modality in spec.modalities.items()}
        self.encoders = ByModality(inputs)
        self.linear = ByModality({name: nn.Linear(part.size, width) for name, part in inputs.items()})
        self.hidden = ByModality({name: nn.Linear(part.size, width) for name, part in inputs.items()})
        self.out = nn.Sequential(nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, width))
        self.head = head(width, spec.task)

    def encode(self, batch: Batch, name: str) -> Tensor:
        """(n, d_m) low-level input of one modality."""
        return self.encoders[name](batch.views[name], batch.lengths.get(name))

    def forward(self, batch: Batch) -> Tensor:
        """(n, classes) logits or (n, outputs) values."""
        x = {name: self.encode(batch, name) for name in self.encoders}
        linear = torch.stack([self.linear[name](value) for name, value in x.items()]).sum(0)  # (n, width)
        hidden = torch.stack([self.hidden[name](value) for name, value in x.items()]).sum(0)
        return self.head(linear + self.out(hidden))


class EarlyFusion(NeuralMethod):
    """One network over the concatenated inputs of all modalities.

    Examples
    --------
    >>> import numpy as np
    >>> from transference.core.views import Views
    >>> from transference.train.schedule import Schedule
    >>> a, b = np.array([[0, 0], [0, 1], [1, 0], [1, 1]] * 10, float).T[:, :, None]
    >>> X, y = Views.of(primary="a", a=a, b=b), np.where(a == b, "same", "other")[:, 0]
    >>> EarlyFusion(schedule=Schedule(updates=100)).fit(X, y).score(X, y)
    1.0
    """

    card: ClassVar[Card] = Card(
        summary="All inputs side by side, one network over them.",
        reference="baltrusaitis2019",
        modalities=(1, None),
        needs=frozenset({"labels", "paired"}),
        at_test="all",
        tasks=frozenset({"classification", "regression", "multilabel"}),
    )

    def build(self, spec: DataSpec) -> EarlyNetwork:
        return EarlyNetwork(spec, self.width)

    def losses(self, net: EarlyNetwork, batch: Batch) -> dict[str, Tensor]:
        return {"task": supervised(self.scores(net, batch), batch.target, self.spec_.task)}

    def scores(self, net: EarlyNetwork, batch: Batch) -> Tensor:
        return net(batch)
