"""Estimators as models: how one is named, what it is given, and what it answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.naive_bayes import GaussianNB, MultinomialNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from transference.core.errors import ConfigError, DataError
from transference.core.registry import create
from transference.core.spec import Task
from transference.core.views import Views
from transference.train.estimator import EstimatorMethod, new_estimator
from transference.train.models import check_model, new_model
from transference.train.schedule import Schedule

X4 = Views.of(primary="x", x=[[0.0, 900.0], [0.1, -900.0], [0.9, 900.0], [1.0, -900.0]])


@pytest.mark.parametrize(
    ("given", "wording"),
    [
        ("sklearn.ensemble.HistGradientBostingClassifier", "Did you mean 'HistGradientBoostingClassifier'?"),
        ("sklearn.ensembel.RandomForestClassifier", "could not be imported: No module named 'sklearn.ensembel'"),
        ("LogisticRegression", "Write the module too"),
        ("sklearn.metrics.accuracy_score", "must be a class with 'fit' and 'predict'"),
        (LogisticRegression, r"Got the class LogisticRegression instead\. Write LogisticRegression\(\)"),
        (3.5, r"A model must be a scikit-learn estimator.*Got 3\.5 instead"),
        ({"class": "sklearn.svm.SVC", "gama": 1}, "sklearn.svm.SVC has no parameter 'gama'. Did you mean 'gamma'?"),
        ({"C": 1.0}, "A model must be a scikit-learn estimator"),
    ],
)
def test_what_is_no_estimator_is_refused_in_words(given: Any, wording: str) -> None:
    with pytest.raises(ConfigError, match=wording):
        new_estimator(given)


@pytest.mark.parametrize(
    ("given", "wording"),
    [
        ("unimodel", "Write the module too"),
        ("fusion.lat", "There is no method 'fusion.lat'. Did you mean 'fusion.late'?"),
        ({"class": "unimodal", "widht": 3}, "unimodal has no parameter 'widht'. Did you mean 'width'?"),
        ("transfer.distillation", "must be one for 1 modalities. Got 'Distillation'"),
    ],
)
def test_a_model_that_cannot_be_is_refused_in_words(given: Any, wording: str) -> None:
    with pytest.raises(ConfigError, match=wording):
        check_model(given)


def test_a_model_may_be_given_in_every_form() -> None:
    short = Schedule(updates=3)
    assert new_model(None, width=8, schedule=short, seed=5).get_params() == {
        "estimator": None,
        "width": 8,
        "schedule": short,
        "seed": 5,
    }
    assert new_model({"class": "unimodal", "width": 16}, width=8).width == 16
    assert type(new_model(None, modalities=2)).__name__ == "EarlyFusion"
    given = create("unimodal", width=4, seed=9)
    copied = new_model(given, width=8, seed=1)
    assert copied is not given
    assert (copied.width, copied.seed) == (4, 9)
    assert new_model("sklearn.naive_bayes.GaussianNB", seed=3).seed == 3
    nested = {"class": "sklearn.ensemble.BaggingClassifier", "estimator": {"class": "sklearn.svm.SVC", "C": 2.0}}
    assert new_estimator(nested).estimator.C == 2.0


def test_the_seed_reaches_every_free_random_state() -> None:
    free = new_estimator(make_pipeline(HistGradientBoostingClassifier()), seed=1)
    assert isinstance(free.get_params()["histgradientboostingclassifier__random_state"], int)
    assert new_estimator(HistGradientBoostingClassifier(random_state=7), seed=1).random_state == 7


def test_numbers_are_standardised_over_labelled_and_unlabelled_rows() -> None:
    """Nearest neighbour by hand: raw, the second column decides; standardised (deviations .45 and 900), the first."""
    X = Views.of(primary="x", x=[[0.0, 900.0], [1.0, -900.0], [0.0, -900.0], [1.0, 900.0]])
    y = np.array(["a", "b", None, None], object)
    one = KNeighborsClassifier(1)
    row = Views.of(primary="x", x=[[0.0, -90.0]])
    assert EstimatorMethod(one).fit(X, y).predict(row).tolist() == ["a"]
    assert EstimatorMethod(make_pipeline(one)).fit(X, y).predict(row).tolist() == ["b"]
    preparation = EstimatorMethod(one).fit(X, y).estimator_[0]
    assert preparation.named_transformers_["x"].mean_.tolist() == [0.5, 0.0]


def test_words_are_weighted_except_where_counts_are_wanted() -> None:
    words = Views.of(primary="w", kinds={"w": "text"}, w=[[1, 1, 2], [2, 2, 3]])
    counts = EstimatorMethod(MultinomialNB()).fit(words, ["a", "b"]).estimator_.feature_count_
    assert counts.tolist() == [[0, 2, 1, 0], [0, 0, 2, 1]]
    both = Views.of(primary="w", kinds={"w": "text"}, w=[[1, 1, 2], [2, 2, 3]], v=[[10.0], [30.0]])
    fitted = EstimatorMethod(LogisticRegression()).fit(both, ["a", "b"])
    rare = np.log(3 / 2) + 1  # of words 1 and 3, in one document of two; word 2 is in both and has weight 1
    first = np.array([0, 2 * rare, 1, 0])
    second = np.array([0, 0, 2, rare])
    expected = [[-1, *first / np.linalg.norm(first)], [1, *second / np.linalg.norm(second)]]
    assert np.allclose(fitted.estimator_[0].transform(fitted.features(both)), expected, atol=1e-6)


def test_classes_without_rows_get_probability_zero() -> None:
    task = Task("classification", ("a", "b", "c"), 3)
    method = EstimatorMethod(GaussianNB()).fit_encoded(X4, np.array([0, 0, 2, 2]), task)
    p = method.decide(X4)
    assert p.shape == (4, 3)
    assert (p[:, 1] == 0).all()
    assert method.predict(X4).tolist() == ["a", "a", "c", "c"]


def test_rows_that_lack_a_modality_do_not_train() -> None:
    lacking = X4.replace("x", X4["x"] * [[1], [1], [1], [0]], present=np.array([True, True, True, False]))
    with_gap = EstimatorMethod(LogisticRegression()).fit(lacking, ["a", "a", "b", "b"])
    without = EstimatorMethod(LogisticRegression()).fit(X4[:3], ["a", "a", "b"])
    assert np.array_equal(with_gap.decide(X4), without.decide(X4))


def test_weights_count_rows() -> None:
    rows, target = np.array([0, 1, 2, 3]), np.array([0, 1, 0, 1])
    task = Task("classification", ("a", "b"), 2)
    for given in (LogisticRegression(), make_pipeline(LogisticRegression())):
        weighted, repeated = EstimatorMethod(given), EstimatorMethod(given)
        weighted.fit_examples(X4, task, rows, target, np.array([3.0, 1.0, 1.0, 1.0]))
        repeated.fit_examples(X4, task, np.r_[0, 0, rows], np.r_[0, 0, target])
        assert np.allclose(weighted.decide(X4), repeated.decide(X4), atol=1e-4)
    assert not EstimatorMethod(KNeighborsClassifier()).accepts_weights
    with pytest.raises(ConfigError, match="KNeighborsClassifier takes no weights"):
        EstimatorMethod(KNeighborsClassifier(1)).fit_examples(X4, task, rows, target, np.ones(4))


@pytest.mark.parametrize(
    ("estimator", "y", "error", "wording"),
    [
        (LinearSVC(), ["a", "a", "b", "b"], ConfigError, "LinearSVC has no 'predict_proba'.*CalibratedClassifierCV"),
        (Ridge(), ["a", "a", "b", "b"], ConfigError, "Ridge must be a classifier, since the labels are classes"),
        (
            GaussianNB(),
            [0.1, 0.2, 0.3, 0.4],
            ConfigError,
            "GaussianNB must be a regressor, since the labels are values",
        ),
    ],
)
def test_the_estimator_must_suit_the_task(estimator: Any, y: Any, error: type[Exception], wording: str) -> None:
    with pytest.raises(error, match=wording):
        EstimatorMethod(estimator).fit(X4, y)


def test_one_class_is_refused() -> None:
    lacking = X4.replace("x", X4["x"], present=np.array([True, True, False, False]))
    with pytest.raises(DataError, match="labelled rows that have 'x' must be of two classes or more. Got '1' instead"):
        EstimatorMethod(GaussianNB()).fit(lacking, ["a", "a", "b", "b"])


@pytest.mark.filterwarnings("error")
def test_one_row_a_class_is_no_reason_for_a_warning() -> None:
    X = Views.of(primary="x", x=np.eye(30, dtype=np.float32))
    assert EstimatorMethod(LogisticRegression()).fit(X, [f"c{k}" for k in range(30)]).predict(X)[7] == "c7"


def test_regression_answers_values() -> None:
    method = EstimatorMethod(Ridge(alpha=1e-9)).fit(X4, np.array([1.0, 1.2, 2.8, np.nan]))
    assert np.allclose(method.predict(X4), [1.0, 1.2, 2.8, 3.0], atol=1e-3)
