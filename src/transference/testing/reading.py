"""Checks of what a method reads: which rows teach it, and which modalities it looks at, in training and in answers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from transference.core.method import Method
from transference.core.views import Views
from transference.testing.subject import (
    PRIMARY,
    Subject,
    answers,
    differ,
    fitted,
    require,
    same,
    with_holes,
)


def rows_with_holes_are_taken(subject: Subject) -> None:
    """Training rows may lack a modality."""
    found = answers(subject.fitted_with_holes, subject.rows(12, seed=3))
    require(bool(np.isfinite(found).all()), "Answers must be finite when training rows lack modalities.")


def absent_content_is_ignored(subject: Subject) -> None:
    """What the array of a modality holds in rows that lack it changes nothing, in training nor in answers."""
    one = subject.fitted_with_holes
    other = fitted(subject(), _poisoned_where_absent(with_holes(subject.rows())), subject.labels())
    require(
        same(answers(one, subject.rows(12, seed=3)), answers(other, subject.rows(12, seed=3))),
        "Training must not read a modality in rows that lack it: use 'present', never a test for zeros.",
    )
    if subject.card.at_test == "any":
        test = with_holes(subject.rows(24, seed=3))
        require(
            same(answers(one, test), answers(one, _poisoned_where_absent(test))),
            "Answers must not read a modality in rows that lack it: use 'present', never a test for zeros.",
        )


def reads_only_what_the_card_says(subject: Subject) -> None:
    """With at_test = "primary" the others, whatever their kind, may be anything; with "any", each alone is answered."""
    if subject.card.at_test == "any":
        for name in subject.rows(2).names:
            alone = answers(subject.fitted, subject.rows(20, seed=3).only([name], primary=name))
            require(len(alone) == 20 and bool(np.isfinite(alone).all()), f"{name!r} alone must be answered.")
        return
    _ignores_the_others(subject.fitted, lambda: subject.rows(20, seed=3))
    for kinds, method in subject.fitted_to_sequences.items():
        _ignores_the_others(method, partial(subject.sequences, kinds, 20, seed=3))


def uses_what_it_declares(subject: Subject) -> None:
    """A method that needs pairs learns from the other modalities; a baseline of one modality does not look at them.

    Their rows are put into another order, in which they do not tell the class: a teacher may be none the worse for
    contents that belong to another class, as long as it is always the same one.
    """
    found = []
    for order in (np.arange(48), np.random.default_rng(0).permutation(48)):
        X = subject.rows()
        for name in X.secondary:
            X = X.replace(name, X[name][order])
        method = fitted(subject(), X, subject.labels(unlabelled=np.arange(48) % 4 == 3))
        found.append(answers(method, subject.rows(20, seed=3)))
    if "paired" in subject.card.needs:
        require(not same(*found), "The card needs 'paired', yet other secondary content changes no answer.")
    elif subject.card.at_test == "primary" and subject.card.modalities[0] == 1:
        require(same(*found), "The card does not need 'paired', yet secondary content changes the answers.")


def unlabelled_rows_teach(subject: Subject) -> None:
    """Where the card needs "unlabelled", what rows without a label hold changes what is learned.

    Every column is shuffled over these rows alone. That keeps its mean and deviation, so that a method which uses the
    rows for nothing but to standardise its input does not pass.
    """
    unlabelled = np.arange(48) % 6 >= 3
    X, generator = subject.rows(), np.random.default_rng(0)
    for name in X.names:
        content = X[name].copy()
        content[unlabelled] = generator.permuted(content[unlabelled], axis=0)
        X = X.replace(name, content)
    y, test = subject.labels(unlabelled=unlabelled), subject.rows(20, seed=3)
    found = [answers(fitted(subject(), rows, y), test) for rows in (subject.rows(), X)]
    require(differ(*found), "The card needs 'unlabelled', yet other content in rows without a label changes no answer.")


def rows_without_the_others_teach(subject: Subject) -> None:
    """Labelled rows that have the primary modality alone are learned from: with other labels, answers are others.

    The labels are exchanged among these rows, so that the shares of the classes are kept.
    """
    alone = np.arange(48) % 6 >= 3
    X = subject.rows()
    for name in X.secondary:
        X = X.replace(name, np.where(alone[:, None], 0, X[name]).astype(np.float32), present=~alone)
    exchanged = subject.labels()
    exchanged[alone] = np.roll(exchanged[alone], 1, axis=0)
    found = [answers(fitted(subject(), X, y), subject.rows(20, seed=3)) for y in (subject.labels(), exchanged)]
    require(
        differ(*found),
        "Labelled rows with nothing but the primary modality must be learned from, yet other labels in them change no "
        "answer.",
    )


def _ignores_the_others(method: Method, rows: Callable[[], Views]) -> None:
    whole = answers(method, rows())
    arms: dict[str, Callable[[Views, str], Views]] = {
        "left out": lambda X, name: X.only([each for each in X.names if each != name]),
        "absent": lambda X, name: X.without(name),
        "nan": lambda X, name: X.replace(name, np.full_like(X[name], np.nan)),
        "huge": lambda X, name: X.replace(name, np.full_like(X[name], 1e6)),
        "huge and absent": lambda X, name: X.replace(name, np.full_like(X[name], 1e6), present=np.zeros(len(X), bool)),
        "of other rows": lambda X, name: X.replace(name, X[name][::-1].copy()),
        "of other lengths": lambda X, name: X.replace(name, X[name], lengths=X.rows % 2) if name in X.lengths else X,
    }
    for arm, change in arms.items():
        for name, spec in rows().specs.items():
            require(
                name == PRIMARY or same(answers(method, change(rows(), name)), whole),
                f"The card says at_test='primary', yet answers change when the {spec.kind} {name!r} is {arm}.",
            )


def _poisoned_where_absent(X: Views) -> Views:
    for name in X.names:
        present = X.present[name].reshape(-1, *[1] * (X[name].ndim - 1))
        X = X.replace(name, np.where(present, X[name], np.nan).astype(np.float32), present=X.present[name])
    return X
