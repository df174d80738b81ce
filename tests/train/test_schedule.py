"""The schedule refuses what makes no sense, and says what would."""

from __future__ import annotations

import dataclasses

import pytest

from transference.core.errors import ConfigError
from transference.train.schedule import Schedule


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("updates", 0, "an integer of at least 1"),
        ("updates", 10.5, "an integer of at least 1"),
        ("batch_size", 8.5, "an integer of at least 1"),
        ("learning_rate", float("nan"), "a number above 0"),
        ("batch_size", 0, "an integer of at least 1"),
        ("learning_rate", 0.0, "a number above 0"),
        ("weight_decay", -0.1, "a number of at least 0"),
        ("warmup", 1.0, r"a number in \[0, 1\)"),
        ("clip", 0.0, "a number above 0 or None"),
        ("validation", 0.6, r"a number in \[0, 0.5\]"),
        ("least_validation", 0, "an integer of at least 1"),
        ("checks", 0, "an integer of at least 1"),
    ],
)
def test_a_field_out_of_range_is_named(field: str, value: float, expected: str) -> None:
    message = f"The '{field}' of the schedule must be {expected}. Got {value} instead"
    with pytest.raises(ConfigError, match=message):
        Schedule(**{field: value})  # type: ignore[arg-type]


def test_the_limits_themselves_are_allowed() -> None:
    Schedule(updates=1, batch_size=1, weight_decay=0.0, warmup=0.0, clip=None, validation=0.5, checks=1)


def test_it_cannot_be_changed_and_equal_fields_are_equal() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Schedule().updates = 5  # type: ignore[misc]
    assert Schedule(updates=5) == Schedule(updates=5) != Schedule(updates=6)
