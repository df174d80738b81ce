"""Late fusion: a predictor a modality, and the mean of their scores over the modalities that a row has.

Use it when rows lack modalities, at training or at test time, or when the modalities each carry the label by
themselves: predictors that err independently err less together. It cannot learn an interaction: the fused score is a
sum of one function a modality, so on XOR it stays at chance.

    s(x) = sum_m w_m p_m s_m(x_m) / sum_m w_m p_m         p_m = 1 where the row has modality m; w_primary = 1
    minimise  (1 - joint) sum_m CE(s_m, y) over the rows that have m  +  joint CE(s, y)

Shapes: s_m (n, classes). The mean is one of logits (for regression, of values), not of probabilities: the fused logits
are then additive in the modalities, and their empirical additive projection is themselves. With joint = 0, the
default, each predictor is trained as if it were alone, so that none is held back by a faster one; with joint = 1 only
the mean is trained. A row that has none of the weighted modalities teaches nothing, so it is left out of training; it
gets scores of 0. Every weighted modality needs a labelled row that has it: a predictor that learned nothing must not be
averaged with those that did.

Cost: one encoder and one linear head a modality.

Source: the taxonomy of baltrusaitis2019. Departs from nothing: it fixes the mean of logits among the variants there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from transference.core.batch import Batch, labelled
from transference.core.errors import DataError
from transference.core.method import Card
from transference.core.parameters import Interval
from transference.core.spec import DataSpec
from transference.core.views import Views
from transference.nn.heads import head
from transference.nn.losses import supervised
from transference.nn.named import ByModality
from transference.nn.network import Network
from transference.train.neural import NeuralMethod
from transference.train.schedule import Schedule


def weighted_mean(scores: Mapping[str, Tensor], present: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Mean over the modalities that each row has; 0 where it has none.

    Parameters
    ----------
    scores
        Name -> (n, k), one modality or more; of a row that lacks the modality they may be anything.
    present
        Name -> (n,) bool.
    weights
        Name -> weight of the modality, above 0.

    >>> one, two = torch.tensor([[1.0], [1.0]]), torch.tensor([[4.0], [9.0]])
    >>> here = {"a": torch.tensor([True, True]), "b": torch.tensor([True, False])}
    >>> weighted_mean({"a": one, "b": two}, here, {"a": 1.0, "b": 0.5}).tolist()
    [[2.0], [1.0]]
    """
    total = torch.zeros_like(next(iter(scores.values())))
    weight = torch.zeros_like(total[:, :1])
    for name, value in scores.items():
        here = present[name][:, None]
        total = total + weights[name] * value.where(here, 0.0)
        weight = weight + weights[name] * here
    return total / weight.where(weight > 0, 1.0)


class LateNetwork(Network):
    """A predictor a modality: encoders by name; `head` for the primary modality, `heads` by name for the others."""

    def __init__(self, spec: DataSpec, secondary: tuple[str, ...], width: int) -> None:
        super().__init__(spec, sorted((spec.primary, *secondary)), width)
        self.primary = spec.primary
        self.heads = ByModality({name: head(width, spec.task) for name in secondary})

    def predict(self, batch: Batch, name: str) -> Tensor:
        """(n, classes) logits or (n, outputs) values from one modality."""
        own = self.head if name == self.primary else self.heads[name]
        return own(self.encode(batch, name))


class LateFusion(NeuralMethod):
    """The mean of one predictor's scores a modality.

    Parameters
    ----------
    secondary_weight
        Weight of each secondary modality in the mean; the primary one has 1. With 0 the others have no predictor, only
        the rows that have the primary modality are trained on, and the method is the primary modality alone.
    joint
        Share, in [0, 1], of the loss of the mean; the rest is each predictor's own.
    width, schedule, seed
        See `NeuralMethod`.
    """

    card: ClassVar[Card] = Card(
        summary="A predictor a modality; the mean of their scores over what a row has.",
        reference="baltrusaitis2019",
        modalities=(1, None),
        needs=frozenset({"labels"}),
        at_test="any",
        tasks=frozenset({"classification", "regression", "multilabel"}),
    )
    constraints = {"secondary_weight": Interval(0), "joint": Interval(0, 1)}

    def __init__(
        self,
        *,
        secondary_weight: float = 1.0,
        joint: float = 0.0,
        width: int = 64,
        schedule: Schedule = Schedule(),
        seed: int = 0,
    ) -> None:
        super().__init__(width=width, schedule=schedule, seed=seed)
        self.secondary_weight = secondary_weight
        self.joint = joint

    def build(self, spec: DataSpec) -> LateNetwork:
        return LateNetwork(spec, spec.secondary if self.secondary_weight > 0 else (), self.width)

    def losses(self, net: LateNetwork, batch: Batch) -> dict[str, Tensor]:
        parts = self._parts(net, batch)
        losses = {}
        if self.joint < 1:
            for name, scores in parts.items():
                target = batch.complete([name]).target
                own = supervised(scores[batch.present[name]], target, self.spec_.task)
                losses[f"task {name}"] = (1 - self.joint) * own
        if self.joint > 0:
            losses["task"] = self.joint * supervised(self._mean(parts, batch), batch.target, self.spec_.task)
        return losses

    def scores(self, net: LateNetwork, batch: Batch) -> Tensor:
        return self._mean(self._parts(net, batch), batch)

    def _trainable(self, X: Views, target: NDArray[Any]) -> tuple[Views, NDArray[Any]]:
        names = X.names if self.secondary_weight > 0 else (X.primary,)
        known = labelled(torch.from_numpy(target)).numpy()
        for name in names:
            if not (known & X.present[name]).any():
                raise DataError(
                    f"No labelled row has {name!r}, so its predictor cannot learn. Leave it out of the study."
                )
        mask = np.logical_or.reduce([X.present[name] for name in names])
        return (X, target) if mask.all() else (X.take(mask), target[mask])

    def _parts(self, net: LateNetwork, batch: Batch) -> dict[str, Tensor]:
        """Name -> (n, classes) scores of each modality of the batch that has a predictor."""
        return {name: net.predict(batch, name) for name in net.encoders if name in batch.views}

    def _mean(self, parts: Mapping[str, Tensor], batch: Batch) -> Tensor:
        if not parts:
            return torch.zeros(len(batch), self.spec_.task.outputs, device=batch.rows.device)
        primary = self.spec_.primary
        weights = {name: 1.0 if name == primary else self.secondary_weight for name in parts}
        return weighted_mean(parts, batch.present, weights)
