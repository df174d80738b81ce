"""Any scikit-learn-compatible estimator as a Method: every modality becomes a row of numbers, side by side.

Numbers are standardised (mean 0, deviation 1) and word counts become tf-idf of unit length, with the statistics of all
training rows that are complete, labelled or not. Two sorts of estimators get them as they are: a Pipeline, which
prepares its own input, and one whose tags say that it takes non-negative numbers only (the naive Bayes of counts).
"""

from __future__ import annotations

import importlib
import inspect
import warnings
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone, is_classifier, is_regressor
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import get_tags
from sklearn.utils.validation import has_fit_parameter

from transference.core.errors import ConfigError, DataError, did_you_mean, must_be
from transference.core.method import Card, Method
from transference.core.seeding import derive, fence
from transference.core.spec import DataSpec, Task, TaskKind
from transference.core.views import Views
from transference.data.tabular import features

EXPECTED = "a scikit-learn estimator: an instance, its dotted class name, or { class = ..., and its parameters }"


def new_estimator(given: Any, seed: int | None = None) -> Any:
    """An unfitted estimator.

    Parameters
    ----------
    given
        An instance, which is cloned; a dotted class name such as ``"sklearn.svm.SVC"``; or a mapping with the name
        under ``class`` and parameters beside it, which may be such mappings themselves.
    seed
        Of every ``random_state`` in it that is None; None leaves them.

    Raises
    ------
    ConfigError
        When there is no such class or parameter, or it cannot fit and predict.

    Examples
    --------
    >>> new_estimator({"class": "sklearn.linear_model.LogisticRegression", "C": 0.1})
    LogisticRegression(C=0.1)
    """
    if isinstance(given, str):
        estimator = _class(given)()
    elif isinstance(given, Mapping) and isinstance(given.get("class"), str):
        estimator = _from_mapping(given)
    elif inspect.isclass(given):
        raise ConfigError(must_be("A model", EXPECTED, f"the class {given.__name__}", f"Write {given.__name__}()."))
    elif hasattr(given, "fit") and hasattr(given, "predict") and hasattr(given, "get_params"):
        estimator = clone(given)
    else:
        raise ConfigError(must_be("A model", EXPECTED, given))
    if seed is not None:
        states = [name for name, value in estimator.get_params().items() if _is_free_state(name, value)]
        estimator.set_params(**{name: derive(seed, "estimator", name) % 2**32 for name in states})
    return estimator


def _is_free_state(name: str, value: object) -> bool:
    return value is None and (name == "random_state" or name.endswith("__random_state"))


def _from_mapping(given: Mapping[str, Any]) -> Any:
    cls = _class(given["class"])
    known = [name for name in inspect.signature(cls).parameters if name != "self"]
    parameters = {}
    for name, value in given.items():
        if name == "class":
            continue
        if name not in known:
            raise ConfigError(f"{given['class']} has no parameter {name!r}. {did_you_mean(name, known)}")
        parameters[name] = _from_mapping(value) if isinstance(value, Mapping) and "class" in value else value
    return cls(**parameters)


def _class(dotted: str) -> Any:
    module_name, _, class_name = dotted.rpartition(".")
    if not module_name:
        remedy = "Write the module too, as in 'sklearn.ensemble.HistGradientBoostingClassifier'."
        raise ConfigError(must_be("A model", EXPECTED, dotted, remedy))
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(
            f"The model {dotted!r} could not be imported: {error}. Correct the name, or install its package."
        ) from error
    options = [name for name in dir(module) if _can_model(getattr(module, name, None))]
    if not hasattr(module, class_name):
        raise ConfigError(f"There is no {class_name!r} in {module_name!r}. {did_you_mean(class_name, options)}")
    cls = getattr(module, class_name)
    if not _can_model(cls):
        raise ConfigError(must_be(f"The model {dotted!r}", "a class with 'fit' and 'predict'", cls))
    return cls


def _can_model(value: object) -> bool:
    return inspect.isclass(value) and all(hasattr(value, name) for name in ("fit", "predict", "get_params"))


class EstimatorMethod(Method):
    """A scikit-learn estimator over all the modalities it is given.

    Rows that lack one of them are left out of training.

    Parameters
    ----------
    estimator
        As `new_estimator` takes it. A classifier must have ``predict_proba``.
    seed
        Of its ``random_state``, where that is None.

    Attributes
    ----------
    estimator_
        The fitted estimator, in a Pipeline after the preparation of its input; its classes are class numbers.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> X = Views.of(primary="x", x=[[0.0], [0.1], [0.9], [1.0]])
    >>> EstimatorMethod(LogisticRegression()).fit(X, ["low", "low", "high", "high"]).predict(X).tolist()
    ['low', 'low', 'high', 'high']
    """

    card: ClassVar[Card] = Card(
        summary="Any scikit-learn estimator, over the modalities it is given.",
        reference="pedregosa2011",
        modalities=(1, None),
        needs=frozenset({"labels"}),
        at_test="all",
        tasks=frozenset({"classification", "regression"}),
    )

    def __init__(self, estimator: Any, *, seed: int = 0) -> None:
        self.estimator = estimator
        self.seed = seed

    def check_parameters(self) -> None:
        super().check_parameters()
        new_estimator(self.estimator)

    def learn(self, X: Views, target: NDArray[Any]) -> None:
        known = ~np.isnan(target) if target.dtype.kind == "f" else target >= 0
        rows = np.flatnonzero(known & _complete(X))
        self.fit_examples(X, self.spec_.task, rows, target[rows])

    def fit_examples(
        self,
        X: Views,
        task: Task,
        rows: NDArray[np.int64],
        target: NDArray[Any],
        weight: NDArray[np.float64] | None = None,
    ) -> Self:
        """Learn from these examples, several of which may be of one row.

        Parameters
        ----------
        X
            All training rows; those that are complete give the statistics of the preparation.
        task
            What is learned; `target` holds numbers of its classes.
        rows
            (m,) position in X of each example.
        target, weight
            (m,) class number or value, and how much the example counts; None = all alike.

        Raises
        ------
        DataError
            When a classifier is shown one class alone.
        ConfigError
            When `weight` is given and the estimator takes none; see `accepts_weights`.
        """
        self.spec_ = DataSpec(dict(X.specs), X.primary, task)
        self.classes_ = np.asarray(task.classes)
        estimator = new_estimator(self.estimator, self.seed)
        _must_suit(estimator, task.kind)
        if task.kind == "classification" and len(np.unique(target)) < 2:
            subject = f"The labelled rows that have {' and '.join(map(repr, X.names))}"
            raise DataError(must_be(subject, "of two classes or more", f"{len(np.unique(target))}"))
        weights = {}
        if weight is not None:
            keyword = _weight_name(estimator)
            if keyword is None:
                raise ConfigError(f"{type(estimator).__name__} takes no weights: its 'fit' has no 'sample_weight'.")
            weights[keyword] = weight
        numbers = self.features(X)
        with fence(self.seed, "estimator"), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)  # labels are scarce here
            preparation = _preparation(estimator, X)
            if preparation is None:
                self.estimator_ = estimator.fit(numbers[rows], target, **weights)
            else:
                preparation.fit(numbers[_complete(X)])
                estimator.fit(preparation.transform(numbers[rows]), target, **weights)
                self.estimator_ = Pipeline([("preparation", preparation), ("estimator", estimator)])
        return self

    @property
    def accepts_weights(self) -> bool:
        """Whether an example may count more than another."""
        return _weight_name(new_estimator(self.estimator)) is not None

    def features(self, X: Views) -> NDArray[Any]:
        """(n, d) numbers that the estimator is given for these rows."""
        return features(X, tuple(self.spec_.modalities))

    def decide(self, X: Views) -> NDArray[Any]:
        numbers = self.features(X)
        if self.spec_.task.kind == "regression":
            return np.asarray(self.estimator_.predict(numbers), float).reshape(-1, 1)
        probabilities = np.zeros((len(X), len(self.spec_.task.classes)))
        probabilities[:, np.asarray(self.estimator_.classes_, int)] = self.estimator_.predict_proba(numbers)
        return probabilities


def _complete(X: Views) -> NDArray[np.bool_]:
    return np.logical_and.reduce([X.present[name] for name in X.names])


def _must_suit(estimator: Any, kind: TaskKind) -> None:
    name = type(estimator).__name__
    if kind == "regression":
        if not is_regressor(estimator):
            raise ConfigError(must_be(f"The model {name}", "a regressor, since the labels are values", "no regressor"))
    elif not is_classifier(estimator):
        raise ConfigError(must_be(f"The model {name}", "a classifier, since the labels are classes", "no classifier"))
    elif not hasattr(estimator, "predict_proba"):
        raise ConfigError(
            f"The model {name} has no 'predict_proba' as it is set up. Set its probability=True where there is such a "
            "parameter, or wrap it in sklearn.calibration.CalibratedClassifierCV."
        )


def _weight_name(estimator: BaseEstimator) -> str | None:
    """The keyword of ``fit`` that takes weights."""
    if isinstance(estimator, Pipeline):
        name, last = estimator.steps[-1]
        return f"{name}__sample_weight" if has_fit_parameter(last, "sample_weight") else None
    return "sample_weight" if has_fit_parameter(estimator, "sample_weight") else None


def _preparation(estimator: Any, X: Views) -> ColumnTransformer | None:
    """What comes before the estimator, unfitted; None where nothing does."""
    if isinstance(estimator, Pipeline) or get_tags(estimator).input_tags.positive_only:
        return None
    parts, start = [], 0
    for name, spec in X.specs.items():
        width = features(X[:1], (name,)).shape[1]
        part = TfidfTransformer() if spec.kind == "text" else StandardScaler()
        parts.append((name, part, list(range(start, start + width))))
        start += width
    return ColumnTransformer(parts, sparse_threshold=0)
