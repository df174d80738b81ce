"""What the checks are run on: fresh methods of one kind, and small planted rows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transference.core.errors import TransferenceError
from transference.core.method import Card, Method
from transference.core.registry import find
from transference.core.spec import Kind, ModalitySpec, TaskKind
from transference.core.views import Views
from transference.train.neural import NeuralMethod
from transference.train.schedule import Schedule

QUICK = Schedule(updates=12, batch_size=24, checks=3, device="cpu")
PATIENT = Schedule(updates=80, batch_size=24, checks=4, device="cpu")
PRIMARY = "look"
OTHERS = ("hear", "read")
NAMES = ("ant", "bee", "cat")
ANSWERED: tuple[TaskKind, ...] = ("classification", "regression", "multilabel")

Array = NDArray[Any]


class ConformanceError(TransferenceError, AssertionError):
    """A method does not do what every method must, or what its card says."""


def require(holds: bool, message: str) -> None:
    """Raise ConformanceError unless it holds."""
    if not holds:
        raise ConformanceError(message)


class Subject:
    """Makes fresh methods of the kind that is checked.

    Parameters
    ----------
    method
        An id, a class, or a function that takes nothing and returns a new, unfitted method. The first two are given a
        short schedule where they have one.
    tasks
        The tasks to try; None = all that the card names. For a method in which an estimator stands in that can do less.
    """

    def __init__(
        self, method: str | type[Method] | Callable[[], Method], tasks: Collection[TaskKind] | None = None
    ) -> None:
        self.given = find(method) if isinstance(method, str) else method
        self.tasks = frozenset(self.given().card.tasks if tasks is None else tasks)
        self.name = method if isinstance(method, str) else getattr(method, "__name__", repr(method))

    def __call__(self, seed: int = 0, schedule: Schedule = QUICK) -> Method:
        """A new, unfitted method."""
        method = self.given()
        known = method.get_params(deep=False)
        if "seed" in known:
            method.set_params(seed=seed)
        if "schedule" in known and isinstance(self.given, type):
            method.set_params(schedule=schedule)
        return method

    @cached_property
    def card(self) -> Card:
        return self.given().card

    @cached_property
    def is_neural(self) -> bool:
        """Whether it is one network: a NeuralMethod, unless an estimator stands in for it."""
        is_class = isinstance(self.given, type)
        return isinstance(self.given(), NeuralMethod) and (is_class or hasattr(self.fitted, "net_"))

    @cached_property
    def task(self) -> TaskKind:
        """The first task that it can do of those that `fit` poses."""
        return next((task for task in ANSWERED if task in self.tasks), "classification")

    @property
    def modalities(self) -> int:
        """Two, where the card allows."""
        fewest, most = self.card.modalities
        return max(fewest, 2 if most is None else min(most, 2))

    def rows(self, n: int = 48, seed: int = 0, modalities: int | None = None) -> Views:
        """Vectors that show a hidden class (row number mod 3): the primary dimly, the others clearly."""
        generator = np.random.default_rng([seed, n])
        centre = 2.0 * np.eye(3)[np.arange(n) % 3]
        arrays: dict[str, Any] = {PRIMARY: np.hstack([centre, centre[:, :2]]) + generator.normal(size=(n, 5))}
        for k, name in enumerate((OTHERS + tuple(f"more{j}" for j in range(9)))[: (modalities or self.modalities) - 1]):
            arrays[name] = np.hstack([centre, np.ones((n, k + 1))]) + 0.3 * generator.normal(size=(n, 4 + k))
        return Views.of(primary=PRIMARY, **arrays)

    @cached_property
    def companions(self) -> list[tuple[Kind, ...]]:
        """What to put beside a series: a text and another series, together where the card allows three modalities."""
        most = self.card.modalities[1]
        if self.modalities == 1:
            return [()]
        return [("text", "series")] if most is None or most >= 3 else [("text",), ("series",)]

    def sequences(self, kinds: Sequence[Kind], n: int = 48, seed: int = 0) -> Views:
        """`rows` as a series of 2 to 6 steps, beside a series of 1 to 6 steps or up to 4 words for each of `kinds`."""
        X, number = self.rows(n, seed, 1 + len(kinds)), np.arange(n)
        arrays: dict[str, Any] = {}
        specs: dict[str, ModalitySpec] = {}
        lengths: dict[str, Array] = {}
        for name, kind in zip((PRIMARY, *OTHERS), ("series", *kinds), strict=False):
            if kind == "text":
                lengths[name] = 1 + number % 4
                array = np.where(np.arange(4) < lengths[name][:, None], 1 + (X[name][:, :4] > 1), 0)
            else:
                lengths[name] = 2 + number % 5 if name == PRIMARY else 1 + number % 6
                array = np.where(np.arange(6)[:, None] < lengths[name][:, None, None], X[name][:, None, :], 0)
            arrays[name] = array.astype(np.float32)
            specs[name] = ModalitySpec(name, kind, array.shape[1:], lengths=True, vocabulary=3 * (kind == "text"))
        return Views(arrays, specs, PRIMARY, lengths=lengths)

    def labels(self, n: int = 48, unlabelled: Array | None = None, task: TaskKind | None = None) -> Array:
        """(n,) labels of `rows`, or (n, 2) for several labels; missing where `unlabelled`."""
        number = np.arange(n) % 3
        task = task or self.task
        none = np.zeros(n, bool) if unlabelled is None else unlabelled
        if task == "regression":
            return np.where(none, np.nan, 1000 + 20 * number).astype(np.float32)  # in a unit of their own
        if task == "multilabel":
            return np.where(none[:, None], np.nan, np.stack([number > 0, number == 2], 1)).astype(np.float32)
        labels = np.array(NAMES, object)[number]
        labels[none] = None
        return labels

    def some_labels(self) -> Array:
        """(48,) labels, a quarter of them missing where the card needs rows without one."""
        return self.labels(unlabelled=np.arange(48) % 4 == 3 if "unlabelled" in self.card.needs else None)

    def fit(self, seed: int = 0, n: int = 48) -> Method:
        """A new method, fitted to labelled rows that lack nothing."""
        return fitted(self(seed), self.rows(n), self.labels(n))

    @cached_property
    def fitted(self) -> Method:
        """As `fit`, made once: for checks that only ask it."""
        return self.fit()

    @cached_property
    def fitted_with_holes(self) -> Method:
        """A new method, fitted to labelled rows of which some lack a modality."""
        return fitted(self(), with_holes(self.rows()), self.labels())

    @cached_property
    def fitted_to_sequences(self) -> dict[tuple[Kind, ...], Method]:
        """For each of `companions`, a new method fitted to `sequences`."""
        return {kinds: fitted(self(), self.sequences(kinds), self.some_labels()) for kinds in self.companions}


def fitted(method: Method, X: Views, y: Array) -> Method:
    """The method after `fit`, whatever `fit` returns."""
    method.fit(X, y)
    return method


def answers(method: Method, X: Views) -> Array:
    """(n, classes) probabilities, or values: all that a method says of rows."""
    return method.predict(X) if method.spec_.task.kind == "regression" else method.predict_proba(X)


def same(one: Array, other: Array) -> bool:
    """Bit for bit."""
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


def differ(one: Array, other: Array) -> bool:
    """By more than other rounding makes, as that of sums in another order: a thousandth of the answers' spread."""
    return bool(abs(one - other).max() > 1e-3 * one.std())


def with_holes(X: Views) -> Views:
    """Every fourth row lacks the first other modality, every seventh the primary one, no row both."""
    number = np.arange(len(X))
    for name, absent in ((OTHERS[0], number % 4 == 1), (PRIMARY, (number % 7 == 3) & (number % 4 != 1))):
        if name in X.names:
            X = X.replace(name, np.where(absent[:, None], 0, X[name]).astype(np.float32), present=~absent)
    return X
