"""Distillation: a model of the secondary modality labels the training rows, and a model of the primary learns from it.

Use it when labels are scarce, rows with both modalities are not, and the secondary is the easier one to learn from:
the teacher turns unlabelled pairs into training rows of the student. With all rows labelled, expect about nothing.

    teacher   t = model of x_s, fitted on the labelled rows; the mean of several
    q_i       = softmax(log t(x_s,i) / T), with prior_matched weighted by class so that mean_i q_i is the share of each
                class among the labelled rows. Without a `temperature`, T is the one at which the mean entropy of q is
                0.4 of that of the class shares, and the student's own T below is 1
    student   minimise  (1 - w) mean over labelled rows of CE(y, f(x_p))
                        + w T^2 mean over pairs, labelled or not, of CE(q, softmax(f(x_p) / T))

Shapes: f (n, classes), q (n, classes). For regression q is the teacher's value and both terms are squared errors (T and
the prior mean nothing); for several labels q is its probability of each and both terms are binary cross-entropies.
An estimator as student learns the same sum by weights: an example a class with weight q. One that takes no weights
learns hard labels, cut at the prior with prior_matched.

Weight 0 is `unimodal`, bit for bit. Cost: one more model, and batches twice as large.

Source: hinton2015, also for the mean of several teachers; across modalities gupta2016; as privileged information
lopezpaz2016. Departs from them where a teacher of few labels goes wrong: it has the order of the rows more right than
their class shares and its own certainty. A logistic regression of twelve labelled pages is right about the order of the
others (AUC 0.95) and gives all of them nearly the same probability, from which a student learns nothing; so the shares
are matched and the certainty is set. And the teacher learns from the same labels, not from other data.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from transference.core.batch import Batch
from transference.core.errors import ConfigError, DataError, must_be
from transference.core.method import Card, Method
from transference.core.parameters import Interval, Options
from transference.core.spec import DataSpec
from transference.core.views import Views
from transference.nn.losses import soft_cross_entropy, supervised
from transference.nn.network import Network
from transference.nn.pseudo import (
    by_row,
    class_shares,
    match_prior,
    most_confident,
    quotas,
    sharpen,
    soften,
    weighted_examples,
)
from transference.train.estimator import EstimatorMethod
from transference.train.models import check_model, is_neural_default, new_model, one
from transference.train.neural import NeuralMethod
from transference.train.schedule import Schedule

LINEAR: dict[str, Any] = {
    "classification": {"class": "sklearn.linear_model.LogisticRegression", "max_iter": 1000},
    "regression": "sklearn.linear_model.RidgeCV",
}
LEAST = 1e-3  # a smaller probability is no example for an estimator


class Distillation(NeuralMethod):
    """A teacher on the secondary modality, a student on the primary.

    Parameters
    ----------
    teacher
        The id of a method, a scikit-learn estimator as in ``unimodal``, or a list of such, whose answers are averaged.
        None: a network (``unimodal``, or ``fusion.early`` where it reads several modalities) and, beside it, logistic
        (for values ridge) regression, which is often the better one where labels are few.
    reads
        What the teacher sees: "secondary", all secondary modalities, or "all", the primary too.
    student
        None: a network; or a scikit-learn estimator.
    weight
        Of the teacher against the labels, in [0, 1].
    temperature
        T; larger is softer, 0 is hard labels. None: `entropy` decides.
    entropy
        Of the soft labels, on average, as a share of the entropy of the classes, in (0, 1): near 0 they are hard, near
        1 they say nothing.
    prior_matched
        Whether the soft labels keep the class shares of the labelled rows. Leave it on unless the labelled rows were
        chosen by class in other shares than the data have.

    Attributes
    ----------
    teachers_
        The fitted teachers; none at weight 0.
    student_
        The fitted `EstimatorMethod`, where the student is an estimator.
    """

    card: ClassVar[Card] = Card(
        summary="A model of the secondary modality labels the pairs, and the primary's model learns from it.",
        reference="hinton2015",
        modalities=(2, None),
        needs=frozenset({"labels", "unlabelled", "paired"}),
        at_test="primary",
        tasks=frozenset({"classification", "regression", "multilabel"}),
    )
    constraints = {
        "reads": Options("secondary", "all"),
        "weight": Interval(0, 1),
        "temperature": Interval(0, none=True),
        "entropy": Interval(0, 1, open_low=True, open_high=True),
        "prior_matched": Options(True, False),
    }

    def __init__(
        self,
        *,
        teacher: Any = None,
        reads: str = "secondary",
        student: Any = None,
        weight: float = 0.8,
        temperature: float | None = None,
        entropy: float = 0.4,
        prior_matched: bool = True,
        width: int = 64,
        schedule: Schedule = Schedule(),
        seed: int = 0,
    ) -> None:
        super().__init__(width=width, schedule=schedule, seed=seed)
        self.teacher = teacher
        self.reads = reads
        self.student = student
        self.weight = weight
        self.temperature = temperature
        self.entropy = entropy
        self.prior_matched = prior_matched

    def check_parameters(self) -> None:
        super().check_parameters()
        for given in _several(self.teacher):
            check_model(given)
        if not is_neural_default(self.student) and not isinstance(new_model(self.student), EstimatorMethod):
            raise ConfigError(
                must_be("The 'student' parameter of Distillation", "None or a scikit-learn estimator", self.student)
            )

    def build(self, spec: DataSpec) -> Network:
        return Network(spec, [spec.primary], self.width)

    def scores(self, net: Network, batch: Batch) -> Tensor:
        return net.head(net.encode(batch, self.spec_.primary))

    def losses(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        taught = getattr(self, "_taught", None)
        if taught is None:
            batch = batch.labelled
            return {"task": supervised(self.scores(net, batch), batch.target, self.spec_.task)}
        scores = self.scores(net, batch)
        q = taught.to(scores.device)[batch.rows]  # (n, classes) or (n, outputs), nan where there is no pair
        pairs = ~q.isnan().any(1)
        distilled = self._distilled(net, scores[pairs], q[pairs]) if pairs.any() else scores.sum() * 0.0
        return {
            "task": (1 - self.weight) * supervised(scores, batch.target, self.spec_.task),
            "distillation": self.weight * distilled,
        }

    def _distilled(self, net: Any, scores: Tensor, q: Tensor) -> Tensor:
        kind = self.spec_.task.kind
        if kind == "classification":
            return soft_cross_entropy(scores, q, self.temperature or 1.0)
        if kind == "multilabel":
            return F.binary_cross_entropy_with_logits(scores, q)
        mean, deviation = net.target_scale
        return F.mse_loss(scores, (q - mean) / deviation)

    def learn(self, X: Views, target: NDArray[Any]) -> None:
        kinds, kind = EstimatorMethod.card.tasks, self.spec_.task.kind
        if not is_neural_default(self.student) and kind not in kinds:
            expected = f"a task of an estimator as student: {', '.join(sorted(kinds))}"
            raise DataError(must_be("The labels", expected, kind, "Leave 'student' out for a network."))
        self.teachers_: list[Method] = []
        q = self._soft_labels(X, target) if self.weight > 0 else None
        if not is_neural_default(self.student):
            self._learn_estimator(X, target, q)
            return
        self._taught = None if q is None else torch.from_numpy(by_row(q, X.rows))
        try:
            super().learn(X, target)
        finally:
            del self._taught

    def _soft_labels(self, X: Views, target: NDArray[Any]) -> NDArray[np.float64]:
        """(n, classes) probabilities or (n, outputs) values; nan in rows that are no pairs."""
        names = list(X.names if self.reads == "all" else X.secondary)
        seen = X.only(names, primary=X.primary if X.primary in names else names[0])
        complete = np.logical_and.reduce([X.present[name] for name in names])
        if not (complete & _known(target)).any():
            raise DataError(f"No labelled row has {' and '.join(map(repr, names))}, so there is nothing to teach from.")
        task = self.spec_.task
        given = _several(self.teacher)
        if self.teacher is None and task.kind in LINEAR:
            given = [None, LINEAR[task.kind]]
        for each in given:
            teacher = new_model(each, width=self.width, schedule=self.schedule, seed=self.seed, modalities=len(names))
            self.teachers_.append(teacher.fit_encoded(seen.take(complete), target[complete], task))
        q = np.full((len(X), task.outputs), np.nan)
        pairs = np.flatnonzero(complete & X.present[X.primary])
        if len(pairs):
            q[pairs] = np.mean([teacher.decide(seen.take(pairs)) for teacher in self.teachers_], 0)
        if len(pairs) and task.kind == "classification":
            q[pairs] = self._tempered(q[pairs], class_shares(target, task.outputs))
        return q

    def _tempered(self, p: NDArray[np.float64], prior: NDArray[np.float64]) -> NDArray[np.float64]:
        """What is taught, from the teachers' probabilities."""
        if self.temperature is None:
            return sharpen(p, prior, share=self.entropy, matched=self.prior_matched)
        if self.temperature == 0:
            return _hard(p, prior if self.prior_matched else None)
        q = soften(p, self.temperature)
        return match_prior(q, prior) if self.prior_matched else q

    def _learn_estimator(self, X: Views, target: NDArray[Any], q: NDArray[np.float64] | None) -> None:
        task, primary = self.spec_.task, one(X, X.primary)
        student = EstimatorMethod(self.student, seed=self.seed)
        known = np.flatnonzero(_known(target) & X.present[X.primary])
        pairs = np.array([], np.int64) if q is None else np.flatnonzero(~np.isnan(q).any(1))
        if q is None or not len(pairs):
            self.student_ = student.fit_encoded(primary, target, task)
        elif student.accepts_weights:
            rows, taught, share = pairs, q[pairs, 0], np.ones(len(pairs))
            if task.kind == "classification":
                rows, taught, share = weighted_examples(pairs, q[pairs], LEAST)
            n = len(np.union1d(known, pairs))  # the weights sum to the number of rows, as without a teacher
            given = np.full(len(known), (1 - self.weight) * n / max(1, len(known)))
            weight = np.r_[given, self.weight * n / len(pairs) * share]
            use = weight > 0
            examples, labels = np.r_[known, rows][use], np.r_[target[known], taught][use]
            self.student_ = student.fit_examples(primary, task, examples, labels, weight[use])
        else:
            free = np.setdiff1d(pairs, known)
            taught = q[free, 0]
            if task.kind == "classification":
                taught = _hard(q[free], class_shares(target, task.outputs) if self.prior_matched else None).argmax(1)
            self.student_ = student.fit_examples(primary, task, np.r_[known, free], np.r_[target[known], taught])

    def decide(self, X: Views) -> NDArray[Any]:
        return super().decide(X) if is_neural_default(self.student) else self.student_.decide(X)

    def embed(self, X: Views) -> dict[str, NDArray[Any]]:
        return super().embed(X) if self.deployed() is self else self.student_.embed(X)

    def deployed(self) -> Method:
        """This method, or the fitted `EstimatorMethod` where the student is an estimator."""
        self._fitted()
        return self if is_neural_default(self.student) else self.student_


def _several(given: Any) -> list[Any]:
    return list(given) if isinstance(given, list | tuple) else [given]


def _known(target: NDArray[Any]) -> NDArray[np.bool_]:
    if target.dtype.kind != "f":
        return target >= 0
    missing = np.isnan(target)
    return ~(missing.any(1) if missing.ndim == 2 else missing)


def _hard(p: NDArray[np.float64], prior: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """(n, classes) ones and zeros: the largest probability, or the cut at the prior."""
    n, k = p.shape
    rows, classes = most_confident(p, np.full(k, n) if prior is None else quotas(n, prior))
    q = np.zeros((n, k))
    q[rows, classes] = 1.0
    return q
