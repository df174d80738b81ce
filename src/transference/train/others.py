"""Other sets of rows, trained on beside a method's own: what a study names becomes batches, and one network learns all.

No row that some set holds out as a test row trains in another one: what is compared is the content of rows, whatever
they are called. Texts and tables are not compared, since two rows may well say the same. The own rows are the study's
affair; see `clear_of`.
"""

from __future__ import annotations

import hashlib
import re
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from transference.core.batch import Batch
from transference.core.errors import ConfigError, DataError, did_you_mean, must_be
from transference.core.method import encode
from transference.core.seeding import derive, fence, numpy_generator
from transference.core.spec import DataSpec, Task, TaskKind
from transference.core.views import Views
from transference.data import sets
from transference.data.dataset import Dataset
from transference.data.loader import to_batch
from transference.data.split import label_budget
from transference.nn.encoders import Encoder
from transference.nn.initial import initialise
from transference.nn.named import ByModality
from transference.train.neural import NeuralMethod

KEYS = ("set", "primary", "secondary", "variant", "budget")
REPEATED = frozenset({"text", "table"})  # kinds in which two rows may be alike and yet two rows


@dataclass(frozen=True)
class Other:
    """The labelled training rows of another set.

    Attributes
    ----------
    name
        As the method's `others` calls it.
    spec
        Its modalities, its primary one, its task.
    views, target
        The rows, each of which has one modality or more, and their encoded labels.
    rows
        The same as tensors, the target of a regression with mean 0 and deviation 1.
    scale
        (2,) mean and standard deviation of a regression target; (0, 1) otherwise.
    """

    name: str
    spec: DataSpec
    views: Views
    target: NDArray[Any]
    rows: Batch
    scale: Tensor

    def draw(self, size: int) -> Batch:
        """min(size, n) rows without replacement, from torch's global generator."""
        return self.rows.take(torch.randperm(len(self.rows))[:size].to(self.rows.rows.device))

    def divided(self, share: float, seed: int) -> tuple[Other, Batch]:
        """All but a share of the rows, and that share; where it is less than a row, all rows in both."""
        n = round(share * len(self.rows))
        if not 0 < n < len(self.rows):
            return self, self.rows
        order = numpy_generator(seed, "held out", self.name).permutation(len(self.rows))
        held, kept = (torch.from_numpy(part).to(self.rows.rows.device) for part in (order[:n], order[n:]))
        less = replace(self, views=self.views[order[n:]], target=self.target[order[n:]], rows=self.rows.take(kept))
        return less, self.rows.take(held)


def check_others(others: Any, method: str) -> None:
    """Raise ConfigError unless `read_others` can make something of it; nothing is read."""
    expected = "a mapping from names to a Dataset or { set = ..., and what of it }, or None"
    if others is not None and not isinstance(others, Mapping):
        raise ConfigError(must_be(f"The 'others' parameter of {method}", expected, others))
    for name, given in (others or {}).items():
        if not isinstance(name, str) or not re.fullmatch(r"[\w-]+", name):
            raise ConfigError(must_be("A name in 'others'", "of letters, digits, '_' and '-'", name))
        if isinstance(given, Dataset):
            continue
        if not isinstance(given, Mapping) or "set" not in given:
            raise ConfigError(must_be(f"{name!r} in 'others'", "a Dataset or { set = ..., and what of it }", given))
        for key in given:
            if key not in KEYS:
                raise ConfigError(f"{name!r} in 'others' has a key {key!r}. {did_you_mean(str(key), KEYS)}")


def read_others(
    others: Mapping[str, Any] | None, tasks: frozenset[TaskKind], seed: int, device: str | torch.device = "cpu"
) -> dict[str, Other]:
    """The sets by name, sorted: labelled training rows alone, less those that another set holds out for tests.

    Parameters
    ----------
    others
        Name -> Dataset, or a mapping for `data.sets.load`, in which "budget" says which rows keep their label.
    tasks
        What the method can do; a set that poses something else is refused.
    seed
        Of the budget.
    """
    given = others or {}
    data = {name: each if isinstance(each, Dataset) else _load(each) for name, each in sorted(given.items())}
    found = {}
    for name, own in data.items():
        held_out = [each.views[_tested(each)] for other, each in data.items() if other != name]
        X = own.views
        use = own.is_labelled & ~_tested(own) & ~seen_in(X, held_out)
        use &= np.logical_or.reduce([X.present[each] for each in X.names])
        each = given[name]
        if isinstance(each, Mapping) and "budget" in each:
            places = np.flatnonzero(use)
            use[places[~label_budget(own.y[places], each["budget"], seed)]] = False
        if not use.any():
            raise DataError(must_be(f"The labelled training rows of {name!r} in 'others'", "one or more", "none"))
        found[name] = _other(name, X[use], own.y[use], tasks, device)
    return found


def seen_in(X: Views, held_out: Iterable[Views]) -> NDArray[np.bool_]:
    """(n,) which rows of X have some content that a row of these has; texts and tables are not compared."""
    known = {digest for each in held_out for name in each.names for digest in _contents(each, name) if digest}
    if not known:
        return np.zeros(len(X), bool)
    return np.logical_or.reduce([[digest in known for digest in _contents(X, name)] for name in X.names])


def clear_of(data: Dataset, held_out: Views) -> Dataset:
    """The rows of `data` that share no content with rows that are held out, such as the test rows of a study."""
    keep = np.flatnonzero(~seen_in(data.views, [held_out]))
    columns = {name: value[keep] for name in ("split", "group") if (value := getattr(data, name)) is not None}
    return replace(data, views=data.views[keep], y=data.y[keep], ids=data.ids[keep], **columns)


class JointMethod(NeuralMethod):
    """A NeuralMethod whose network also learns from other sets.

    An author writes `build` for the rows of one set, and `share`, which puts the parts that all sets have in common
    into the network of another set. While `learn` runs, ``net.others[name]`` is that network, of which everything else
    is its own, and `others_in_training` has the rows. Afterwards ``net_`` is as if there had been no other set.

    Attributes
    ----------
    others_
        Name -> a fitted method of the same kind, with the shared parts, that answers for the other set.
    """

    others: Mapping[str, Any] | None

    @abstractmethod
    def share(self, net: Any, part: Any) -> None:
        """Put the common parts of `net` into the network `part` of another set; may add some to `net`."""

    def prepare(self, X: Views, target: NDArray[Any]) -> None:
        """Called with the training rows when the others are read and nothing is built."""

    def build_other(self, other: Other) -> nn.Module:
        """The network of another set, whose common parts are then replaced."""
        return self.build(other.spec)

    def parameters_of(self, name: str) -> dict[str, Any]:
        """Those in which the method that answers for this other set differs, beside `others`, which is None there."""
        return {}

    @property
    def others_in_training(self) -> dict[str, Other]:
        """The other sets by name; none but during `learn`."""
        found: dict[str, Other] = getattr(self, "_others", {})
        return found

    def check_parameters(self) -> None:
        super().check_parameters()
        check_others(self.others, type(self).__name__)

    def adopt(self, spec: DataSpec, state: Mapping[str, Tensor]) -> None:
        """Called before `build` where the network shall hold this state."""

    def restore(self, spec: DataSpec, state: Mapping[str, Tensor]) -> Self:
        self.adopt(spec, state)
        return super().restore(spec, state)

    def learn(self, X: Views, target: NDArray[Any]) -> None:
        self._others = self.read()
        try:
            with fence(self.seed, "preparing"):
                self.prepare(X, target)
            super().learn(X, target)
            others = self._others
        finally:
            del self._others
        self.others_: dict[str, Self] = {}
        if others:
            self._separate(others)

    def read(self) -> dict[str, Other]:
        """The other sets that are trained on."""
        return read_others(self.others, self.card.tasks, self.seed, self._device())

    def _fit_statistics(self, rows: Batch) -> None:
        super()._fit_statistics(rows)
        parts = {}
        for name, other in self._others.items():
            with fence(self.seed, "building", name):
                part = self.build_other(other)
            initialise(part, derive(self.seed, name))
            self.share(self.net_, part)
            part.to(self._device())
            for module in part.modules():
                if isinstance(module, Encoder):
                    here = other.rows.take(other.rows.present[module.modality.name])
                    module.fit_statistics(here.views[module.modality.name], here.lengths.get(module.modality.name))
            parts[name] = part
        if parts:
            self.net_.others = ByModality(parts)

    def _separate(self, others: Mapping[str, Other]) -> None:
        """Every set gets what it needs of the one network, and no more."""
        joint: Any = self.net_
        with fence(self.seed, "separating"):
            for name, other in others.items():
                method = type(self)(**{**self.get_params(deep=False), "others": None, **self.parameters_of(name)})
                state = {**joint.others[name].state_dict(), "target_scale": other.scale}
                self.others_[name] = method.restore(other.spec, _needed(state, method, other.spec))
            del joint.others
            self.restore(self.spec_, _needed(joint.state_dict(), self, self.spec_))


def _needed(state: dict[str, Tensor], method: JointMethod, spec: DataSpec) -> dict[str, Tensor]:
    """What a network for this set holds; of a tensor that was larger for the sake of another set, its first part."""
    method.adopt(spec, state)
    wanted = {**method.build(spec).state_dict(), "target_scale": state["target_scale"]}
    return {
        name: state[name][tuple(slice(size) for size in value.shape)].clone(memory_format=torch.contiguous_format)
        for name, value in wanted.items()
    }


def _load(given: Mapping[str, Any]) -> Dataset:
    return sets.load(
        given["set"],
        primary=given.get("primary"),
        secondary=given.get("secondary"),
        variant=given.get("variant"),
    )


def _tested(data: Dataset) -> NDArray[np.bool_]:
    return np.zeros(len(data), bool) if data.split is None else np.asarray(data.split != "train", bool)


def _contents(X: Views, name: str) -> list[bytes]:
    """A digest of what each row holds in a modality; empty where it lacks it, or where rows may repeat one another."""
    if X.specs[name].kind in REPEATED:
        return [b""] * len(X)
    array = np.asarray(X[name], np.float32)
    lengths = X.lengths.get(name, np.full(len(X), array.shape[1]))
    return [
        hashlib.blake2b(np.ascontiguousarray(row[:length]).data, digest_size=16).digest() if here else b""
        for row, length, here in zip(array, lengths, X.present[name], strict=True)
    ]


def _other(name: str, X: Views, y: NDArray[Any], tasks: frozenset[TaskKind], device: str | torch.device) -> Other:
    X.check_values()
    empty = [each for each in X.names if not X.present[each].any()]
    if empty:
        raise DataError(f"No labelled training row of {name!r} in 'others' has {empty[0]!r}. Leave it out.")
    try:
        target, task = encode(y, len(y), tasks)
    except DataError as error:
        raise DataError(f"{name!r} in 'others' does not fit: {error}") from error
    scale = _scale(target, task)
    scaled = target
    if task.kind == "regression":
        scaled = ((target - scale[0].item()) / scale[1].item()).astype(np.float32)
    return Other(name, DataSpec(dict(X.specs), X.primary, task), X, target, to_batch(X, scaled, device), scale)


def _scale(target: NDArray[Any], task: Task) -> Tensor:
    if task.kind != "regression":
        return torch.tensor([0.0, 1.0])
    deviation = float(target.std())
    return torch.tensor([float(target.mean()), deviation if deviation > 0 else 1.0])
