"""Method: what every method of the package is, and the card that declares it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.metrics import r2_score

from transference.core.errors import ConfigError, DataError, NotFittedError, must_be
from transference.core.parameters import Constraint
from transference.core.spec import DataSpec, Task, TaskKind
from transference.core.views import Views

Need = Literal["labels", "unlabelled", "paired", "pretrained", "language_model", "graph"]


@dataclass(frozen=True)
class Card:
    """The declaration that drives the checks, the planner, the command line and the docs.

    Attributes
    ----------
    summary, reference
        One sentence; a key of docs/references.bib.
    modalities
        Fewest and most modalities in training; None = any number.
    needs
        ``unlabelled``: uses rows without a label when there are any. ``paired``: rows with two modalities or more.
    at_test
        ``all``: every modality must be there; ``primary``: only the primary one is read, whatever else is given;
        ``any``: answers with any non-empty subset.
    tasks
        What it can do. ``classification``, ``regression``, ``multilabel``: it answers what its labels posed.
        ``unsupervised``: `fit` needs no labels. ``retrieval`` and ``zero_shot``: `match`. ``few_shot``: `episode`.
        ``generation``: `generate`.
    """

    summary: str
    reference: str
    modalities: tuple[int, int | None]
    needs: frozenset[Need]
    at_test: Literal["all", "primary", "any"]
    tasks: frozenset[TaskKind]


class Method(BaseEstimator, ABC):
    """A method is a scikit-learn estimator whose X is a `Views`.

    An author writes ``learn`` and ``decide``; this class checks parameters and input, encodes labels, and keeps
    what the card says about modalities. Labels may be integers, strings or, for regression, floats; unlabelled rows
    hold -1, None or nan, in this order. Learned state ends in ``_``: ``spec_``, ``classes_``.
    """

    card: ClassVar[Card]
    constraints: ClassVar[Mapping[str, Constraint]] = {}

    @abstractmethod
    def learn(self, X: Views, target: NDArray[Any]) -> None:
        """Learn from rows and encoded targets: class numbers with -1, or floats with nan, where unlabelled."""

    @abstractmethod
    def decide(self, X: Views) -> NDArray[Any]:
        """(n, classes) probabilities, or (n, outputs) values."""

    def fit(self, X: Views, y: ArrayLike | None = None) -> Self:
        """Learn from these rows.

        Parameters
        ----------
        X
            Training rows.
        y
            (n,) labels; see the class for how an unlabelled row is written. (n, k) zeros and ones for several labels.
            None where there are none at all, for methods whose card says ``unsupervised``.
        """
        self.check_parameters()
        if not isinstance(X, Views):
            raise DataError(must_be(f"The X of {type(self).__name__}.fit", "a Views", type(X).__name__))
        X.check_values()
        target, task = _without_labels(len(X), self.card.tasks) if y is None else encode(y, len(X), self.card.tasks)
        return self.fit_encoded(X, target, task)

    def fit_encoded(self, X: Views, target: NDArray[Any], task: Task) -> Self:
        """Learn a task whose classes are already numbered: how a method fits another one inside it.

        The classes are those of `task`, whether or not these rows show all of them.
        """
        self.check_parameters()
        self._check_modalities(X)
        _allowed(task, self.card.tasks)
        self.spec_ = DataSpec(dict(X.specs), X.primary, task)
        self.classes_ = np.asarray(task.classes)
        self.learn(X, target)
        return self

    def predict(self, X: Views) -> NDArray[Any]:
        """(n,) labels or values; (n, k) for several labels."""
        self._fitted_to_labels()
        decided = self.decide(self._readable(X))
        kind = self.spec_.task.kind
        if kind == "regression":
            return decided[:, 0]
        if kind == "multilabel":
            return (decided > 0.5).astype(np.int64)
        return self.classes_[decided.argmax(1)]

    def predict_proba(self, X: Views) -> NDArray[Any]:
        """(n, classes) probabilities in the order of ``classes_``; (n, k) for several labels."""
        if self._fitted_to_labels().task.kind == "regression":
            raise ConfigError(f"{type(self).__name__} was fitted for regression, which has no probabilities.")
        return self.decide(self._readable(X))

    def embed(self, X: Views) -> dict[str, NDArray[Any]]:
        """Name -> (n, d) representation of each modality that is read."""
        raise ConfigError(f"{type(self).__name__} has no representation to show: its models are not encoders.")

    def match(self, X: Views, candidates: Views) -> NDArray[Any]:
        """(n, m) how well each candidate fits each row; higher is better.

        Parameters
        ----------
        X
            n rows, seen through the primary modality.
        candidates
            m rows, seen through the other modalities that they hold. A row of X and a candidate need not be the same.

        Unless a method knows better: the cosine of their representations, averaged over those modalities.
        """
        self._capable("retrieval", "zero_shot")
        rows = _unit(self.embed(self._through(X, self.spec_.primary))[self.spec_.primary])
        others = [name for name in candidates.names if name in self.spec_.secondary]
        shown = {name: value for each in others for name, value in self.embed(self._through(candidates, each)).items()}
        if not shown:
            known = " or ".join(map(repr, self.spec_.secondary))
            raise DataError(must_be("The candidates to match", f"seen through {known}", candidates.names))
        return np.mean([rows @ _unit(value).T for value in shown.values()], axis=0)

    def episode(self, support: Views, y: ArrayLike, query: Views) -> NDArray[Any]:
        """(n, classes) probabilities of the classes of `y`, sorted, for rows of classes met here for the first time.

        Parameters
        ----------
        support
            A few rows of each class, with every modality.
        y
            Their labels.
        query
            n rows, of which the primary modality alone is read.

        Unless a method knows better: the nearer to the mean representation of a class, the more probable it is.
        """
        self._capable("few_shot")
        primary = self._fitted().primary
        shown, asked = (self.embed(self._through(X, primary))[primary] for X in (support, query))
        _, number = np.unique(np.asarray(y), return_inverse=True)
        prototypes = np.stack([shown[number == k].mean(0) for k in range(number.max() + 1)])
        distance = np.square(asked[:, None] - prototypes).sum(2)  # (n, classes)
        likely = np.exp(distance.min(1, keepdims=True) - distance)
        return likely / likely.sum(1, keepdims=True)

    def generate(self, X: Views, name: str) -> NDArray[Any]:
        """(n, *shape) what the modality `name` of these rows may hold, given their primary modality alone."""
        raise ConfigError(f"{type(self).__name__} generates nothing. Its card says what it can do.")

    def deployed(self) -> Method:
        """The fitted method that answers: this one, or the one that it trained to answer for it."""
        self._fitted()
        return self

    def score(self, X: Views, y: ArrayLike) -> float:
        """Accuracy over the labelled rows, in [0, 1]; for regression the coefficient of determination."""
        given = _labels(y)
        known = ~_is_missing(given)
        if not known.any():
            raise DataError(must_be("The number of labelled rows to score", "1 or more", 0))
        answers = self.predict(X[known])
        if self.spec_.task.kind == "regression":
            return float(r2_score(given[known], answers))
        return float(np.mean(given[known] == answers))

    def check_parameters(self) -> None:
        """Raise ConfigError unless every declared constraint holds."""
        for name, constraint in self.constraints.items():
            value = getattr(self, name)
            if not constraint.allows(value):
                raise ConfigError(must_be(f"The {name!r} parameter of {type(self).__name__}", str(constraint), value))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.estimator_type = "classifier" if "classification" in self.card.tasks else None
        return tags

    def _fitted(self) -> DataSpec:
        if not hasattr(self, "spec_"):
            raise NotFittedError(f"This {type(self).__name__} is not fitted. Call 'fit' before asking for an answer.")
        return self.spec_

    def _fitted_to_labels(self) -> DataSpec:
        if self._fitted().task.kind == "unsupervised":
            raise ConfigError(f"{type(self).__name__} was fitted without labels, so it has none to answer with.")
        return self.spec_

    def _capable(self, *tasks: TaskKind) -> None:
        self._fitted()
        if not self.card.tasks.intersection(tasks):
            raise ConfigError(f"{type(self).__name__} can not do {' or '.join(tasks)}. Its card says what it can do.")

    def _check_modalities(self, X: Views) -> None:
        fewest, most = self.card.modalities
        if len(X.names) < fewest or (most is not None and len(X.names) > most):
            wanted = f"{fewest}" if most == fewest else f"{fewest} or more" if most is None else f"{fewest} to {most}"
            raise DataError(
                must_be(f"The number of modalities for {type(self).__name__}", wanted, f"{len(X.names)} {X.names}")
            )
        for name in X.names:
            if not X.present[name].any():
                raise DataError(f"The modality {name!r} is absent in every training row. Leave it out of the study.")

    def _through(self, X: Views, name: str) -> Views:
        """X seen through one modality alone, which every row must have."""
        X, spec = X.only([name], primary=name), self._fitted().modalities[name]
        if X.specs[name].shape != spec.shape:
            raise DataError(must_be(f"A row of {name!r}", f"of shape {spec.shape}", X.specs[name].shape))
        lacking = X.rows[~X.present[name]]
        if len(lacking):
            shown = f"{lacking[:5].tolist()}{' ...' if len(lacking) > 5 else ''}"
            raise DataError(f"{len(lacking)} rows lack {name!r}, through which they are asked: {shown}. Drop them.")
        X.check_values({name: spec})
        return X

    def _readable(self, X: Views) -> Views:
        """X cut to what the card says may be read; refuses rows that lack what is needed."""
        spec = self._fitted()
        if self.card.at_test == "primary":
            names: tuple[str, ...] = (spec.primary,)
        elif self.card.at_test == "all":
            names = tuple(spec.modalities)
        else:
            names = tuple(name for name in spec.modalities if name in X.arrays)
            if not names:
                known = " or ".join(map(repr, spec.modalities))
                raise DataError(must_be(f"The rows for {type(self).__name__}", f"seen through {known}", X.names))
        if not len(X):
            raise DataError(must_be("The number of rows to answer", "1 or more", 0, "Ask only where there are rows."))
        X = X.only(names, primary=spec.primary if spec.primary in names else names[0])
        for name in names:
            if X.specs[name].shape != spec.modalities[name].shape:
                raise DataError(
                    must_be(f"A row of {name!r}", f"of shape {spec.modalities[name].shape}", X.specs[name].shape)
                )
        masks = np.stack([X.present[name] for name in names])
        lacking = ~masks.any(0) if self.card.at_test == "any" else ~masks.all(0)
        if lacking.any():
            shown = X.rows[lacking][:5].tolist()
            raise DataError(
                f"{type(self).__name__} needs {' and '.join(map(repr, names))} in every row. "
                f"{int(lacking.sum())} rows lack one: {shown}{' ...' if lacking.sum() > 5 else ''}. "
                "Leave these rows out, or use a method whose card says at_test = 'any'."
            )
        X.check_values(spec.modalities)
        return X


def encode(y: ArrayLike, n: int, tasks: frozenset[TaskKind]) -> tuple[NDArray[Any], Task]:
    """Labels as numbers, and the task that they pose.

    >>> target, task = encode(["b", None, "a"], 3, frozenset({"classification"}))
    >>> target.tolist(), task.classes
    ([1, -1, 0], ('a', 'b'))
    """
    given = _labels(y)
    if len(given) != n:
        raise DataError(must_be("The number of labels", f"the number of rows, {n}", len(given)))
    if given.ndim == 2:
        return _several(given), _allowed(Task("multilabel", tuple(range(given.shape[1])), given.shape[1]), tasks)
    if given.dtype.kind == "f":
        wrong = given[np.abs(given) > np.finfo(np.float32).max]
        if len(wrong):
            raise DataError(must_be("A label", "a finite float32, or nan where unlabelled", f"{wrong[0]:g}"))
        return given.astype(np.float32), _allowed(Task("regression"), tasks)
    missing = _is_missing(given)
    integers = given.dtype.kind in "iub" and missing.any()
    remedy = "-1 means unlabelled: call the class 0, or give texts." if integers else ""
    try:
        classes, numbers = np.unique(given[~missing], return_inverse=True)
    except TypeError as error:
        kinds = ", ".join(sorted({type(value).__name__ for value in given[~missing]}))
        raise DataError(must_be("The labels", "all texts or all integers", kinds, "Turn them into texts.")) from error
    if len(classes) < 2:
        raise DataError(must_be("The labels", "of two classes or more", f"{len(classes)} {classes.tolist()}", remedy))
    target = np.full(n, -1, np.int64)
    target[~missing] = numbers
    return target, _allowed(Task("classification", tuple(classes.tolist()), len(classes)), tasks)


def _without_labels(n: int, tasks: frozenset[TaskKind]) -> tuple[NDArray[Any], Task]:
    if "unsupervised" not in tasks:
        raise DataError(must_be("The labels", f"a task of this method: {', '.join(sorted(tasks))}", "none"))
    return np.full(n, -1, np.int64), Task("unsupervised")


def _unit(values: NDArray[Any]) -> NDArray[Any]:
    """(n, d) rows of length 1; a row of zeros stays."""
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)


def _labels(y: ArrayLike) -> NDArray[Any]:
    """(n,) or (n, k); a list with texts as objects, since numpy would make texts of its numbers, nan too."""
    given = np.asarray(y)
    if given.dtype.kind in "US" and not isinstance(y, np.ndarray):
        given = np.asarray(y, object)
    if given.ndim not in (1, 2):
        raise DataError(must_be("The labels", "one of each row, (n,), or several, (n, k)", f"shape {given.shape}"))
    return given


def _is_missing(given: NDArray[Any]) -> NDArray[np.bool_]:
    """(n,) which rows have no label: None or nan; -1 among integers."""
    if given.ndim == 2:
        return np.asarray(np.isnan(given.astype(float)).any(1))
    if given.dtype.kind in "iub":
        return np.asarray(given == -1)
    return np.array([value is None or value != value for value in given], bool)


def _several(given: NDArray[Any]) -> NDArray[np.float32]:
    """(n, k) zeros and ones, nan where unlabelled."""
    expected = "zeros and ones, nan where unlabelled, when they have two axes"
    if given.shape[1] < 2:
        raise DataError(must_be("The labels", "of one axis or of several columns", given.shape, "Give y.ravel()."))
    try:
        target = given.astype(np.float32)
    except (TypeError, ValueError) as error:
        raise DataError(must_be("The labels", expected, f"{error}")) from error
    strange = target[~(np.isnan(target) | np.isin(target, (0, 1)))]
    if len(strange):
        raise DataError(must_be("The labels", expected, f"{strange[0]:g}", "Give one column for classes or values."))
    return target


def _allowed(task: Task, tasks: frozenset[TaskKind]) -> Task:
    if task.kind not in tasks:
        raise DataError(must_be("The labels", f"a task of this method: {', '.join(sorted(tasks))}", task.kind))
    return task
