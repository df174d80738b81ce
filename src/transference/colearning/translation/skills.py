"""Skills: the primary modality is cut into segments whose names the secondary modality tells, in their order.

When to use it: a row of the primary modality is a demonstration, a series in which a few sub-tasks follow one another;
for some rows, a tenth may do, a text names them in order but not when each begins; the label depends on what is done
when. Rows without a text, labelled or not, are segmented too. The text is needed in training only.

    log p(x, z) = sum over segments j  log A[k', k] + log Poisson(d - 1; r_k) + sum_{t in j} log N(x_t; m_k, v)
                  + log A[k_last, end],                  k: the skill of j, k': the one before it, d: the steps of j

Hard EM: cut every row in the best way, by dynamic programming over all segmentations (`segment`); take the m, v, r and
A that are likeliest for these segments; again, until nothing is gained. The objective, the sum of log p over rows plus
the logarithm of a weak prior of A, never falls. In a row with a text the skills and their order are those of its words:
only the boundaries are found. EM starts from such rows, cut evenly, and first runs on them alone; where there is none,
it starts from k-means, and skills are found up to their numbers.

    minimise  CE(head(E(x) + weight * B s), y),          s: the mean of p(k_t = k | x) over each quarter of the row

B is a linear map that starts at 0. p is the forward-backward pass of the same model, where a skill goes on to the next
step with probability r / (1 + r): a fixed number of small products, which read the primary modality alone.
`segments` gives the best cut of new rows, with the durations as learned. With `weight` = 0 nothing of this is built: it
is `unimodal`, bit for bit.

Names: the `skills` most frequent words of a text; a word that repeats at once counts once. What is no text is named by
k-means: each of at most 8 stretches of a series, or a whole row, which is then one segment. Names that are more than
the steps are cut off. Several secondary modalities: skills of their own for each. Steps: a row of a series or of sound
is averaged into `steps` equal stretches, or as many as the longest row has steps; anything else is one step.

Shapes: x (n, steps, d); m (skills, d), v (d,), r (skills,), A (skills + 1, skills + 1). Cost: rows steps^2 skills for a
cut, at most 60 cuts, once; then n steps log(steps) products of (skills, skills) beside the encoder.

Source: sharma2022. Departs from it: a segment's description is a word, not a sentence that a model writes; each skill
has a normal distribution of steps in the place of a policy; what is learned predicts a label and does not act.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor, nn
from torch.nn import functional as F

from transference.core.batch import Batch
from transference.core.errors import ConfigError
from transference.core.method import Card
from transference.core.parameters import Interval
from transference.core.seeding import derive
from transference.core.spec import DataSpec, ModalitySpec
from transference.core.views import Views
from transference.data.loader import to_batch
from transference.nn.encoders import mask_of, word_counts
from transference.nn.encoders.base import scale_of
from transference.nn.inputs import Inputs
from transference.nn.losses import supervised
from transference.nn.named import ByModality
from transference.nn.network import Network
from transference.nn.resampling import resample
from transference.train.loop import Stage, Step
from transference.train.neural import NeuralMethod
from transference.train.schedule import Schedule

NO_NAME = -1
PARTS = 4  # stretches of a row, in which skills are counted
NAMED = 8  # most stretches of a secondary series
ROUNDS = 30  # of EM, at most
LEAST_VARIANCE = 1e-2  # of a standardised number
RATES = (0.05, 1e3)  # of steps beyond the first
PRIOR = 1.0  # times that every change of skill counts as seen


def segment(emission: Tensor, duration: Tensor, chain: Tensor) -> tuple[Tensor, Tensor]:
    """The best of all segmentations of each row: (n, length) the state of every step, (n,) the logarithm of its value.

    Parameters
    ----------
    emission
        (n, length, states) log-density of every step in every state.
    duration
        (n or 1, length, states) log-probability that a segment has 1, 2, ... steps.
    chain
        (n or 1, states + 1, states + 1) log-probability of what follows a state, -inf on the diagonal. The last row is
        the beginning, the last column the end.
    """
    n, length, states = emission.shape
    total = F.pad(emission.cumsum(1), (0, 0, 1, 0))  # (n, length + 1, states)
    enter = torch.full_like(total, -math.inf)  # the best that ends with a beginning of a state after t steps
    enter[:, 0] = chain[:, states, :states]
    begun = torch.zeros(total.shape, dtype=torch.int64, device=emission.device)  # where the segment that ends began
    before = torch.zeros_like(begun)  # the state before the one that begins
    for t in range(1, length + 1):
        found = (enter[:, :t] - total[:, :t] + duration[:, :t].flip(1)).max(1)  # over beginnings
        best, begun[:, t] = found.values + total[:, t], found.indices
        enter[:, t], before[:, t] = (best[:, :, None] + chain[:, :states, :states]).max(1)
    value, state = (best + chain[:, :states, states]).max(1)
    rows, steps = torch.arange(n, device=state.device), torch.arange(length, device=state.device)
    labels, end = state[:, None].expand(n, length), torch.full_like(state, length)
    while bool((end > 0).any()):
        start = begun[rows, end, state]
        labels = torch.where((steps >= start[:, None]) & (steps < end[:, None]), state[:, None], labels)
        end, state = start, before[rows, start, state]
    return labels, value


class Grammar(NamedTuple):
    """What skills look like, how long they last and what follows what; a skill that nothing leads to is not used."""

    mean: Tensor  # (skills, d)
    variance: Tensor  # (d,)
    rate: Tensor  # (skills,) mean number of steps beyond the first
    chain: Tensor  # (skills + 1, skills + 1) log-probabilities, see `segment`

    def emission(self, x: Tensor) -> Tensor:
        """(n, length, skills) of (n, length, d)."""
        scaled = self.mean / self.variance
        apart = (x.square() / self.variance).sum(2, keepdim=True) - 2 * x @ scaled.T + (self.mean * scaled).sum(1)
        return -0.5 * (apart + (2 * math.pi * self.variance).log().sum())

    def duration(self, length: int) -> Tensor:
        """(length, skills)."""
        more = torch.arange(length, dtype=self.rate.dtype, device=self.rate.device)[:, None]
        return more * self.rate.log() - self.rate - torch.lgamma(more + 1)

    def cut(self, x: Tensor, names: Tensor) -> tuple[Tensor, float]:
        """(n, length) skills of the best cut, and the objective; `names` (n, at most length) as for `induce`."""
        labels, value = segment(self.emission(x), self.duration(x.shape[1])[None], self.chain[None])
        told = names[:, 0] != NO_NAME
        if told.any():
            labels[told], value[told] = self._align(x[told], names[told])
        return labels, float(value.sum() + PRIOR * self.chain[self.chain > -math.inf].sum())

    def _align(self, x: Tensor, names: Tensor) -> tuple[Tensor, Tensor]:
        """As `segment`, where state j of a row is its name j, and nothing but j + 1 comes after j."""
        (n, most), there, skill = names.shape, names != NO_NAME, names.clamp_min(0)
        rows, j, last = torch.arange(n, device=x.device), torch.arange(most - 1, device=x.device), there.sum(1) - 1
        chain = torch.full((n, most + 1, most + 1), -math.inf, dtype=x.dtype, device=x.device)
        chain[:, most, 0] = self.chain[-1, skill[:, 0]]
        chain[:, j, j + 1] = self.chain[skill[:, :-1], skill[:, 1:]].where(there[:, 1:], -math.inf)
        chain[rows, last, most] = self.chain[skill[rows, last], -1]
        emission = self.emission(x).gather(2, skill[:, None].expand(-1, x.shape[1], -1))
        position, value = segment(emission, self.duration(x.shape[1])[:, skill].movedim(1, 0), chain)
        return names.gather(1, position), value

    def update(self, x: Tensor, labels: Tensor) -> Grammar:
        """The likeliest grammar of these segments; a skill without a step keeps its mean and its rate."""
        skills = len(self.mean)
        member = F.one_hot(labels, skills).to(x.dtype)  # (n, length, skills)
        steps = member.sum((0, 1))
        mean = torch.einsum("ntk,ntd->kd", member, x) / steps.clamp_min(1)[:, None]
        mean = torch.where(steps[:, None] > 0, mean, self.mean)
        variance = (x - mean[labels]).square().mean((0, 1)).clamp_min(LEAST_VARIANCE)
        before, after = F.pad(labels, (1, 0), value=skills), F.pad(labels, (0, 1), value=skills)
        changed = before != after
        seen = torch.zeros_like(self.chain)
        seen.index_put_((before[changed], after[changed]), torch.ones_like(seen[0, 0]), accumulate=True)
        segments = seen[:, :skills].sum(0)
        rate = ((steps - segments) / segments.clamp_min(1)).clamp(*RATES)
        weight = (seen + PRIOR).where(self.chain > -math.inf, 0.0)
        chain = (weight / weight.sum(1, keepdim=True).clamp_min(PRIOR)).log()
        return Grammar(mean, variance, torch.where(segments > 0, rate, self.rate), chain)

    def posterior(self, x: Tensor) -> Tensor:
        """(n, length, skills) probability of each skill at each step, given all steps."""
        emission = self.emission(x).where(self.chain[-1, :-1] > -math.inf, -math.inf)
        likely = (emission - emission.amax(2, keepdim=True)).exp()
        change = self.chain[:-1, :-1].exp()
        others = change.sum(1)
        stay = torch.where(others > 0, self.rate / (1 + self.rate), 1.0)
        move = stay.diag() + ((1 - stay) / others.clamp_min(1e-12))[:, None] * change
        begin = self.chain[-1, :-1].exp() * likely[:, 0]
        onward = move * likely[:, 1:, None]  # (n, length - 1, skills, skills)
        forth = torch.cat([begin[:, None], (begin[:, None, None] @ products(onward))[:, :, 0]], 1)
        back = F.pad(products(onward.flip(1).mT).sum(2), (0, 0, 1, 0), value=1.0).flip(1)
        both = forth * back
        return both / both.sum(2, keepdim=True)


def products(factors: Tensor) -> Tensor:
    """(n, length, k, k) the product of the first 1, 2, ... of these matrices of at least 0, up to a factor for each."""
    done = 1
    while done < factors.shape[1]:
        further = factors[:, :-done] @ factors[:, done:]
        factors = torch.cat([factors[:, :done], further / further.sum((2, 3), keepdim=True)], 1)
        done *= 2
    return factors


def induce(x: Tensor, names: Tensor, skills: int, seed: int) -> tuple[Grammar, Tensor, list[float]]:
    """Hard EM: the grammar; (n, length) the skill of every step; the objective after every cut of all rows.

    Parameters
    ----------
    x
        (n, length, d).
    names
        (n, most) the skills of a row in their order, none twice at once, then -1; a row without any is free.
    skills
        Most of them; where a row has names, the named ones are all there are.
    """
    (n, length, size), x = x.shape, x.double()
    names, told = names[:, :length], names[:, 0] != NO_NAME
    phases = [told, torch.ones_like(told)] if told.any() and not told.all() else [torch.ones_like(told)]
    labels = names.gather(1, torch.arange(length, device=x.device) * (names != NO_NAME).sum(1)[:, None] // length)
    if not told.any():
        labels = clusters(x.flatten(0, 1), skills, seed).view(n, length)
    used = F.pad(torch.bincount(labels[phases[0]].flatten(), minlength=skills) > 0, (0, 1), value=True)
    allowed = used[:, None] & used & ~torch.eye(skills + 1, dtype=torch.bool, device=x.device)
    chain = torch.zeros(allowed.shape, dtype=x.dtype, device=x.device).where(allowed, -math.inf)
    grammar = Grammar(x.new_zeros(skills, size), x.new_ones(size), x.new_ones(skills), chain)
    grammar = grammar.update(x[phases[0]], labels[phases[0]])
    for rows in phases:
        trace: list[float] = []
        for _ in range(ROUNDS):
            found, value = grammar.cut(x[rows], names[rows])
            trace.append(value)
            if len(trace) > 1 and value <= trace[-2]:
                break
            labels[rows] = found
            grammar = grammar.update(x[rows], found)
    return grammar, labels, trace


def clusters(points: Tensor, most: int, seed: int) -> Tensor:
    """(n,) number of the k-means cluster of each of (n, d) points."""
    values = points.double().cpu().numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer clusters than asked for, since points coincide
        model = KMeans(min(most, len(np.unique(values, axis=0))), n_init=3, random_state=seed).fit(values)
    return torch.from_numpy(model.labels_).to(points.device).long()


def compact(names: Tensor) -> Tensor:
    """(n, most) names moved to the front of their rows, without those that repeat at once; then -1."""
    for _ in range(2):  # what repeats is seen once all stand side by side
        keep = (names != NO_NAME) & (names != F.pad(names, (1, 0), value=NO_NAME)[:, :-1])
        order = (~keep).int().argsort(dim=1, stable=True)
        names = names.gather(1, order).where(keep.gather(1, order), NO_NAME)
    return names


class Steps(Inputs):
    """The standardised steps of a series, at most `most`, (n, steps, d); anything else as one step."""

    def __init__(self, modality: ModalitySpec, most: int) -> None:
        ordered = modality.kind in ("series", "audio") and len(modality.shape) == 2
        super().__init__(modality, min(most, modality.shape[0]) if ordered else 1)

    def fit_statistics(self, values: Tensor, lengths: Tensor | None) -> None:
        super().fit_statistics(values, lengths)
        if self.steps > 1:  # every step has the same
            steps = self.raw(values, lengths).unflatten(1, (self.steps, -1)).flatten(0, 1)
            self.mean.copy_(steps.mean(0).repeat(self.steps))
            self.scale.copy_(scale_of(steps).repeat(self.steps))

    def body(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        return x.unflatten(1, (self.steps, -1))

    def read(self, batch: Batch) -> Tensor:
        return self(batch.views[self.modality.name], batch.lengths.get(self.modality.name))


class Induced(nn.Module):
    """The grammar induced with the names of one secondary modality, as buffers."""

    def __init__(self, modality: ModalitySpec, skills: int, size: int) -> None:
        super().__init__()
        self.modality, self.skills = modality, skills
        self.steps = None if modality.kind == "text" else Steps(modality, NAMED)
        shapes = ((skills, size), (size,), (skills,), (skills + 1, skills + 1))
        for name, shape in zip(Grammar._fields, shapes, strict=True):
            self.register_buffer(name, torch.ones(shape))
        self.register_buffer("words", torch.full((skills,), NO_NAME))

    def grammar(self) -> Grammar:
        return Grammar(*map(self.get_buffer, Grammar._fields))

    def names(self, rows: Batch, seed: int) -> Tensor:
        """(n, most) names that the secondary modality gives each row, in their order; then -1."""
        present = rows.present[self.modality.name]
        if self.steps is not None:
            x = self.steps.read(rows)
            names = torch.full(x.shape[:2], NO_NAME, device=x.device)
            names[present] = clusters(x[present].flatten(0, 1), self.skills, seed).view(-1, x.shape[1])
            return compact(names)
        values = rows.views[self.modality.name]
        there = (mask_of(rows.lengths.get(self.modality.name), values) > 0) & present[:, None]
        words = values.where(there, 0.0).long()
        texts = (word_counts(words, self.modality.vocabulary) > 0).sum(0)  # that have each word
        chosen = texts.argsort(descending=True, stable=True)[: self.skills]
        chosen = chosen[texts[chosen] > 0]
        self.get_buffer("words")[: len(chosen)] = chosen
        number = torch.full_like(texts, NO_NAME)
        number[chosen] = torch.arange(len(chosen), device=texts.device)
        return compact(number[words])


class Skills(NeuralMethod):
    """Cut the primary modality into skills that the secondary one names, and answer with what is done when.

    Parameters
    ----------
    weight
        Of the skills, at least 0; 0 is the unimodal baseline. The default is from planted rows.
    skills
        Most skills.
    steps
        Most steps of a row.
    width, schedule, seed
        See `NeuralMethod`.

    Attributes
    ----------
    objective_
        Secondary modality -> what EM maximises, after every cut of all rows.
    """

    card: ClassVar[Card] = Card(
        summary="Cut the primary into skills that the secondary names, and answer with what is done when.",
        reference="sharma2022",
        modalities=(2, None),
        needs=frozenset({"labels", "unlabelled", "paired"}),
        at_test="primary",
        tasks=frozenset({"classification", "regression", "multilabel"}),
    )
    constraints = {"weight": Interval(0), "skills": Interval(2, whole=True), "steps": Interval(1, whole=True)}

    def __init__(
        self,
        *,
        weight: float = 3.0,
        skills: int = 8,
        steps: int = 32,
        width: int = 64,
        schedule: Schedule = Schedule(),
        seed: int = 0,
    ) -> None:
        super().__init__(width=width, schedule=schedule, seed=seed)
        self.weight = weight
        self.skills = skills
        self.steps = steps

    def build(self, spec: DataSpec) -> Network:
        net = Network(spec, [spec.primary], self.width)
        if self.weight:
            net.steps = Steps(spec.modalities[spec.primary], self.steps)
            size = net.steps.size // net.steps.steps
            net.induced = ByModality({n: Induced(spec.modalities[n], self.skills, size) for n in spec.secondary})
            inputs = len(spec.secondary) * min(PARTS, net.steps.steps) * self.skills
            net.bridge = nn.Parameter(torch.zeros(inputs, self.width))  # at first the skills say nothing
        return net

    def stages(self, net: Any) -> Sequence[Stage]:
        return (Stage("train", (Step(self.losses),), begin=self._induce if self.weight else None),)

    def losses(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        known = batch.labelled
        return {"task": supervised(self.scores(net, known), known.target, self.spec_.task)}

    def scores(self, net: Any, batch: Batch) -> Tensor:
        return net.head(self.embeddings(net, batch)[self.spec_.primary])

    def embeddings(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        """The primary modality's name -> (n, width): what the head reads."""
        if self.spec_.primary not in batch.views:
            return {}
        features = net.encode(batch, self.spec_.primary)
        if self.weight:
            x = net.steps.read(batch)
            parts = min(PARTS, x.shape[1])
            shares = [part.grammar().posterior(x) for part in net.induced.values()]
            counts = [resample(each, None, parts).flatten(1) for each in shares]
            features = features + self.weight * self.skills * torch.cat(counts, 1) @ net.bridge  # 1 is an even share
        return {self.spec_.primary: features}

    def segments(self, X: Views) -> dict[str, NDArray[np.int64]]:
        """Secondary modality -> (n, steps): each step's skill in the best cut, by the primary modality alone.

        With a text, skill k is the word whose number is ``net_.induced[name].words[k]``.
        """
        X = self._readable(X)
        if not self.weight:
            raise ConfigError("There are no skills: the 'weight' parameter of Skills is 0.")
        net: Any = self.net_
        x = net.steps.read(to_batch(X, device=self._device()))
        free = torch.full((len(X), 1), NO_NAME, device=x.device)
        return {name: part.grammar().cut(x, free)[0].cpu().numpy() for name, part in net.induced.items()}

    def _induce(self, net: Any, rows: Batch) -> None:
        x, self.objective_ = net.steps.read(rows), {}
        for name, part in net.induced.items():
            seed = derive(self.seed, "skills", name) % 2**32
            grammar, _, self.objective_[name] = induce(x, part.names(rows, seed), self.skills, seed)
            for known, found in zip(part.grammar(), grammar, strict=True):
                known.copy_(found)
