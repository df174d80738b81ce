"""A secondary modality that never changes is nothing to explain: no loss may be blown up by its variance of 0."""

from __future__ import annotations

import numpy as np
import pytest

from transference.core.registry import create
from transference.core.views import Views
from transference.train.schedule import Schedule

METHODS = [
    "colearning.alignment.experts",
    "colearning.fusion.autoencoder",
    "colearning.fusion.meta_missing",
    "colearning.translation.cyclic",
    "colearning.translation.dense_supervision",
    "colearning.translation.latent_language",
    "colearning.translation.learned_language",
    "colearning.translation.sequence",
]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [0.0, 3e5])
def test_no_loss_is_blown_up(method: str, value: float) -> None:
    g = np.random.default_rng(0)
    y = g.integers(0, 2, 60)
    X = Views.of(primary="x", x=g.normal(size=(60, 5)) + y[:, None], t=np.full((60, 9, 40), value))
    fitted = create(method, schedule=Schedule(updates=6, validation=0.0), seed=0).fit(X, y)
    largest = {name: np.nanmax(line) for name, line in fitted.history_.items() if name != "update"}
    assert max(largest.values()) < 50, largest
