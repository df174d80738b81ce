"""The baseline: what it reads, and estimators in its place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score

from transference.core.errors import ConfigError
from transference.core.registry import create
from transference.core.views import Views
from transference.train.estimator import EstimatorMethod
from transference.train.schedule import Schedule

SHORT = Schedule(updates=40)


def problem(n: int = 60) -> tuple[Views, Any]:
    generator = np.random.default_rng(0)
    y = np.arange(n) % 2
    x = generator.normal(size=(n, 3)) + y[:, None] * 2
    return Views.of(primary="x", x=x, other=generator.normal(size=(n, 2))), np.where(y == 1, "yes", "no").astype(object)


@pytest.mark.parametrize("estimator", [None, "sklearn.linear_model.LogisticRegression"])
def test_the_secondary_changes_nothing(estimator: Any) -> None:
    X, y = problem()
    alone = create("unimodal", estimator=estimator, schedule=SHORT).fit(X.only(["x"]), y)
    beside = create("unimodal", estimator=estimator, schedule=SHORT).fit(X, y)
    assert np.array_equal(alone.predict_proba(X), beside.predict_proba(X.replace("other", X["other"] * 1e6)))


@pytest.mark.parametrize("estimator", [None, HistGradientBoostingClassifier(max_iter=20, min_samples_leaf=5)])
def test_unlabelled_rows_do_not_train_but_may_be_there(estimator: Any) -> None:
    X, y = problem()
    y[::3] = None
    fitted = create("unimodal", estimator=estimator, schedule=SHORT).fit(X, y)
    assert fitted.classes_.tolist() == ["no", "yes"]
    assert fitted.score(X, problem()[1]) > 0.8


def test_an_estimator_equals_itself_outside() -> None:
    X, y = problem()
    inside = create("unimodal", estimator={"class": "sklearn.linear_model.LogisticRegression", "C": 0.3}).fit(X, y)
    x = X["x"].astype(np.float64)
    outside = LogisticRegression(C=0.3).fit((x - x.mean(0)) / x.std(0), y)
    assert np.allclose(inside.predict_proba(X), outside.predict_proba((x - x.mean(0)) / x.std(0)), atol=1e-4)
    assert isinstance(inside.deployed(), EstimatorMethod)
    assert inside.deployed().classes_.tolist() == ["no", "yes"]
    with pytest.raises(ConfigError, match="EstimatorMethod has no representation to show"):
        inside.embed(X)


def test_an_estimator_is_chosen_by_scikit_learn() -> None:
    X, y = problem()
    method = create("unimodal", estimator=LogisticRegression())
    assert cross_val_score(method, X, y.astype(str), cv=3).mean() > 0.8
    search = GridSearchCV(method, {"estimator__C": [1e-6, 1.0]}, cv=2).fit(X, y.astype(str))
    assert search.best_params_ == {"estimator__C": 1.0}
    again = clone(create("unimodal", estimator={"class": "sklearn.svm.SVC", "C": 2.0}))
    assert again.estimator == {"class": "sklearn.svm.SVC", "C": 2.0}


def test_a_wrong_estimator_is_told_before_training() -> None:
    with pytest.raises(ConfigError, match="There is no 'LogisticRegresion' in 'sklearn.linear_model'. Did you mean"):
        create("unimodal", estimator="sklearn.linear_model.LogisticRegresion").check_parameters()


def test_values_by_a_regressor() -> None:
    X = Views.of(primary="x", x=np.arange(6.0)[:, None])
    method = create("unimodal", estimator="sklearn.linear_model.LinearRegression").fit(X, 2 * np.arange(6.0) + 1)
    assert np.allclose(method.predict(X), [1, 3, 5, 7, 9, 11], atol=1e-4)
