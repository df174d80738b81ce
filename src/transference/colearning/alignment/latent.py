"""Match the primary's representation to a target in the secondary's latent space, beside the task.

When to use it: the secondary modality has a good representation (a pretrained encoder, or enough rows to learn one), it
is there for many rows, labelled or not, and only the primary will be there at test time.

    minimise  (1 - a) mean CE(head(g(x)), y)  +  a mean ||p(g(x)) - z||^2 / d

g is the primary's encoder, (n, *shape) -> (n, width); z (n, d) comes from a frozen teacher. The first mean is over
labelled rows, the second over rows that have the secondary (several secondary modalities: the mean of their losses).
The teacher is an encoder and head of the secondary, trained first on the same labels, whose representation is
normalised to mean 0 and variance 1 a row; or, for features of a pretrained encoder, these features themselves,
standardised: mean 0 and variance 1 a number. p has the form of z: for one that is normalised a row (of a trained
teacher, or of prompts) a layer norm, after a linear map where d is not the width or there are several secondary
modalities; for given features a linear map alone.

What z is, `target`: ``paired`` the row's own; ``noise`` the row's own plus normal noise; ``other_row`` another row's,
drawn anew every time; ``mean`` the mean of all; ``class`` the mean (or the prompt) of the row's class, for labelled
rows; ``random_class`` that of a class drawn anew every time, without regard to the row; ``mean_class`` the mean of
these. As mean ||g - z||^2 = ||g - mean z||^2 + tr Cov z, a target drawn without regard to the row teaches the mean
alone and leaves a floor of tr Cov(z) / d: the constants are the controls, ``mean`` to hold ``other_row`` against and
``mean_class`` for ``random_class``. Where an arm equals its control, the mean was all that taught.

Cost: the secondary's encoder and as many updates again for the teacher, in training only.
Source: lee2025synergy. Departs from it: the published teachers are pretrained on other data, here one is trained where
no pretrained features are given; the head reads g, not p(g), so that a = 0 is the unimodal baseline bit for bit; random
classes repeat within a batch only where it has more rows than there are classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from transference.core.batch import Batch
from transference.core.errors import ConfigError, DataError, must_be
from transference.core.method import Card
from transference.core.parameters import Interval, Options
from transference.core.spec import DataSpec
from transference.core.views import Views
from transference.data.features import encode_frozen
from transference.data.loader import chunks
from transference.data.modality import ModalityConfig
from transference.nn.encoders.base import scale_of
from transference.nn.losses import supervised
from transference.nn.named import ByModality
from transference.nn.network import Network
from transference.train.frozen import freeze
from transference.train.loop import Stage, Step
from transference.train.neural import NeuralMethod
from transference.train.schedule import Schedule

PROMPTS = "prompts"  # the name of their bank, the only one where they are given
BY_CLASS = ("class", "random_class", "mean_class")


def floor(targets: Tensor) -> Tensor:
    """tr Cov(z) / d of equally likely targets (m, d): the mean of ||g - z||^2 / d at the best g that cannot know z.

    >>> floor(torch.tensor([[0.0, 0.0], [2.0, 0.0]]))
    tensor(0.5000)
    """
    return targets.var(0, correction=0).mean()


def draws(n: int, options: int) -> Tensor:
    """(n,) random numbers below `options`; none comes again before all have come."""
    return torch.cat([torch.randperm(options) for _ in range(-(-n // options))])[:n]


@dataclass(frozen=True)
class Bank:
    """The targets that one secondary modality, or the prompts, offer.

    Attributes
    ----------
    rows
        (m,) numbers in the manifest, ascending, of the training rows that have the modality.
    own
        (m, d) their targets; empty for prompts.
    classes
        (classes, d); empty where the task has no classes.
    """

    rows: Tensor
    own: Tensor
    classes: Tensor

    def sample(self, target: str, batch: Batch, noise: float) -> Tensor:
        """(n, d) targets for the rows of a batch, all of which are in the bank."""
        n, m = len(batch), len(self.own)
        if target == "random_class":
            return self.classes[draws(n, len(self.classes)).to(self.classes.device)]
        if target == "other_row":
            further = 1 + draws(n, max(m - 1, 1)).to(self.own.device)
            return self.own[(torch.searchsorted(self.rows, batch.rows) + further) % m]
        expected = self.expected(target, batch)
        return expected + noise * torch.randn_like(expected) if target == "noise" else expected

    def expected(self, target: str, batch: Batch) -> Tensor:
        """(n, d) mean target of each row of a batch over the draws."""
        if target == "class" and batch.target is not None:
            return self.classes[batch.target]
        if target in ("mean", "mean_class", "random_class"):
            return (self.own if target == "mean" else self.classes).mean(0).expand(len(batch), -1)
        own = self.own[torch.searchsorted(self.rows, batch.rows)]
        m = len(self.own)
        return (self.own.sum(0) - own) / (m - 1) if target == "other_row" and m > 1 else own

    def least(self, target: str, noise: float) -> float:
        """The mean over rows of tr Cov(z | row) / d: no network can have a smaller expected loss."""
        if target == "noise":
            return noise**2
        if target == "random_class":
            return float(floor(self.classes))
        if target == "other_row" and len(self.own) > 2:
            return float(floor(self.own)) * (1 - 1 / (len(self.own) - 1) ** 2)  # of all rows but one, on average
        return 0.0


class Latent(NeuralMethod):
    """Match the primary's representation to targets in the secondary's latent space.

    Parameters
    ----------
    weight
        a in [0, 1]: 0 is the unimodal baseline, 1 leaves the head untaught.
    target
        What a row is matched to; see above.
    teacher
        ``trained``; ``given``: the numbers of the secondary are features already; ``auto``: given where a pretrained
        encoder made them and rows do not differ in length.
    noise
        Standard deviation of the noise of ``target="noise"``.
    prompts
        (classes, d) embeddings of the classes, in the order of their sorted labels, for the three targets by class,
        which then need no secondary modality in a row; or a text for `language_model` to embed, with {} where the name
        of the class belongs; None = the mean target of each class's labelled rows.
    language_model
        ``hf:<id or folder>`` of a text encoder, frozen; for prompts that are given as a text.
    width, schedule, seed
        See `NeuralMethod`.

    Attributes
    ----------
    latent_floor_
        The least expected latent loss that any network could have with these targets, unweighted.
    latent_above_floor_
        The expected latent loss of the fitted network on the training rows, minus that floor.
        Both are means over the secondary modalities, and nan when the weight is 0.
    """

    card: ClassVar[Card] = Card(
        summary="Match the primary's representation to a target in the secondary's latent space.",
        reference="lee2025synergy",
        modalities=(2, None),
        needs=frozenset({"labels", "unlabelled", "paired"}),
        at_test="primary",
        tasks=frozenset({"classification", "regression", "multilabel"}),
    )
    constraints = {
        "weight": Interval(0, 1),
        "target": Options("paired", "noise", "other_row", "mean", *BY_CLASS),
        "teacher": Options("auto", "trained", "given"),
        "noise": Interval(0),
    }

    def __init__(
        self,
        *,
        weight: float = 0.5,
        target: str = "paired",
        teacher: str = "auto",
        noise: float = 1e-3,
        prompts: Any = None,
        language_model: str | None = None,
        width: int = 64,
        schedule: Schedule = Schedule(),
        seed: int = 0,
    ) -> None:
        super().__init__(width=width, schedule=schedule, seed=seed)
        self.weight = weight
        self.target = target
        self.teacher = teacher
        self.noise = noise
        self.prompts = prompts
        self.language_model = language_model

    def learn(self, X: Views, target: NDArray[Any]) -> None:
        self._prompts = self._embedded(self.spec_)
        self._check(self.spec_)
        self._banks: dict[str, Bank] = {}
        super().learn(X, target)
        banks, rows = self._banks, self._rows if self.weight else None
        del self._banks, self._prompts
        self.latent_floor_ = self.latent_above_floor_ = float("nan")
        if rows is not None:
            del self._rows
            self.latent_floor_ = float(np.mean([bank.least(self.target, self.noise) for bank in banks.values()]))
            self.latent_above_floor_ = self._above_floor(banks, rows)
            self.history_["latent above floor"] = [
                value / self.weight - self.latent_floor_ for value in self.history_["latent"]
            ]

    def restore(self, spec: DataSpec, state: Mapping[str, Tensor]) -> Self:
        if self.prompts is not None and self.weight:  # the language model need not be there
            self._prompts = np.zeros((spec.task.outputs, len(state[f"projections.{PROMPTS}.1.weight"])))
        return super().restore(spec, state)

    def build(self, spec: DataSpec) -> Network:
        net = Network(spec, [spec.primary], self.width)
        if self.weight:
            sizes = self._sizes(spec)
            net.teachers = ByModality(
                {name: Network(spec, [name], self.width) for name in sizes if self._is_taught(spec, name)}
            )
            net.projections = ByModality({name: self._projection(spec, name, sizes) for name in sizes})
        return net

    def stages(self, net: Any) -> Sequence[Stage]:
        step = Step(self.losses)
        if not self.weight:
            return (Stage("train", (step,)),)
        student = Stage("train", (step,), begin=self._prepare)
        if not net.teachers:
            return (student,)
        teacher = Step(self._teacher_losses, parameters=lambda _: net.teachers.parameters())
        return (Stage("teacher", (teacher,), begin=self._check_teachers, answers=False), student)

    def losses(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        if not self.weight:
            return self.of_task(net, batch)
        features = net.encode(batch, self.spec_.primary)  # (n, width)
        terms = []
        for name, bank in self._banks.items():
            mask = self._eligible(batch, name)
            if mask.any():
                matched = net.projections[name](features[mask])  # (eligible, d)
                terms.append(F.mse_loss(matched, bank.sample(self.target, batch.take(mask), self.noise)))
        latent = torch.stack(terms).mean() if terms else features.sum() * 0.0
        task = supervised(net.head(features), batch.target, self.spec_.task)
        return {"task": (1 - self.weight) * task, "latent": self.weight * latent}

    def scores(self, net: Any, batch: Batch) -> Tensor:
        return net.head(net.encode(batch, self.spec_.primary))

    def _teacher_losses(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        losses = {}
        for name, teacher in net.teachers.items():
            known = batch.labelled.complete([name])
            if len(known):
                scores = teacher.head(teacher.encode(known, name))
                losses[f"task of {name}"] = supervised(scores, known.target, self.spec_.task)
        if not losses:  # a batch without a label beside the secondary
            losses["task"] = torch.stack([parameter.sum() for parameter in net.teachers.parameters()]).sum() * 0.0
        return losses

    def _check_teachers(self, net: Any, rows: Batch) -> None:
        for name in net.teachers:
            if not len(rows.labelled.complete([name])):
                raise DataError(f"No labelled row has {name!r}, so it cannot teach. Leave it out of the study.")

    def _prepare(self, net: Any, rows: Batch) -> None:
        """Freeze the teachers, and compute all targets once."""
        freeze(net.teachers)
        self._rows = rows
        for name in net.projections:
            if self.prompts is not None:
                given = torch.as_tensor(np.asarray(self._prompts, np.float32), device=rows.rows.device)
                self._banks[name] = Bank(rows.rows, given[:0], _normalised(given))
                continue
            paired = rows.complete([name])
            if not len(paired):
                continue
            paired = paired.take(paired.rows.argsort(stable=True))
            own = self._representation(net, paired, name)
            self._banks[name] = Bank(paired.rows, own, self._class_means(own, paired))

    def _representation(self, net: Any, rows: Batch, name: str) -> Tensor:
        """(n, d) targets of rows that have the modality."""
        if name not in net.teachers:
            values = rows.views[name].flatten(1)
            centred, deviation = values - values.mean(0), values.std(0, correction=0)
            return torch.where(scale_of(values) > 0, centred / deviation, 0.0)
        teacher = net.teachers[name].eval()
        with torch.no_grad():
            return torch.cat([_normalised(teacher.encode(chunk, name)) for chunk in chunks(rows)])

    def _class_means(self, own: Tensor, rows: Batch) -> Tensor:
        """(classes, d); the mean of all rows for a class without a labelled one."""
        if self.spec_.task.kind != "classification" or rows.target is None:
            return own[:0]
        masks = [rows.target == k for k in range(self.spec_.task.outputs)]
        return torch.stack([own[mask].mean(0) if mask.any() else own.mean(0) for mask in masks])

    def _eligible(self, batch: Batch, name: str) -> Tensor:
        """(n,) bool: the rows that have a target."""
        mask = batch.present[name] if self.prompts is None else torch.ones_like(batch.rows, dtype=torch.bool)
        return mask & batch.is_labelled if self.target == "class" else mask

    def _above_floor(self, banks: dict[str, Bank], rows: Batch) -> float:
        """Mean ||g - E z||^2 / d over rows, then banks: by the identity above, the expected loss minus the floor."""
        net: Any = self.net_
        means = []
        for name, bank in banks.items():
            gaps = []
            for chunk in chunks(rows.take(self._eligible(rows, name))):
                with torch.no_grad():
                    matched = net.projections[name](net.encode(chunk, self.spec_.primary))
                gaps.append((matched - bank.expected(self.target, chunk)).square().mean(1))
            if gaps:
                means.append(torch.cat(gaps).mean())
        return float(torch.stack(means).mean()) if means else float("nan")

    def _sizes(self, spec: DataSpec) -> dict[str, int]:
        """Name of each bank -> d."""
        if self.prompts is not None:
            return {PROMPTS: np.shape(self._prompts)[1]}
        flat = {name: int(np.prod(spec.modalities[name].shape)) for name in spec.secondary}
        return {name: self.width if self._is_taught(spec, name) else size for name, size in flat.items()}

    def _projection(self, spec: DataSpec, name: str, sizes: Mapping[str, int]) -> nn.Sequential:
        """(n, width) -> (n, d): what is matched."""
        size = sizes[name]
        if self.prompts is None and not self._is_taught(spec, name):
            return nn.Sequential(nn.Linear(self.width, size))
        linear = nn.Linear(self.width, size) if size != self.width or len(sizes) > 1 else nn.Identity()
        return nn.Sequential(linear, nn.LayerNorm(size))

    def _is_taught(self, spec: DataSpec, name: str) -> bool:
        if self.prompts is not None:
            return False
        modality = spec.modalities[name]
        given = modality.encoder.startswith("hf:") and not modality.lengths
        return self.teacher == "trained" or (self.teacher == "auto" and not given)

    def _embedded(self, spec: DataSpec) -> Any:
        """(classes, d) prompts, or None."""
        if not isinstance(self.prompts, str):
            if self.language_model is not None:
                expected = "a text with {} where 'language_model' is given"
                raise ConfigError(must_be("The 'prompts' parameter of Latent", expected, self.prompts))
            return self.prompts
        if self.language_model is None or "{}" not in self.prompts:
            expected = "embeddings, or a text with {} beside a 'language_model'"
            raise ConfigError(must_be("The 'prompts' parameter of Latent", expected, self.prompts))
        texts = [self.prompts.replace("{}", str(name)) for name in spec.task.classes]
        how = ModalityConfig(kind="text", encoder=self.language_model)
        return encode_frozen(texts, how, Path(), name=PROMPTS).array

    def _check(self, spec: DataSpec) -> None:
        by_class = self.target in BY_CLASS
        if by_class and spec.task.kind != "classification":
            raise ConfigError(
                must_be("The 'target' parameter of Latent", f"not by class for {spec.task.kind}", self.target)
            )
        if self.prompts is not None:
            shape = np.shape(self._prompts)
            if not by_class:
                expected = f"one of {', '.join(map(repr, BY_CLASS))} where 'prompts' are given"
                raise ConfigError(must_be("The 'target' parameter of Latent", expected, self.target))
            if len(shape) != 2 or shape[0] != spec.task.outputs:
                expected = f"of shape ({spec.task.outputs}, d), a row for each of {spec.task.classes}"
                raise ConfigError(must_be("The 'prompts' parameter of Latent", expected, shape))
        for name in spec.secondary:
            if self.teacher == "given" and spec.modalities[name].lengths:
                expected = f"'auto' or 'trained' where rows differ in length, as in {name!r}"
                raise ConfigError(must_be("The 'teacher' parameter of Latent", expected, self.teacher))


def _normalised(values: Tensor) -> Tensor:
    """(n, d), every row with mean 0 and variance 1."""
    return F.layer_norm(values, values.shape[1:])
