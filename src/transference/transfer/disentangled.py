"""A beta-VAE of the primary modality, learned from all its rows; then a head on the few numbers that it keeps.

When to use it: many rows without a label, few with one, and reason to think that a few independent causes make what the
primary modality shows. A large `beta` keeps only what pays for its nats; what shares one number is then one cause.

    q(z | x)  =  N(m(x), v(x)),  p(t | z)  =  N(D(z), noise * I)          t: low-level input, see `nn.reversible`
    KL        =  sum over z of (m^2 + v - 1 - log v) / 2                  from N(0, I), in nats
    first  minimise  mean over rows of  sum over t of (D(z) - t)^2 / (2 noise)  +  beta * KL,   z drawn from q
    then   minimise  mean over labelled rows of  CE(head(m(x)), y),       all but the head fixed

That is minus the objective, without its constant. Errors are summed over numbers and meaned over rows: a mean over
numbers would multiply `beta` by how many there are. `noise` is a variance, and numbers are standardised. Only
beta * noise matters for what is kept: with ``depth=0`` everything is linear, and the best decoder has the squared
singular values max(l - beta * noise, 0), l the eigenvalues of the correlation matrix of t; a number of z with l above
beta * noise tells log(l / (beta * noise)) / 2 nats, all the others are the prior.

With `capacity` C the second term is `gamma` * |mean KL - C(t)| instead, where C(t) rises evenly from 0 to C nats over
the first half of the updates: z gets as much to tell as it is given, a little more at a time.

A secondary modality u that a row has is told from the same z, and its error, times `others` d_t / d_u, is added: 1
makes all of it weigh as much as all of the primary one, whose sizes d they are. Only the primary is ever encoded.

Why the head comes after: the representation is then learned from all rows and from no label, and m is what the
objective says. ``head="beside"`` minimises CE + `weight` / d_t * the rest, in which few labels choose what is told.

Shapes: m, v (n, latent); D: latent -> d. Cost in training: an encoder and a decoder a modality, on all rows, and as
many updates again for the head. Deployed: an encoder and two linear maps; `unimodal` bit for bit when the weight is 0.

Sources: higgins2017; burgess2018 for the capacity. Departs from them: any modality's low-level input rather than an
image, with Gaussian noise of a fixed variance rather than Bernoulli pixels; a second modality; C in half the updates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from transference.core.batch import Batch
from transference.core.errors import ConfigError, must_be
from transference.core.method import Card
from transference.core.parameters import Interval, Options
from transference.core.spec import DataSpec
from transference.core.views import Views
from transference.data.loader import chunks, to_batch
from transference.nn.experts import GaussianExpert, divergence, draw
from transference.nn.heads import head
from transference.nn.losses import unexplained
from transference.nn.named import ByModality
from transference.nn.network import Network
from transference.nn.reversible import Reversible
from transference.train.frozen import head_alone
from transference.train.loop import Stage, Step
from transference.train.neural import NeuralMethod
from transference.train.schedule import Schedule

RISE = 0.5  # share of the updates over which the capacity rises
HEAD_RATE = 5.0  # of the schedule's learning rate, for a linear head on what is frozen


class DisentangledNetwork(Network):
    """The primary modality's encoder, its Gaussian, a decoder for every modality that is told, a head on the means."""

    progress: Tensor

    def __init__(self, spec: DataSpec, told: Sequence[str], width: int, latent: int, depth: int) -> None:
        super().__init__(spec, [spec.primary] if depth else [], width)
        self.primary = spec.primary
        forms = {name: Reversible(spec.modalities[name]) for name in told}
        self.forms = ByModality(forms)
        self.expert = GaussianExpert(width if depth else forms[spec.primary].size, latent)
        self.decoders = ByModality({name: _decoder(latent, width, form.size, depth) for name, form in forms.items()})
        self.head = head(latent, spec.task)
        self.register_buffer("progress", torch.zeros(()))  # share of the capacity that is given

    def form(self, name: str) -> Reversible:
        return self.forms[name]  # type: ignore[return-value]

    def belief(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(n, latent) mean and variance of q(z | x)."""
        part = self.encoders[self.primary] if len(self.encoders) else self.forms[self.primary]
        return self.expert(part(batch.views[self.primary], batch.lengths.get(self.primary)))

    def missed(self, z: Tensor, batch: Batch, name: str, noise: float) -> Tensor:
        """-log p(t | z) without its constant: sum over numbers, mean over the rows that have the modality."""
        form = self.form(name)
        truth = form(batch.views[name], batch.lengths.get(name))
        return unexplained(self.decoders[name](z), truth, truth.new_tensor(2 * noise), batch.present[name])


class Disentangled(NeuralMethod):
    """A few independent numbers that tell the primary modality, learned without labels, and a head on them.

    Parameters
    ----------
    weight
        Of what is learned without labels, at least 0; 0 is the unimodal baseline. It is a share of the task beside the
        head; before it, all weights above 0 are the same.
    beta
        Of the divergence; at least 0. 1 is the evidence lower bound.
    noise
        Variance of a standardised number about what is told of it; above 0.
    latent
        Numbers of z.
    others
        Weight of telling the secondary modalities, at least 0; see above.
    capacity, gamma
        Nats that z is to tell in the end, or None for `beta`; and how strictly.
    head
        ``after`` or ``beside``; see above.
    depth
        Hidden layers of a decoder; with 0 the encoder is linear too.
    width, schedule, seed
        See `NeuralMethod`.
    """

    card: ClassVar[Card] = Card(
        summary="A beta-VAE of the primary modality, learned without labels, and a head on what it keeps.",
        reference="higgins2017",
        modalities=(1, None),
        needs=frozenset({"labels", "unlabelled", "paired"}),
        at_test="primary",
        tasks=frozenset({"classification", "regression", "multilabel", "unsupervised"}),
    )
    constraints = {
        "weight": Interval(0),
        "beta": Interval(0),
        "noise": Interval(0, open_low=True),
        "latent": Interval(1, whole=True),
        "others": Interval(0),
        "capacity": Interval(0, none=True),
        "gamma": Interval(0, open_low=True),
        "head": Options("after", "beside"),
        "depth": Interval(0, 3, whole=True),
    }

    def __init__(
        self,
        *,
        weight: float = 1.0,
        beta: float = 4.0,
        noise: float = 0.05,
        latent: int = 16,
        others: float = 1.0,
        capacity: float | None = None,
        gamma: float = 100.0,
        head: Literal["after", "beside"] = "after",
        depth: int = 1,
        width: int = 64,
        schedule: Schedule = Schedule(),
        seed: int = 0,
    ) -> None:
        super().__init__(width=width, schedule=schedule, seed=seed)
        self.weight = weight
        self.beta = beta
        self.noise = noise
        self.latent = latent
        self.others = others
        self.capacity = capacity
        self.gamma = gamma
        self.head = head
        self.depth = depth

    def build(self, spec: DataSpec) -> Network:
        if not self.weight:
            return Network(spec, [spec.primary], self.width)
        told = (spec.primary, *(spec.secondary if self.others else ()))
        return DisentangledNetwork(spec, told, self.width, self.latent, self.depth)

    def stages(self, net: Network) -> Sequence[Stage]:
        if not isinstance(net, DisentangledNetwork):
            return (Stage("train", (Step(self.losses),)),)
        if self.head == "beside":
            return (Stage("train", (Step(self.losses),), after=self._rise),)
        learned = Step(self.without_labels, lambda net: [*_of(net.encoders, net.expert, net.decoders)])
        first = Stage("representation", (learned,), after=self._rise, answers=False)
        if self.spec_.task.kind == "unsupervised":
            return (first,)
        return (first, head_alone(lambda net, batch: net.belief(batch)[0], self.spec_.task, HEAD_RATE))

    def losses(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        task = self.of_task(net, batch)
        if not isinstance(net, DisentangledNetwork):
            return task
        share = self.weight / net.form(net.primary).size
        return task | {name: share * value for name, value in self.without_labels(net, batch).items()}

    def without_labels(self, net: DisentangledNetwork, batch: Batch) -> dict[str, Tensor]:
        """What telling costs, a modality, and what z costs: in nats, by their weights, means over rows."""
        mean, variance = net.belief(batch)
        z = draw(mean, variance)
        losses = {}
        for name in net.forms:
            share = 1.0 if name == net.primary else self.others * net.form(net.primary).size / net.form(name).size
            losses[f"telling {name}"] = share * net.missed(z, batch, name, self.noise)
        nats = divergence(mean, variance).mean()
        if self.capacity is None:
            losses["divergence"] = self.beta * nats
        else:
            losses["divergence"] = self.gamma * (nats - self.capacity * net.progress).abs()
        return losses

    def scores(self, net: Network, batch: Batch) -> Tensor:
        return net.head(self._features(net, batch))

    def embeddings(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        """The primary modality's name -> (n, latent) means; with the weight 0, (n, width) its encoding."""
        return {self.spec_.primary: self._features(net, batch)} if self.spec_.primary in batch.views else {}

    def nats(self, X: Views) -> NDArray[Any]:
        """(latent,) what each number of z tells of the primary modality: its divergence, mean over the rows of X."""
        X, net = self._readable(X), self.net_.eval()
        if not isinstance(net, DisentangledNetwork):
            raise ConfigError(must_be("The 'weight' of a Disentangled that tells", "above 0 in its fit", self.weight))
        with torch.inference_mode():
            beliefs = [net.belief(batch) for batch in chunks(to_batch(X, device=self._device()))]
            each = [divergence(*(part.reshape(-1, 1) for part in belief)) for belief in beliefs]
        return torch.cat(each).view(-1, self.latent).mean(0).cpu().numpy()

    def _features(self, net: Network, batch: Batch) -> Tensor:
        """(n, latent or width) of which the head reads a linear map."""
        if isinstance(net, DisentangledNetwork):
            return net.belief(batch)[0]
        return net.encode(batch, self.spec_.primary)

    def _rise(self, net: DisentangledNetwork, done: int) -> None:
        net.progress.fill_(min(1.0, done / (RISE * self.schedule.updates)))


def _of(*parts: nn.Module) -> list[nn.Parameter]:
    return [parameter for part in parts for parameter in part.parameters()]


def _decoder(latent: int, width: int, size: int, depth: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for k in range(depth):
        layers += [nn.Linear(width if k else latent, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width if depth else latent, size))
