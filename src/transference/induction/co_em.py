"""Co-EM: the models of the modalities give all unlabelled rows probabilities, by turns, and learn from each other's.

Use it where co-training would serve (each modality suffices alone, they err on different rows) but the first models
are too unsure for one to trust the rows they are surest of: no label is ever final here. What one model gets wrong for
reasons of its own is noise to the others, which EM on a single modality would take for structure.

    L labelled rows, U unlabelled ones;  p_v(c | x_v) answers of view v
    fit every secondary's model on L
    repeat `rounds` times, or until no view's answers change by `tolerance`:
        for each view v, the primary first:
            q_i = mean of p_u(. | x_i,u) over the other views u that row i of U has; with `entropy`, sharpened
            fit v on L and on the rows of U that have v:  minimise  sum_L CE(y, p_v) + weight · sum_U CE(q, p_v)
    fit the primary's model once more: it alone answers

Sharpened: softmax(log q / T), weighted by class so that q keeps the class shares of the labelled rows, with the T at
which its rows leave the share `entropy` of the classes' entropy open. A model that is trained rather than counted says
nothing sharper than what it was taught, so that without this the answers grow flatter from round to round.

Shapes: p_v and q (n, classes). Answers change by the mean over rows of half the sum over classes of |p - p before|, in
[0, 1]. With views that are copies of one, and without `entropy`, fitting a view is one step of EM on it. A row of U
that only one view sees teaches nothing.

An estimator learns q by weights, an example a class: naive Bayes then counts with expected counts. Models that take
no weights, and methods given by id, learn the likeliest class of q instead. A network is trained on as many rows of U
as of L in each batch, the two losses weighted so that rows count as above. Where the schedule holds rows out, these are
rows of L.

With weight 0, or without unlabelled rows, the primary's model is fitted as in `unimodal`, bit for bit.

Cost: a round fits every view once, networks with the share `round_updates` of the schedule; the last fit of the primary
has all of it.

Source: nigam2000, which is naive Bayes with entropy = None. Departs from it: any number of views and classes, any
models; soft labels are sharpened unless told otherwise; the weight of the unlabelled rows; the primary's model answers
alone, where the paper has the word counts of both views at hand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from transference.core.batch import Batch
from transference.core.errors import ConfigError, DataError, did_you_mean
from transference.core.method import Card, Method
from transference.core.parameters import Interval
from transference.core.spec import DataSpec
from transference.core.views import Views
from transference.nn.losses import soft_cross_entropy, supervised
from transference.nn.network import Network
from transference.nn.pseudo import by_row, class_shares, sharpen, weighted_examples
from transference.train.estimator import EstimatorMethod
from transference.train.models import as_unimodal, check_model, is_neural_default, new_model, one, shortened
from transference.train.neural import NeuralMethod
from transference.train.schedule import Schedule

LEAST = 1e-6  # a smaller probability is no example for an estimator

Answers = Mapping[str, NDArray[np.float64]]


class CoEM(Method):
    """Models of the modalities that learn from each other's probabilities.

    Parameters
    ----------
    models
        One model for all modalities, or a mapping from modality to model (None for those left out). A model is None: a
        network; or the id of a method, or a scikit-learn estimator as in ``unimodal``.
    rounds
        How many times every view is fitted to the others' answers, at most.
    tolerance
        The rounds end when the answers of every view change by less than this, in [0, 1]; 0 = all rounds.
    weight
        How much an unlabelled row counts against a labelled one, in [0, 1].
    entropy
        Of the soft labels, on average, as a share of the entropy of the classes, in (0, 1); they then also keep the
        class shares of the labelled rows. None: the answers as they are, for models that are sure of themselves, such
        as the naive Bayes of the paper.
    round_updates
        Share of the schedule that a network gets in each round, above 0.

    Attributes
    ----------
    models_
        The fitted model of each modality; without a round, of the primary alone. The primary's was trained with the
        whole schedule.
    rounds_
        A line a round: "changes" (how much the answers of each view changed; the primary has none to compare with in
        the first round), "disagreement" (how far the views' answers to the same rows are apart, by the same measure;
        mean over pairs of views).
    soft_labels_
        (n, classes) what the primary's model was taught last; nan in labelled rows and in those that nobody taught.
    """

    card: ClassVar[Card] = Card(
        summary="Models of the modalities learn, by turns, from each other's probabilities for all unlabelled rows.",
        reference="nigam2000",
        modalities=(2, None),
        needs=frozenset({"labels", "unlabelled", "paired"}),
        at_test="primary",
        tasks=frozenset({"classification"}),
    )
    constraints = {
        "rounds": Interval(1, whole=True),
        "tolerance": Interval(0, 1),
        "weight": Interval(0, 1),
        "entropy": Interval(0, 1, open_low=True, open_high=True, none=True),
        "round_updates": Interval(0, 1, open_low=True),
    }

    def __init__(
        self,
        *,
        models: Any = None,
        rounds: int = 10,
        tolerance: float = 0.01,
        weight: float = 1.0,
        entropy: float | None = 0.4,
        round_updates: float = 0.15,
        width: int = 64,
        schedule: Schedule = Schedule(),
        seed: int = 0,
    ) -> None:
        self.models = models
        self.rounds = rounds
        self.tolerance = tolerance
        self.weight = weight
        self.entropy = entropy
        self.round_updates = round_updates
        self.width = width
        self.schedule = schedule
        self.seed = seed

    def check_parameters(self) -> None:
        super().check_parameters()
        for given in self.models.values() if self._by_modality() else [self.models]:
            check_model(given)

    def learn(self, X: Views, target: NDArray[Any]) -> None:
        if self._by_modality():
            for name in self.models:
                if name not in X.names:
                    raise ConfigError(f"'models' names {name!r}, which is no modality. {did_you_mean(name, X.names)}")
        for name in X.names:
            if not ((target >= 0) & X.present[name]).any():
                raise DataError(f"No labelled row has {name!r}, so it cannot teach. Leave it out of the study.")
        nobody = np.full((len(X), self.spec_.task.outputs), np.nan)
        self.models_: dict[str, Method] = {}
        self.rounds_: list[dict[str, Any]] = []
        answers: dict[str, NDArray[np.float64]] = {}
        if self.weight > 0 and (target < 0).any():
            for name in X.secondary:
                answers[name] = self._answers(X, name, target, nobody)
            for _ in range(self.rounds):
                changes = {}
                for name in (X.primary, *X.secondary):
                    before = answers.get(name)
                    answers[name] = self._answers(X, name, target, self._soft_labels(X, name, target, answers))
                    if before is not None:
                        changes[name] = _distance(before, answers[name])
                self.rounds_.append({"changes": changes, "disagreement": _disagreement(answers)})
                if max(changes.values()) < self.tolerance:
                    break
        primary = X.primary
        self.soft_labels_ = self._soft_labels(X, primary, target, answers) if answers else nobody
        self.models_[primary] = self._fit(X, primary, target, self.soft_labels_, 1.0)
        self.history_ = getattr(self.models_[primary], "history_", {})
        self.models_ = {name: _plain(model) for name, model in self.models_.items()}

    def _by_modality(self) -> bool:
        return isinstance(self.models, Mapping) and "class" not in self.models

    def _answers(self, X: Views, name: str, target: NDArray[Any], q: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, classes) what a view says of the unlabelled rows after it was taught q; nan elsewhere."""
        model = self.models_[name] = self._fit(X, name, target, q, self.round_updates)
        answers = np.full(q.shape, np.nan)
        asked = np.flatnonzero((target < 0) & X.present[name])
        if len(asked):
            answers[asked] = model.decide(one(X, name).take(asked))
        return answers

    def _soft_labels(self, X: Views, name: str, target: NDArray[Any], answers: Answers) -> NDArray[np.float64]:
        """(n, classes) what a view is taught; nan in rows that nobody teaches it."""
        q = _mean([each for other, each in answers.items() if other != name], X.present[name])
        taught = ~np.isnan(q).any(1)
        if self.entropy is not None and taught.any():
            q[taught] = sharpen(q[taught], class_shares(target, self.spec_.task.outputs), share=self.entropy)
        return q

    def _fit(self, X: Views, name: str, target: NDArray[Any], q: NDArray[np.float64], share: float) -> Method:
        given = self.models.get(name) if self._by_modality() else self.models
        view, task, schedule = one(X, name), self.spec_.task, shortened(self.schedule, share)
        model = new_model(given, width=self.width, schedule=schedule, seed=self.seed)
        known = np.flatnonzero((target >= 0) & X.present[name])
        taught = np.flatnonzero(~np.isnan(q).any(1))
        if not len(taught):
            return model.fit_encoded(view, target, task)
        if is_neural_default(given):
            part = self.weight * len(taught) / (len(known) + self.weight * len(taught))
            table = torch.from_numpy(by_row(q, X.rows))
            network = _Taught(table, part, width=self.width, schedule=schedule, seed=self.seed)
            return network.fit_encoded(view, target, task)
        if isinstance(model, EstimatorMethod) and model.accepts_weights:
            rows, classes, weight = weighted_examples(taught, q[taught], LEAST)
            weight = np.r_[np.ones(len(known)), self.weight * weight]
            return model.fit_examples(view, task, np.r_[known, rows], np.r_[target[known], classes], weight)
        labels = target.copy()
        labels[taught] = q[taught].argmax(1)
        return model.fit_encoded(view, labels, task)

    def decide(self, X: Views) -> NDArray[Any]:
        return self.models_[X.primary].decide(X)

    def embed(self, X: Views) -> dict[str, NDArray[Any]]:
        self._fitted()
        return {name: model.embed(one(X, name))[name] for name, model in self.models_.items() if name in X.arrays}

    def deployed(self) -> Method:
        """The fitted model of the primary modality."""
        primary = self._fitted().primary
        return self.models_[primary].deployed()


def _mean(answers: Sequence[NDArray[np.float64]], present: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(n, classes) mean of the answers that are there, in the rows that are present; nan elsewhere."""
    told = ~np.isnan(answers)  # (views, n, classes)
    count = told.sum(0)
    mean = np.where(told, answers, 0).sum(0) / np.maximum(count, 1)
    return np.where(present[:, None] & (count > 0), mean, np.nan)


def _distance(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    """Mean total variation over the rows that both answer; 0 where there is none.

    >>> _distance(np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([[0.75, 0.25], [np.nan, np.nan]]))
    0.25
    """
    apart = np.abs(p - q).sum(1) / 2
    both = ~np.isnan(apart)
    return float(apart[both].mean()) if both.any() else 0.0


def _disagreement(answers: Answers) -> float:
    given = list(answers.values())
    return float(np.mean([_distance(p, q) for k, p in enumerate(given) for q in given[:k]]))


def _plain(model: Method) -> Method:
    """A network that was taught is from here on what ``unimodal`` is."""
    return as_unimodal(model, model.spec_) if isinstance(model, _Taught) else model


class _Taught(NeuralMethod):
    """The network of ``unimodal``, which also learns the soft labels of unlabelled rows."""

    card: ClassVar[Card] = replace(CoEM.card, modalities=(1, 1))

    def __init__(self, table: Tensor, part: float, *, width: int, schedule: Schedule, seed: int) -> None:
        super().__init__(width=width, schedule=schedule, seed=seed)
        self.table = table
        self.part = part

    def build(self, spec: DataSpec) -> Network:
        return Network(spec, [spec.primary], self.width)

    def scores(self, net: Network, batch: Batch) -> Tensor:
        return net.head(net.encode(batch, self.spec_.primary))

    def losses(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        scores = self.scores(net, batch)
        q = self.table.to(scores.device)[batch.rows]  # (n, classes), nan where nothing is taught
        told = ~q.isnan().any(1)
        taught = soft_cross_entropy(scores[told], q[told]) if told.any() else scores.sum() * 0.0
        known = supervised(scores, batch.target, self.spec_.task)
        return {"task": (1 - self.part) * known, "taught": self.part * taught}
