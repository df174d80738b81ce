"""Self-distillation: say what a slower copy of oneself, which sees everything, makes of the places that are hidden.

When to use it: many rows, with labels or without, that show the same thing in several modalities. Nothing is
reconstructed and nothing contrasted: what is predicted is a representation, in the context of the whole row.

    y_t  = mean over the last K layers l of LN(teacher_l(all tokens))_t
    minimise  mean over hidden t of  ||p(student(tokens that are not hidden))_t - y_t||^2 / d       (or smooth L1)
    teacher <- tau teacher + (1 - tau) student     after each update; tau rises from `momentum` to `momentum_end`

Tokens are those of the primary modality and of all secondary ones that a row has, see `nn.tokens`: a vector is one
token. Every second row, drawn anew, hides its other modalities whole, so that the student says from the primary alone
what the teacher makes of them; in the other rows each token is hidden with probability `hidden`, all but one. A hidden
token leaves its place behind, which asks and is not read. LN has no parameters; p is a linear map.

After that the student is frozen, and the labels teach an encoder and a head beside it:

    minimise  mean CE(head(E(x) + w U r(x)), y)

E is the primary modality's default encoder and U a linear map. r(x) is the mean of the student's tokens of the primary
modality, and for each other modality the mean of what it predicts at its places, which hold nothing. With w = 0 the
method is `unimodal`, bit for bit. Without labels r(x) is all there is.

Collapse is watched: "target variance" in the history is the variance of y over rows at the same place, mean over places
and numbers; targets that do not depend on the row have 0, normalised ones at most about 1.

Shapes: tokens (n, at most 16 a modality, width). Cost: a transformer of two layers and a pass of its copy for half as
many updates as the schedule has, then its pass over the primary's tokens, deployed too.

Source: baevski2022 (data2vec). Departs from it: several modalities are seen together; the teacher's weights cover the
transformer and no embedding, as there; tokens are few and hidden one by one, not in spans; hidden tokens are not read;
the frozen student stands beside the baseline's encoder rather than being fine-tuned in its place, so that with few
rows a small transformer need not do what a linear map can; tau is lower, for hundreds of updates rather than a million.
The defaults were looked at on planted pairs alone.
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
from transference.nn.losses import supervised
from transference.nn.momentum import Momentum, annealed
from transference.nn.named import ByModality
from transference.nn.network import Network
from transference.nn.tokens import Learned, Tokens, Transformer
from transference.train.frozen import Remembered, freeze
from transference.train.loop import Stage, Step
from transference.train.neural import NeuralMethod
from transference.train.schedule import Schedule

DEPTH, HEADS = 2, 4
ALONE = 0.5  # share of rows that hide all but their primary modality
SHARE = 0.5  # of the schedule's updates, before the labels
VARIANCE = "target variance"
COLLAPSED = 0.01  # of a variance that is about 1


def targets(layers: Sequence[Tensor], top: int) -> Tensor:
    """(n, tokens, width) mean over the last `top` layers, each token of each with mean 0 and variance 1."""
    return torch.stack([F.layer_norm(layer, layer.shape[2:]) for layer in layers[-top:]]).mean(0)


def variance_over_rows(target: Tensor, real: Tensor) -> Tensor:
    """Variance of (n, tokens, width) over the rows in which a token is `real`, mean over tokens and numbers."""
    share = real.to(target.dtype)[:, :, None]
    count = share.sum(0)  # (tokens, 1)
    mean = (target * share).sum(0) / count.clamp_min(1)
    variance = ((target - mean).square() * share).sum(0) / count.clamp_min(1)
    seen = (count[:, 0] > 1).to(target.dtype)
    return (variance.mean(1) * seen).sum() / seen.sum().clamp_min(1)


def hide(real: Tensor, primary: Tensor, rate: float, draws: Tensor, alone: Tensor) -> Tensor:
    """(n, tokens) bool: which tokens are hidden, never all of a row.

    Parameters
    ----------
    real
        (n, tokens) bool: what each row has.
    primary
        (tokens,) bool: which tokens are the primary modality's.
    rate
        Probability that a token is hidden.
    draws
        (n, tokens) uniform in [0, 1).
    alone
        (n,) bool: which rows hide everything but the primary modality, if they have more.
    """
    spared = F.one_hot(draws.masked_fill(~real, -1.0).argmax(1), real.shape[1]).bool()
    others = real & ~primary
    by_chance = real & (draws < rate) & ~spared
    return torch.where((alone & others.any(1))[:, None], others, by_chance)


def distillation(predicted: Tensor, target: Tensor, hidden: Tensor, beta: float) -> Tensor:
    """Mean over hidden tokens and numbers of the squared error (`beta` 0), or of smooth L1; 0 where none is hidden."""
    error = predicted - target.detach()
    if beta > 0:
        size = error.abs()
        cost = torch.where(size < beta, 0.5 * error.square() / beta, size - 0.5 * beta)
    else:
        cost = error.square()
    return cost.mean(2).where(hidden, 0.0).sum() / hidden.sum().clamp_min(1)


class DistilledNetwork(Network):
    """The baseline's encoder and head; tokens of all modalities, the student, and its teacher."""

    def __init__(self, spec: DataSpec, width: int) -> None:
        super().__init__(spec, [spec.primary], width)
        self.names = (spec.primary, *spec.secondary)
        self.tokens = ByModality({name: Tokens(spec.modalities[name], width) for name in self.names})
        self.nothing = Learned((width,))  # what a hidden token holds
        self.student = Transformer(width, DEPTH, math.gcd(width, HEADS))
        self.norm = nn.LayerNorm(width)
        self.predictor = nn.Linear(width, width)
        self.teacher = Momentum(self.student)
        self.mixed = nn.Linear(width * len(self.names), width)

    def see(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(n, tokens, width) tokens of all modalities without their places; (n, tokens) bool, which are real."""
        seen = [self.tokens[name](batch.views[name], batch.lengths.get(name)) for name in self.names]
        real = [here & batch.present[name][:, None] for (_, here), name in zip(seen, self.names, strict=True)]
        return torch.cat([tokens for tokens, _ in seen], 1), torch.cat(real, 1)

    def places(self) -> Tensor:
        """(tokens, width)."""
        return torch.cat([self.tokens[name].places() for name in self.names])  # type: ignore[operator]

    def sizes(self) -> list[int]:
        """How many tokens each modality has, in the order of `names`."""
        return [self.tokens[name].length for name in self.names]  # type: ignore[misc]

    def represent(self, batch: Batch) -> Tensor:
        """(n, width * modalities) r(x): from the primary modality alone."""
        primary = self.names[0]
        tokens, real = self.tokens[primary](batch.views[primary], batch.lengths.get(primary))
        count = sum(self.sizes()[1:])
        empty = self.nothing.value.expand(tokens.shape[0], count, -1)
        read = F.pad(real, (0, count), value=False)
        last = self.norm(self.student(torch.cat([tokens, empty], 1) + self.places(), read)[-1])
        own, *others = last.split(self.sizes(), 1)
        share = real.to(own.dtype)[:, :, None]
        parts = [(own * share).sum(1) / share.sum(1), *[self.predictor(other.mean(1)) for other in others]]
        return torch.cat(parts, 1)


class SelfDistilled(NeuralMethod):
    """Learn from one's own slower self, over the tokens of all modalities; then labels, from the primary's alone.

    Parameters
    ----------
    weight
        w, at least 0: of the student's representation beside the encoder's; 0 is the unimodal baseline.
    hidden
        Probability that a token is hidden, in (0, 1).
    momentum, momentum_end
        tau before the first update, and from the last one before the labels on, each in [0, 1].
    layers
        K, how many of the teacher's layers make the target: 1 or 2.
    beta
        Where the smooth L1 loss turns from square to straight; 0 = the squared error.
    width, schedule, seed
        See `NeuralMethod`.

    Attributes
    ----------
    collapsed_
        Whether the targets had stopped to depend on the row; False with the weight 0.
    """

    card: ClassVar[Card] = Card(
        summary="Predict, from what is not hidden, what a slower copy of oneself makes of all modalities.",
        reference="baevski2022",
        modalities=(2, None),
        needs=frozenset({"labels", "unlabelled", "paired"}),
        at_test="primary",
        tasks=frozenset({"classification", "regression", "multilabel", "unsupervised"}),
    )
    constraints = {
        "weight": Interval(0),
        "hidden": Interval(0, 1, open_low=True, open_high=True),
        "momentum": Interval(0, 1),
        "momentum_end": Interval(0, 1),
        "layers": Interval(1, DEPTH, whole=True),
        "beta": Interval(0),
    }

    def __init__(
        self,
        *,
        weight: float = 1.0,
        hidden: float = 0.5,
        momentum: float = 0.9,
        momentum_end: float = 0.99,
        layers: int = 2,
        beta: float = 0.0,
        width: int = 64,
        schedule: Schedule = Schedule(),
        seed: int = 0,
    ) -> None:
        super().__init__(width=width, schedule=schedule, seed=seed)
        self.weight = weight
        self.hidden = hidden
        self.momentum = momentum
        self.momentum_end = momentum_end
        self.layers = layers
        self.beta = beta

    def learn(self, X: Views, target: NDArray[Any]) -> None:
        self._represented: Remembered | None = None
        super().learn(X, target)
        del self._represented
        seen = [value for value in self.history_.get(f"distillation: {VARIANCE}", []) if value == value]
        self.collapsed_ = bool(seen) and seen[-1] < COLLAPSED

    def build(self, spec: DataSpec) -> Network:
        return DistilledNetwork(spec, self.width) if self.weight else Network(spec, [spec.primary], self.width)

    def stages(self, net: Network) -> Sequence[Stage]:
        task = Step(self.losses)
        if not isinstance(net, DistilledNetwork):
            return (Stage("train", (task,)),)
        step = Step(self.without_labels, parameters=lambda net: [p for part in _taught(net) for p in part.parameters()])
        first = Stage("distillation", (step,), share=SHARE, begin=_start, after=self._follow, answers=False)
        if self.spec_.task.kind == "unsupervised":
            return (first,)
        return (first, Stage("train", (task,), begin=self._freeze))

    def without_labels(self, net: DistilledNetwork, batch: Batch) -> dict[str, Tensor]:
        """The loss at hidden tokens, and the variance of its targets, which has no gradient."""
        tokens, real = net.see(batch)
        n, count = real.shape
        draws, alone = torch.rand(n, count, device=real.device), torch.rand(n, device=real.device) < ALONE
        primary = torch.arange(count, device=real.device) < net.sizes()[0]
        hidden = hide(real, primary, self.hidden, draws, alone)
        places = net.places()
        target = targets(net.teacher(tokens + places, real), self.layers)
        shown = torch.where(hidden[:, :, None], net.nothing.value, tokens) + places
        predicted = net.predictor(net.norm(net.student(shown, real & ~hidden)[-1]))
        loss = distillation(predicted, target, hidden, self.beta)
        return {"hidden tokens": loss, VARIANCE: variance_over_rows(target, real)}

    def losses(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        known = batch.labelled
        represented = getattr(self, "_represented", None)  # while the head is trained
        features = self._features(net, known, None if represented is None else represented.of(known))
        return {"task": supervised(net.head(features), known.target, self.spec_.task)}

    def scores(self, net: Network, batch: Batch) -> Tensor:
        return net.head(self._features(net, batch))

    def embeddings(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        """The primary modality -> (n, width), what the head reads; (n, width * modalities), r(x), without labels."""
        primary = self.spec_.primary
        if primary not in batch.views:
            return {}
        if isinstance(net, DistilledNetwork) and self.spec_.task.kind == "unsupervised":
            return {primary: net.represent(batch)}
        return {primary: self._features(net, batch)}

    def _features(self, net: Network, batch: Batch, represented: Tensor | None = None) -> Tensor:
        """(n, width) of which the head reads a linear map; r(x) is computed where it is not given."""
        features = net.encode(batch, self.spec_.primary)
        if not isinstance(net, DistilledNetwork):
            return features
        return features + self.weight * net.mixed(net.represent(batch) if represented is None else represented)

    def _follow(self, net: DistilledNetwork, done: int) -> None:
        updates = max(1, round(SHARE * self.schedule.updates))
        net.teacher.follow(net.student, annealed(self.momentum, self.momentum_end, done, updates))

    def _freeze(self, net: DistilledNetwork, rows: Batch) -> None:
        """What was taught stays as it is, so r(x) of the labelled rows is computed once."""
        for part in _taught(net):
            freeze(part)
        self._represented = Remembered(rows.labelled, net.represent)


def _taught(net: DistilledNetwork) -> list[nn.Module]:
    """What learns before the labels."""
    return [net.tokens, net.nothing, net.student, net.norm, net.predictor]


def _start(net: DistilledNetwork, rows: Batch) -> None:
    net.teacher.start(net.student)
