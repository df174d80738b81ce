"""One perceiver for all modalities of all tasks; a modality of its own has a row of weights, a task a head.

Use it where several sets of rows, each with its own modalities and its own labels, are too small one by one: what is
learned of one is there for all. It answers rows that have any of their modalities.

    z_m       = Perceiver(tokens of x_m)                    (latents, width), the same weights for every m
    c_ij      = last latent of z_i, asking z_j               ordered pairs i, j of a set: one attention for all of them
    s_m       = Linear(LN(last latent of z_m))               what modality m says alone
    s         = Linear(LN([c_ij for all i, j != i]))         what all say together, of M (M - 1) width numbers
    minimise  sum over the sets of weight_set (sum_m CE(s_m, y) + CE(s, y))

A row with one modality is answered by s_m, one with more by s, in which pairs that lack a member hold zeros; so that s
knows what that looks like, half of the rows of three modalities or more lose one of them in each update.

With `groups` modalities of one group share a perceiver. "auto" measures how different they are, see `nn.heterogeneity`:
of each modality alone a model is trained; then the perceiver of the one reads the other, as it is, and the head goes on
to learn from what it makes of it (a new head, where the task is another one). Half of the labelled rows train, the
other half tells how many bits are lost. Modalities that are on average `apart` bits apart, or more, get perceivers of
their own.

Shapes: tokens (n, at most 16, numbers). Cost: M perceivers and M (M - 1) small attentions an update, and as much for
every other set; "auto" trains M models of one modality and M^2 heads before.

Source: liang2023highmmt. Departs from it: tokens are those of `nn.tokens` (pieces of a signal, so that a modality is
never longer than 16), with one axis of Fourier features; zero padding is left out since it is inert; the vectors of a
text's words are learned, one row a word; an attention may also read nothing; every modality has a head of its own as
well, and the primary's answers where it is alone; pairs share one attention, where the paper groups these too; of a
model that is moved the head is trained on, where the released code trains nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from transference.core.batch import Batch, labelled
from transference.core.errors import ConfigError, DataError, did_you_mean, must_be
from transference.core.method import Card
from transference.core.parameters import Interval
from transference.core.seeding import numpy_generator
from transference.core.spec import DataSpec, Task
from transference.core.views import Views
from transference.nn import heterogeneity
from transference.nn.losses import supervised
from transference.nn.perceiver import HighNetwork, channels_of, thinned
from transference.train.frozen import Remembered
from transference.train.loop import Stage, Step
from transference.train.models import one
from transference.train.others import JointMethod, Other
from transference.train.schedule import Schedule

MOVED = 5.0  # of the learning rate, for a head alone


class HighMMT(JointMethod):
    """One perceiver, many modalities, many tasks.

    Parameters
    ----------
    others
        Other sets to train on: name -> a `Dataset`, or what a study file says of a named one, such as
        ``{ set = "mfeat", primary = "fourier", secondary = ["profile"], budget = 20 }``. None: the own rows alone.
    groups
        None: all modalities share one perceiver. Modality -> group number, 0 where left out; those of another set are
        called "name/modality". "auto": measured.
    apart
        Bits, for "auto".
    weights
        Name of another set -> weight of its losses, 1 where left out. The own ones weigh 1.
    latents, depth
        Of a perceiver: how many there are, and how often they ask.
    width, schedule, seed
        See `NeuralMethod`.

    Attributes
    ----------
    groups_
        Modality -> group number.
    heterogeneity_
        With "auto": "names", and "bits", the (m, m) distances between them; otherwise empty.
    others_
        Name -> a fitted HighMMT of that set.
    """

    card: ClassVar[Card] = Card(
        summary="One perceiver for all modalities of all tasks, which answers whatever a row has.",
        reference="liang2023highmmt",
        modalities=(1, None),
        needs=frozenset({"labels"}),
        at_test="any",
        tasks=frozenset({"classification", "regression", "multilabel"}),
    )
    constraints = {
        "apart": Interval(0, open_low=True),
        "latents": Interval(1, whole=True),
        "depth": Interval(1, whole=True),
    }

    def __init__(
        self,
        *,
        others: Mapping[str, Any] | None = None,
        groups: Mapping[str, int] | str | None = None,
        apart: float = 0.25,
        weights: Mapping[str, float] | None = None,
        latents: int = 8,
        depth: int = 1,
        width: int = 64,
        schedule: Schedule = Schedule(),
        seed: int = 0,
    ) -> None:
        super().__init__(width=width, schedule=schedule, seed=seed)
        self.others = others
        self.groups = groups
        self.apart = apart
        self.weights = weights
        self.latents = latents
        self.depth = depth

    def check_parameters(self) -> None:
        super().check_parameters()
        whole = Interval(0, whole=True)
        if self.groups not in (None, "auto") and not (
            isinstance(self.groups, Mapping) and all(whole.allows(number) for number in self.groups.values())
        ):
            expected = "None, 'auto', or a mapping from modalities to integers of at least 0"
            raise ConfigError(must_be("The 'groups' parameter of HighMMT", expected, self.groups))
        for name, weight in (self.weights or {}).items():
            if name not in (self.others or {}):
                raise ConfigError(f"'weights' names {name!r}, no other set. {did_you_mean(name, self.others or {})}")
            if not Interval(0).allows(weight):
                raise ConfigError(must_be(f"The weight of {name!r}", str(Interval(0)), weight))

    def prepare(self, X: Views, target: NDArray[Any]) -> None:
        every = [
            *X.names,
            *(f"{name}/{each}" for name, other in self._others.items() for each in other.spec.modalities),
        ]
        self.heterogeneity_: dict[str, Any] = {}
        if self.groups == "auto":
            self.groups_ = self._measured(X, target)
            return
        given: Any = self.groups or {}
        for name in given:
            if name not in every:
                raise ConfigError(f"'groups' names {name!r}, which is no modality. {did_you_mean(name, every)}")
        self.groups_ = {name: given.get(name, 0) for name in every}

    def adopt(self, spec: DataSpec, state: Mapping[str, Tensor]) -> None:
        found = dict(zip((spec.primary, *spec.secondary), state["group_of"].tolist(), strict=True))
        known = getattr(self, "groups_", {})  # those of other sets too
        self.groups_ = {**known, **found} if all(known.get(name) == k for name, k in found.items()) else found

    def build(self, spec: DataSpec) -> HighNetwork:
        return self._network(spec, self.groups_)

    def build_other(self, other: Other) -> HighNetwork:
        return self._network(other.spec, {name: self.groups_[f"{other.name}/{name}"] for name in other.spec.modalities})

    def parameters_of(self, name: str) -> dict[str, Any]:
        groups = self.groups
        if isinstance(groups, Mapping):
            groups = {each.removeprefix(f"{name}/"): k for each, k in groups.items() if each.startswith(f"{name}/")}
        return {"groups": groups, "weights": None}

    def _network(self, spec: DataSpec, groups: Mapping[str, int]) -> HighNetwork:
        specs = [spec, *(other.spec for other in self.others_in_training.values())]
        return HighNetwork(spec, self.width, self.latents, self.depth, groups, channels_of(specs, self.width))

    def share(self, net: HighNetwork, part: HighNetwork) -> None:
        for number, encoder in part.encoders.items():
            if number not in net.encoders:
                net.encoders[number] = encoder
            part.encoders[number] = net.encoders[number]
        if hasattr(part, "crossing"):
            net.crossing = getattr(net, "crossing", part.crossing)
            part.crossing = net.crossing

    def losses(self, net: HighNetwork, batch: Batch) -> dict[str, Tensor]:
        found = self.of_set(net, batch)
        for name, other in self.others_in_training.items():
            part: Any = net.others[name]  # type: ignore[index]
            weight = (self.weights or {}).get(name, 1.0)
            more = self.of_set(part, other.draw(self.schedule.batch_size))
            found |= {f"{name}: {key}": weight * value for key, value in more.items()}
        return found

    def of_set(self, net: HighNetwork, batch: Batch) -> dict[str, Tensor]:
        """The losses of the tasks of one set: "task" is the primary modality's."""
        task, found = net.spec.task, {}
        latents = {name: net.encode(batch, name) for name in net.names}
        for name, value in latents.items():
            own = batch.complete([name])
            scores = net.alone[name](value[batch.present[name], -1])
            found["task" if name == net.spec.primary else f"task {name}"] = supervised(scores, own.target, task)
        if len(net.names) > 1:
            present = thinned({name: batch.present[name] for name in net.names})
            several = torch.stack(list(present.values())).sum(0) > 1
            scores = net.together(net.crossed(latents, present))
            target = None if batch.target is None else batch.target[several]
            found["task together"] = supervised(scores[several], target, task)
        return found

    def scores(self, net: HighNetwork, batch: Batch) -> Tensor:
        names = [name for name in net.names if name in batch.views]
        latents = {name: net.encode(batch, name) for name in names}
        alone = [net.alone[name](latents[name][:, -1]) for name in names]
        if len(names) == 1:
            return alone[0]
        present = torch.stack([batch.present[name] for name in names])  # (names, n)
        chosen = torch.stack(alone).where(present[:, :, None], 0.0).sum(0)  # of one modality, where there is one alone
        return net.together(net.crossed(latents, batch.present)).where((present.sum(0) > 1)[:, None], chosen)

    def embeddings(self, net: HighNetwork, batch: Batch) -> dict[str, Tensor]:
        return {name: net.encode(batch, name)[:, -1] for name in net.names if name in batch.views}

    def _measured(self, X: Views, target: NDArray[Any]) -> dict[str, int]:
        """Modality -> group, from how many bits are lost between any two of all sets."""
        subjects = {name: _Subject(X, target, self.spec_.task, name, self.seed) for name in X.names}
        for other in self._others.values():
            for name in other.spec.modalities:
                key = f"{other.name}/{name}"
                subjects[key] = _Subject(other.views, other.target, other.spec.task, name, self.seed)
        channels = channels_of([self.spec_, *(other.spec for other in self._others.values())], self.width)
        models = {name: self._of_one(each, channels) for name, each in subjects.items()}
        bits = np.zeros((len(subjects), len(subjects)))
        for i, source in enumerate(subjects):
            for j, (name, each) in enumerate(subjects.items()):
                moved = models[name] if i == j else self._of_one(each, channels, models[source], models[name])
                bits[i, j] = each.bits(moved)
        found = heterogeneity.distances(bits)
        self.heterogeneity_ = {"names": list(subjects), "bits": found}
        return dict(zip(subjects, heterogeneity.groups(found, apart=self.apart), strict=True))

    def _of_one(self, subject: _Subject, channels: int, *models: HighMMT) -> HighMMT:
        """A model of one modality; of two models given, moved from the first one's to the second one's, its own."""
        model = _OfOne(
            channels=channels,
            models=models,
            latents=self.latents,
            depth=self.depth,
            width=self.width,
            schedule=self.schedule,
            seed=self.seed,
        )
        return model.fit_encoded(subject.X[subject.train], subject.target[subject.train], subject.task)

    def _trainable(self, X: Views, target: NDArray[Any]) -> tuple[Views, NDArray[Any]]:
        known = labelled(torch.from_numpy(target)).numpy()
        for name in X.names:
            if not (known & X.present[name]).any():
                raise DataError(f"No labelled row has {name!r}, so its head cannot learn. Leave it out of the study.")
        mask = np.logical_or.reduce([X.present[name] for name in X.names])
        return (X, target) if mask.all() else (X.take(mask), target[mask])


class _Subject:
    """One modality and the task of its set: half of the labelled rows to learn from, half to be asked about."""

    def __init__(self, X: Views, target: NDArray[Any], task: Task, name: str, seed: int) -> None:
        self.X, self.target, self.task, self.name = one(X, name), target, task, name
        here = np.flatnonzero(labelled(torch.from_numpy(target)).numpy() & X.present[name])
        if len(here) < 2:
            raise DataError(
                must_be(f"The labelled rows that have {name!r}", "two or more for 'auto' groups", len(here))
            )
        here = numpy_generator(seed, "heterogeneity").permutation(here)
        if task.kind == "classification":
            here = here[np.argsort(target[here], kind="stable")]  # every class in both halves
        self.train, self.test = here[::2], here[1::2]

    def bits(self, model: HighMMT) -> float:
        """How much the truth of the other half surprises a model."""
        answers, truth = model.decide(self.X[self.test]), self.target[self.test]
        if self.task.kind == "classification":
            return heterogeneity.surprise(answers, truth)
        if self.task.kind == "multilabel":
            return heterogeneity.surprise_of_labels(answers, truth)
        return heterogeneity.surprise_of_values(answers[:, 0], truth)


class _OfOne(HighMMT):
    """A model of one modality, which may begin as that of another one."""

    def __init__(
        self,
        *,
        channels: int,
        models: tuple[HighMMT, ...],
        latents: int,
        depth: int,
        width: int,
        schedule: Schedule,
        seed: int,
    ) -> None:
        super().__init__(latents=latents, depth=depth, width=width, schedule=schedule, seed=seed)
        self.channels = channels
        self.models = models

    def _network(self, spec: DataSpec, groups: Mapping[str, int]) -> HighNetwork:
        return HighNetwork(spec, self.width, self.latents, self.depth, groups, self.channels)

    def stages(self, net: HighNetwork) -> Sequence[Stage]:
        if not self.models:
            return super().stages(net)
        step = Step(self._of_head, parameters=lambda net: net.alone.parameters(), rate=MOVED)
        return (Stage("train", (step,), begin=self._move),)

    def _move(self, net: Any, rows: Batch) -> None:
        """Perceiver and row from where it comes, the vectors of words from where it goes, the head if it can be."""
        source: Any
        own: Any
        source, own = (model.net_ for model in self.models)
        (here,), (there,) = net.names, source.names
        net.tokens[here].load_state_dict(own.tokens[here].state_dict())
        net.tokens[here].row.load_state_dict(source.tokens[there].row.state_dict())
        net.encoders.load_state_dict(source.encoders.state_dict())
        if source.spec.task == net.spec.task:
            net.alone[here].load_state_dict(source.alone[there].state_dict())
        self.seen = Remembered(rows, lambda batch: net.encode(batch, here)[:, -1])

    def _of_head(self, net: HighNetwork, batch: Batch) -> dict[str, Tensor]:
        return {"task": supervised(net.alone[net.spec.primary](self.seen.of(batch)), batch.target, net.spec.task)}
