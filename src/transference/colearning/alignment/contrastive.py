"""Pull the representations of a row's modalities together and those of different rows apart, beside the task.

When to use it: many rows have both modalities, labelled or not, and what the modalities share is what the task needs.

    minimise  mean CE(head(g(x)), y)  +  w mean over secondaries of InfoNCE(U, V)
    InfoNCE(U, V) = (CE(S, I) + CE(S^T, I)) / 2,   S = min(exp(s), 100) U V^T

U, V (n, d) are linear projections, of unit length, of the primary's and the secondary's representations of the rows of
the batch that have both, I the pairing and s a learned log scale that starts at ln(1 / 0.07). With `smoothing` e the
pairing is softened: (1 - e) CE + e times the CE to the uniform distribution.

With a `memory` of k, S gets k further columns (S^T likewise): pairs of rows outside the batch, drawn anew every time,
as they were last seen. Each training row has a place there, which follows its representation at every sight of it:
(old + new) / 2, brought to length 1.

Without labels the second term is learned alone. In the shared space rows are matched with rows of another modality:
retrieval, and zero-shot classification by descriptions of the classes.

Cost: the secondary's encoder in training; n (n + k) d for the similarities of a batch of n pairs.
Source: radford2021clip; smoothing as in jia2021align, the memory as in tian2020. Departs from them: where there are
labels, the task is learned at the same time; batches are small, so without a memory the negatives are few; rows of the
same class are negatives too; the memory starts with all rows encoded; nothing is gathered over several devices. The
loss was found equal to that of a published implementation of CLIP with random weights; OpenAI's weights were not tried.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from transference.core.batch import Batch
from transference.core.method import Card
from transference.core.parameters import Interval
from transference.core.spec import DataSpec
from transference.core.views import Views
from transference.data.loader import chunks
from transference.nn.losses import supervised
from transference.nn.named import ByModality
from transference.nn.network import Network
from transference.nn.queue import UnitQueue
from transference.train.loop import Stage, Step
from transference.train.neural import NeuralMethod
from transference.train.schedule import Schedule

START_SCALE = 1 / 0.07
MOST_SCALE = 100.0


def info_nce(
    u: Tensor,
    v: Tensor,
    scale: Tensor | float,
    smoothing: float = 0.0,
    others: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Symmetric InfoNCE of matching rows, in nats.

    Parameters
    ----------
    u, v
        (n, d), rows of unit length; row i of `u` belongs to row i of `v`.
    scale
        Inverse temperature.
    smoothing
        Share of the target spread over all that a row is held against, in [0, 1).
    others
        (k, d) that no row of `v` belongs to, like rows of `u`, and (k, d) like rows of `v`.

    Examples
    --------
    Alike embeddings tell nothing: ln n.

    >>> same = torch.ones(4, 1)
    >>> bool(torch.isclose(info_nce(same, same, 10.0), torch.tensor(4.0).log()))
    True
    """
    similarity = scale * u @ v.T  # (n, n)
    pairing = torch.arange(len(u), device=u.device)
    forth, back = similarity, similarity.T
    if others is not None:
        forth = torch.cat([forth, scale * u @ others[1].T], 1)  # (n, n + k)
        back = torch.cat([back, scale * v @ others[0].T], 1)
    losses = [F.cross_entropy(each, pairing, label_smoothing=smoothing) for each in (forth, back)]
    return torch.stack(losses).mean()


class Contrastive(NeuralMethod):
    """Contrast the pairs of a batch, beside the task.

    Parameters
    ----------
    weight
        w, at least 0; 0 is the unimodal baseline.
    smoothing
        e in [0, 1): how much a pairing is doubted.
    memory
        k, at least 0: pairs outside the batch that are contrasted too.
    width, schedule, seed
        See `NeuralMethod`. The shared space is as wide as the representations.
    """

    card: ClassVar[Card] = Card(
        summary="Contrast matching rows of primary and secondary with all others, beside the task.",
        reference="radford2021clip",
        modalities=(2, None),
        needs=frozenset({"labels", "unlabelled", "paired"}),
        at_test="primary",
        tasks=frozenset({"classification", "regression", "multilabel", "unsupervised", "retrieval", "zero_shot"}),
    )
    constraints = {
        "weight": Interval(0),
        "smoothing": Interval(0, 1, open_high=True),
        "memory": Interval(0, whole=True),
    }

    def __init__(
        self,
        *,
        weight: float = 0.5,
        smoothing: float = 0.0,
        memory: int = 0,
        width: int = 64,
        schedule: Schedule = Schedule(),
        seed: int = 0,
    ) -> None:
        super().__init__(width=width, schedule=schedule, seed=seed)
        self.weight = weight
        self.smoothing = smoothing
        self.memory = memory

    def learn(self, X: Views, target: NDArray[Any]) -> None:
        self._memories: dict[str, Memory] = {}
        super().learn(X, target)
        del self._memories

    def build(self, spec: DataSpec) -> Network:
        names = [spec.primary, *(spec.secondary if self.weight else ())]
        net = Network(spec, names, self.width)
        if self.weight:
            net.projections = ByModality({name: nn.Linear(self.width, self.width) for name in names})
            net.log_scale = nn.Parameter(torch.tensor(math.log(START_SCALE)))
        return net

    def stages(self, net: Any) -> Sequence[Stage]:
        if not (self.weight and self.memory):
            return super().stages(net)
        return (Stage("train", (Step(self.losses),), begin=self._begin, after=self._follow),)

    def losses(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        primary = self.spec_.primary
        if not self.weight:
            return self.of_task(net, batch)
        features = net.encode(batch, primary)  # (n, width)
        losses = {"task": supervised(net.head(features), batch.target, self.spec_.task)}
        scale = net.log_scale.exp().clamp(max=MOST_SCALE)
        share = self.weight / len(self.spec_.secondary)
        memories = getattr(self, "_memories", {})  # in training alone
        for name in self.spec_.secondary:
            mask = batch.present[name]
            u = self._shared(net, features[mask], primary)  # (pairs, width)
            v = self._shared(net, net.encode(batch.take(mask), name), name)
            others = memories[name].others(batch.rows[mask], u, v, self.memory) if name in memories else None
            contrast = info_nce(u, v, scale, self.smoothing, others) if len(u) > 1 else u.sum() * 0.0
            losses[f"contrast with {name}"] = share * contrast
        return losses

    def scores(self, net: Any, batch: Batch) -> Tensor:
        return net.head(net.encode(batch, self.spec_.primary))

    def embeddings(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        """Name -> (n, width), of unit length in the space that the modalities share."""
        encoded = super().embeddings(net, batch)
        return {name: self._shared(net, value, name) for name, value in encoded.items()} if self.weight else encoded

    def _shared(self, net: Any, features: Tensor, name: str) -> Tensor:
        """(n, width) of unit length."""
        return F.normalize(net.projections[name](features), dim=1)

    def _begin(self, net: Any, rows: Batch) -> None:
        """Every pair gets its place."""
        for name in self.spec_.secondary:
            pairs = rows.complete([self.spec_.primary, name])
            pairs = pairs.take(pairs.rows.argsort(stable=True))
            with torch.no_grad():
                sides = [
                    torch.cat([self._shared(net, net.encode(part, each), each) for part in chunks(pairs)])
                    for each in (self.spec_.primary, name)
                ]
            self._memories[name] = Memory(pairs.rows, *sides)

    def _follow(self, net: Any, done: int) -> None:
        for memory in self._memories.values():
            memory.follow()


class Memory:
    """A place for every pair of the training rows.

    Parameters
    ----------
    rows
        (n,) their numbers, ascending.
    u, v
        (n, width) of unit length.
    """

    def __init__(self, rows: Tensor, u: Tensor, v: Tensor) -> None:
        self.rows = rows
        self.banks = tuple(UnitQueue(*each.shape).to(each.device) for each in (u, v))
        self.seen = torch.arange(len(rows), device=rows.device), (u, v)
        self.follow()

    def others(self, rows: Tensor, u: Tensor, v: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Two times (at most `count`, width) of rows that are not among these, which are kept in mind."""
        places = torch.searchsorted(self.rows, rows)
        self.seen = places, (u.detach(), v.detach())
        drawn = torch.randperm(len(self.rows))[: count + len(rows)].to(rows.device)
        drawn = drawn[~torch.isin(drawn, places)][:count]
        return self.banks[0].vectors[drawn], self.banks[1].vectors[drawn]

    def follow(self) -> None:
        """Move the places of the rows that were seen last."""
        places, values = self.seen
        for bank, each in zip(self.banks, values, strict=True):
            bank.follow(places, each)
