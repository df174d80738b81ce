"""Checks of what a method refuses, in which words, and of what it leaves alone."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from transference.core.errors import ConfigError, DataError, NotFittedError, TransferenceError
from transference.core.views import Views
from transference.testing.subject import ANSWERED, PRIMARY, ConformanceError, Subject, answers, fitted, require


def inputs_are_left_alone(subject: Subject) -> None:
    """Neither `fit` nor an answer changes the rows or the labels."""
    X, y = subject.rows(), subject.labels()
    before, labels = X.fingerprint(), y.copy()
    method = fitted(subject(), X, y)
    require(X.fingerprint() == before, "'fit' must not change X.")
    require(all(one is two or one == two for one, two in zip(y, labels, strict=True)), "'fit' must not change y.")
    answers(method, X)
    require(X.fingerprint() == before, "An answer must not change X.")


def not_fitted_is_said(subject: Subject) -> None:
    """Asked before it is fitted, it says so."""
    X = subject.rows(4)
    _refuses("predict before fit", NotFittedError, "not fitted", lambda: subject().predict(X))
    _refuses("predict_proba before fit", NotFittedError, "not fitted", lambda: subject().predict_proba(X))
    _refuses("deployed before fit", NotFittedError, "not fitted", lambda: subject().deployed())


def wrong_training_input_is_refused(subject: Subject) -> None:
    """No Views, labels too few, one class, a modality that no row has, modalities too few."""
    X, y = subject.rows(), subject.labels()
    cases: dict[str, tuple[str, Callable[[], Any]]] = {
        "an array for X": ("must be a Views", lambda: subject().fit(X[PRIMARY], y)),  # type: ignore[arg-type]
        "a label too few": ("number of labels must be the number of rows, 48", lambda: subject().fit(X, y[:-1])),
        "a modality that no row has": (
            "absent in every training row",
            lambda: subject().fit(X.without(X.names[-1]), y),
        ),
    }
    if subject.task == "classification":
        one = np.full(48, "ant", object)
        cases["one class"] = ("of two classes or more", lambda: subject().fit(X, one))
    if subject.card.modalities[0] > 1:
        cases["one modality"] = ("number of modalities", lambda: subject().fit(X.only([PRIMARY]), y))
    for case, (words, call) in cases.items():
        _refuses(case, DataError, words, call)


def wrong_questions_are_refused(subject: Subject) -> None:
    """A modality of another shape, a modality missing, rows that lack what is needed."""
    method, X = subject.fitted, subject.rows(8, seed=3)
    wide: dict[str, Any] = {**X.arrays, PRIMARY: np.ones((8, 11))}
    _refuses(
        "another shape",
        DataError,
        f"row of '{PRIMARY}' must be",
        lambda: method.predict(Views.of(primary=PRIMARY, **wide)),
    )
    lacking = X
    for name in X.names if subject.card.at_test == "any" else [PRIMARY]:
        lacking = lacking.replace(name, lacking[name], present=np.arange(8) != 5)
    _refuses("a row that lacks what is needed", DataError, r"1 rows lack one: \[5\]", lambda: method.predict(lacking))
    if subject.card.at_test != "any" and X.secondary:
        others = X.only(X.secondary, primary=X.secondary[0])
        _refuses("no primary", DataError, f"no modality '{PRIMARY}'", lambda: method.predict(others))
    if subject.card.at_test == "all":
        for name in X.secondary:
            fewer = X.only([each for each in X.names if each != name])
            _refuses(f"no {name}", DataError, f"no modality '{name}'", partial(method.predict, fewer))


def wrong_parameters_are_refused(subject: Subject) -> None:
    """Every declared constraint is checked in `fit`, by name, and the default is allowed."""
    for name in type(subject()).constraints:
        method = subject().set_params(**{name: ("nonsense",)})
        wording = f"The '{name}' parameter of {type(method).__name__} must be"
        fit = partial(method.fit, subject.rows(), subject.labels())
        _refuses(f"{name}=('nonsense',)", ConfigError, wording, fit)


def other_tasks_are_refused(subject: Subject) -> None:
    """Labels that pose a task which the card does not name are refused."""
    for task in ANSWERED:
        if task not in subject.card.tasks:
            fit = partial(subject().fit, subject.rows(), subject.labels(task=task))
            _refuses(task, DataError, "must be a task of this method", fit)


def _refuses(case: str, error: type[TransferenceError], words: str, call: Callable[[], Any]) -> None:
    try:
        call()
    except error as raised:
        require(bool(re.search(words, str(raised))), f"The error for {case} must say {words!r}. It says: {raised}")
    except Exception as raised:
        raise ConformanceError(f"{case} must be refused with {error.__name__}. Got {raised!r} instead.") from raised
    else:
        raise ConformanceError(f"{case} must be refused with {error.__name__}. It was accepted.")
