"""What is frozen is computed once, and found again by row."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from transference.core.batch import Batch
from transference.core.spec import DataSpec
from transference.core.views import Views
from transference.data.loader import to_batch
from transference.nn.losses import supervised
from transference.nn.network import Network
from transference.train.frozen import Remembered, freeze, head_alone
from transference.train.loop import Stage, Step
from transference.train.neural import NeuralMethod
from transference.train.schedule import Schedule
from transference.unimodal import Unimodal


def rows(n: int = 40) -> tuple[Views, np.ndarray]:
    g = np.random.default_rng(0)
    y = np.where(np.arange(n) < 30, np.arange(n) % 2, -1)
    X = Views.of(primary="x", x=g.normal(size=(n, 4)) + y[:, None])
    return X.take(g.permutation(n)), y


def test_rows_are_found_by_their_numbers_in_any_order() -> None:
    X, _ = rows(700)  # more than one chunk
    batch = to_batch(X)
    calls: list[int] = []

    def compute(part: Batch) -> Tensor:
        calls.append(len(part))
        return part.views["x"] * 2

    found = Remembered(batch, compute)
    some = batch.take(torch.tensor([5, 699, 5, 0]))
    torch.testing.assert_close(found.of(some), some.views["x"] * 2)
    assert sum(calls) == 700
    assert not found.values.requires_grad


def test_what_is_frozen_has_no_gradient_nor_one_left_over() -> None:
    layer = torch.nn.Linear(2, 1)
    layer(torch.ones(1, 2)).sum().backward()
    freeze(layer)
    assert all(each.grad is None and not each.requires_grad for each in layer.parameters())


class Frozen(NeuralMethod):
    """A linear probe of an encoder that never learns; remembered or encoded again at every update."""

    card = Unimodal.card

    def __init__(self, *, again: bool = False, schedule: Schedule = Schedule(), seed: int = 0) -> None:
        super().__init__(width=8, schedule=schedule, seed=seed)
        self.again = again
        self.encoded = 0

    def build(self, spec: DataSpec) -> Network:
        return Network(spec, [spec.primary], self.width)

    def losses(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        known = batch.labelled
        features = self.features(net, known).detach()
        return {"task": supervised(net.head(features), known.target, self.spec_.task)}

    def features(self, net: Any, batch: Batch) -> Tensor:
        self.encoded += len(batch)
        return net.encode(batch, self.spec_.primary)

    def scores(self, net: Any, batch: Batch) -> Tensor:
        return net.head(net.encode(batch, self.spec_.primary))

    def stages(self, net: Any) -> list[Stage]:
        if self.again:
            begin = lambda net, rows: freeze(net.encoders)  # noqa: E731
            return [Stage("head", (Step(self.losses, rate=3.0),), begin=begin)]
        return [head_alone(self.features, self.spec_.task, rate=3.0)]


def test_a_head_learns_the_same_from_what_is_remembered() -> None:
    X, y = rows()
    schedule = Schedule(updates=20, batch_size=8, validation=0.0)
    once, again = (Frozen(again=each, schedule=schedule).fit(X, y) for each in (False, True))
    assert once.encoded == 30 < again.encoded
    np.testing.assert_allclose(once.predict_proba(X), again.predict_proba(X), atol=1e-5)
    trained = [name for name, parameter in once.net_.named_parameters() if parameter.requires_grad]
    assert trained == ["head.weight", "head.bias"]
