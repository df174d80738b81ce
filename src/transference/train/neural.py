"""NeuralMethod: an author writes build, losses and scores; the rest is here."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from transference.core.batch import Batch, labelled
from transference.core.errors import ConfigError, DataError, did_you_mean
from transference.core.method import Method
from transference.core.seeding import exact, fence, numpy_generator
from transference.core.spec import DataSpec, Task
from transference.core.views import Views
from transference.data.loader import chunks, to_batch
from transference.nn.encoders import Encoder
from transference.nn.initial import initialise
from transference.nn.losses import supervised
from transference.train.loop import Stage, Step, train
from transference.train.schedule import Schedule


class NeuralMethod(Method):
    """A method that is one network.

    Parameters
    ----------
    width
        Size of every modality's representation.
    schedule
        How it is trained; see `Schedule`.
    seed
        Of everything random in it.

    Attributes
    ----------
    net_
        The trained network.
    history_
        "update" and every named loss, as lists of equal length; nan where a stage has no such loss.
    """

    net_: nn.Module

    def __init__(self, *, width: int = 64, schedule: Schedule = Schedule(), seed: int = 0) -> None:
        self.width = width
        self.schedule = schedule
        self.seed = seed

    @abstractmethod
    def build(self, spec: DataSpec) -> nn.Module:
        """The network, untrained. Parts with the same name as in another method start alike."""

    @abstractmethod
    def losses(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        """Named scalars; their sum is minimised."""

    @abstractmethod
    def scores(self, net: Any, batch: Batch) -> Tensor:
        """(n, classes) logits or (n, outputs) values, from the modalities that the card lets it read."""

    def of_task(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        """{"task": the loss of the scores of labelled rows}: all that a network of one modality minimises."""
        known = batch.labelled
        return {"task": supervised(self.scores(net, known), known.target, self.spec_.task)}

    def stages(self, net: Any) -> Sequence[Stage]:
        """The hook for methods that need several optimisers, alternating steps, or one stage after another."""
        return (Stage("train", (Step(self.losses),)),)

    def embeddings(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        """Name -> (n, d), for the modalities of the batch that the network encodes."""
        return {name: net.encode(batch, name) for name in batch.views if name in net.encoders}

    def generated(self, net: Any, batch: Batch, name: str) -> Tensor:
        """(n, *shape) the secondary modality `name`, from the primary one alone; for methods that can generate."""
        raise ConfigError(f"{type(self).__name__} generates nothing. Its card says what it can do.")

    def learn(self, X: Views, target: NDArray[Any]) -> None:
        device = self._device()
        X, target = self._trainable(X, target)
        with exact(), fence(self.seed, "training"):
            with fence(self.seed, "building"):  # what is built must not shift the random numbers of training
                self.net_ = self.build(self.spec_)
            initialise(self.net_, self.seed)
            scale = _target_scale(target, self.spec_.task)
            self.net_.register_buffer("target_scale", scale)
            self.net_.to(device)
            rows = to_batch(X, _scaled(target, scale, self.spec_.task), device)
            self._fit_statistics(rows)
            training, held_out = self._split(rows)
            history = train(
                self.net_,
                self.stages(self.net_),
                training,
                self.schedule,
                self.seed,
                unlabelled="unlabelled" in self.card.needs,
                held_out=None if held_out is None else lambda: self._held_out_loss(held_out),
            )
        self.net_.eval()
        names = list(dict.fromkeys(name for line in history for name in line))
        self.history_ = {name: [line.get(name, float("nan")) for line in history] for name in names}

    def decide(self, X: Views) -> NDArray[Any]:
        self.net_.eval()
        with exact(), torch.inference_mode():
            parts = [self.answers(self.net_, batch) for batch in chunks(to_batch(X, device=self._device()))]
        return torch.cat(parts).cpu().numpy()

    def answers(self, net: Any, batch: Batch) -> Tensor:
        """(n, classes) probabilities or (n, outputs) values in the unit of the target: what is deployed."""
        scores = self.scores(net, batch)
        kind = self.spec_.task.kind
        if kind == "classification":
            return scores.softmax(1)
        if kind == "multilabel":
            return scores.sigmoid()
        return scores * net.target_scale[1] + net.target_scale[0]

    def embed(self, X: Views) -> dict[str, NDArray[Any]]:
        """Name -> (n, d) representation of every modality of X that the network encodes."""
        self._fitted()
        self.net_.eval()
        with exact(), torch.inference_mode():
            parts = [self.embeddings(self.net_, batch) for batch in chunks(to_batch(X, device=self._device()))]
        return {name: torch.cat([part[name] for part in parts]).cpu().numpy() for name in parts[0]}

    def generate(self, X: Views, name: str) -> NDArray[Any]:
        """(n, *shape) the secondary modality `name` of these rows, in its unit, from their primary one alone."""
        self._capable("generation")
        if name not in self.spec_.secondary:
            raise DataError(f"There is no modality {name!r} to generate. {did_you_mean(name, self.spec_.secondary)}")
        batch = to_batch(self._readable(X), device=self._device())
        self.net_.eval()
        with exact(), torch.inference_mode():
            made = [self.generated(self.net_, part, name) for part in chunks(batch)]
        return torch.cat(made).cpu().numpy()

    def restore(self, spec: DataSpec, state: Mapping[str, Tensor]) -> Self:
        """Become the fitted method whose ``net_.state_dict()`` this is."""
        self.spec_ = spec
        self.classes_ = np.asarray(spec.task.classes)
        self.net_ = self.build(spec)
        self.net_.register_buffer("target_scale", torch.tensor([0.0, 1.0]))
        self.net_.load_state_dict(dict(state))
        self.net_.to(self._device()).eval()
        return self

    def _device(self) -> torch.device:
        name = self.schedule.device
        return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)

    def _trainable(self, X: Views, target: NDArray[Any]) -> tuple[Views, NDArray[Any]]:
        """The rows that training can use: those that have what the card wants at test time."""
        if self.card.at_test == "any":
            return X, target
        wanted = (X.primary,) if self.card.at_test == "primary" else X.names
        mask = np.logical_and.reduce([X.present[name] for name in wanted])
        kept, target = (X, target) if mask.all() else (X.take(mask), target[mask])
        both = " and ".join(map(repr, wanted))
        with_labels = self.spec_.task.kind != "unsupervised" and "labels" in self.card.needs
        if with_labels and not labelled(torch.from_numpy(target)).any():
            raise DataError(f"No labelled row has {both}, so there is nothing to learn from. Label rows that do.")
        for name in kept.names:
            if not kept.present[name].any():
                raise DataError(
                    f"{type(self).__name__} needs training rows that have both {both} and {name!r}. None has. "
                    f"Leave {name!r} out of the study."
                )
        return kept, target

    def _fit_statistics(self, rows: Batch) -> None:
        for module in self.net_.modules():
            if isinstance(module, Encoder) and module.modality.name in rows.views:
                name = module.modality.name
                part = rows.take(rows.present[name])
                module.fit_statistics(part.views[name], part.lengths.get(name))

    def _split(self, rows: Batch) -> tuple[Batch, Batch | None]:
        """Training rows, and labelled rows of every class held out to choose the best state where there are enough."""
        target, known = rows.target.cpu().numpy(), rows.is_labelled.cpu().numpy()  # type: ignore[union-attr]
        groups = target if self.spec_.task.kind == "classification" else np.where(known, 0, -1)
        if not known.any():
            return rows, None
        generator = numpy_generator(self.seed, "validation")
        held: list[NDArray[np.int64]] = []
        for group in np.unique(groups[known]):
            members = generator.permutation(np.flatnonzero(known & (groups == group)))
            n = min(round(self.schedule.validation * len(members)), len(members) - 1)
            if n < self.schedule.least_validation:
                return rows, None
            held.append(members[:n])
        chosen = np.sort(np.concatenate(held))
        rest = np.setdiff1d(np.arange(len(rows)), chosen)
        if not all(rows.present[name][rest].any() for name in rows.present):
            return rows, None  # the only rows that have a modality have to train
        device = rows.rows.device
        return rows.take(torch.from_numpy(rest).to(device)), rows.take(torch.from_numpy(chosen).to(device))

    def _held_out_loss(self, rows: Batch) -> float:
        self.net_.eval()
        with torch.inference_mode():
            scores = torch.cat([self.scores(self.net_, batch) for batch in chunks(rows)])
        return float(supervised(scores, rows.target, self.spec_.task))


def _target_scale(target: NDArray[Any], task: Task) -> Tensor:
    """(mean, standard deviation) of a regression target; (0, 1) otherwise."""
    if task.kind != "regression":
        return torch.tensor([0.0, 1.0])
    deviation = float(np.nanstd(target))
    return torch.tensor([float(np.nanmean(target)), deviation if deviation > 0 else 1.0])


def _scaled(target: NDArray[Any], scale: Tensor, task: Task) -> NDArray[Any]:
    if task.kind != "regression":
        return target
    mean, deviation = scale.numpy()
    return ((target - mean) / deviation).astype(np.float32)
