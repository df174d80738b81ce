"""Checks of what a method says: shapes, labels, rows, learning, and which modalities it reads."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from transference.core.errors import ConfigError
from transference.core.method import Method
from transference.core.spec import ModalitySpec
from transference.core.views import Views
from transference.testing.subject import (
    ANSWERED,
    NAMES,
    OTHERS,
    PATIENT,
    PRIMARY,
    Array,
    Subject,
    answers,
    fitted,
    require,
    same,
    with_holes,
)


def answers_have_shape(subject: Subject) -> None:
    """A label a row, one of `classes_`; probabilities that sum to 1, the label's the largest."""
    for task in ANSWERED:
        if task not in subject.tasks:
            continue
        method = fitted(subject(), subject.rows(), subject.labels(task=task))
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
    gap = abs(answers(subject.fitted, subject.rows(20, seed=3)[order]) - whole[order]).max()
    require(gap <= 1e-5, f"Answers must not depend on the order of the rows. They differ by {gap:.2g}.")
    parts = [answers(subject.fitted, subject.rows(20, seed=3)[part]) for part in (slice(13), slice(13, 20))]
    gap = abs(np.concatenate(parts) - whole).max()
    require(gap <= 1e-5, f"Answers must not depend on the other rows. They differ by {gap:.2g}.")


def one_row_is_enough(subject: Subject) -> None:
    """A single row is answered, and as among others."""
    whole = answers(subject.fitted, subject.rows(5, seed=3))
    for k in range(3):
        alone = answers(subject.fitted, subject.rows(5, seed=3)[[k]])
        require(alone.shape == (1, *whole.shape[1:]), f"One row must be answered with one row. Got {alone.shape}.")
        gap = abs(alone - whole[k]).max()
        require(gap <= 1e-5, f"A row must be answered alone as among others. The answers differ by {gap:.2g}.")


def beats_chance(subject: Subject) -> None:
    """New rows of a plain problem are answered far better than by guessing."""
    method = fitted(subject(schedule=PATIENT), subject.rows(96), subject.labels(96))
    score = _quality(subject, method)
    require(score > 0.55, f"A plain problem of three classes must be learned. Score {score:.2f}, chance 0.33 or 0.")


def unlabelled_rows_are_taken(subject: Subject) -> None:
    """Training rows without a label are accepted, however they are written, and do not spoil what is learned."""
    unlabelled = np.arange(120) % 9 >= 3
    method = fitted(subject(schedule=PATIENT), subject.rows(120), subject.labels(120, unlabelled))
    score = _quality(subject, method)
    require(score > 0.5, f"A third of the labels of a plain problem must do. Score {score:.2f}, chance 0.33 or 0.")
    if subject.task == "classification":
        integers = np.where(unlabelled, -1, np.arange(120) % 3)
        other = fitted(subject(schedule=PATIENT), subject.rows(120), integers)
        found = [answers(each, subject.rows(30, seed=9)) for each in (method, other)]
        require(same(*found), "Unlabelled as None and as -1 must be the same.")


def rows_with_holes_are_taken(subject: Subject) -> None:
    """Training rows may lack a modality."""
    method = fitted(subject(), with_holes(subject.rows()), subject.labels())
    found = answers(method, subject.rows(12, seed=3))
    require(bool(np.isfinite(found).all()), "Answers must be finite when training rows lack modalities.")


def absent_content_is_ignored(subject: Subject) -> None:
    """What the array of a modality holds in rows that lack it changes nothing, in training nor in answers."""
    one = fitted(subject(), with_holes(subject.rows()), subject.labels())
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
    """With at_test = "primary" the others may be anything or nothing; with "any", each alone is answered."""
    method, names = subject.fitted, subject.rows(2).names
    if subject.card.at_test == "any":
        for name in names:
            alone = answers(method, subject.rows(20, seed=3).only([name], primary=name))
            require(len(alone) == 20 and bool(np.isfinite(alone).all()), f"{name!r} alone must be answered.")
        return
    whole = answers(method, subject.rows(20, seed=3))
    arms: dict[str, Callable[[Views, str], Views]] = {
        "left out": lambda X, name: X.only([PRIMARY]),
        "absent": lambda X, name: X.without(name),
        "nan": lambda X, name: X.replace(name, np.full_like(X[name], np.nan)),
        "huge": lambda X, name: X.replace(name, np.full_like(X[name], 1e6)),
        "huge and absent": lambda X, name: X.replace(name, np.full_like(X[name], 1e6), present=np.zeros(20, bool)),
        "of other rows": lambda X, name: X.replace(name, X[name][::-1].copy()),
    }
    for arm, change in arms.items():
        for name in names:
            changed = subject.rows(20, seed=3) if name == PRIMARY else change(subject.rows(20, seed=3), name)
            require(
                same(answers(method, changed), whole),
                f"The card says at_test='primary', yet answers change when {name!r} is {arm}.",
            )


def uses_what_it_declares(subject: Subject) -> None:
    """A method that needs pairs learns from the other modalities; a baseline of one modality does not look at them."""
    found = []
    for shift in (0, 1):
        X = subject.rows()
        for name in X.secondary:
            X = X.replace(name, np.roll(X[name], shift, axis=0))
        method = fitted(subject(), X, subject.labels(unlabelled=np.arange(48) % 4 == 3))
        found.append(answers(method, subject.rows(20, seed=3)))
    if "paired" in subject.card.needs:
        require(not same(*found), "The card needs 'paired', yet other secondary content changes no answer.")
    elif subject.card.at_test == "primary" and subject.card.modalities[0] == 1:
        require(same(*found), "The card does not need 'paired', yet secondary content changes the answers.")


def three_modalities_are_taken(subject: Subject) -> None:
    """Two secondary modalities are accepted."""
    method = fitted(subject(), subject.rows(modalities=3), subject.labels())
    found = answers(method, subject.rows(12, seed=3, modalities=3))
    require(
        len(found) == 12 and bool(np.isfinite(found).all()), "Three modalities must be answered with finite numbers."
    )


def sequences_are_taken(subject: Subject) -> None:
    """Series whose rows differ in length, and texts; what is beyond a row's length changes nothing."""
    method = fitted(subject(), _sequences(subject.rows(), subject.modalities), subject.labels())
    found = answers(method, _sequences(subject.rows(), subject.modalities))
    X = _sequences(subject.rows(), subject.modalities)
    require(bool(np.isfinite(found).all()), "Answers to series must be finite.")
    beyond = np.arange(6) >= X.lengths[PRIMARY][:, None]
    padded = X.replace(PRIMARY, np.where(beyond[:, :, None], 50, X[PRIMARY]).astype(np.float32))
    require(same(answers(method, padded), found), "What is beyond the length of a row must not change its answer.")


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


def _quality(subject: Subject, method: Method) -> float:
    """On 150 new rows: the share of right answers, or for values the share of variance explained."""
    X, truth = subject.rows(150, seed=9), subject.labels(150)
    if subject.task == "regression":
        return method.score(X, truth)
    p = answers(method, X)
    right = (p > 0.5) == truth if subject.task == "multilabel" else p.argmax(1) == np.arange(150) % 3
    return float(np.mean(right))


def _poisoned_where_absent(X: Views) -> Views:
    for name in X.names:
        absent = ~X.present[name][:, None]
        X = X.replace(name, np.where(absent, 7 + np.arange(X[name].shape[1]), X[name]).astype(np.float32))
    return X


def _sequences(X: Views, modalities: int) -> Views:
    """The primary as a series of 2 to 6 steps, the first other modality as up to 4 words."""
    n = len(X)
    lengths = 2 + np.arange(n) % 5
    steps = np.where(np.arange(6)[:, None] < lengths[:, None, None], X[PRIMARY][:, None, :], 0).astype(np.float32)
    arrays: dict[str, Array] = {PRIMARY: steps}
    specs = {PRIMARY: ModalitySpec(PRIMARY, "series", (6, 5), lengths=True)}
    sizes = {PRIMARY: lengths}
    if modalities > 1:
        words = 1 + (X[OTHERS[0]][:, :4] > 1)
        arrays[OTHERS[0]] = words.astype(np.float32)
        specs[OTHERS[0]] = ModalitySpec(OTHERS[0], "text", (4,), lengths=True, vocabulary=3)
        sizes[OTHERS[0]] = np.full(n, 4)
    for name in X.secondary[1:]:
        arrays[name], specs[name] = X[name], X.specs[name]
    return Views(arrays, specs, PRIMARY, lengths=sizes)
