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
        (["x", float("nan"), "w"], [1, -1, 0], ("w", "x")),
        (np.array(["x", np.nan, "w"], object), [1, -1, 0], ("w", "x")),
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
    encoded, _ = encode([[0, 1], [np.nan, np.nan]], 2, frozenset({"multilabel"}))
    assert np.isnan(encoded).tolist() == [[False, False], [True, True]]


@pytest.mark.parametrize(
    ("labels", "wording"),
    [
        (np.ones((3, 1)), r"of one axis or of several columns. Got \(3, 1\) instead. Give y.ravel\(\)"),
        ([[0, 5], [1, 3], [0, 1]], "zeros and ones, nan where unlabelled, when they have two axes. Got '5'"),
        ([["a", "b"]] * 3, "zeros and ones, nan where unlabelled, when they have two axes. Got could not convert"),
        (np.zeros((3, 1, 1)), r"one of each row, \(n,\), or several, \(n, k\). Got shape \(3, 1, 1\)"),
        (3, r"Got shape \(\)"),
        ([0.5, 1e39, 2.0], r"A label must be a finite float32, or nan where unlabelled. Got '1e\+39'"),
        ([0.5, float("-inf"), 2.0], "A label must be a finite float32, or nan where unlabelled. Got '-inf'"),
        ([1, "a", None], "all texts or all integers. Got int, str instead. Turn them into texts"),
        ([1, "a", "b"], "all texts or all integers. Got int, str"),
        ([-1, 1, -1], r"Got 1 \[1\] instead. -1 means unlabelled: call the class 0, or give texts"),
    ],
)
def test_labels_of_no_task_are_refused_in_words(labels: Any, wording: str) -> None:
    with pytest.raises(DataError, match=wording):
        encode(labels, 3, frozenset({"multilabel", "regression", "classification"}))


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


class Anything(Nearest):
    card = Card("The same, of whatever is there.", "none", (1, None), frozenset({"labels"}), "any", CLASSES)


def test_values_are_checked_where_they_are_read() -> None:
    X = views()
    broken = X.replace("b", np.full((3, 4), np.nan))
    with pytest.raises(DataError, match="The array of 'b' must be finite. Got nan or inf in row 0"):
        Nearest().fit(broken, ["x", "y", "x"])
    assert Nearest().fit(X, ["x", "y", "x"]).predict(broken).tolist() == ["x"] * 3  # reads 'a' alone
    with pytest.raises(DataError, match="The array of 'b' must be finite"):
        Anything().fit(X, ["x", "y", "x"]).predict(broken)


def test_words_that_training_did_not_number_are_refused() -> None:
    kinds: Any = {"t": "text"}
    method = Nearest().fit(Views.of(primary="t", kinds=kinds, t=[[1, 2], [3, 0], [1, 1]]), ["x", "y", "x"])
    with pytest.raises(DataError, match=r"The words of 't' must be numbers in \[0, 4\). Got 2 to 9 in row 1"):
        method.predict(Views.of(primary="t", kinds=kinds, t=[[1, 2], [2, 9]]))


def test_questions_without_an_answer_are_refused() -> None:
    method = Anything().fit(views(), ["x", "y", "x"])
    with pytest.raises(DataError, match="The number of rows to answer must be 1 or more. Got 0"):
        method.predict(views()[:0])
    with pytest.raises(DataError, match=r"The rows for Anything must be seen through 'a' or 'b'. Got \('c',\)"):
        method.predict(Views.of(primary="c", c=np.ones((3, 2))))


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
