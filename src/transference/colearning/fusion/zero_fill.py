"""Train one model on all modalities; deploy it with the primary one and a fill for the rest.

Use it as the plainest co-learning by fusion, and as the reference for modality dropout: nothing in training says what
"absent" looks like, so at test time the model meets an input that it has never seen. It works where the fill is close
to what the joint layers are used to, and can be far worse than the primary modality alone where it is not.

    s(x) = head(J(sum_m h_m)),   h_m = E_m(x_m)           minimise  mean CE(s, y), every modality in place
    deployed:  h_m = c_m for every secondary m

The space of the fill c_m decides what "zero" means, and there are six choices:

    space             zeros                        mean                                      learned
    representation    h_m = 0                      moving average of h_m over training       one vector a modality
    input             h_m = E_m(0): raw zeros      h_m = E_m(training mean)                  one input a modality
                      (a text without words)                                                 (begins at the mean)

The training mean of a vector is zero after standardisation, but for what held-out rows change. That of a series or an
image is not: these are standardised by channel, and have a mean for each step or pixel. The mean of a step is over the
rows that reach it; a step that none reaches gets the mean of all steps.

A learned fill minimises the loss of (primary, fill) with everything else held still, in a step of its own after each
update, so that the rest of the model still never learns what absence is. An input fill of a sequence has the mean
training length, so that no row's length leaks. A row that lacks a secondary modality in training gets the fill too.

Shapes: h_m (n, width). Cost in training: one encoder a modality; deployed: one encoder (the fills are constants).

With `shared` all E_m are one encoder. What several modalities show in the same numbers, one more clearly than another,
is then found in all of them at once; that is where zero filling can gain.

Source: zadeh2020. Departs from it: the state with the least loss on held-out rows with the fill in place is kept,
that is, the choice among checkpoints knows what deployment looks like though the gradient does not; the representations
are summed, see `nn.joint`; J is a residual perceptron.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from transference.core.batch import Batch
from transference.core.errors import ConfigError, must_be
from transference.core.method import Card
from transference.core.parameters import Interval, Options
from transference.core.spec import DataSpec
from transference.nn.encoders import Encoder, mask_of
from transference.nn.fill import Fill, Kind
from transference.nn.joint import JointNetwork
from transference.nn.losses import supervised
from transference.nn.named import ByModality
from transference.train.loop import Stage, Step
from transference.train.neural import NeuralMethod
from transference.train.schedule import Schedule

FILL_RATE = 10.0  # of the learning rate: a learned fill has to keep pace with the model around it


class FilledNetwork(JointNetwork):
    """A joint network with a fill for every secondary modality, as an input or as a representation."""

    def __init__(
        self,
        spec: DataSpec,
        width: int,
        layers: int,
        fill: Kind,
        space: Literal["representation", "input"],
        shared: bool = False,
    ) -> None:
        super().__init__(spec, width, layers)
        if shared:
            for name in spec.secondary:
                self.encoders[name] = self.encoders[spec.primary]
        shapes = {name: spec.modalities[name].shape if space == "input" else (width,) for name in spec.secondary}
        self.fills = ByModality({name: Fill(fill, shape) for name, shape in shapes.items()})
        self.in_input = space == "input"
        self.primary = spec.primary
        for name in spec.secondary if self.in_input else ():
            self.register_buffer(f"length_{name}", torch.tensor(spec.modalities[name].shape[0]))

    def fill(self, name: str) -> Fill:
        return self.fills[name]  # type: ignore[return-value]

    def absent(self, name: str) -> Tensor:
        """(1, width): what a row without this modality gets."""
        value = self.fill(name).value[None]
        if not self.in_input:
            return value
        part: Encoder = self.encoders[name]  # type: ignore[assignment]
        return part(value, self.get_buffer(f"length_{name}")[None] if part.modality.lengths else None)

    def represent(self, batch: Batch) -> dict[str, Tensor]:
        """Name -> (n, width): what each row has, and the fill where it has not."""
        found = {}
        for name in self.encoders:
            if name not in batch.views:
                found[name] = self.absent(name).expand(batch.rows.shape[0], -1)
                continue
            value, here = self.encode(batch, name), batch.present[name]
            whole = name == self.primary or bool(here.all())  # every row that is used has the primary
            found[name] = value if whole else value.where(here[:, None], self.absent(name))
        return found


class ZeroFill(NeuralMethod):
    """One model of all modalities, deployed with a fill for the secondary ones.

    Parameters
    ----------
    fill
        "zeros", "mean" or "learned".
    space
        Where the fill stands in: "representation" or "input".
    shared
        Whether one encoder reads all modalities, in the unit of the primary one. They then have its kind and shape.
    layers
        Residual layers between the summed representations and the head. With 0 the model cannot learn interactions,
        and the deployed model has the form of `unimodal`.
    width, schedule, seed
        See `NeuralMethod`.
    """

    card: ClassVar[Card] = Card(
        summary="One model of all modalities, deployed with the secondary ones filled in.",
        reference="zadeh2020",
        modalities=(2, None),
        needs=frozenset({"labels", "paired"}),
        at_test="primary",
        tasks=frozenset({"classification", "regression", "multilabel"}),
    )
    constraints = {
        "fill": Options("zeros", "mean", "learned"),
        "space": Options("representation", "input"),
        "shared": Options(False, True),
        "layers": Interval(0, 4, whole=True),
    }

    def __init__(
        self,
        *,
        fill: Kind = "zeros",
        space: Literal["representation", "input"] = "representation",
        shared: bool = False,
        layers: int = 1,
        width: int = 64,
        schedule: Schedule = Schedule(),
        seed: int = 0,
    ) -> None:
        super().__init__(width=width, schedule=schedule, seed=seed)
        self.fill = fill
        self.space = space
        self.shared = shared
        self.layers = layers

    def build(self, spec: DataSpec) -> FilledNetwork:
        for name in spec.secondary:
            if spec.modalities[name].kind == "text" and self.space == "input" and self.fill != "zeros":
                raise ConfigError(
                    must_be(
                        f"The 'fill' parameter of ZeroFill for the text {name!r} in the input space",
                        "'zeros', for word numbers have no mean",
                        self.fill,
                        "Set space to 'representation' to use another fill.",
                    )
                )
        own = spec.modalities[spec.primary]
        for modality in spec.modalities.values() if self.shared else ():
            if replace(modality, name=own.name, lengths=own.lengths) != own:
                expected = f"False where {modality.name!r} is not of the kind and shape of {own.name!r}"
                raise ConfigError(must_be("The 'shared' parameter of ZeroFill", expected, True))
        return FilledNetwork(spec, self.width, self.layers, self.fill, self.space, self.shared)

    def stages(self, net: FilledNetwork) -> Sequence[Stage]:
        begin = _fit_inputs if net.in_input else None
        if self.fill != "learned":
            return (Stage("train", (Step(self.losses),), begin=begin),)
        fills = {id(parameter) for parameter in net.fills.parameters()}
        steps = (
            Step(self.losses, lambda net: [p for p in net.parameters() if id(p) not in fills]),
            Step(self._fill_losses, lambda net: net.fills.parameters(), rate=FILL_RATE),
        )
        return (Stage("train", steps, begin=begin),)

    def losses(self, net: FilledNetwork, batch: Batch) -> dict[str, Tensor]:
        found = net.represent(batch)
        if self.fill == "mean" and not net.in_input and net.training:
            for name in net.fills:
                net.fill(name).follow(found[name][batch.present[name]])
        return {"task": supervised(net.fuse(found), batch.target, self.spec_.task)}

    def scores(self, net: FilledNetwork, batch: Batch) -> Tensor:
        return self.joint_scores(net, batch.only([self.spec_.primary]))

    def joint_scores(self, net: FilledNetwork, batch: Batch) -> Tensor:
        """Scores from every modality that the batch holds, with fills for the rest."""
        return net.fuse(net.represent(batch))

    def _fill_losses(self, net: FilledNetwork, batch: Batch) -> dict[str, Tensor]:
        return {"fill": supervised(self.scores(net, batch), batch.target, self.spec_.task)}


def _fit_inputs(net: FilledNetwork, rows: Batch) -> None:
    """Input fills begin at the mean of the training rows, unless they are zeros; their lengths at the mean length."""
    for name in net.fills:
        here = rows.take(rows.present[name])
        if net.fill(name).kind != "zeros":
            net.fill(name).set(_mean_input(here.views[name], here.lengths.get(name)))
        if name in here.lengths:
            net.get_buffer(f"length_{name}").copy_(here.lengths[name].float().mean().round().long().clamp_min(1))


def _mean_input(values: Tensor, lengths: Tensor | None) -> Tensor:
    """(*shape) mean of (n, *shape) over the rows that reach a step; of all real steps where no row does."""
    mask = mask_of(lengths, values).reshape(*values.shape[:2], *[1] * (values.ndim - 2))
    total, count = (values * mask).sum(0), mask.sum(0)  # count: (length, 1, ...)
    return torch.where(count > 0, total / count.clamp_min(1), total.sum(0) / count.sum(0).clamp_min(1))
