"""One representation for all modalities, from which each of them can be told: a bimodal deep autoencoder.

Use it when there are many pairs, labelled or not, few labels, and modalities that show the same things: what a
representation of the primary modality needs to tell the secondary one may be what the task needs too.

    h(S) = sum over m in S of E_m(x_m)                 S: the modalities that are seen; the others are zero
    R(S) = mean over m of |D_m(h(S)) - t_m|^2 / V_m    t_m: low-level input, V_m: its total variance, see `nn.inputs`
    first  minimise  weight * mean over S of R(S);     then  minimise  CE(head(h({primary})), y), all but the head fixed

E_m is the default encoder, which ends in a linear map, so that the sum is a linear layer over all of them; D_m is a
perceptron of `depth` hidden layers. S is every set of the augmented data: all modalities, and each one alone. Targets
are always all modalities that a row has. 1 is the loss of answering with the mean, whatever the modality. CE is over
labelled rows, R(S) over all rows that have S; for all modalities, over rows that have the primary and what else they
have. ``head="beside"`` minimises the sum of both at once. Other `inputs` are for comparison: ``all`` does without the
augmentation; ``primary`` sees nothing but the primary modality and still tells them all (the paper's video-only
autoencoder).

With ``depth=0`` everything is linear. If the width is at least the size of all t together, the map M_v from x_v alone
then ends at  M_v = (C_tv - M_a C_av / 2) C_vv^-1  (C: covariances; a: the other modality): the regression of t on x_v,
less half of what the path of the other modality would say of it, since one sum has to serve all three sets. With
``inputs="primary"`` it is the regression itself.

What is shared is what h tells, not h: unless it is narrow, every modality may use a part of h of its own, and no
reconstruction suffers. `embed` therefore gives what each modality alone tells of all, (n, d): all D_m(h) side by side,
each of variance 1. A classifier fitted to one modality can be tried on another there, and rows are matched there.
`generate` gives D_m(h({primary})) in the unit and shape of the modality: see `nn.reversible`.

Shapes: h (n, width); D_m: width -> d_m, d the sum of them. Cost in training: an encoder and a decoder a modality, the
decoders on as many copies of the batch as there are sets, which are all used in every update; with ``head="after"`` as
many updates again. Deployed: the cost of `unimodal`, which the method is, bit for bit, when the weight is 0.

Source: ngiam2011. Departs from it: no layer is trained first as a sparse restricted Boltzmann machine; an absent
modality is a zero in the sum, which for the linear encoders is an input at its mean; with more than two modalities each
is seen alone, not every subset; the head is linear, where the paper fits a support vector machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from transference.core.batch import Batch
from transference.core.errors import ConfigError, DataError, must_be
from transference.core.method import Card
from transference.core.parameters import Interval, Options
from transference.core.spec import DataSpec, ModalitySpec
from transference.core.views import Views
from transference.data.loader import chunks, to_batch
from transference.nn.inputs import Inputs
from transference.nn.losses import supervised
from transference.nn.named import ByModality
from transference.nn.network import Network
from transference.nn.reversible import Reversible
from transference.train.frozen import head_alone
from transference.train.loop import Stage, Step
from transference.train.neural import NeuralMethod
from transference.train.schedule import Schedule


class LinearEncoder(Inputs):
    """A linear map of the low-level input, (n, *shape) -> (n, width); a row of means is zero."""

    def __init__(self, modality: ModalitySpec, width: int) -> None:
        super().__init__(modality)
        self.linear = nn.Linear(self.size, width, bias=False)

    def body(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        return self.linear(x)


class AutoencoderNetwork(Network):
    """Encoders by modality name into one space, a decoder from it for every modality, a head."""

    def __init__(self, spec: DataSpec, names: Sequence[str], width: int, depth: int) -> None:
        super().__init__(spec, names if depth else (), width)
        if not depth:
            self.encoders = ByModality({name: LinearEncoder(spec.modalities[name], width) for name in names})
        forms = {name: Reversible(modality) for name, modality in sorted(spec.modalities.items())}
        self.forms = ByModality(forms)
        self.decoders = ByModality({name: _decoder(width, form.size, depth) for name, form in forms.items()})

    def form(self, name: str) -> Reversible:
        return self.forms[name]  # type: ignore[return-value]

    def unexplained(self, codes: Tensor, seen: Tensor, batch: Batch) -> Tensor:
        """(sets,) mean over the modalities of the share of their variance that is missed.

        Parameters
        ----------
        codes, seen
            (sets, n, width); (sets, n) which rows count.
        """
        total = codes.new_zeros(len(codes))
        for name in self.forms:
            form = self.form(name)
            target = form(batch.views[name], batch.lengths.get(name))
            error = (self.decoders[name](codes) - target).square().sum(2) / form.variance  # (sets, n)
            counted = seen & batch.present[name]
            total = total + error.where(counted, 0.0).sum(1) / counted.sum(1).clamp_min(1)
        return total / len(self.forms)

    def told(self, code: Tensor) -> Tensor:
        """(n, d): the low-level inputs of all modalities, each of a total variance of 1 over the training rows."""
        return torch.cat([self.decoders[name](code) / self.form(name).variance.sqrt() for name in self.forms], 1)


class Autoencoder(NeuralMethod):
    """A representation of the primary modality that can tell all the others, learned with them in the same space.

    Parameters
    ----------
    weight
        Of reconstruction, at least 0; 0 is the unimodal baseline. Beside the task it is its share; before it, all
        weights above 0 are about the same.
    inputs
        ``augmented``, ``all`` or ``primary``: what the representation is made from while it learns to tell all; see
        above.
    head
        ``after``: it is learned alone, on a representation that as many updates of reconstruction have learned before;
        ``beside``: both at once. The default was chosen on planted data.
    depth
        Hidden layers of a decoder, each of twice the width; with 0 the encoders are linear too.
    width, schedule, seed
        See `NeuralMethod`. The smaller the width, the more the modalities have to share.
    """

    card: ClassVar[Card] = Card(
        summary="A shared representation that tells every modality, learned from all of them and from each alone.",
        reference="ngiam2011",
        modalities=(2, None),
        needs=frozenset({"labels", "unlabelled", "paired"}),
        at_test="primary",
        tasks=frozenset({"classification", "regression", "multilabel", "unsupervised", "generation", "retrieval"}),
    )
    constraints = {
        "weight": Interval(0),
        "inputs": Options("augmented", "all", "primary"),
        "head": Options("after", "beside"),
        "depth": Interval(0, 3, whole=True),
    }

    def __init__(
        self,
        *,
        weight: float = 1.0,
        inputs: Literal["augmented", "all", "primary"] = "augmented",
        head: Literal["after", "beside"] = "after",
        depth: int = 1,
        width: int = 64,
        schedule: Schedule = Schedule(),
        seed: int = 0,
    ) -> None:
        super().__init__(width=width, schedule=schedule, seed=seed)
        self.weight = weight
        self.inputs = inputs
        self.head = head
        self.depth = depth

    def build(self, spec: DataSpec) -> Network:
        if not self.weight:
            return Network(spec, [spec.primary], self.width)
        names = [spec.primary] if self.inputs == "primary" else sorted(spec.modalities)
        return AutoencoderNetwork(spec, names, self.width, self.depth)

    def stages(self, net: Any) -> Sequence[Stage]:
        if not self.weight:
            return (Stage("train", (Step(self.losses),)),)
        if self.head == "beside":
            return (Stage("train", (Step(self.losses),)),)
        head = {id(parameter) for parameter in net.head.parameters()}
        learned = Step(self._reconstruction, lambda net: [p for p in net.parameters() if id(p) not in head])
        first = Stage("representation", (learned,), answers=False)
        if self.spec_.task.kind == "unsupervised":
            return (first,)
        return (first, head_alone(lambda net, batch: net.encode(batch, self.spec_.primary), self.spec_.task))

    def losses(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        if not self.weight:
            return self.of_task(net, batch)
        codes = self._codes(net, batch)
        task = supervised(net.head(codes[self.spec_.primary]), batch.target, self.spec_.task)
        return {"task": task, **self._reconstruction(net, batch, codes)}

    def scores(self, net: Any, batch: Batch) -> Tensor:
        return net.head(net.encode(batch, self.spec_.primary))

    def embeddings(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        """Name -> (n, d): what each modality alone tells of all; without reconstruction, (n, width) its encoding."""
        encoded = super().embeddings(net, batch)
        return {name: net.told(code) for name, code in encoded.items()} if self.weight else encoded

    def embed_together(self, X: Views) -> NDArray[Any]:
        """(n, d) as `embed`, from all the modalities together that are encoded and that a row of X has."""
        self._fitted()
        self._needs_decoders("shows what all modalities tell")
        net: Any = self.net_.eval()
        if not set(net.encoders) & set(X.names):
            raise DataError(
                must_be("The rows to embed", f"seen through {' or '.join(map(repr, net.encoders))}", X.names)
            )
        batch = to_batch(X, device=self._device())
        with torch.inference_mode():
            codes = [torch.stack(list(self._codes(net, chunk).values())).sum(0) for chunk in chunks(batch)]
            return np.asarray(net.told(torch.cat(codes)).cpu().numpy())

    def generated(self, net: Any, batch: Batch, name: str) -> Tensor:
        self._needs_decoders("generates")
        return net.form(name).rows(net.decoders[name](net.encode(batch, self.spec_.primary)))

    def _needs_decoders(self, does: str) -> None:
        if not self.weight:
            raise ConfigError(must_be(f"The 'weight' of an Autoencoder that {does}", "above 0 in its fit", self.weight))

    def _codes(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        """Name -> (n, width) of each modality that is encoded; 0 in rows that lack it."""
        names = [name for name in net.encoders if name in batch.views]
        return {name: net.encode(batch, name).where(batch.present[name][:, None], 0.0) for name in names}

    def _reconstruction(self, net: Any, batch: Batch, alone: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """By what is seen: the weighted share of all modalities' variance that is missed."""
        alone, here = alone or self._codes(net, batch), batch.present
        seen: dict[str, tuple[Tensor, Tensor]] = {}
        if self.inputs != "primary":
            seen["reconstruction"] = torch.stack(list(alone.values())).sum(0), here[self.spec_.primary]
        if self.inputs != "all":
            seen |= {f"reconstruction from {name}": (code, here[name]) for name, code in alone.items()}
        codes, rows = (torch.stack(parts) for parts in zip(*seen.values(), strict=True))
        shares = self.weight / len(seen) * net.unexplained(codes, rows, batch)
        return dict(zip(seen, shares.unbind(), strict=True))


def _decoder(width: int, size: int, depth: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for k in range(depth):
        layers += [nn.Linear(2 * width if k else width, 2 * width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(2 * width if depth else width, size))
