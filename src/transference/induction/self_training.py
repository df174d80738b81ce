"""Self-training: the primary's own model labels the rows it is surest of, learns from them too, and goes on.

Use it as the honest reference for every method that uses unlabelled rows: what do those rows bring *without* the
secondary modality? It helps where the classes are dense and apart, or drift gradually; it hurts where the first model
is confidently wrong, which no amount of rounds mends.

    for r = 1 ... R:   fit f on L;  move the surest of U to L with f's labels, until share r / R of U has been moved
    fit f on L, with the whole schedule

Labelling everything at once teaches a model what it already says; the order is what teaches. With prior_matched, the
rows added so far are divided over the classes as the labelled rows are, so that the larger class does not swallow the
rest.
With consistency, the network's answers shall not change under noise on its standardised input x, labelled or not (for
a pretrained model inside the network, x is what that makes of a row: never pixels or token numbers):

    minimise  mean CE(f(x), y) + consistency · mean CE(f(x), f(x + noise · rms(x) · e)),  e ~ N(0, 1), f(x) held fixed

Where the schedule holds rows out, taught rows count as labelled ones and may be among them.

Cost: R fits with the share `round_updates` of the schedule and one with all of it.

Source: wei2021selftraining. Departs from it: confidence is the plain probability and once labelled is labelled, as in
the classic algorithm; its expansion theory labels all rows and leans on consistency alone.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from transference.core.batch import Batch
from transference.core.errors import ConfigError
from transference.core.method import Card, Method
from transference.core.parameters import Interval, Options
from transference.core.spec import DataSpec
from transference.core.views import Views
from transference.nn.losses import soft_cross_entropy, supervised
from transference.nn.network import Network
from transference.nn.pseudo import class_shares, most_confident, quotas
from transference.train.models import as_unimodal, check_model, is_neural_default, new_model, one, shortened
from transference.train.neural import NeuralMethod
from transference.train.schedule import Schedule


class SelfTraining(Method):
    """The primary modality's model, taught by itself.

    Parameters
    ----------
    model
        None: a network; or the id of a method, or a scikit-learn estimator as in ``unimodal``.
    rounds
        R, how many times rows are added.
    share
        Of the unlabelled rows, how many may be added in all, in [0, 1].
    threshold
        Only rows whose largest probability is greater than this are added; nothing is at 1.
    prior_matched
        Whether the rows added, all rounds together, keep the class shares of the labelled rows.
    consistency
        Weight of the consistency loss; 0 = none. For the network only.
    noise
        Of the consistency loss, relative to the standardised input.
    round_updates
        Share of the schedule that each round but the last fit gets, above 0.

    Attributes
    ----------
    model_
        The fitted method that answers.
    rounds_
        A line a round: "added" (rows), "by class" (list of counts), "least probability" of the rows added.
    transduction_
        (n,) class number that each training row was taught with last; -1 = none.
    labeled_iter_
        (n,) round in which each row got its label: 0 = it came with one, -1 = it has none.
    """

    card: ClassVar[Card] = Card(
        summary="The primary's model labels the rows it is surest of, and learns from them too.",
        reference="wei2021selftraining",
        modalities=(1, None),
        needs=frozenset({"labels", "unlabelled"}),
        at_test="primary",
        tasks=frozenset({"classification"}),
    )
    constraints = {
        "rounds": Interval(1, whole=True),
        "share": Interval(0, 1),
        "threshold": Interval(0, 1),
        "prior_matched": Options(True, False),
        "consistency": Interval(0),
        "noise": Interval(0),
        "round_updates": Interval(0, 1, open_low=True),
    }

    def __init__(
        self,
        *,
        model: Any = None,
        rounds: int = 5,
        share: float = 1.0,
        threshold: float = 0.0,
        prior_matched: bool = True,
        consistency: float = 0.0,
        noise: float = 0.3,
        round_updates: float = 0.3,
        width: int = 64,
        schedule: Schedule = Schedule(),
        seed: int = 0,
    ) -> None:
        self.model = model
        self.rounds = rounds
        self.share = share
        self.threshold = threshold
        self.prior_matched = prior_matched
        self.consistency = consistency
        self.noise = noise
        self.round_updates = round_updates
        self.width = width
        self.schedule = schedule
        self.seed = seed

    def check_parameters(self) -> None:
        super().check_parameters()
        check_model(self.model)
        if self.consistency > 0 and not is_neural_default(self.model):
            raise ConfigError(
                "The 'consistency' of SelfTraining is for the network. Leave out 'model', or set it to 0."
            )

    def learn(self, X: Views, target: NDArray[Any]) -> None:
        primary, task = one(X, X.primary), self.spec_.task
        labels = target.copy()
        came = np.where(target >= 0, 0, -1)
        prior = class_shares(target, task.outputs)
        most = round(self.share * int(((target < 0) & X.present[X.primary]).sum()))
        self.rounds_: list[dict[str, Any]] = []
        added = 0
        for turn in range(1, self.rounds + 1):
            free = np.flatnonzero((labels < 0) & X.present[X.primary])
            wanted = round(most * turn / self.rounds) - added
            if wanted <= 0:
                continue
            model = self._model(self.round_updates).fit_encoded(primary, labels, task)
            probabilities = model.decide(primary[free])
            quota = np.full(task.outputs, wanted)
            if self.prior_matched:
                taught = np.bincount(labels[came > 0], minlength=task.outputs)
                quota = np.maximum(0, quotas(added + wanted, prior) - taught)
            rows, classes = most_confident(probabilities, quota, above=self.threshold, most=wanted)
            labels[free[rows]] = classes
            came[free[rows]] = turn
            added += len(rows)
            self.rounds_.append(
                {
                    "added": len(rows),
                    "by class": np.bincount(classes, minlength=task.outputs).tolist(),
                    "least probability": float(probabilities[rows, classes].min()) if len(rows) else float("nan"),
                }
            )
            if not len(rows):
                break
        last = self._model(1.0).fit_encoded(primary, labels, task)
        self.model_ = as_unimodal(last, last.spec_) if isinstance(last, _Consistent) else last
        self.history_ = getattr(last, "history_", {})
        self.transduction_, self.labeled_iter_ = labels, came

    def _model(self, share: float) -> Method:
        schedule = shortened(self.schedule, share)
        if self.consistency > 0:
            return _Consistent(self.consistency, self.noise, width=self.width, schedule=schedule, seed=self.seed)
        return new_model(self.model, width=self.width, schedule=schedule, seed=self.seed)

    def decide(self, X: Views) -> NDArray[Any]:
        return self.model_.decide(X)

    def embed(self, X: Views) -> dict[str, NDArray[Any]]:
        self._fitted()
        return self.model_.embed(X)

    def deployed(self) -> Method:
        """The fitted model of the primary modality."""
        self._fitted()
        return self.model_.deployed()


class _Consistent(NeuralMethod):
    """The network of ``unimodal`` whose answers shall not change under noise on its standardised input."""

    card: ClassVar[Card] = SelfTraining.card

    def __init__(self, weight: float, noise: float, *, width: int, schedule: Schedule, seed: int) -> None:
        super().__init__(width=width, schedule=schedule, seed=seed)
        self.weight = weight
        self.noise = noise

    def build(self, spec: DataSpec) -> Network:
        return Network(spec, [spec.primary], self.width)

    def scores(self, net: Network, batch: Batch) -> Tensor:
        return net.head(net.encode(batch, self.spec_.primary))

    def losses(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        name = self.spec_.primary
        encoder, lengths = net.encoders[name], batch.lengths.get(name)
        x = encoder.standard(batch.views[name], lengths)
        scores = net.head(encoder.body(x, lengths))
        noisy = x + self.noise * x.square().mean().sqrt() * x.new_empty(x.shape).normal_()
        answers = scores.detach().softmax(1)
        return {
            "task": supervised(scores, batch.target, self.spec_.task),
            "consistency": self.weight * soft_cross_entropy(net.head(encoder.body(noisy, lengths)), answers),
        }
