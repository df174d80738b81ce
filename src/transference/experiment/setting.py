"""What a cell computes with besides itself and its data, so that a result made otherwise is not taken for it."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

from transference.core.method import Method
from transference.core.records import Cell
from transference.core.registry import FAMILIES, ROOT, find
from transference.experiment.arms import OF_THE_STUDY
from transference.experiment.config import Config

FORMAT = 2  # raise it when what a cell computes or keeps changes, so that old records are not taken for new ones
BEARS_ON_RESULTS = ("core", "data", "nn", "train", "assessment", *FAMILIES)


def setting_of(cell: Cell, config: Config) -> dict[str, Any]:
    """What `RunRecord.setting` holds: neither the name of the study, nor its metric, nor its other cells do.

    The parameters are those of the unfitted method, so that another default makes another cell.
    """
    cls = find(cell.method)
    parameters = cls(**cell.parameters).get_params(deep=False)
    asked = config.task.model_dump(mode="json", exclude_defaults=True)
    return {
        **({"task": asked} if asked else {}),
        "format": FORMAT,
        "schedule": asdict(config.schedule),
        "test": config.data.test,
        "parameters": {name: plain(value) for name, value in parameters.items() if name not in OF_THE_STUDY},
        "source": source_digest(cls),
    }


def plain(value: Any) -> Any:
    """A parameter as JSON: an estimator, or any other object, by its class and what it was given.

    >>> from sklearn.naive_bayes import GaussianNB
    >>> plain({"model": GaussianNB(var_smoothing=0.1), "widths": (1, 2)})["widths"]
    [1, 2]
    >>> plain(GaussianNB(var_smoothing=0.1))["parameters"]
    {'priors': None, 'var_smoothing': 0.1}
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, set | frozenset):
        return sorted((plain(each) for each in value), key=json.dumps)
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if hasattr(value, "__qualname__"):
        return {"name": f"{value.__module__}.{value.__qualname__}"}
    if is_dataclass(value):
        given = {each.name: getattr(value, each.name) for each in fields(value)}
    else:
        given = value.get_params(deep=False) if hasattr(value, "get_params") else getattr(value, "__dict__", {})
    return {"class": f"{type(value).__module__}.{type(value).__qualname__}", "parameters": plain(given)}


@cache
def source_digest(cls: type[Method]) -> str:
    """16 hexadecimal digits of the files that a method of another package is written in; "" for one of this package.

    They are read once, so that it is about the code that was imported.
    """
    top = cls.__module__.partition(".")[0]
    if top == "transference":
        return ""
    written_in = sorted({base.__module__ for base in cls.__mro__ if base.__module__.partition(".")[0] == top})
    files = [getattr(sys.modules.get(name), "__file__", None) for name in written_in]
    return _digest([Path(file) for file in files if file is not None], 8)


@cache
def package_digest() -> str:
    """8 hexadecimal digits of the files of this package that bear on results: not report, deploy, command line."""
    files = sorted(ROOT.rglob("*.py"))
    return _digest([file for file in files if file.relative_to(ROOT).with_suffix("").parts[0] in BEARS_ON_RESULTS], 4)


def _digest(files: list[Path], size: int) -> str:
    """Of the lines in these files, in this order, however their ends are written."""
    digest = hashlib.blake2b(digest_size=size)
    for file in files:
        digest.update(file.name.encode() + b"\0" + b"\n".join(file.read_bytes().splitlines()) + b"\0")
    return digest.hexdigest()
