"""The primary modality alone: the baseline that every other arm is measured against.

When to use it: always, as what a second modality has to beat. The same encoder, schedule and number of updates as every
other arm; or any scikit-learn estimator.

    minimise  mean over labelled rows of  CE(head(encoder(x)), y)

Shapes: encoder(x) (n, width), head (n, classes). Cost: one encoder. Departs from nothing: it is the reference.
"""

from __future__ import annotations

from typing import Any, ClassVar

from numpy.typing import NDArray
from torch import Tensor

from transference.core.batch import Batch
from transference.core.method import Card, Method
from transference.core.spec import DataSpec
from transference.core.views import Views
from transference.nn.losses import supervised
from transference.nn.network import Network
from transference.train.estimator import EstimatorMethod
from transference.train.neural import NeuralMethod
from transference.train.schedule import Schedule


class Unimodal(NeuralMethod):
    """The primary modality alone.

    Parameters
    ----------
    estimator
        None: a network. Otherwise a scikit-learn estimator: an instance, its dotted class name, or a mapping with the
        name under ``class`` and its parameters beside it; then `width` and `schedule` mean nothing. See
        `train.estimator` for what is standardised.

    Attributes
    ----------
    model_
        The fitted `EstimatorMethod`, where an estimator was given.

    Examples
    --------
    >>> import numpy as np
    >>> from transference.core.views import Views
    >>> from transference.train.schedule import Schedule
    >>> x = np.repeat([[0.0, 1.0], [1.0, 0.0]], 20, axis=0)
    >>> X, y = Views.of(primary="x", x=x), np.repeat(["a", "b"], 20)
    >>> Unimodal(schedule=Schedule(updates=50)).fit(X, y).score(X, y)
    1.0
    >>> Unimodal(estimator="sklearn.tree.DecisionTreeClassifier").fit(X, y).score(X, y)
    1.0
    """

    card: ClassVar[Card] = Card(
        summary="The primary modality alone: the baseline.",
        reference="baltrusaitis2019",
        modalities=(1, None),
        needs=frozenset({"labels"}),
        at_test="primary",
        tasks=frozenset({"classification", "regression", "multilabel", "few_shot"}),
    )

    def __init__(
        self,
        *,
        estimator: Any = None,
        width: int = 64,
        schedule: Schedule = Schedule(),
        seed: int = 0,
    ) -> None:
        super().__init__(width=width, schedule=schedule, seed=seed)
        self.estimator = estimator

    def check_parameters(self) -> None:
        super().check_parameters()
        if self.estimator is not None:
            EstimatorMethod(self.estimator).check_parameters()

    def build(self, spec: DataSpec) -> Network:
        return Network(spec, [spec.primary], self.width)

    def losses(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        return {"task": supervised(self.scores(net, batch), batch.target, self.spec_.task)}

    def scores(self, net: Network, batch: Batch) -> Tensor:
        return net.head(net.encode(batch, self.spec_.primary))

    def learn(self, X: Views, target: NDArray[Any]) -> None:
        if self.estimator is None:
            super().learn(X, target)
            return
        primary = X.only([X.primary])
        self.model_ = EstimatorMethod(self.estimator, seed=self.seed).fit_encoded(primary, target, self.spec_.task)

    def decide(self, X: Views) -> NDArray[Any]:
        return super().decide(X) if self.estimator is None else self.model_.decide(X)

    def embed(self, X: Views) -> dict[str, NDArray[Any]]:
        return super().embed(X) if self.deployed() is self else self.model_.embed(X)

    def deployed(self) -> Method:
        """This method, or the fitted `EstimatorMethod` where an estimator was given."""
        self._fitted()
        return self if self.estimator is None else self.model_
