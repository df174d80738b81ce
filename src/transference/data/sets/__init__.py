"""Real data sets by name, one file each: where it comes from, checksum, licence, how it becomes Views.

A file ``NAME.py`` here is a set: it holds ``SOURCE`` (what it is and where it is published) and
``build(root, primary, secondary, variant)``, which turns the files below `root` into a Dataset. Files with a leading
underscore are shared machinery. Nothing else has to be written to add a set.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from transference.core.errors import ConfigError, DataError, did_you_mean
from transference.data.dataset import Dataset
from transference.data.sets import _source


def names() -> list[str]:
    """All sets, in alphabetical order.

    >>> "digits" in names()
    True
    """
    return sorted(file.stem for file in Path(__file__).parent.glob("*.py") if not file.name.startswith("_"))


def load(
    name: str,
    *,
    primary: str | None = None,
    secondary: str | Sequence[str] | None = None,
    variant: str | None = None,
) -> Dataset:
    """A named set, ready for a study.

    Parameters
    ----------
    name
        One of `names()`.
    primary, secondary
        Modalities of the set; see ``describe(name)["modalities"]``. Left out, the first of them is the primary one, and
        the first other one the secondary one.
    variant
        One of ``describe(name)["variants"]``; left out, the set chooses.

    Raises
    ------
    DataError
        When the files are not on this machine; the message says how to get them.
    """
    module = _module(name)
    source: _source.Source = module.SOURCE
    first = source.modalities[0] if primary is None else primary
    others = [each for each in source.modalities if each != first][:1] if secondary is None else secondary
    chosen = (others,) if isinstance(others, str) else tuple(others)
    for each in (first, *chosen):
        if each not in source.modalities:
            raise ConfigError(f"The set {name!r} has no modality {each!r}. {did_you_mean(each, source.modalities)}")
    if first in chosen:
        raise ConfigError(f"The modality {first!r} of the set {name!r} can not be primary and secondary at once.")
    if variant is not None and variant not in source.variants:
        raise ConfigError(f"The set {name!r} has no variant {variant!r}. {did_you_mean(variant, source.variants)}")
    return module.build(path(name), first, chosen, variant)


def path(name: str) -> Path:
    """The folder below which the files of the set lie.

    Raises
    ------
    DataError
        When they are not on this machine.
    """
    source: _source.Source = _module(name).SOURCE
    here = _source.find(source)
    if here is None:
        places = " or ".join(str(root) for root in _source.roots())
        missing = ", ".join(part.path for part in source.parts)
        raise DataError(
            f"The set {name!r} is not on this machine: {missing} was looked for in {places}. It may not be "
            f"redistributed with this package ({source.licence}). Run 'transference data get {name}' to fetch it from "
            f"{', '.join(sorted({part.url for part in source.parts}))}, or name a folder that holds it in the "
            f"environment variable {_source.FOLDER}."
        )
    return here


def fetch(name: str, *, progress: bool = True) -> Path:
    """Download the set unless it is on this machine; the folder below which its files lie.

    Downloads are resumed where they stopped, and checked.
    """
    return _source.fetch(_module(name).SOURCE, progress=progress)


def describe(name: str) -> dict[str, Any]:
    """Title, licence, citation key, modalities, variants, notes, source addresses, and whether it is here."""
    source: _source.Source = _module(name).SOURCE
    return {
        "name": name,
        "title": source.title,
        "licence": source.licence,
        "citation": source.citation,
        "modalities": list(source.modalities),
        "variants": list(source.variants),
        "notes": source.notes,
        "urls": sorted({part.url for part in source.parts}),
        "sha256": {part.path: part.sha256 for part in source.parts},
        "here": _source.find(source) is not None,
    }


def _module(name: str) -> ModuleType:
    if name not in names():
        raise ConfigError(f"There is no set {name!r}. {did_you_mean(name, names())}")
    return importlib.import_module(f"{__name__}.{name}")
