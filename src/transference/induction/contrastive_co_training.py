"""Contrastive co-training: each modality tells another which rows are alike, and so what to pull together.

When to use it: many rows with several modalities, few labels. What one modality alone takes for different, because
something loud and of no interest differs, is often the same in another modality, and the other way round.

    first, for each modality v by itself:      minimise  C(q, {its own keys})
    then in turns, v = primary, the others, primary, ...:  minimise  C(q, {its own keys} and the k mined ones)

    C(q, P) = -log  sum over p in P of exp(q . p / T)  /  sum over all keys j of exp(q . j / T),     mean over rows

q is the projection of v's encoding of a row, of unit length, after a random change of the row; a key is what a slow
copy of encoder and projection (k <- m k + (1 - m) q's, after each update) makes of a row under another random change.
All keys are the row's own new one and those of a queue, in which each row is at most once, as it was last seen. Mined
are those of the rows in the queue that are most similar to this one as the *other* modalities see them: the mean cosine
of their projections, over the modalities that both rows have; they hold still for the while, and see rows unchanged.
With probability `own_dropped`, drawn for every batch, a row that has mined keys does not count its own ones among P.
The queue is full before the first update, so that no turn starts to mine in a part of the rows.

The random change acts on the standardised input x (for a pretrained model inside the encoder, on what that makes of a
row): x + noise · rms(x) · e with e ~ N(0, 1), and then each number is 0 with probability `dropped`.

After that the encoders are frozen, and the labels teach an encoder and a head beside the primary's:

    minimise  mean CE(head(E(x) + w U r(x)), y)

E is the primary modality's default encoder, U a linear map, r(x) (n, width) what the co-trained encoder makes of the
row, before the projection. With w = 0 the method is `unimodal`, bit for bit. Without labels r(x) is all there is.

Cost: before the labels as many updates as the schedule has, 0.4 of them with all modalities, each with two passes of
an encoder and n · memory · width for the similarities, times the modalities. Deployed: two encoders of the primary.

Source: han2020coclr. Departs from it: rows are changed by noise, since cropping is for videos; the other modality sees
them unchanged; any number of modalities; a row's own older key in the queue is dropped with its new one, which there
happens to the new one alone, since there the queue holds other clips of a video; a row is in the queue once, for few
labelled rows come in every batch; the queue starts full rather than unmined; after the primary's last turn the others
have none; the frozen encoder stands beside the baseline's, as in ``colearning.alignment.self_distilled``, rather than
being fine-tuned. The slow copy is faster, for hundreds of updates. The defaults were looked at on planted pairs alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from transference.core.batch import Batch
from transference.core.method import Card
from transference.core.parameters import Interval
from transference.core.spec import DataSpec, ModalitySpec
from transference.core.views import Views
from transference.data.loader import chunks
from transference.nn.encoders import encoder
from transference.nn.losses import supervised
from transference.nn.momentum import Momentum
from transference.nn.named import ByModality
from transference.nn.network import Network
from transference.nn.queue import UnitQueue
from transference.train.frozen import Remembered, freeze
from transference.train.loop import Stage, Step
from transference.train.neural import NeuralMethod
from transference.train.schedule import Schedule

ALONE, TURNS = 0.4, 0.6  # shares of the schedule's updates, before the labels


def changed(x: Tensor, noise: float, dropped: float) -> Tensor:
    """Standardised input under a random change; draws nothing where there is none."""
    if noise > 0:
        x = x + noise * x.square().mean().sqrt() * torch.randn_like(x)
    if dropped > 0:
        x = x * (torch.rand_like(x) >= dropped)
    return x


def similarity(one: Tensor, other: Tensor) -> Tensor:
    """(n, m) mean cosine over the views that both rows have; -inf where there is none.

    Parameters
    ----------
    one, other
        (n, views, width) and (m, views, width), each vector of unit length, or zeros where a row lacks the view.
    """
    both = torch.einsum("nv,mv->nm", one.any(2).to(one.dtype), other.any(2).to(one.dtype))
    return (torch.einsum("nvd,mvd->nm", one, other) / both.clamp_min(1)).masked_fill(both == 0, -torch.inf)


def mine(similar: Tensor, own: Tensor, count: int) -> Tensor:
    """(n, m) bool: the `count` most similar of each row, fewer where fewer can be compared, never its own.

    Parameters
    ----------
    similar, own
        (n, m) similarities, -inf where rows cannot be compared; (n, m) bool.
    """
    most, place = similar.masked_fill(own, -torch.inf).topk(min(count, similar.shape[1]), 1)
    return torch.zeros_like(own).scatter(1, place, most > -torch.inf)


def positives(own: Tensor, mined: Tensor, without_own: bool) -> Tensor:
    """(n, 1 + m) bool: which of a row's new key and the m keys of the queue count as its own sort.

    Parameters
    ----------
    own, mined
        (n, m) bool.
    without_own
        Whether rows that have mined keys do without their own ones.
    """
    own, mined = F.pad(own, (1, 0), value=True), F.pad(mined, (1, 0), value=False)
    return mined | (own & ~mined.any(1, keepdim=True)) if without_own else mined | own


def contrast(query: Tensor, key: Tensor, queue: Tensor, positive: Tensor, temperature: float) -> Tensor:
    """Mean over rows of C, in nats; 0 where there is no row.

    Parameters
    ----------
    query, key, queue
        (n, width), (n, width) and (m, width), of unit length.
    positive
        (n, 1 + m) bool, True somewhere in every row.

    Examples
    --------
    Where all keys are alike, one of four is the positive: ln 4.

    >>> same = torch.ones(3, 1)
    >>> positive = torch.tensor([[True, False, False, False]]).expand(3, -1)
    >>> bool(torch.isclose(contrast(same, same, same, positive, 0.07), torch.tensor(4.0).log()))
    True
    """
    fits = torch.cat([(query * key).sum(1, keepdim=True), query @ queue.T], 1) / temperature  # (n, 1 + m)
    lost = fits.logsumexp(1) - fits.masked_fill(~positive, -torch.inf).logsumexp(1)
    return lost.sum() / max(1, len(lost))


class View(nn.Module):
    """One modality's encoder, and the projection in which its rows are compared."""

    def __init__(self, modality: ModalitySpec, width: int) -> None:
        super().__init__()
        self.encoder = encoder(modality, width)
        self.projection = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, values: Tensor, lengths: Tensor | None, noise: float = 0.0, dropped: float = 0.0) -> Tensor:
        """(n, width) of unit length."""
        x = changed(self.encoder.standard(values, lengths), noise, dropped)
        return F.normalize(self.projection(self.encoder.body(x, lengths)), dim=1)


class CoTrainedNetwork(Network):
    """The baseline's encoder and head, and a view of every modality."""

    def __init__(self, spec: DataSpec, width: int) -> None:
        super().__init__(spec, [spec.primary], width)
        names = (spec.primary, *spec.secondary)
        self.views = ByModality({name: View(spec.modalities[name], width) for name in names})
        self.mixed = nn.Linear(width, width)

    def represent(self, batch: Batch, name: str) -> Tensor:
        """(n, width) r(x) of one modality."""
        return self.views[name].encoder(batch.views[name], batch.lengths.get(name))  # type: ignore[operator]


class Turn:
    """What one modality is trained with for a while: a slow copy, the others as they are now, and the queue.

    Parameters
    ----------
    name
        The modality.
    net
        Its view is copied, and those of the others if they mine.
    rows
        All training rows; those that have the modality are used.
    size
        Of the queue, at most; it is filled with rows drawn at random.
    change
        Noise and dropping, as `View` takes them.
    mining
        Whether the others mine.
    """

    def __init__(
        self, name: str, net: CoTrainedNetwork, rows: Batch, size: int, change: tuple[float, float], mining: bool
    ) -> None:
        rows = rows.complete([name])
        self.name = name
        self.change = change
        self.slow = Momentum(net.views[name])
        self.others = {other: Momentum(view) for other, view in net.views.items() if mining and other != name}
        self.width = net.mixed.in_features
        self.seen_by_others = Remembered(rows, self._sampled)
        size = min(size, len(rows))
        self.queue = UnitQueue(size, 1 + len(self.others), self.width).to(rows.rows.device)
        for part in chunks(rows.take(torch.randperm(len(rows))[:size].to(rows.rows.device))):
            self.look(part)
            self.enqueue()

    def look(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(n, width) new keys, (n, others, width) what the others make of the rows; both are kept in mind."""
        key = self.slow(batch.views[self.name], batch.lengths.get(self.name), *self.change)
        sampled = self.seen_by_others.of(batch)
        self.seen = torch.cat([key[:, None], sampled], 1), batch.rows
        return key, sampled

    def enqueue(self) -> None:
        """Take in what was looked at last."""
        self.queue.enqueue(*self.seen)

    def _sampled(self, batch: Batch) -> Tensor:
        """(n, others, width) of unit length, zeros where a row lacks the modality."""
        seen = [torch.zeros(len(batch), 0, self.width, device=batch.rows.device)]
        for name, view in self.others.items():
            value = view(batch.views[name], batch.lengths.get(name))
            seen.append(value.where(batch.present[name][:, None], 0.0)[:, None])
        return torch.cat(seen, 1)


class ContrastiveCoTraining(NeuralMethod):
    """Modalities that mine for one another what to pull together; then labels, from the primary's alone.

    Parameters
    ----------
    weight
        w, at least 0: of the co-trained representation beside the encoder's; 0 is the unimodal baseline.
    mined
        k, at least 0: how many keys the others mine for a row; at 0 they teach nothing.
    cycles
        How many turns the primary has, and the others one less; at 0 each modality learns by itself alone.
    memory
        Length of the queue, at least 1, or as many as there are rows.
    temperature
        T, above 0.
    momentum
        m, in [0, 1].
    own_dropped
        In [0, 1]: how often a row that has mined keys does without its own ones. These are alike already, so with 0
        little is left to learn: on planted pairs that gained 0.7 points over ``unimodal``, and 0.9 gained 5.1.
    noise, dropped
        Of the random change: relative to the standardised input; probability in [0, 1).
    width, schedule, seed
        See `NeuralMethod`. The projections are as wide as the representations.
    """

    card: ClassVar[Card] = Card(
        summary="Each modality finds the rows that another one shall pull together; labels teach the primary at last.",
        reference="han2020coclr",
        modalities=(2, None),
        needs=frozenset({"labels", "unlabelled", "paired"}),
        at_test="primary",
        tasks=frozenset({"classification", "regression", "multilabel", "unsupervised"}),
    )
    constraints = {
        "weight": Interval(0),
        "mined": Interval(0, whole=True),
        "cycles": Interval(0, whole=True),
        "memory": Interval(1, whole=True),
        "temperature": Interval(0, open_low=True),
        "momentum": Interval(0, 1),
        "own_dropped": Interval(0, 1),
        "noise": Interval(0),
        "dropped": Interval(0, 1, open_high=True),
    }

    def __init__(
        self,
        *,
        weight: float = 1.0,
        mined: int = 5,
        cycles: int = 2,
        memory: int = 1024,
        temperature: float = 0.07,
        momentum: float = 0.9,
        own_dropped: float = 0.9,
        noise: float = 0.3,
        dropped: float = 0.2,
        width: int = 64,
        schedule: Schedule = Schedule(),
        seed: int = 0,
    ) -> None:
        super().__init__(width=width, schedule=schedule, seed=seed)
        self.weight = weight
        self.mined = mined
        self.cycles = cycles
        self.memory = memory
        self.temperature = temperature
        self.momentum = momentum
        self.own_dropped = own_dropped
        self.noise = noise
        self.dropped = dropped

    def learn(self, X: Views, target: NDArray[Any]) -> None:
        self._turns: list[Turn] = []
        self._represented: Remembered | None = None
        try:
            super().learn(X, target)
        finally:
            del self._turns, self._represented

    def build(self, spec: DataSpec) -> Network:
        return CoTrainedNetwork(spec, self.width) if self.weight else Network(spec, [spec.primary], self.width)

    def stages(self, net: Network) -> Sequence[Stage]:
        task = Step(self.losses)
        if not isinstance(net, CoTrainedNetwork):
            return (Stage("train", (task,)),)
        primary, others = self.spec_.primary, self.spec_.secondary
        order = [((primary, *others), 0)]
        for cycle in range(1, self.cycles + 1):
            order += [((name,), cycle) for name in (primary, *others)]
        order = order[: len(order) - len(others)] if self.cycles else order
        share = TURNS / max(1, len(order) - 1)
        stages = [
            Stage(
                f"cycle {cycle}" if cycle else "alone",
                (Step(self.without_labels),),
                share=share if cycle else ALONE,
                begin=partial(self._begin, names=names, mining=cycle > 0),
                after=self._after,
                answers=False,
            )
            for names, cycle in order
        ]
        if self.spec_.task.kind == "unsupervised":
            return stages
        return (*stages, Stage("train", (task,), begin=self._freeze))

    def without_labels(self, net: CoTrainedNetwork, batch: Batch) -> dict[str, Tensor]:
        """C of every modality that learns now."""
        return {turn.name: self._contrast(net, batch.complete([turn.name]), turn) for turn in self._turns}

    def _contrast(self, net: CoTrainedNetwork, batch: Batch, turn: Turn) -> Tensor:
        name, change = turn.name, (self.noise, self.dropped)
        query = net.views[name](batch.views[name], batch.lengths.get(name), *change)
        key, sampled = turn.look(batch)
        own = turn.queue.rows == batch.rows[:, None]  # (n, size)
        mined = mine(similarity(sampled, turn.queue.vectors[:, 1:]), own, self.mined)
        without_own = bool(torch.rand(()) < self.own_dropped)
        return contrast(query, key, turn.queue.vectors[:, 0], positives(own, mined, without_own), self.temperature)

    def losses(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        known = batch.labelled
        represented = getattr(self, "_represented", None)  # while the head is trained
        features = self._features(net, known, None if represented is None else represented.of(known))
        return {"task": supervised(net.head(features), known.target, self.spec_.task)}

    def scores(self, net: Network, batch: Batch) -> Tensor:
        return net.head(self._features(net, batch))

    def embeddings(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        """The primary modality -> (n, width): what the head reads; r(x) without labels."""
        primary = self.spec_.primary
        if primary not in batch.views:
            return {}
        if isinstance(net, CoTrainedNetwork) and self.spec_.task.kind == "unsupervised":
            return {primary: net.represent(batch, primary)}
        return {primary: self._features(net, batch)}

    def _features(self, net: Network, batch: Batch, represented: Tensor | None = None) -> Tensor:
        """(n, width) of which the head reads a linear map; r(x) is computed where it is not given."""
        features = net.encode(batch, self.spec_.primary)
        if not isinstance(net, CoTrainedNetwork):
            return features
        r = net.represent(batch, self.spec_.primary) if represented is None else represented
        return features + self.weight * net.mixed(r)

    def _begin(self, net: CoTrainedNetwork, rows: Batch, names: tuple[str, ...], mining: bool) -> None:
        """The modalities that learn now get their slow copies, their queues and, in a cycle, the others as miners."""
        change = (self.noise, self.dropped)
        self._turns = [Turn(name, net, rows, self.memory, change, mining) for name in names]

    def _after(self, net: CoTrainedNetwork, done: int) -> None:
        for turn in self._turns:
            turn.enqueue()
            turn.slow.follow(net.views[turn.name], self.momentum)

    def _freeze(self, net: CoTrainedNetwork, rows: Batch) -> None:
        """What was co-trained stays as it is, so r(x) of the labelled rows is computed once."""
        self._turns = []
        freeze(net.views.eval())
        self._represented = Remembered(rows.labelled, lambda batch: net.represent(batch, self.spec_.primary))
