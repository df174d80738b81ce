"""SMIL: imagine a missing modality from a few centroids, and learn to answer with what is imagined, by meta steps.

Use it where many training rows lack the secondary modality and all rows lack it at test time: the fusion network is
always asked with something in its place.

    M        (K, width) k-means centroids of the secondary's representations s: its priors
    s^       = sum_k o_k M_k / sum_k o_k,   o = softplus(A f)        f: the primary's representation
    x        = [f, s or s^],   h = relu(B x),   score = head(f + weight C h)
    noisy    x + softplus(m(f) + e),  h + softplus(n(x) + e)         e ~ N(0, 1) in training, 0 afterwards
    inner    theta' = theta - a grad CE(noisy score from s^; theta)                   rows without the secondary
    minimise CE(inner; theta) + CE(noisy score from s; theta')                        and rows with both
             + closeness |noisy - clean|^2 + imagination |s^ - s|^2 / V

First the plain fusion network learns from the rows that have a secondary modality. Then its encoders of these are
fixed, the centroids are taken over all pairs, labelled or not, and the rest learns by meta steps; their gradient goes
through the inner step, second-order terms included. The labelled rows that lack the secondary take the inner step;
where these are less than half of a batch, it is hidden from some more. V is the total variance of s; the imagination
learns from all pairs. Deployed, every secondary modality is imagined and e is 0.

Shapes: f, s, s^, h (n, width); x (n, width * modalities). Cost in training: the fusion network, then as many meta
steps, together about ten times the baseline's; deployed: one encoder and a few linear maps. Weight 0 is `unimodal`, bit
for bit.

Source: ma2021smil and its code. Departs from it: the code computes the error of s^ and leaves it unused; here it is
learned, since on planted problems with few labels and many pairs all of the gain comes from it, and without it
(imagination 0, the source's form) there is none. f also goes to the head past the fusion, so that weight 0 is the
baseline; the bias of m and n starts at -3, where little is added; the inner rate is constant; rows that lack some of
several modalities have those imagined. All that is trained takes the inner step, the imagination and the noise too,
where the source moves the primary's branch and the fusion; a fine-tuned pretrained model takes none. The code's clean
loss and learned deviations of e, both unused, are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from transference.core.batch import Batch
from transference.core.method import Card
from transference.core.parameters import Interval
from transference.core.seeding import derive
from transference.core.spec import DataSpec
from transference.data.loader import chunks
from transference.nn.losses import supervised
from transference.nn.named import ByModality
from transference.nn.network import Network
from transference.train.frozen import freeze
from transference.train.loop import Stage, Step
from transference.train.neural import NeuralMethod
from transference.train.schedule import Schedule

START = -3.0  # bias of a perturbation's mean: softplus(-3) is 0.05


def inner_step(
    loss: Callable[[Mapping[str, Tensor]], Tensor], parameters: Mapping[str, Tensor], rate: float
) -> tuple[dict[str, Tensor], Tensor]:
    """One step of gradient descent that can itself be differentiated; and the loss before it.

    >>> at = {"a": torch.tensor(3.0, requires_grad=True)}
    >>> moved, before = inner_step(lambda p: p["a"] ** 2, at, 0.1)
    >>> moved["a"].item(), before.item()
    (2.4000000953674316, 9.0)
    >>> moved["a"].backward()
    >>> at["a"].grad.item()  # 1 - rate * second derivative
    0.800000011920929
    """
    before = loss(parameters)
    gradients = torch.autograd.grad(before, list(parameters.values()), create_graph=True, materialize_grads=True)
    moved = {name: p - rate * g for (name, p), g in zip(parameters.items(), gradients, strict=True)}
    return moved, before


def combine(weights: Tensor, centroids: Tensor) -> Tensor:
    """(n, d) convex combinations of centroids (k, d), by weights (n, k) of at least 0 that need not sum to 1.

    >>> combine(torch.tensor([[0.0, 2.0], [1.0, 3.0]]), torch.tensor([[4.0], [8.0]])).flatten().tolist()
    [8.0, 7.0]
    """
    return weights @ centroids / weights.sum(1, keepdim=True).clamp_min(1e-12)


def centroids_of(values: NDArray[np.float32], clusters: int, seed: int) -> NDArray[np.float32]:
    """(clusters, d) k-means centroids of (n, d); repeated in turn where fewer values differ."""
    distinct = len(np.unique(values.round(4), axis=0))
    found = KMeans(min(clusters, distinct), n_init=4, random_state=seed % 2**32).fit(values).cluster_centers_
    return np.asarray(np.resize(found, (clusters, values.shape[1])), np.float32)


def inner_rows(paired: Tensor, draws: Tensor) -> Tensor:
    """(n,) bool, who takes the inner step: all unpaired rows, and paired ones with small draws up to half of all."""
    order = draws.where(paired, -1.0).argsort()
    return ~paired | torch.zeros_like(paired).index_fill(0, order[: len(order) // 2], True)


class Imagination(nn.Module):
    """A missing modality from the primary one's representation: (n, width) -> (n, width)."""

    centroids: Tensor
    variance: Tensor

    def __init__(self, width: int, clusters: int) -> None:
        super().__init__()
        self.weights = nn.Linear(width, clusters)
        self.register_buffer("centroids", torch.zeros(clusters, width))
        self.register_buffer("variance", torch.ones(()))

    def forward(self, f: Tensor) -> Tensor:
        return combine(F.softplus(self.weights(f)), self.centroids)

    def fit(self, values: Tensor, clusters: int, seed: int) -> None:
        """Take the centroids and the total variance (1 where there is none) of (n, width) real representations."""
        found = centroids_of(values.cpu().numpy(), clusters, seed)
        self.centroids.copy_(torch.from_numpy(found))
        variance = values.var(0, correction=0).sum()
        self.variance.copy_(torch.where(variance > 1e-9, variance, 1.0))

    def unexplained(self, f: Tensor, real: Tensor) -> Tensor:
        """Share of the variance of real representations (n, width) that is missed; 0 when there is no row."""
        return (self(f) - real).square().sum() / self.variance / max(1, len(real))


class Perturbation(nn.Linear):
    """softplus(mean + noise) to add: (n, inputs) -> (n, outputs)."""

    def reset_parameters(self) -> None:
        super().reset_parameters()
        with torch.no_grad():
            self.bias.fill_(START)

    def forward(self, given: Tensor) -> Tensor:
        mean = super().forward(given)
        return F.softplus(mean + torch.randn_like(mean) if self.training else mean)


class ImaginingNetwork(Network):
    """A fusion network in which every secondary modality may be imagined."""

    def __init__(self, spec: DataSpec, width: int, clusters: int, weight: float) -> None:
        super().__init__(spec, sorted(spec.modalities), width)
        self.primary, self.secondary, self.weight = spec.primary, spec.secondary, weight
        size = width * len(spec.modalities)
        self.imagination = ByModality({name: Imagination(width, clusters) for name in spec.secondary})
        self.hidden, self.out = nn.Linear(size, width), nn.Linear(width, width)
        self.perturb_joint, self.perturb_hidden = Perturbation(width, size), Perturbation(size, width)

    def forward(self, batch: Batch, perturbed: bool) -> tuple[Tensor, Tensor]:
        """(n, outputs) scores, and how far the perturbation moved both layers: a mean square.

        A modality that a row lacks is imagined, and so is one that the batch does not hold.
        """
        f = self.encode(batch, self.primary)
        x = torch.cat([f, *(self._known_or_imagined(batch, name, f) for name in self.secondary)], 1)
        h = F.relu(self.hidden(x))
        if not perturbed:
            return self.head(f + self.weight * self.out(h)), x.new_zeros(())
        moved = x + self.perturb_joint(f)
        up = F.relu(self.hidden(moved))
        up = up + self.perturb_hidden(moved)
        far = (moved - x).square().sum() / max(1, x.numel()) + (up - h).square().sum() / max(1, h.numel())
        return self.head(f + self.weight * self.out(up)), far

    def _known_or_imagined(self, batch: Batch, name: str, f: Tensor) -> Tensor:
        imagined: Tensor = self.imagination[name](f)
        if name not in batch.views:
            return imagined
        return self.encode(batch, name).where(batch.present[name][:, None], imagined)


class MetaMissing(NeuralMethod):
    """A fusion network that learns by meta steps to answer with an imagined secondary modality.

    Parameters
    ----------
    weight
        Of the fused path beside the primary's own, at least 0; 0 is the baseline.
    clusters
        K, how many centroids a secondary modality is imagined from.
    inner_rate
        a, of the inner step, at least 0.
    closeness
        Weight, at least 0, of how far the perturbation moves both layers.
    imagination
        Weight, at least 0, of the share of the secondary's variance that is not imagined.
    width, schedule, seed
        See `NeuralMethod`.
    """

    card: ClassVar[Card] = Card(
        summary="Imagine the missing modality from centroids, and learn by meta steps how to answer with it.",
        reference="ma2021smil",
        modalities=(2, None),
        needs=frozenset({"labels", "unlabelled", "paired"}),
        at_test="primary",
        tasks=frozenset({"classification", "regression", "multilabel"}),
    )
    constraints = {
        "weight": Interval(0),
        "clusters": Interval(1, whole=True),
        "inner_rate": Interval(0),
        "closeness": Interval(0),
        "imagination": Interval(0),
    }

    def __init__(
        self,
        *,
        weight: float = 1.0,
        clusters: int = 10,
        inner_rate: float = 0.01,
        closeness: float = 0.01,
        imagination: float = 1.0,
        width: int = 64,
        schedule: Schedule = Schedule(),
        seed: int = 0,
    ) -> None:
        super().__init__(width=width, schedule=schedule, seed=seed)
        self.weight = weight
        self.clusters = clusters
        self.inner_rate = inner_rate
        self.closeness = closeness
        self.imagination = imagination

    def build(self, spec: DataSpec) -> Network:
        if not self.weight:
            return Network(spec, [spec.primary], self.width)
        return ImaginingNetwork(spec, self.width, self.clusters, self.weight)

    def stages(self, net: Any) -> Sequence[Stage]:
        if not self.weight:
            return (Stage("train", (Step(self.losses),)),)
        idle = {
            id(each) for part in (net.imagination, net.perturb_joint, net.perturb_hidden) for each in part.parameters()
        }
        fused = Step(self._fusion_losses, lambda net: [each for each in net.parameters() if id(each) not in idle])
        return (
            Stage("fusion", (fused,), answers=False),
            Stage("meta", (Step(self.losses),), begin=self._take_priors),
        )

    def losses(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        known = batch.labelled
        if not self.weight:
            return {"task": supervised(self.scores(net, known), known.target, self.spec_.task)}
        inner_mask = inner_rows(self._paired(known), torch.rand(len(known), device=known.rows.device))
        inner, outer = known.take(inner_mask).only([self.spec_.primary]), known.take(~inner_mask)

        def loss(parameters: Mapping[str, Tensor]) -> Tensor:
            scores, _ = functional_call(net, dict(parameters), (inner, True))
            return supervised(scores, inner.target, self.spec_.task)

        moved, before = inner_step(loss, _adapted(net), self.inner_rate)
        scores, far = functional_call(net, moved, (outer, True))
        task = supervised(scores, outer.target, self.spec_.task)
        losses = {"inner": before, "outer": task, "closeness": self.closeness * far}
        if self.imagination:
            parts = [self._unimagined(net, batch, name) for name in self.spec_.secondary]
            losses["imagination"] = self.imagination * torch.stack(parts).mean()
        return losses

    def scores(self, net: Any, batch: Batch) -> Tensor:
        if not self.weight:
            return net.head(net.encode(batch, self.spec_.primary))
        return net(batch.only([self.spec_.primary]), True)[0]

    def joint_scores(self, net: Any, batch: Batch) -> Tensor:
        """Scores of the plain fusion network from every modality that the batch holds; nothing is perturbed."""
        return net(batch, False)[0]

    def _fusion_losses(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        rows = batch.take(self._paired(batch) & batch.is_labelled)
        return {"task": supervised(self.joint_scores(net, rows), rows.target, self.spec_.task)}

    def _unimagined(self, net: Any, batch: Batch, name: str) -> Tensor:
        """Share of a secondary modality's variance that is not imagined in the rows that have it, labelled or not."""
        rows = batch.take(batch.present[name])
        return net.imagination[name].unexplained(net.encode(rows, self.spec_.primary), net.encode(rows, name))

    def _paired(self, batch: Batch) -> Tensor:
        """(n,) bool: the rows that have a secondary modality."""
        return torch.stack([batch.present[name] for name in self.spec_.secondary]).any(0)

    def _take_priors(self, net: Any, rows: Batch) -> None:
        """Fix the encoders of the secondary modalities, and cluster what they make of all rows that have them."""
        net.eval()
        for name in self.spec_.secondary:
            freeze(net.encoders[name])
            with torch.no_grad():
                parts = [net.encode(chunk, name) for chunk in chunks(rows.take(rows.present[name]))]
            net.imagination[name].fit(torch.cat(parts), self.clusters, derive(self.seed, "centroids", name))


def _adapted(net: nn.Module) -> dict[str, Tensor]:
    """The parameters that take the inner step: those that are trained, pretrained models apart."""
    marked = [module for module in net.modules() if getattr(module, "pretrained", False)]
    pretrained = {id(each) for module in marked for each in module.parameters()}
    return {name: p for name, p in net.named_parameters() if p.requires_grad and id(p) not in pretrained}
