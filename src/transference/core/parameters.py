"""Declared constraints on constructor parameters, checked in `fit` with one wording."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol


class Constraint(Protocol):
    """Says whether a value is allowed, and in words what is."""

    def allows(self, value: Any) -> bool: ...
    def __str__(self) -> str: ...


@dataclass(frozen=True)
class Interval:
    """A number between two bounds.

    >>> str(Interval(0, 1)), Interval(0, 1).allows(1.0), str(Interval(1, whole=True))
    ('a number in [0, 1]', True, 'an integer of at least 1')
    """

    low: float = -math.inf
    high: float = math.inf
    whole: bool = False
    open_low: bool = False
    open_high: bool = False
    none: bool = False

    def allows(self, value: Any) -> bool:
        if value is None:
            return self.none
        kinds = int if self.whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or not math.isfinite(value):
            return False
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below

    def __str__(self) -> str:
        noun = "an integer" if self.whole else "a number"
        if math.isinf(self.high):
            span = "" if math.isinf(self.low) else f" {'above' if self.open_low else 'of at least'} {self.low:g}"
        else:
            span = f" in {'(' if self.open_low else '['}{self.low:g}, {self.high:g}{')' if self.open_high else ']'}"
        return noun + span + (" or None" if self.none else "")


@dataclass(frozen=True)
class Options:
    """One of a few values."""

    values: tuple[Any, ...]

    def __init__(self, *values: Any) -> None:
        object.__setattr__(self, "values", values)

    def allows(self, value: Any) -> bool:
        return any(type(value) is type(option) and value == option for option in self.values)

    def __str__(self) -> str:
        return "one of " + ", ".join(map(repr, self.values))
