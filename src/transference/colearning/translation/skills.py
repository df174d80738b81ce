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

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from transference.core.batch import Batch
from transference.core.errors import ConfigError
from transference.core.method import Card
from transference.core.parameters import Interval
from transference.core.seeding import derive
from transference.core.spec import DataSpec, ModalitySpec
from transference.core.views import Views
from transference.data.loader import to_batch
from transference.nn.clusters import k_means
from transference.nn.encoders import mask_of, word_counts
from transference.nn.encoders.base import scale_of
from transference.nn.grammar import NO_NAME, STARTS, Grammar, compact, induce
from transference.nn.inputs import Inputs
from transference.nn.losses import supervised
from transference.nn.named import ByModality
from transference.nn.network import Network
from transference.nn.resampling import resample
from transference.train.frozen import Remembered
from transference.train.loop import Stage, Step
from transference.train.neural import NeuralMethod
from transference.train.schedule import Schedule

PARTS = 4  # stretches of a row, in which skills are counted
NAMED = 8  # most stretches of a secondary series


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
            names[present] = k_means(x[present].flatten(0, 1), self.skills, seed, STARTS)[1].view(-1, x.shape[1])
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

    def learn(self, X: Views, target: NDArray[Any]) -> None:
        super().learn(X, target)
        self.__dict__.pop("_counts", None)

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
        features = net.encode(known, self.spec_.primary)
        if self.weight:
            features = features + self._said(net, self._counts.of(known))
        return {"task": supervised(net.head(features), known.target, self.spec_.task)}

    def scores(self, net: Any, batch: Batch) -> Tensor:
        return net.head(self.embeddings(net, batch)[self.spec_.primary])

    def embeddings(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        """The primary modality's name -> (n, width): what the head reads."""
        if self.spec_.primary not in batch.views:
            return {}
        features = net.encode(batch, self.spec_.primary)
        if self.weight:
            features = features + self._said(net, self._counted(net, batch))
        return {self.spec_.primary: features}

    def _counted(self, net: Any, batch: Batch) -> Tensor:
        """(n, parts * skills of all modalities): each skill's share of each part of the row."""
        x = net.steps.read(batch)
        shares = [part.grammar().posterior(x) for part in net.induced.values()]
        return torch.cat([resample(each, None, min(PARTS, x.shape[1])).flatten(1) for each in shares], 1)

    def _said(self, net: Any, counts: Tensor) -> Tensor:
        """(n, width) what the skills add to the representation; an even share counts 1."""
        return self.weight * self.skills * counts @ net.bridge

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
        self._counts = Remembered(rows.labelled, lambda batch: self._counted(net, batch))
