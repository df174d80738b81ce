"""Checks of what a method can do besides answering with what its labels posed; which of them apply says its card."""

from __future__ import annotations

from typing import Any

import numpy as np

from transference.core.errors import ConfigError
from transference.core.method import Method
from transference.core.views import Views
from transference.testing.subject import OTHERS, PATIENT, PRIMARY, Array, Subject, fitted, require, same


def learns_without_labels(subject: Subject) -> None:
    """`fit` takes rows alone; what labels would have posed is then refused, and the same seed gives the same bits."""
    one, other = (subject().fit(subject.rows()) for _ in range(2))
    try:
        one.predict(subject.rows(4))
    except ConfigError as error:
        require("without labels" in str(error), f"That there were no labels must be said. Got {error}")
    else:
        require(False, "Labels must not be answered by a method that was fitted without any.")
    shown = [method.embed(subject.rows(9, seed=3)) for method in (one, other)]
    require(bool(shown[0]), "A method that learns without labels must have a representation to show.")
    for name, value in shown[0].items():
        require(bool(np.isfinite(value).all()), f"The representation of {name!r} must be finite.")
        require(same(value, shown[1][name]), f"The same seed must give the same representation of {name!r}.")


def matches_rows(subject: Subject) -> None:
    """(n, m) finite scores; each of a row and a candidate alone; learned: rows find their class in another modality."""
    method = fitted(subject(schedule=PATIENT), subject.rows(96), subject.labels(96))
    X = subject.rows(30, seed=3)
    asked, shown = X.only([PRIMARY]), X.only([OTHERS[0]], primary=OTHERS[0])
    whole = method.match(asked, shown[:21])
    require(whole.shape == (30, 21), f"Matching 30 rows with 21 must give (30, 21). Got {whole.shape}.")
    require(bool(np.isfinite(whole).all()), "Matches must be finite.")
    alone = method.match(asked[[4]], shown[[7]])
    gap = float(abs(alone[0, 0] - whole[4, 7]))
    require(gap <= 1e-4 * max(1.0, float(abs(whole).max())), f"A match must not depend on other rows: {gap:.2g}.")
    poisoned = X.replace(OTHERS[0], np.full_like(X[OTHERS[0]], 1e6))
    require(same(method.match(poisoned, shown[:21]), whole), "Matching must read the rows' primary modality alone.")
    number = np.arange(30) % 3
    means = np.stack([whole[:, np.arange(21) % 3 == k].mean(1) for k in range(3)], 1)
    right = float((means.argmax(1) == number).mean())
    require(right > 0.5, f"Rows must be matched with others of their class. Accuracy {right:.2f}, chance 0.33.")


def plays_episodes(subject: Subject) -> None:
    """(n, classes) probabilities for new classes, in sorted order, whatever the other modalities of the query hold."""
    method = subject.fitted
    X, names = subject.rows(36, seed=5), np.array(["w", "u", "v"], object)
    y = names[np.arange(36) % 3]
    support, query = X[:12], X[12:]
    answered = method.episode(support, y[:12], query.only([PRIMARY]))
    require(answered.shape == (24, 3), f"24 rows and 3 classes must give (24, 3). Got {answered.shape}.")
    require(bool((abs(answered.sum(1) - 1) < 1e-4).all()), "The probabilities of a row must sum to 1.")
    right = float((np.array(["u", "v", "w"])[answered.argmax(1)] == y[12:].astype(str)).mean())
    require(right > 0.45, f"Classes that are shown must be told apart. Accuracy {right:.2f}, chance 0.33.")
    turned = method.episode(support[::-1], y[:12][::-1], query.only([PRIMARY]))
    gap = float(abs(turned - answered).max())
    require(gap <= 1e-4, f"The order of what is shown must not matter. Probabilities differ by {gap:.2g}.")
    for arm, changed in _changed(query):
        require(
            same(method.episode(support, y[:12], changed), answered),
            f"An episode must read the primary modality of the query alone, yet answers change when others are {arm}.",
        )


def generates_the_others(subject: Subject) -> None:
    """(n, *shape) finite values of a modality from the primary one alone, nearer than its mean is."""
    method = fitted(subject(schedule=PATIENT), subject.rows(96), subject.labels(96))
    X = subject.rows(60, seed=3)
    for name in X.secondary:
        made = _made(method, X.only([PRIMARY]), name)
        require(made.shape == X[name].shape, f"What is generated must be of shape {X[name].shape}. Got {made.shape}.")
        require(bool(np.isfinite(made).all()), "What is generated must be finite.")
        for arm, changed in _changed(X):
            require(same(_made(method, changed, name), made), f"Generation must not change when others are {arm}.")
        error = float(np.square(made - X[name]).mean() / np.square(X[name] - X[name].mean(0)).mean())
        require(error < 1, f"What is generated must be nearer than the mean. Share of the variance {error:.2f}.")


def _made(method: Method, X: Views, name: str) -> Array:
    return np.asarray(method.generate(X, name))


def _changed(X: Views) -> list[tuple[str, Any]]:
    huge, of_others = X, X
    for name in X.secondary:
        huge = huge.replace(name, np.full_like(X[name], 1e6))
        of_others = of_others.replace(name, X[name][::-1].copy())
    return [("huge", huge), ("of other rows", of_others)]
