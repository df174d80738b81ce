"""Modality dropout: one model of all modalities that meets every pattern of absence while it trains.

Use it where one model should answer with and without the secondary modalities: unlike zero filling, the model learns
what an absent modality looks like. With the primary modality alone it can gain only through the layers that all
modalities share, so compare it with its controls before believing that anything was transferred.

    s(x) = head(J(sum_m k_m h_m + (1 - k_m) c_m)),  h_m = E_m(x_m)       minimise  mean CE(s, y)

per = "row" (neverova2016): k_m ~ Bernoulli(1 - p_m) for each row and modality, p_m = `drop` for a secondary modality
and `drop_primary` for the primary one; a row that would lose all that it has keeps one of it, each with equal chance
whatever the p_m.
per = "batch" (shi2022avhubert, p_m and p_a there): with probability `drop` the whole batch loses something: the primary
modality with probability `drop_primary`, else all secondary ones; a row that has nothing else keeps the primary one.

c_m is 0, or a learned vector a modality. Nothing is rescaled. In evaluation nothing is dropped, k_m says what is there.

Shapes: h_m, c_m (n, width); k_m (n,). Cost in training: one encoder a modality; deployed: one encoder.

For a linear additive model and independent drops (without "keep one") the expected loss is a ridge on what each
modality contributes:  E|y - sum_m k_m u_m|^2 = |y - sum_m (1 - p_m) u_m|^2 + sum_m p_m (1 - p_m) |u_m|^2.

Sources: neverova2016, shi2022avhubert. Departs from them: the whole representation is dropped, before the sum;
neverova2016 keeps no modality for certain; J is a residual perceptron, see `nn.joint`.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from transference.core.batch import Batch
from transference.core.method import Card
from transference.core.parameters import Interval, Options
from transference.core.spec import DataSpec
from transference.nn.fill import Fill
from transference.nn.joint import JointNetwork
from transference.nn.losses import supervised
from transference.nn.named import ByModality
from transference.train.neural import NeuralMethod
from transference.train.schedule import Schedule


def keep_by_row(present: Tensor, drop: Tensor, draws: Tensor, keep_one: bool = True) -> Tensor:
    """(n, m) bool: which of its modalities each row keeps.

    Parameters
    ----------
    present
        (n, m) bool: what each row has.
    drop
        (m,) probabilities that a modality is dropped.
    draws
        (n, m) uniform in [0, 1).
    keep_one
        Whether a row that would lose everything keeps one.
    """
    kept = present & (draws >= drop)
    if not keep_one:
        return kept
    spared = (draws / drop.clamp_min(1e-9)).masked_fill(~present, -1.0).argmax(1, keepdim=True)  # (n, 1)
    one = torch.zeros_like(present).scatter(1, spared, True) & present
    return kept | (one & ~kept.any(1, keepdim=True))


def keep_by_batch(present: Tensor, primary: int, drop: float, drop_primary: float, draws: Tensor) -> Tensor:
    """(n, m) bool: all rows lose the primary modality, or all secondary ones, or nothing.

    Parameters
    ----------
    present
        (n, m) bool.
    primary
        Its column.
    drop, drop_primary
        Probability that something is lost; probability that, if so, it is the primary modality.
    draws
        (2,) uniform in [0, 1).
    """
    if not bool(draws[0] < drop):
        return present
    is_primary = torch.arange(present.shape[1], device=present.device) == primary
    if bool(draws[1] < drop_primary):
        kept = present & ~is_primary
        return torch.where(kept.any(1, keepdim=True), kept, present)
    kept = present & is_primary
    return torch.where(kept.any(1, keepdim=True), kept, present)


class DroppedNetwork(JointNetwork):
    """A joint network whose fills stand for dropped and absent modalities alike."""

    def __init__(self, spec: DataSpec, width: int, layers: int, fill: Literal["zeros", "learned"]) -> None:
        super().__init__(spec, width, layers)
        self.fills = ByModality({name: Fill(fill, (width,)) for name in sorted(spec.modalities)})

    def represent(self, batch: Batch, kept: Tensor) -> dict[str, Tensor]:
        """Name -> (n, width), the fill where `kept` (n, m) is False; in training, one no row keeps is not encoded."""
        found = {}
        for name, here in zip(self.encoders, kept.unbind(1), strict=True):
            fill: Fill = self.fills[name]  # type: ignore[assignment]
            found[name] = fill.value.expand(batch.rows.shape[0], -1)
            if name in batch.views and not (self.training and not bool(here.any())):
                found[name] = torch.where(here[:, None], self.encode(batch, name), found[name])
        return found


class ModalityDropout(NeuralMethod):
    """One model of all modalities, trained with modalities dropped at random.

    Parameters
    ----------
    drop, drop_primary
        Probabilities; what of depends on `per`. With 1 and 0 only the primary modality is ever seen, and with no
        `layers` besides, the method is `unimodal`.
    per
        "row": each row and modality by itself; "batch": one draw a batch.
    fill
        "zeros" or "learned", in the space of representations.
    layers
        Residual layers between the summed representations and the head.
    width, schedule, seed
        See `NeuralMethod`.
    """

    card: ClassVar[Card] = Card(
        summary="One model of all modalities, trained with modalities dropped at random.",
        reference="neverova2016",
        modalities=(2, None),
        needs=frozenset({"labels", "paired"}),
        at_test="primary",
        tasks=frozenset({"classification", "regression", "multilabel"}),
    )
    constraints = {
        "drop": Interval(0, 1),
        "drop_primary": Interval(0, 1),
        "per": Options("row", "batch"),
        "fill": Options("zeros", "learned"),
        "layers": Interval(0, 4, whole=True),
    }

    def __init__(
        self,
        *,
        drop: float = 0.5,
        drop_primary: float = 0.5,
        per: Literal["row", "batch"] = "row",
        fill: Literal["zeros", "learned"] = "zeros",
        layers: int = 1,
        width: int = 64,
        schedule: Schedule = Schedule(),
        seed: int = 0,
    ) -> None:
        super().__init__(width=width, schedule=schedule, seed=seed)
        self.drop = drop
        self.drop_primary = drop_primary
        self.per = per
        self.fill = fill
        self.layers = layers

    def build(self, spec: DataSpec) -> DroppedNetwork:
        return DroppedNetwork(spec, self.width, self.layers, self.fill)

    def losses(self, net: DroppedNetwork, batch: Batch) -> dict[str, Tensor]:
        kept = self._drop(self._present(net, batch), list(net.encoders).index(self.spec_.primary))
        scores = net.fuse(net.represent(batch, kept))
        return {"task": supervised(scores, batch.target, self.spec_.task)}

    def scores(self, net: DroppedNetwork, batch: Batch) -> Tensor:
        return self.joint_scores(net, batch.only([self.spec_.primary]))

    def joint_scores(self, net: DroppedNetwork, batch: Batch) -> Tensor:
        """Scores from every modality that the batch holds; nothing is dropped."""
        return net.fuse(net.represent(batch, self._present(net, batch)))

    def _present(self, net: DroppedNetwork, batch: Batch) -> Tensor:
        """(n, m) bool, in the order of the encoders; False for a modality that the batch does not hold."""
        nothing = torch.zeros(batch.rows.shape[0], dtype=torch.bool, device=batch.rows.device)
        return torch.stack([batch.present.get(name, nothing) for name in net.encoders], 1)

    def _drop(self, present: Tensor, primary: int) -> Tensor:
        """(n, m) bool: what is kept; draws nothing where nothing is left to chance."""
        certain = {self.drop, self.drop_primary} <= {0, 1} and self.drop * self.drop_primary == 0
        device = present.device
        if self.per == "batch":
            draws = torch.full((2,), 0.5) if certain else torch.rand(2)
            return keep_by_batch(present, primary, self.drop, self.drop_primary, draws)
        rates = [self.drop_primary if k == primary else self.drop for k in range(present.shape[1])]
        draws = torch.full(present.shape, 0.5, device=device) if certain else torch.rand(present.shape, device=device)
        return keep_by_row(present, torch.tensor(rates, device=device), draws)
