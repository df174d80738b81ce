"""What any secondary modality may be: constant, of one row, or anything where it is absent."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from transference.core.registry import create, find, names
from transference.core.spec import Kind
from transference.core.views import Views
from transference.train.schedule import Schedule

KINDS: dict[str, Kind] = {"words": "text", "points": "set"}
METHODS = [name for name in names() if find(name).card.modalities[1] != 1 and name != "unimodal"]
NEURAL = [name for name in METHODS if "schedule" in find(name)._get_param_names()]
QUICK = Schedule(updates=6, validation=0.0)
N = 60


def rows(**secondary: NDArray[Any]) -> tuple[Views, NDArray[np.int64]]:
    g = np.random.default_rng(0)
    y = g.integers(0, 2, N)
    kinds = {name: kind for name, kind in KINDS.items() if name in secondary}
    return Views.of(primary="x", kinds=kinds, x=g.normal(size=(N, 5)) + y[:, None], **secondary), y


CONSTANT: dict[str, dict[str, NDArray[Any]]] = {
    "zeros": {"t": np.zeros((N, 9, 40))},
    "large": {"t": np.full((N, 9, 40), 3e5)},
    "vector": {"v": np.full((N, 30), 3141.59)},
    "set": {"points": np.full((N, 7, 3), 12345.678)},
    "image": {"picture": np.full((N, 1, 8, 8), 0.3)},
    "text": {"words": np.tile([3, 1, 2, 0], (N, 1))},
    "no words": {"words": np.tile([0, 0, 0, 29], (N, 1)) * (np.arange(N) == 0)[:, None]},
}


@pytest.mark.parametrize("method", NEURAL)
@pytest.mark.parametrize("held", CONSTANT)
def test_no_loss_is_blown_up_by_what_never_changes(method: str, held: str) -> None:
    """Its variance of 0 is nothing to explain."""
    X, y = rows(**CONSTANT[held])
    fitted: Any = create(method, schedule=QUICK, seed=0).fit(X, y)
    largest = {name: np.nanmax(line) for name, line in fitted.history_.items() if name != "update"}
    assert max(largest.values()) < 80, largest
    if {"retrieval", "zero_shot"} & fitted.card.tasks:
        found = fitted.match(X[:9].only(["x"]), X[:7])
        assert np.isfinite(found).all()
        assert np.abs(found).max() < 1e4


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["vector", "series", "text"])
def test_absent_rows_may_hold_anything(method: str, kind: str) -> None:
    g = np.random.default_rng(1)
    held = {
        "vector": {"v": g.normal(size=(N, 4))},
        "series": {"t": g.normal(size=(N, 6, 2))},
        "text": {"words": g.integers(1, 30, (N, 5))},
    }[kind]
    ((name, values),) = held.items()
    X, y = rows(**held)
    there = np.arange(N) % 4 > 0
    shape = (-1, *[1] * (values.ndim - 1))
    answers = []
    for other in (0.0, np.nan, 1e30):
        mixed = np.where(there.reshape(shape), X[name], other).astype(np.float32)
        parameters = {"schedule": QUICK, "seed": 0} if method in NEURAL else {"seed": 0}
        fitted = create(method, **parameters).fit(X.replace(name, mixed, present=there), y)
        answers.append(fitted.predict_proba(X))
    assert np.isfinite(answers[0]).all()
    np.testing.assert_array_equal(answers[1], answers[0])
    np.testing.assert_array_equal(answers[2], answers[0])


@pytest.mark.parametrize("method", [name for name in NEURAL if name.startswith("colearning")])
def test_the_only_pair_is_not_held_out(method: str) -> None:
    g = np.random.default_rng(2)
    X, y = rows(v=g.normal(size=(N, 3)))
    schedule = Schedule(updates=3, validation=0.5, least_validation=1)
    for place in range(3):
        one = X.replace("v", X["v"], present=np.arange(N) == place)
        assert np.isfinite(create(method, schedule=schedule, seed=0).fit(one, y).predict_proba(one)).all()
