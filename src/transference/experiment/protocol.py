"""What a study's task asks of a fitted method, and on which rows. No torch.

classification, regression    the method answers test rows with what the labels posed
retrieval                     test rows, seen through the primary modality, find themselves in another one
zero_shot                     test rows of classes that training had no row of, told apart by their descriptions, which
                              are training rows in another modality: all of the class, whatever the budget
few_shot                      test rows of classes that training had no row of, told apart by a few that are shown
generation                    test rows are generated in another modality from their primary one
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transference.assessment import few_shot, generation, retrieval, zero_shot
from transference.assessment.hierarchy import hops
from transference.assessment.scores import of_classes, of_values
from transference.core.errors import DivergenceError
from transference.core.method import Card, Method
from transference.core.records import Finding, Predictions
from transference.core.spec import TaskKind
from transference.core.views import Views
from transference.data.dataset import Dataset
from transference.data.split import Budget, Split, label_budget, split_rows
from transference.experiment.config import Config

Array = NDArray[Any]
Answer = tuple[Predictions, list[Finding]]
TASK_KEYS: Mapping[TaskKind, frozenset[str]] = {  # of [task], beside 'kind'; the other kinds have none
    "retrieval": frozenset({"to"}),
    "generation": frozenset({"to"}),
    "zero_shot": frozenset({"unseen", "to", "tree"}),
    "few_shot": frozenset({"unseen", "way", "shot", "queries", "episodes"}),
}
BEYOND_LABELS: frozenset[TaskKind] = frozenset(TASK_KEYS)
NEW_CLASSES: frozenset[TaskKind] = frozenset({"zero_shot", "few_shot"})


def kind_of(config: Config, data: Dataset) -> TaskKind:
    """What the study asks: as its [task] says, or as the labels do."""
    return config.task.kind or data.task


def target_of(config: Config, data: Dataset) -> str:
    """The modality that is found, is generated, or describes classes."""
    return config.task.to or data.views.secondary[0]


def classes(data: Dataset) -> list[str]:
    """The class names in the order of the columns of scores; none for regression."""
    return sorted(set(data.y[data.is_labelled].tolist())) if data.task == "classification" else []


def rows_of(config: Config, data: Dataset, seed: int) -> Split:
    """The rows that train and test: as `split_rows`, less the test rows that lack the primary modality.

    Where the task asks of new classes, no row of theirs trains; episodes test on them alone.
    """
    split = split_rows(data, seed, config.data.test)
    train, test = split.train, split.test[data.views.present[data.views.primary][split.test]]
    kind = kind_of(config, data)
    if kind in NEW_CLASSES:
        new = np.isin(data.y.astype(str), config.task.unseen)
        train = train[~new[train]]
        test = test[new[test]] if kind == "few_shot" else test
    return Split(train, test)


def kept_labels(y: Array, budget: Budget, seed: int) -> NDArray[np.bool_]:
    """(n,) which training rows keep their label: as `label_budget`; none where the budget is 0."""
    return np.zeros(len(y), bool) if budget == 0 else label_budget(y, budget, seed)


def descriptions(config: Config, data: Dataset, seed: int) -> dict[str, Views]:
    """Class -> what describes it: rows of the training side, those of new classes too, which train nothing."""
    train = split_rows(data, seed, config.data.test).train
    return zero_shot.describe(data.views[train], data.y[train], classes(data), target_of(config, data))


def fit(method: Method, X: Views, y: Array, kind: TaskKind) -> Method:
    """The method after training; without labels where there are none, or it can do nothing with them."""
    posed: TaskKind = "regression" if y.dtype.kind == "f" else "classification"
    blind = kind in BEYOND_LABELS and (posed not in method.card.tasks or not _any_label(y))
    return method.fit(X) if blind else method.fit(X, y)


def can(card: Card, kind: TaskKind, posed: TaskKind, labels: bool) -> bool:
    """Whether a method can be an arm of a study that asks this, whose labels, if there are any, pose that."""
    if kind not in BEYOND_LABELS:
        return kind in card.tasks
    return kind in card.tasks and ("unsupervised" in card.tasks or (labels and posed in card.tasks))


def answer(method: Method, config: Config, data: Dataset, seed: int) -> Answer:
    """What a fitted method answers to the test rows of a study, and how good that is."""
    test = rows_of(config, data, seed).test
    X, y = data.views[test], data.y[test]
    kind = kind_of(config, data)
    if kind == "retrieval":
        return _retrieve(method, X, y, target_of(config, data))
    if kind == "generation":
        return _generate(method, X, target_of(config, data))
    if kind == "zero_shot":
        return _tell_apart(method, config, data, seed, X, y)
    if kind == "few_shot":
        return _play(method, config, seed, X, y)
    return _values(method, X, y) if data.task == "regression" else _choose(method, X, y, classes(data))


def _values(method: Method, X: Views, y: Array) -> Answer:
    values = finite(np.asarray(method.predict(X), np.float32)[:, None])
    target = np.asarray(y, np.float32)
    return Predictions(X.rows.astype(np.int64), target, values), of_values(target, values[:, 0])


def _choose(method: Method, X: Views, y: Array, names: list[str]) -> Answer:
    position = {name: k for k, name in enumerate(names)}
    answered = finite(np.asarray(method.predict_proba(X), np.float32))
    scores = np.zeros((len(X), len(names)), np.float32)  # a class that was in no labelled row keeps 0
    scores[:, [position[str(name)] for name in method.classes_.tolist()]] = answered
    target = np.array([position[str(value)] for value in y], np.int64)
    return Predictions(X.rows.astype(np.int64), target, scores), of_classes(target, scores)


def _retrieve(method: Method, X: Views, y: Array, to: str) -> Answer:
    X, y = retrieval.paired(X, y, to)
    similarity = finite(retrieval.similarities(method, X, to))
    forth, back = retrieval.ranked(similarity, y), retrieval.ranked(similarity.T, y)
    of = {"from": X.primary, "to": to}
    found = [*retrieval.of_ranks(forth, of), *retrieval.of_ranks(back, {"from": to, "to": X.primary})]
    return Predictions(X.rows.astype(np.int64), np.zeros(len(X), np.int64), forth.astype(np.float32)), found


def _generate(method: Method, X: Views, to: str) -> Answer:
    X = X.take(X.present[to])
    generated = finite(method.generate(X.only([X.primary]), to))
    shares = generation.unexplained(generated, X, to)
    scores = shares.astype(np.float32)[:, None]
    return Predictions(X.rows.astype(np.int64), np.zeros(len(X), np.int64), scores), generation.of_shares(shares)


def _tell_apart(method: Method, config: Config, data: Dataset, seed: int, X: Views, y: Array) -> Answer:
    """Predictions are those for rows of new classes, among the new classes alone."""
    names, unseen = classes(data), sorted(config.task.unseen)
    scores = finite(zero_shot.class_scores(method, X, descriptions(config, data, seed)))
    target = np.array([names.index(label) for label in y], np.int64)
    new = np.isin(names, unseen)
    asked = new[target]
    number = np.cumsum(new) - 1  # of a new class among the new ones
    chosen = Predictions(
        X.rows[asked].astype(np.int64), number[target[asked]], scores[asked][:, new].astype(np.float32)
    )
    found = zero_shot.of_scores(target, scores, new)
    if config.task.tree:
        found += zero_shot.of_tree(target, scores, new, hops(names, config.task.tree))
    return chosen, found


def _play(method: Method, config: Config, seed: int, X: Views, y: Array) -> Answer:
    task = config.task
    drawn = few_shot.draw(X, y, task.way, task.shot, task.queries, task.episodes, seed)
    positions, target, scores = few_shot.answer(method, X, y, drawn)
    finite(scores)
    predictions = Predictions(X.rows[positions].astype(np.int64), target.astype(np.int64), scores.astype(np.float32))
    return predictions, few_shot.of_answers(target, scores, task.episodes)


def finite(scores: Array) -> Array:
    """The scores themselves; raises DivergenceError where one is not a finite number."""
    if not np.isfinite(scores).all():
        count = int((~np.isfinite(scores)).reshape(len(scores), -1).any(1).sum())
        raise DivergenceError(f"The answers for {count} of {len(scores)} test rows are not finite numbers.")
    return scores


def _any_label(y: Array) -> bool:
    return bool((~np.isnan(y)).any()) if y.dtype.kind == "f" else any(value is not None for value in y)
