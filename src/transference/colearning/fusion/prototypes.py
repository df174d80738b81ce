"""Prototypes of two modalities: a new class is told from the rows that show it and from what their descriptions say.

Use it for classes of which training had no row and a few are shown, with every modality, where the secondary modality
says more about the class than one example does. Those that are asked about are seen through the primary one alone.

    E        encoder of the primary modality, learned with a head on the labels of the training classes, then fixed
    G_t      generator of a secondary modality t: v^ = m + s MLP(E_t(x_t)), in the space of v = E(x)
    minimise mean |v^ - v|^2 / V + mean CE(head(v^), y)      over E_t and G_t: rows with both, labelled or not; labelled
    p_k    = (mean v + weight * mean v^) / (1 + weight)      over the rows shown of class k
    answer   softmax_k -|E(x) - p_k|^2

m, s and V are the mean, the deviation and the total variance of v over the training rows: 1 is the loss of answering
with the mean. Several secondary modalities are averaged, in the loss and in the mean of v^. A class shown through one
side alone has the mean of that side. If the mean of n rows has the variance a and that of the generated features is
unbiased with the variance b, the weight that errs least is a / b: the fewer rows are shown, the larger.

The classes of training are answered by the head. It is also the classifier of the second loss, so it learns from
generated features too, at a tenth of the rate, at which planted problems show no harm from learning for longer.

Shapes: v, v^, p_k (n or classes, width). Cost in training: the baseline, then as many updates again of E_t and G_t;
deployed: one encoder. Weight 0 is `unimodal`, bit for bit; with any other the encoder is that of `unimodal`.

Source: pahde2021, on the prototypes of snell2017. Departs from it: the generator is a regression and has no noise, for
prototypes take only the mean of what is generated, which the squared error learns straight away; on planted classes a
conditional adversarial loss beside it, with noise or without, gave nothing. Unlabelled pairs teach the generator.

Two cautions. The generator has to carry over to classes that it has not met: with 5 planted classes in training the
gain is half of that with 20, and where they are few and the primary modality is strong it can turn into a loss; then
take a smaller weight. And a generator that knows nothing draws prototypes to the common mean, which alone can gain a
point with one row a class and lose some with five: set it against its controls.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from transference.core.batch import Batch
from transference.core.errors import DataError
from transference.core.method import Card
from transference.core.parameters import Interval
from transference.core.spec import DataSpec
from transference.core.views import Views
from transference.nn.losses import supervised
from transference.nn.named import ByModality
from transference.nn.network import Network
from transference.nn.prototypes import blend, class_means, nearness
from transference.train.frozen import Remembered, freeze
from transference.train.loop import Stage, Step
from transference.train.neural import NeuralMethod
from transference.train.schedule import Schedule

HEAD_RATE = 0.1  # of the learning rate, while the head learns from generated features


class Generator(nn.Module):
    """From a secondary modality's representation into the primary's space: (n, width) -> (n, width).

    Attributes
    ----------
    mean, deviation
        (width,) and scalar, of the primary's features over the training rows.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.deep = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(()))

    def fit_statistics(self, features: Tensor) -> None:
        """From (n, width); the deviation is the root of the mean variance."""
        self.mean.copy_(features.mean(0))
        self.deviation.copy_(features.var(0, correction=0).mean().sqrt().clamp_min(1e-6))

    def forward(self, h: Tensor) -> Tensor:
        return self.mean + self.deviation * self.deep(h)

    def unexplained(self, generated: Tensor, features: Tensor) -> Tensor:
        """Share of the features' variance that is missed, both (n, width); 0 when there is no row."""
        error = ((generated - features) / self.deviation).square().mean(1)
        return error.sum() / max(1, len(error))


class Prototypes(NeuralMethod):
    """Few-shot classes as the mean of real features and of those generated from the secondary modality.

    Parameters
    ----------
    weight
        Of the generated features in a prototype, at least 0; 0 is the baseline.
    width, schedule, seed
        See `NeuralMethod`.
    """

    card: ClassVar[Card] = Card(
        summary="Prototypes of new classes from real features and from those generated by the secondary modality.",
        reference="pahde2021",
        modalities=(2, None),
        needs=frozenset({"labels", "unlabelled", "paired"}),
        at_test="primary",
        tasks=frozenset({"classification", "few_shot"}),
    )
    constraints = {"weight": Interval(0)}

    def __init__(self, *, weight: float = 1.0, width: int = 64, schedule: Schedule = Schedule(), seed: int = 0) -> None:
        super().__init__(width=width, schedule=schedule, seed=seed)
        self.weight = weight

    def learn(self, X: Views, target: NDArray[Any]) -> None:
        super().learn(X, target)
        self.__dict__.pop("_features", None)

    def build(self, spec: DataSpec) -> Network:
        if not self.weight:
            return Network(spec, [spec.primary], self.width)
        net = Network(spec, sorted(spec.modalities), self.width)
        net.generators = ByModality({name: Generator(self.width) for name in spec.secondary})
        return net

    def stages(self, net: Any) -> Sequence[Stage]:
        if not self.weight:
            return (Stage("train", (Step(self.losses),)),)
        names, primary = self.spec_.secondary, self.spec_.primary
        plain = [*net.encoders[primary].parameters(), *net.head.parameters()]
        made = [*net.generators.parameters(), *(each for name in names for each in net.encoders[name].parameters())]
        steps = (
            Step(self._generator_losses, lambda _: made),
            Step(self._head_losses, lambda net: net.head.parameters(), rate=HEAD_RATE),
        )
        return (
            Stage("train", (Step(self.losses, lambda _: plain),)),
            Stage("generator", steps, begin=self._fix_encoder, answers=False),
        )

    def losses(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        return self.of_task(net, batch)

    def scores(self, net: Any, batch: Batch) -> Tensor:
        return net.head(net.encode(batch, self.spec_.primary))

    def embeddings(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        """Name -> (n, width): the primary's features and, in the same space, those generated from the others."""
        encoded = super().embeddings(net, batch)
        primary = self.spec_.primary
        return {name: z if name == primary else net.generators[name](z) for name, z in encoded.items()}

    def episode(self, support: Views, y: ArrayLike, query: Views) -> NDArray[Any]:
        """(n, classes) probabilities of the classes of `y`, sorted; of the query, only the primary modality is read.

        Parameters
        ----------
        support
            A few rows of each class; a row may lack a modality.
        y
            Their labels.
        query
            n rows.
        """
        if not self.weight:
            return super().episode(support, y, query)
        self._capable("few_shot")
        primary = self.spec_.primary
        classes, number = np.unique(np.asarray(y), return_inverse=True)
        own, shown = self._means(support, (primary,), number)
        made, told = self._means(support, self.spec_.secondary, number)
        if not bool((shown | told).all()):
            lacking = classes[int((shown | told).int().argmin())]
            known = " or ".join(map(repr, self.spec_.modalities))
            raise DataError(f"The class {lacking!r} is shown by no row that has {known}. Show it by one that has.")
        prototypes = blend(own.where(shown[:, None], made), made.where(told[:, None], own), self.weight)
        asked = torch.from_numpy(self.embed(self._through(query, primary))[primary])
        return nearness(asked, prototypes).softmax(1).numpy()

    def _means(self, support: Views, names: Sequence[str], number: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """(classes, width) mean features of the classes through these modalities; (classes,) whether there is one."""
        features, numbers = [np.zeros((0, self.width), np.float32)], [number[:0]]
        for name in names:
            here = support.present[name] if name in support.arrays else np.zeros(len(support), bool)
            if here.any():
                features.append(self.embed(support.take(here).only([name], primary=name))[name])
                numbers.append(number[here])
        every = torch.from_numpy(np.concatenate(features)), torch.from_numpy(np.concatenate(numbers))
        return class_means(*every, int(number.max()) + 1)

    def _fix_encoder(self, net: Any, rows: Batch) -> None:
        """No gradient for the primary's encoder from here on; its features' statistics go to the generators."""
        encoder = net.encoders[self.spec_.primary]
        freeze(encoder)
        net.eval()
        self._features = Remembered(rows, lambda batch: net.encode(batch, self.spec_.primary))
        for generator in net.generators.values():
            generator.fit_statistics(self._features.values)

    def _generator_losses(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        losses, share = {}, 1 / len(self.spec_.secondary)
        for name in self.spec_.secondary:
            rows = batch.take(batch.present[name])
            made = self._generated(net, rows, name)
            missed = net.generators[name].unexplained(made, self._features.of(rows))
            losses[f"features from {name}"] = share * missed
            losses[f"classes from {name}"] = share * supervised(net.head(made), rows.target, self.spec_.task)
        return losses

    def _head_losses(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        known, share = batch.labelled, 1 / len(self.spec_.secondary)
        losses = {"head": supervised(net.head(self._features.of(known)), known.target, self.spec_.task)}
        for name in self.spec_.secondary:
            rows = known.take(known.present[name])
            with torch.no_grad():
                made = self._generated(net, rows, name)
            losses[f"head from {name}"] = share * supervised(net.head(made), rows.target, self.spec_.task)
        return losses

    def _generated(self, net: Any, rows: Batch, name: str) -> Tensor:
        """(n, width) features of rows that have the modality."""
        return net.generators[name](net.encode(rows, name))
