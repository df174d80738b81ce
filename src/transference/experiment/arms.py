"""The arms of a study file: a method, its parameters, and whether it is a control of another arm. No torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from transference.core.errors import ConfigError, did_you_mean, must_be
from transference.core.registry import find, names
from transference.core.spec import TaskKind

OF_THE_STUDY = {"seed": "Write seeds in [study]", "schedule": "Write it as [schedule], which all arms share"}


class Table(BaseModel):
    """A table of a study file: no other keys, nothing converted."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Arm(Table):
    """[arms."..."]: a method and its parameters.

    Attributes
    ----------
    control_of
        The arm of which this one is a control, where it is one: it can not win, but what it gains was not transferred.
    """

    method: str
    parameters: dict[str, Any]
    control_of: str | None = Field(default=None, description="Name an arm.")

    def tasks(self) -> frozenset[TaskKind]:
        """What its method can do; nothing where there is no such method, which is told as a fault of the arm."""
        try:
            return find(self.method).card.tasks
        except ConfigError:
            return frozenset()

    def to_json(self) -> dict[str, Any]:
        """Plain values that `read_arms` reads."""
        role = {} if self.control_of is None else {"control_of": self.control_of}
        return {"method": self.method, **role, **self.parameters}


def read_arms(raw: Any) -> tuple[dict[str, Any], list[str]]:
    """Arms by name, and what is wrong with them; imports the methods to see their parameters."""
    if not isinstance(raw, Mapping):
        return {}, [must_be("'arms'", "tables", raw, 'Write [arms."transfer.distillation"].')]
    if not raw:
        return {}, ['A study needs one arm or more. Add a line such as [arms."transfer.distillation"].']
    arms, faults = {}, []
    for name, table in raw.items():
        if not isinstance(table, Mapping):
            faults.append(
                must_be(f"'arms.{name}'", "a table", table, f'Write [arms."{name}"] and parameters below it.')
            )
            continue
        method_id = table.get("method", name)
        parameters = {key: value for key, value in table.items() if key not in ("method", "control_of")}
        arms[name] = {"method": method_id, "parameters": parameters, "control_of": table.get("control_of")}
        try:
            faults += _parameter_faults(name, method_id, parameters)
        except ConfigError as error:
            dotted = [f"{name}.{key}" for key, value in table.items() if isinstance(value, Mapping)]
            quote = f' An id with dots needs quotes: [arms."{dotted[0]}"].' if dotted and "method" not in table else ""
            faults.append(f"In [arms.{json.dumps(name)}]: {error}{quote}")
    return arms, faults


def _parameter_faults(name: str, method_id: Any, parameters: Mapping[str, Any]) -> list[str]:
    from transference.core.method import Method

    if not isinstance(method_id, str):
        raise ConfigError(must_be("'method'", "the id of a method", method_id))
    if ":" not in method_id and method_id not in names():
        raise ConfigError(f"There is no method {method_id!r}. {did_you_mean(method_id, names())}")
    cls = find(method_id)
    if not (isinstance(cls, type) and issubclass(cls, Method)):
        raise ConfigError(must_be(f"The class behind {method_id!r}", "a transference Method", cls))
    known = [each for each in cls._get_param_names() if each not in OF_THE_STUDY]
    faults = []
    for key in parameters:
        if key in OF_THE_STUDY:
            faults.append(f"[arms.{json.dumps(name)}] may not set {key!r}: it is the study's. {OF_THE_STUDY[key]}.")
        elif key not in known:
            faults.append(
                f"[arms.{json.dumps(name)}]: {method_id} has no parameter {key!r}. {did_you_mean(key, known)}"
            )
    if not faults:
        cls(**parameters).check_parameters()
    return faults
