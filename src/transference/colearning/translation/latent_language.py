"""Latent language: a representation shaped by having to say a class's description, which is never said at test time.

When to use it: classes, or rows, come with descriptions that name what matters in them; few rows of a class are
labelled; and new classes are met later through the primary modality alone, a few rows of each.

    minimise  mean CE(head(h_i), y_i)  +  w mean of cost(description_i | c_i),   h_i = g(x_i)
    c_i = the mean of h over the rows of i's class in the batch: the concept that the class is

g is the primary's encoder, (n, *shape) -> (n, width); the description is said from c_i, word after word, by a recurrent
decoder, see `nn.language`. The cost is in nats a word, as a share of what a word costs one who knows only how frequent
it is; the end of the text is a word, its padding is none. A row without a label is a class of its own. A modality
without words is described by its low-level form at once, the cost being the share of its variance that is missed; for
several secondary modalities, the mean of their costs.

With `training="episodes"`, on planted rows much the better choice where new classes are all that is asked, the encoder
learns as it will be asked: every row of the batch is put to the classes of the batch, each shown by the mean of its
other rows, and the head reads h without teaching it:

    minimise  mean CE(score(h_i, p), y_i)  +  mean CE(head(h_i as it is), y_i)  +  w mean cost,    score as below
    p_k = mean of h over the rows of class k in the batch other than i

New classes (`episode`): the same prototypes p_k from the rows shown; a query is scored -|h - p_k|^2, or h . p_k. The
decoder is not used, and nothing but the primary modality is read.

Shapes: h, c (n, width); tokens (n, steps). Cost: a GRU and a softmax over at most 1024 words for at most 24 steps in
training, about three times the baseline; n * classes * width numbers for episodes. Deployed, the same as `unimodal`.
With w = 0 the method is `unimodal` bit for bit; with episodes, a prototypical network.

Source: mu2020 (LSL). Departs from it: besides prototypes there is a head for the classes met in training, and it is
what teaches the encoder unless `training="episodes"`; a batch is an episode, in which every row is shown and asked;
padding costs nothing, where the published code teaches it; only the first of a text's frequent words are said; costs
are relative, so that texts of all lengths weigh alike; the encoder is the modality's default one. On concepts made up
of colour, shape, size and place the order is not quite the paper's: words without the colour help most (.50, mean of
three seeds), then all words (.45, in any order .47), colour alone (.36) and none (.34); `learned_language` has .53.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional as F

from transference.core.batch import Batch
from transference.core.method import Card
from transference.core.parameters import Interval, Options
from transference.core.spec import DataSpec
from transference.core.views import Views
from transference.nn.language import concepts, describer
from transference.nn.losses import supervised
from transference.nn.named import ByModality
from transference.nn.network import Network
from transference.train.neural import NeuralMethod
from transference.train.schedule import Schedule

Compare = Literal["distance", "dot"]


def similarity(h: Tensor, prototypes: Tensor, score: Compare) -> Tensor:
    """(n, classes) scores of rows (n, d) against prototypes (classes, d) or (n, classes, d)."""
    if score == "dot":
        return (h[:, None] * prototypes).sum(2)
    return -(h[:, None] - prototypes).square().sum(2)


def episode_loss(h: Tensor, target: Tensor, classes: int, score: Compare) -> Tensor:
    """Mean cross-entropy of every row whose class has another one here, against prototypes made without the row.

    Parameters
    ----------
    h
        (n, d), labelled rows.
    target
        (n,) in [0, classes). A class without a row takes no part; 0 where no class has two.
    """
    member = F.one_hot(target, classes).to(h.dtype)  # (n, classes)
    others = member.sum(0) - member  # (n, classes) how many rows of each class there are besides this one
    prototypes = (member.T @ h - member[:, :, None] * h[:, None]) / others[:, :, None].clamp_min(1)
    scores = similarity(h, prototypes, score).masked_fill(others == 0, -torch.inf)
    asked = others.gather(1, target[:, None])[:, 0] > 0
    return F.cross_entropy(scores[asked], target[asked]) if asked.any() else h.sum() * 0.0


class LatentLanguage(NeuralMethod):
    """The primary modality, with an encoder from which the descriptions of classes can be said.

    Parameters
    ----------
    weight
        w, at least 0; 0 is the baseline without descriptions. Its default was chosen on planted rows.
    training
        What teaches the encoder beside descriptions: ``classes``: the head; ``episodes``: prototypes.
    describe
        What a description is said from: ``class``: the mean of its class's rows in the batch; ``row``: the row.
    compare
        How a row is compared with a prototype: ``distance`` or ``dot``.
    width, schedule, seed
        See `NeuralMethod`.
    """

    card: ClassVar[Card] = Card(
        summary="A representation from which the descriptions of classes can be said, in training only.",
        reference="mu2020",
        modalities=(2, None),
        needs=frozenset({"labels", "unlabelled", "paired"}),
        at_test="primary",
        tasks=frozenset({"classification", "few_shot"}),
    )
    constraints = {
        "weight": Interval(0),
        "training": Options("classes", "episodes"),
        "describe": Options("class", "row"),
        "compare": Options("distance", "dot"),
    }

    def __init__(
        self,
        *,
        weight: float = 5.0,
        training: Literal["classes", "episodes"] = "classes",
        describe: Literal["class", "row"] = "class",
        compare: Compare = "distance",
        width: int = 64,
        schedule: Schedule = Schedule(),
        seed: int = 0,
    ) -> None:
        super().__init__(width=width, schedule=schedule, seed=seed)
        self.weight = weight
        self.training = training
        self.describe = describe
        self.compare = compare

    def build(self, spec: DataSpec) -> Network:
        net = Network(spec, [spec.primary], self.width)
        if self.weight:
            net.describers = ByModality({n: describer(spec.modalities[n], self.width) for n in spec.secondary})
        return net

    def losses(self, net: Any, batch: Any) -> dict[str, Tensor]:
        if not self.weight:
            batch = batch.labelled
        h = net.encode(batch, self.spec_.primary)  # (n, width)
        losses = self._supervised(net, h, batch)
        if self.weight:
            concept = h if self.describe == "row" else concepts(h, batch.target)
            costs = [self._description(net, concept, batch, name) for name in self.spec_.secondary]
            losses["description"] = self.weight * torch.stack(costs).mean()
        return losses

    def scores(self, net: Any, batch: Batch) -> Tensor:
        return net.head(net.encode(batch, self.spec_.primary))

    def episode(self, support: Views, y: ArrayLike, query: Views) -> NDArray[Any]:
        """(n, classes) probabilities of the classes of `y`, sorted, by the nearest prototype; see `Method.episode`."""
        if self.compare == "distance":
            return super().episode(support, y, query)
        primary = self._fitted().primary
        shown, asked = (torch.from_numpy(self.embed(self._through(X, primary))[primary]) for X in (support, query))
        number = torch.from_numpy(np.unique(np.asarray(y), return_inverse=True)[1])
        prototypes = torch.stack([shown[number == k].mean(0) for k in range(int(number.max()) + 1)])
        return similarity(asked, prototypes, self.compare).softmax(1).numpy()

    def _supervised(self, net: Any, h: Tensor, batch: Any) -> dict[str, Tensor]:
        if self.training == "classes":
            return {"task": supervised(net.head(h), batch.target, self.spec_.task)}
        known = batch.is_labelled
        losses = {"task": supervised(net.head(h.detach()), batch.target, self.spec_.task)}
        losses["episode"] = episode_loss(h[known], batch.target[known], self.spec_.task.outputs, self.compare)
        return losses

    def _description(self, net: Any, concept: Tensor, batch: Batch, name: str) -> Tensor:
        """Mean cost of the descriptions in one modality, over the rows that have it."""
        mask = batch.present[name]
        if not mask.any():
            return concept.sum() * 0.0
        part = net.describers[name]
        rows = batch.take(mask)
        return part.cost(concept[mask], part.form(rows.views[name], rows.lengths.get(name))).mean()
