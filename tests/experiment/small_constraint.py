"""A method with a constraint on its one parameter."""

from __future__ import annotations

from transference.core.parameters import Interval
from transference.unimodal import Unimodal


class Narrow(Unimodal):
    constraints = {"width": Interval(1, whole=True)}
