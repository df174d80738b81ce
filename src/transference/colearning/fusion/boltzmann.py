"""A deep Boltzmann machine over all modalities: from the primary one it infers the others, and what they share.

When to use it: many rows have both modalities, labelled or not, few have a label, and the secondary modality is easier
to label from. The machine is a model of the joint distribution, learned without labels; at test time the secondary
modality is one more thing to infer.

    E(x, h) = sum_m [ E_1(v_m, h_m^1) + E_2(h_m^1, h_m^2) + ... + E_J(h_m^L, j) ]       p(x, h) = exp(-E) / Z
    mu = mean field of all h, j and of the v that are not there, with v of the primary clamped, in `steps` sweeps
    s(x) = (1 - w) head(g(x)) + w head'(mu_h, mu_j)                                      minimise  mean CE(s, y)

v_m are the low-level inputs of a modality (see `nn.inputs`): normal units for standardised numbers, binary ones where
`binary` names the modality, word counts of a text (replicated softmax). Each E_k is a restricted machine; L is `layers`
and j the joint layer. See `nn.boltzmann`. g is the primary's encoder; with w = 0 the method is `unimodal` bit for bit.

Trained in stages: each restricted machine by contrastive divergence on the means of the one below, the layers that
will hear from both sides hearing from one twice; the joint layer on rows that have all modalities; then the whole
machine on rows with a secondary modality, by persistent contrastive divergence (samples go on from update to update)
against mean field; then, with the machine frozen, g and both heads on the labelled rows. The gradient of each machine
stage is that of (free) energy of the data minus that of the samples.

Shapes: v_m (n, d_m); every hidden layer (n, units); head' reads all of them, standardised over the training rows.
Cost: the machine gets as many updates as the model that answers, each of `steps` sweeps over the data and `gibbs` over
the samples; an answer costs `steps` sweeps, 2 d_m units a modality and row each.

Source: srivastava2012. Departs from it: far smaller layers and fewer updates, by default one layer a modality; no
sparsity; energies are centred; AdamW, where the step of a weight matrix is divided by the size of its input; rows that
lack one of several secondary modalities are used, and it is inferred; a text that is not there has the mean number of
words; the baseline's encoder answers beside the machine, where the paper has the machine alone (w = 1). Defaults were
chosen on planted data.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW, Optimizer

from transference.core.batch import Batch
from transference.core.errors import ConfigError, DataError, did_you_mean, must_be
from transference.core.method import Card
from transference.core.parameters import Interval
from transference.core.spec import DataSpec, ModalitySpec
from transference.core.views import Views
from transference.data.loader import chunks
from transference.nn.boltzmann import DeepMachine, Kind, Rbm, State, contrastive_divergence
from transference.nn.encoders import word_counts
from transference.nn.heads import head
from transference.nn.named import ByModality
from transference.nn.network import Network
from transference.nn.reversible import Reversible
from transference.train.frozen import freeze
from transference.train.loop import Stage, Step
from transference.train.neural import NeuralMethod
from transference.train.schedule import Schedule

CHAINS = 64  # samples that persist
STILL = 0.05  # a hidden unit that deviates by less over the rows is not made louder
RATE = 40.0  # of the machine's learning rate to the schedule's


class Visible(Reversible):
    """A modality as the visible units of a machine, and back.

    Attributes
    ----------
    units
        "gaussian", "binary" or "counts".
    duration
        Mean number of steps, or words, over the training rows.
    """

    def __init__(self, modality: ModalitySpec, binary: bool) -> None:
        super().__init__(modality)
        self.units: Kind = "counts" if modality.kind == "text" else "binary" if binary else "gaussian"

    def fit_statistics(self, values: Tensor, lengths: Tensor | None) -> None:
        super().fit_statistics(values, lengths)
        if self.units == "counts":
            self.duration.copy_((self.words(values) > 0).sum(1).float().mean())

    def standard(self, values: Tensor, lengths: Tensor | None) -> Tensor:
        """(n, d) visible units."""
        if self.units == "counts":
            return word_counts(self.words(values), self.size)
        return self.raw(values, lengths) if self.units == "binary" else super().standard(values, lengths)

    def back(self, v: Tensor) -> Tensor:
        """(n, *shape) a row of the modality that looks like v (n, d), as far as v tells: see `Reversible`.

        A text is the words of the highest counts, as many as the training rows have on average.
        """
        if self.units == "gaussian":
            return self.rows(v)
        if self.units == "binary":
            return self.spread(v).clamp(0, 1)
        length = self.modality.shape[0]
        most = min(length, v.shape[1] - 1, max(1, round(float(self.duration))))
        words = self.frequent[1 + v[:, 1:].topk(most, 1).indices]
        return F.pad(words, (0, length - most)).to(v.dtype)


class MachineNetwork(Network):
    """The network of the primary modality, the machine, and a head on its hidden units."""

    unit_mean: Tensor
    unit_scale: Tensor

    def __init__(self, spec: DataSpec, method: Boltzmann) -> None:
        super().__init__(spec, [spec.primary] if method.weight < 1 else [], method.width)
        if method.weight == 1:
            del self.head
        forms = {name: Visible(modality, name in method.binary) for name, modality in sorted(spec.modalities.items())}
        self.visible = ByModality(forms)
        sizes = {name: (form.size, form.units) for name, form in forms.items()}
        self.machine = DeepMachine(sizes, method.units, method.layers, method.deviation)
        hidden = method.units * (method.layers * len(forms) + 1)
        self.machine_head = head(hidden, spec.task)
        self.register_buffer("unit_mean", torch.zeros(hidden))
        self.register_buffer("unit_scale", torch.ones(hidden))

    def given(self, batch: Batch, name: str) -> Tensor:
        """(n, d) visible units of one modality."""
        part: Visible = self.visible[name]  # type: ignore[assignment]
        return part(batch.views[name], batch.lengths.get(name))

    def known(self, batch: Batch, name: str) -> Tensor:
        """(n,) bool: which rows have a modality; a text without words is absent."""
        part: Visible = self.visible[name]  # type: ignore[assignment]
        here = batch.present[name]
        return here & (self.given(batch, name).sum(1) > 0) if part.units == "counts" else here

    def infer(self, batch: Batch, name: str, steps: int) -> State:
        """The means of all units, given one modality."""
        return self.machine.mean_field({name: self.given(batch, name)}, {name: None}, steps)


def optimizer(machine: DeepMachine, parameters: Sequence[nn.Parameter], rate: float, decay: float) -> Optimizer:
    """AdamW over parameters of a machine, the step of each divided by the size of what it multiplies."""
    wanted = {id(parameter) for parameter in parameters}
    groups: list[dict[str, Any]] = []
    for part in machine.modules():
        if isinstance(part, Rbm) and id(part.weight) in wanted:
            groups += [
                {"params": [part.weight, part.below], "share": 1 / float(part.norm)},
                {"params": [part.above], "share": 1 / float(part.total)},
            ]
    return AdamW(groups, lr=rate, weight_decay=decay, fused=True)


class Boltzmann(NeuralMethod):
    """A multimodal deep Boltzmann machine that infers what is missing.

    Parameters
    ----------
    weight
        w in [0, 1]: 0 is the unimodal baseline, 1 the machine alone.
    units, layers
        Binary units of every hidden layer; hidden layers of each modality below the joint one.
    deviation
        Of the normal units, of which each has a standard deviation of 1 over the training rows.
    steps, gibbs
        Sweeps of mean field, in training and in answers; sweeps of the samples an update.
    binary
        Names of modalities whose numbers are zeros and ones, or in between.
    width, schedule, seed
        See `NeuralMethod`.
    """

    card: ClassVar[Card] = Card(
        summary="A deep Boltzmann machine over all modalities infers the missing ones, and what they share.",
        reference="srivastava2012",
        modalities=(2, None),
        needs=frozenset({"labels", "unlabelled", "paired"}),
        at_test="primary",
        tasks=frozenset({"classification", "regression", "multilabel", "unsupervised", "generation"}),
    )
    constraints = {
        "weight": Interval(0, 1),
        "units": Interval(1, whole=True),
        "layers": Interval(1, 3, whole=True),
        "deviation": Interval(0, open_low=True),
        "steps": Interval(1, whole=True),
        "gibbs": Interval(1, whole=True),
    }

    def __init__(
        self,
        *,
        weight: float = 0.5,
        units: int = 64,
        layers: int = 1,
        deviation: float = 0.7,
        steps: int = 3,
        gibbs: int = 5,
        binary: Sequence[str] = (),
        width: int = 64,
        schedule: Schedule = Schedule(),
        seed: int = 0,
    ) -> None:
        super().__init__(width=width, schedule=schedule, seed=seed)
        self.weight = weight
        self.units = units
        self.layers = layers
        self.deviation = deviation
        self.steps = steps
        self.gibbs = gibbs
        self.binary = binary

    def learn(self, X: Views, target: NDArray[Any]) -> None:
        self._check_binary(X)
        super().learn(X, target)
        self.__dict__.pop("_chains", None)

    def build(self, spec: DataSpec) -> Network:
        return MachineNetwork(spec, self) if self.weight else Network(spec, [spec.primary], self.width)

    def stages(self, net: Any) -> Sequence[Stage]:
        if not self.weight:
            return super().stages(net)
        greedy = 0.4 / (self.layers + 1)
        stages = [
            Stage(
                f"layer {depth + 1}" if depth < self.layers else "joint layer",
                (self._step(net, partial(self._layer_losses, depth=depth), depth),),
                share=greedy,
                begin=None if depth else self._begin_machine,
                answers=False,
            )
            for depth in range(self.layers + 1)
        ]
        whole = self._step(net, self._machine_losses, None)
        stages.append(Stage("machine", (whole,), share=0.6, begin=self._begin_chains, answers=False))
        if self.spec_.task.kind != "unsupervised":
            stages.append(Stage("train", (Step(self.losses),), begin=self._freeze))
        return stages

    def losses(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        return self.of_task(net, batch)

    def scores(self, net: Any, batch: Batch) -> Tensor:
        primary = self.spec_.primary
        if not self.weight:
            return net.head(net.encode(batch, primary))
        units = net.infer(batch, primary, self.steps).hidden()
        scores = net.machine_head((units - net.unit_mean) * net.unit_scale)
        if self.weight == 1:
            return scores
        return (1 - self.weight) * net.head(net.encode(batch, primary)) + self.weight * scores

    def embeddings(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        """Name -> (n, units): the joint layer, inferred from that modality alone."""
        if not self.weight:
            return super().embeddings(net, batch)
        return {name: net.infer(batch, name, self.steps).joint for name in batch.views}

    def generated(self, net: Any, batch: Batch, name: str) -> Tensor:
        """(n, *shape) the means of a modality's units given the primary one, in its own form."""
        if not self.weight:
            raise ConfigError(must_be("The 'weight' of a Boltzmann that generates", "above 0 in its fit", self.weight))
        return net.visible[name].back(net.infer(batch, self.spec_.primary, self.steps).towers[name][0])

    def _step(self, net: Any, losses: Any, depth: int | None) -> Step:
        """Of the machines from this depth of every tower up one, or of all."""
        towers = [net.machine.tower(name) for name in net.visible]
        parts = [part for tower in towers for part in (tower if depth is None else tower[depth : depth + 1])]
        return Step(
            losses,
            parameters=lambda _: [parameter for part in parts for parameter in part.parameters()],
            optimizer=lambda given, rate: optimizer(net.machine, given, rate, self.schedule.weight_decay),
            rate=RATE,
        )

    def _begin_machine(self, net: Any, rows: Batch) -> None:
        for name in net.visible:
            net.machine.tower(name)[0].fit_statistics(net.given(rows.take(net.known(rows, name)), name))

    def _layer_losses(self, net: Any, batch: Batch, depth: int) -> dict[str, Tensor]:
        """Contrastive divergence of each tower's machine at `depth`; of all that meet in the joint layer together."""
        names, top = list(net.visible), depth == self.layers
        copies = (1 if top else 2, 2 if depth else 1)
        groups = {"joint layer": names} if top else {f"layer {depth + 1} of {name}": [name] for name in names}
        losses = {}
        for title, group in groups.items():
            rows = batch.take(torch.stack([net.known(batch, name) for name in group]).all(0))
            parts = [net.machine.tower(name)[depth] for name in group]
            if not len(rows):
                losses[title] = torch.stack([part.weight.sum() for part in parts]).sum() * 0.0
                continue
            with torch.no_grad():
                start = net.machine.begin({name: net.given(rows, name) for name in group}, dict.fromkeys(group))
                below = [start.towers[name][depth] for name in group]
            losses[title] = contrastive_divergence(parts, below, copies)
        return losses

    def _begin_chains(self, net: Any, rows: Batch) -> None:
        pairs = self._pairs(rows)
        if not len(pairs):
            return
        some = pairs.take(torch.randint(len(pairs), (CHAINS,)).to(rows.rows.device))
        state = net.machine.mean_field(*self._known(net, some), 1)
        self._chains = net.machine.gibbs(state, {}, 1)

    def _machine_losses(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        """Energy of the data, hidden units at their means, minus that of the samples."""
        pairs = self._pairs(batch)
        if not len(pairs):
            return {"machine": torch.stack([each.sum() for each in net.machine.parameters()]).sum() * 0.0}
        with torch.no_grad():
            data = net.machine.mean_field(*self._known(net, pairs), self.steps)
            self._chains = net.machine.gibbs(net.machine.resized(self._chains, data), {}, self.gibbs)
            samples = net.machine.update(self._chains, 1, {}, False)  # block 1 at its means: less noise
        return {"machine": net.machine.energy(data).mean() - net.machine.energy(samples).mean()}

    def _pairs(self, batch: Batch) -> Batch:
        """The rows that have a secondary modality."""
        return batch.take(torch.stack([batch.present[name] for name in self.spec_.secondary]).any(0))

    def _known(self, net: Any, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor | None]]:
        """Visible units, and which rows have them."""
        visible = {name: net.given(batch, name) for name in net.visible}
        here = {name: net.known(batch, name) for name in net.visible}
        return visible, {name: None if bool(mask.all()) else mask for name, mask in here.items()}

    def _freeze(self, net: Any, rows: Batch) -> None:
        """The machine is done: it only infers from now on."""
        freeze(net.machine)
        with torch.no_grad():
            units = torch.cat([net.infer(part, self.spec_.primary, self.steps).hidden() for part in chunks(rows)])
        net.unit_mean.copy_(units.mean(0))
        net.unit_scale.copy_(1 / units.std(0, correction=0).clamp_min(STILL))

    def _check_binary(self, X: Views) -> None:
        if not isinstance(self.binary, list | tuple):
            raise ConfigError(must_be("The 'binary' parameter of Boltzmann", "a list of modalities", self.binary))
        for name in self.binary:
            if name not in X.specs:
                raise ConfigError(f"There is no modality {name!r} to be binary. {did_you_mean(name, X.names)}")
            if X.specs[name].kind == "text":
                raise ConfigError(must_be(f"The binary modality {name!r}", "numbers", "text"))
            values = X[name][X.present[name]]
            if values.min(initial=0) < 0 or values.max(initial=1) > 1:
                met = f"{values.min():g} to {values.max():g}"
                raise DataError(must_be(f"The values of the binary modality {name!r}", "in [0, 1]", met))
