"""Every method on disk keeps every promise that concerns it, and so do estimators that stand in for networks."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest

from transference.core import registry
from transference.core.method import Method
from transference.testing import Check, Subject, check_method, checks
from transference.train.schedule import Schedule

subject = cache(Subject)
CASES = [
    pytest.param(method_id, check, id=f"{method_id}-{check.name}")
    for method_id in registry.names()
    for check in checks(subject(method_id))
]


@pytest.mark.parametrize(("method_id", "check"), CASES)
def test_promise(method_id: str, check: Check) -> None:
    check(subject(method_id))


def test_the_suite_has_not_shrunk() -> None:
    """A floor, so that the suite cannot die quietly: raise it when methods or checks are added."""
    assert len(checks()) >= 39
    assert len(registry.names()) >= 41
    assert len(CASES) >= 1410
    assert all(len(checks(subject(method_id))) >= 29 for method_id in registry.names())


QUICK = Schedule(updates=20, batch_size=24, device="cpu")
LINEAR = {"class": "sklearn.linear_model.LogisticRegression", "C": 0.5}
STAND_INS: dict[str, Callable[[], Method]] = {
    "unimodal": lambda: registry.create("unimodal", estimator=LINEAR),
    "transfer.distillation": lambda: registry.create("transfer.distillation", student=LINEAR, schedule=QUICK),
}


@pytest.mark.parametrize("method_id", STAND_INS)
def test_estimators_keep_the_promises_too(method_id: str) -> None:
    check_method(STAND_INS[method_id], tasks=["classification"])
