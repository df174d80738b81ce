"""Checks of what a method says: shapes, labels, rows, learning, kinds of modalities."""

from __future__ import annotations

import numpy as np

from transference.core.errors import ConfigError
from transference.core.method import Method
from transference.core.spec import TaskKind
from transference.core.views import Views
from transference.testing.subject import (
    ANSWERED,
    NAMES,
    PATIENT,
    Array,
    Subject,
    answers,
    fitted,
    require,
    same,
)

PROBLEMS: tuple[tuple[TaskKind, int], ...] = (
    ("classification", 0),
    ("regression", 0),
    ("regression", 1),  # each class has the value of the next one
    ("multilabel", 0),
)


def answers_have_shape(subject: Subject) -> None:
    """A label a row, one of `classes_`; probabilities that sum to 1, the label's the largest."""
    for task in ANSWERED:
        if task not in subject.tasks:
            continue
        method = (
            subject.fitted if task == subject.task else fitted(subject(), subject.rows(), subject.labels(task=task))
        )
        X = subject.rows(17, seed=3)
        predicted = method.predict(X)
        expected = (17, 2) if task == "multilabel" else (17,)
        require(
            predicted.shape == expected, f"Predictions must be of shape {expected} for {task}. Got {predicted.shape}."
        )
        if task == "regression":
            require(bool(np.isfinite(predicted).all()), "Predicted values must be finite.")
            continue
        p = method.predict_proba(X)
        columns = 2 if task == "multilabel" else 3
        require(p.shape == (17, columns), f"Probabilities must be of shape {(17, columns)}. Got {p.shape}.")
        require(bool(((p >= 0) & (p <= 1)).all()), "Probabilities must be in [0, 1].")
        if task == "classification":
            require(bool((abs(p.sum(1) - 1) < 1e-4).all()), "The probabilities of a row must sum to 1.")
            require(
                method.classes_.tolist() == list(NAMES), f"classes_ must be the sorted labels. Got {method.classes_}."
            )
            require(
                predicted.tolist() == method.classes_[p.argmax(1)].tolist(),
                "The predicted label must be the one of the largest probability.",
            )


def labels_are_names(subject: Subject) -> None:
    """Integers, strings and another alphabetical order of the labels change nothing but the names."""
    number = np.arange(48) % 3
    texts = subject.fitted.predict(subject.rows())
    integers = fitted(subject(), subject.rows(), np.array([10, 20, 70])[number]).predict(subject.rows())
    require(
        np.array([10, 20, 70])[[NAMES.index(text) for text in texts]].tolist() == integers.tolist(),
        "Integer labels in the order of the text labels must give the same predictions.",
    )
    test = subject.rows(90, seed=4)
    turned = fitted(subject(schedule=PATIENT), subject.rows(), np.array(["c", "a", "b"], object)[number])
    right = np.mean(turned.predict(test) == np.array(["c", "a", "b"], object)[np.arange(90) % 3])
    require(
        right > 0.5,
        f"Labels must be learned whatever the order of their first rows. Accuracy {right:.2f}, chance 0.33.",
    )


def rows_do_not_touch(subject: Subject) -> None:
    """An answer does not depend on the other rows that are asked about, nor on their order."""
    whole = answers(subject.fitted, subject.rows(20, seed=3))
    order = np.random.default_rng(0).permutation(20)
    gap = _gap(answers(subject.fitted, subject.rows(20, seed=3)[order]), whole[order])
    require(gap <= 1e-5, f"Answers must not depend on the order of the rows. They differ by {gap:.2g}.")
    parts = [answers(subject.fitted, subject.rows(20, seed=3)[part]) for part in (slice(13), slice(13, 20))]
    gap = _gap(np.concatenate(parts), whole)
    require(gap <= 1e-5, f"Answers must not depend on the other rows. They differ by {gap:.2g}.")


def one_row_is_enough(subject: Subject) -> None:
    """A single row is answered, and as among others."""
    whole = answers(subject.fitted, subject.rows(5, seed=3))
    for k in range(3):
        alone = answers(subject.fitted, subject.rows(5, seed=3)[[k]])
        require(alone.shape == (1, *whole.shape[1:]), f"One row must be answered with one row. Got {alone.shape}.")
        gap = _gap(alone[0], whole[k])
        require(gap <= 1e-5, f"A row must be answered alone as among others. The answers differ by {gap:.2g}.")


def beats_chance(subject: Subject) -> None:
    """New rows of a plain problem are answered far better than by guessing, for every task that the card names.

    Values a second time, with those of the classes exchanged: a network that no value reached can be right about the
    order of three by luck, but the same answers cannot be right both times.
    """
    skill = {}
    for task, turn in PROBLEMS:
        if task in subject.tasks:
            y = np.roll(subject.labels(96, task=task), -turn, axis=0)
            method = fitted(subject(schedule=PATIENT), subject.rows(96), y)
            skill[f"{task}, again" if turn else task] = round(_skill(subject, method, task, turn), 2)
    require(all(value > 0.4 for value in skill.values()), f"A plain problem must be learned. Skill {skill}, a guess 0.")


def unlabelled_rows_are_taken(subject: Subject) -> None:
    """Training rows without a label are accepted, however they are written, and do not spoil what is learned."""
    unlabelled = np.arange(120) % 9 >= 3
    method = fitted(subject(schedule=PATIENT), subject.rows(120), subject.labels(120, unlabelled))
    skill = _skill(subject, method, subject.task)
    require(skill > 0.3, f"A third of the labels of a plain problem must do. Skill {skill:.2f}, of a guess 0.")
    if subject.task == "classification":
        written = (subject.labels(120, unlabelled), np.where(unlabelled, -1, np.arange(120) % 3))
        found = [answers(fitted(subject(), subject.rows(120), y), subject.rows(30, seed=9)) for y in written]
        require(same(*found), "Unlabelled as None and as -1 must be the same.")


def three_modalities_are_taken(subject: Subject) -> None:
    """Two secondary modalities are accepted."""
    method = fitted(subject(), subject.rows(modalities=3), subject.labels())
    found = answers(method, subject.rows(12, seed=3, modalities=3))
    require(
        len(found) == 12 and bool(np.isfinite(found).all()), "Three modalities must be answered with finite numbers."
    )


def sequences_are_taken(subject: Subject) -> None:
    """Series whose rows differ in length, and texts; what is beyond a series' length changes nothing.

    Neither in training nor in answers. Texts are padded with the word number 0, so nothing else can be there.
    """
    for kinds, method in subject.fitted_to_sequences.items():
        X, test = subject.sequences(kinds), subject.sequences(kinds, 20, seed=3)
        found = answers(method, subject.sequences(kinds, 20, seed=3))
        require(bool(np.isfinite(found).all()), "Answers to series must be finite.")
        poisoned = answers(method, _poisoned_beyond(test))
        require(same(poisoned, found), "What is beyond the length of a row must not change its answer.")
        other = answers(fitted(subject(), _poisoned_beyond(X), subject.some_labels()), test)
        require(same(other, found), "What is beyond the lengths of training rows must not change any answer.")


def representations_have_shape(subject: Subject) -> None:
    """`embed` gives finite (n, d) arrays by modality, or says that there is no representation."""
    X = subject.rows(9, seed=3)
    try:
        embedded = subject.fitted.embed(X)
    except ConfigError:
        return
    require(bool(embedded) and set(embedded) <= set(X.names), f"'embed' must name modalities. Got {sorted(embedded)}.")
    for name, value in embedded.items():
        require(
            value.ndim == 2 and len(value) == 9, f"The representation of {name!r} must be (9, d). Got {value.shape}."
        )
        require(bool(np.isfinite(value).all()), f"The representation of {name!r} must be finite.")


def deployed_answers_alike(subject: Subject) -> None:
    """What `deployed` hands out is a fitted method that answers like this one."""
    deployed = subject.fitted.deployed()
    require(isinstance(deployed, Method), f"'deployed' must give a Method. Got {type(deployed).__name__}.")
    found = [answers(method, subject.rows(12, seed=3)) for method in (deployed, subject.fitted)]
    require(same(*found), "The deployed method must answer alike.")


def _skill(subject: Subject, method: Method, task: TaskKind, turn: int = 0) -> float:
    """On 150 new rows: 0 for the best guess that knows nothing of a row, 1 where all is right.

    For several labels that of the label learned worst. Values have to be in the unit of the target, which is when they
    are closer to it than its mean is; the skill is then their squared correlation with it, for a method that misses a
    modality which it had in training may draw them towards that mean.
    """
    X, truth = subject.rows(150, seed=9), np.roll(subject.labels(150, task=task), -turn, axis=0)
    if task == "regression":
        explained = method.score(X, truth)
        return explained if explained < 0.1 else float(np.corrcoef(method.predict(X), truth)[0, 1] ** 2)
    p = answers(method, X)
    if task == "multilabel":
        right, commonest = float(((p > 0.5) == truth).mean(0).min()), 2 / 3
    else:
        right, commonest = float(np.mean(p.argmax(1) == np.arange(150) % 3)), 1 / 3
    return (right - commonest) / (1 - commonest)


def _gap(one: Array, other: Array) -> float:
    """Largest difference, as a share of the largest answer where that is above 1."""
    return float(abs(one - other).max() / max(1.0, abs(other).max()))


def _poisoned_beyond(X: Views) -> Views:
    for name, lengths in X.lengths.items():
        if X.specs[name].kind == "series":
            beyond = np.arange(X[name].shape[1]) >= lengths[:, None]
            X = X.replace(name, np.where(beyond[:, :, None], 50, X[name]).astype(np.float32))
    return X
