"""The primary modality alone: the baseline that every other arm is measured against.

The same encoder, schedule and number of updates as every other arm; or any scikit-learn estimator.

    minimise  mean over labelled rows of  CE(head(encoder(x)), y)

Cost: one encoder. Departs from nothing: it is the reference.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from transference.core.batch import Batch
from transference.core.method import Card
from transference.core.spec import DataSpec
from transference.nn.losses import supervised
from transference.nn.network import Network
from transference.train.neural import NeuralMethod


class Unimodal(NeuralMethod):
    """The primary modality alone.

    Examples
    --------
    >>> import numpy as np
    >>> from transference.core.views import Views
    >>> from transference.train.schedule import Schedule
    >>> x = np.repeat([[0.0, 1.0], [1.0, 0.0]], 20, axis=0)
    >>> y = np.repeat(["a", "b"], 20)
    >>> Unimodal(schedule=Schedule(updates=50)).fit(Views.of(primary="x", x=x), y).score(Views.of(primary="x", x=x), y)
    1.0
    """

    card: ClassVar[Card] = Card(
        summary="The primary modality alone: the baseline.",
        reference="baltrusaitis2019",
        modalities=(1, None),
        needs=frozenset({"labels"}),
        at_test="primary",
        tasks=frozenset({"classification", "regression", "multilabel"}),
    )

    def build(self, spec: DataSpec) -> Network:
        return Network(spec, [spec.primary], self.width)

    def losses(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        return {"task": supervised(self.scores(net, batch), batch.target, self.spec_.task)}

    def scores(self, net: Network, batch: Batch) -> Tensor:
        return net.head(net.encode(batch, self.spec_.primary))
