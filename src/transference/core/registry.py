"""The id of a method or probe is its path: listing walks the folder and imports nothing."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from transference.core.errors import ConfigError, did_you_mean, must_be

if TYPE_CHECKING:
    from transference.core.method import Method

ROOT = Path(__file__).resolve().parent.parent
FAMILIES = ("unimodal", "fusion", "transfer", "colearning", "induction")


def names(family: str | None = None) -> list[str]:
    """The ids of all methods (of one family), in alphabetical order, found on disk.

    >>> "unimodal" in names()
    True
    """
    families = FAMILIES if family is None else (family,)
    found = []
    for name in families:
        files = [ROOT / f"{name}.py"] if (ROOT / f"{name}.py").exists() else (ROOT / name).rglob("*.py")
        found += [
            ".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files if not file.name.startswith("_")
        ]
    return sorted(found)


def path(method_id: str) -> Path:
    """The file of a method or probe of this package."""
    file = ROOT.joinpath(*method_id.split(".")).with_suffix(".py")
    if method_id not in names() and method_id not in names("assessment"):
        raise ConfigError(f"There is no method {method_id!r}. {did_you_mean(method_id, names())}")
    return file


def docstring(method_id: str) -> str:
    """The docstring of the file, read without importing it; of a method outside this package, that of its class."""
    if ":" in method_id:
        return inspect.getdoc(find(method_id)) or ""
    return ast.get_docstring(ast.parse(path(method_id).read_text(encoding="utf-8"))) or ""


def summary(method_id: str) -> str:
    """The first line of the docstring."""
    return docstring(method_id).partition("\n")[0]


def find(method_id: str) -> type[Method]:
    """The class behind an id. ``package.module:Class`` finds a method that lives outside this package."""
    if ":" in method_id:
        return _outside(method_id)
    path(method_id)
    return _class_of(importlib.import_module(f"transference.{method_id}"))


def _outside(method_id: str) -> type[Method]:
    from transference.core.method import Method

    remedy = "Write it as 'package.module:Class' and make the package importable."
    module_name, _, class_name = method_id.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError, TypeError, ValueError) as error:  # the last two for names that are none
        raise ConfigError(f"The method {method_id!r} could not be imported: {error}. {remedy}") from error
    if not (inspect.isclass(found) and issubclass(found, Method)):
        raise ConfigError(must_be(f"The class behind {method_id!r}", "a transference Method", found, remedy))
    return found


def _class_of(module: ModuleType) -> type[Method]:
    from transference.core.method import Method

    classes = [
        value
        for _, value in inspect.getmembers(module, inspect.isclass)
        if issubclass(value, Method) and value.__module__ == module.__name__ and not value.__name__.startswith("_")
    ]
    if len(classes) != 1:
        raise ConfigError(f"{module.__name__} must define exactly one Method. Got {len(classes)} instead.")
    return classes[0]


def create(method_id: str, **parameters: Any) -> Method:
    """A new, unfitted method: ``create("fusion.late", width=32)``."""
    cls = find(method_id)
    known = cls._get_param_names()
    for name in parameters:
        if name not in known:
            raise ConfigError(f"{method_id} has no parameter {name!r}. {did_you_mean(name, known)}")
    return cls(**parameters)
