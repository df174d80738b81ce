"""Method: labels, presence and parameters, before any learning."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from transference.core.errors import ConfigError, DataError, NotFittedError
from transference.core.method import Card, Method, encode
from transference.core.parameters import Interval, Options
from transference.core.views import Views

CLASSES = frozenset({"classification"})


class Nearest(Method):
    """Answers with the first row's label; keeps what it was shown."""

    card = Card("Always the first class.", "none", (1, None), frozenset({"labels"}), "primary", CLASSES)
    constraints = {"share": Interval(0, 1), "mode": Options("a", "b")}

    def __init__(self, *, share: float = 0.5, mode: str = "a") -> None:
        self.share = share
        self.mode = mode

    def learn(self, X: Views, target: NDArray[Any]) -> None:
        self.target_ = target

    def decide(self, X: Views) -> NDArray[Any]:
        self.seen_ = X.names
        return np.eye(len(self.classes_))[np.zeros(len(X), int)]


def views(n: int = 3) -> Views:
    return Views.of(primary="a", a=np.ones((n, 2)), b=np.ones((n, 4)))


@pytest.mark.parametrize(
    ("labels", "target", "classes"),
    [
        (["x", None, "w"], [1, -1, 0], ("w", "x")),
        ([7, -1, 3], [1, -1, 0], (3, 7)),
        (np.array([True, False, True]), [1, 0, 1], (False, True)),
    ],
)
def test_labels_become_sorted_class_numbers(labels: Any, target: list[int], classes: tuple[object, ...]) -> None:
    encoded, task = encode(labels, 3, CLASSES)
    assert encoded.tolist() == target
    assert task.classes == classes


def test_floats_are_values_with_nan_unlabelled() -> None:
    encoded, task = encode([0.5, np.nan, 2.0], 3, frozenset({"regression"}))
    assert task.kind == "regression"
    assert np.isnan(encoded).tolist() == [False, True, False]


def test_two_columns_are_several_labels() -> None:
    encoded, task = encode([[0, 1], [1, 1]], 2, frozenset({"multilabel"}))
    assert (task.kind, task.outputs, encoded.dtype) == ("multilabel", 2, np.dtype("float32"))


@pytest.mark.parametrize(
    ("labels", "wording"),
    [
        (["x", "x", None], r"must be of two classes or more\. Got 1 \['x'\] instead"),
        (["x", "y"], r"number of labels must be the number of rows, 3\. Got 2 instead"),
        ([0.5, 1.5, 2.5], "must be a task of this method: classification. Got 'regression' instead"),
    ],
)
def test_wrong_labels_are_refused_in_words(labels: Any, wording: str) -> None:
    with pytest.raises(DataError, match=wording):
        Nearest().fit(views(), labels)


def test_only_the_primary_reaches_decide() -> None:
    method = Nearest().fit(views(), ["x", "y", "x"])
    method.predict(views())
    assert method.seen_ == ("a",)


def test_rows_that_lack_the_primary_are_named() -> None:
    method = Nearest().fit(views(), ["x", "y", "x"])
    X = views()
    lacking = X.replace("a", X["a"], present=np.array([True, False, True]))
    with pytest.raises(DataError, match=r"needs 'a' in every row\. 1 rows lack one: \[1\]"):
        method.predict(lacking)


def test_parameters_are_checked_in_fit_with_one_wording() -> None:
    with pytest.raises(ConfigError, match=r"The 'share' parameter of Nearest must be a number in \[0, 1\]\. Got 1\.5"):
        Nearest(share=1.5).fit(views(), ["x", "y", "x"])
    with pytest.raises(ConfigError, match=r"The 'mode' parameter of Nearest must be one of 'a', 'b'\. Got 'c'"):
        Nearest(mode="c").fit(views(), ["x", "y", "x"])


def test_not_fitted_says_what_to_do() -> None:
    with pytest.raises(NotFittedError, match="Call 'fit' before"):
        Nearest().predict(views())


def test_absent_everywhere_is_refused() -> None:
    with pytest.raises(DataError, match="'b' is absent in every training row. Leave it out"):
        Nearest().fit(views().without("b"), ["x", "y", "x"])


@pytest.mark.parametrize(
    ("constraint", "yes", "no"),
    [
        (Interval(0, 1), [0, 0.5, 1], [-0.1, 1.1, True, "1", None, float("nan")]),
        (Interval(0, 1, open_low=True, open_high=True), [0.5], [0, 1]),
        (Interval(1, whole=True), [1, 7], [0, 1.5]),
        (Interval(1, none=True), [None, 2], [0]),
        (Options("a", None, 1), ["a", None, 1], ["b", True, 1.0]),
    ],
)
def test_constraints(constraint: Interval | Options, yes: list[Any], no: list[Any]) -> None:
    assert all(constraint.allows(value) for value in yes)
    assert not any(constraint.allows(value) for value in no)
