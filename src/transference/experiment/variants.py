"""One file, several studies: the same arms on other data, or with other settings. No torch.

name = "sensors"

[study]                              # what all of them share
seeds = 5

[arms."transfer.distillation"]

[[variants]]                         # the study "sensors-wrist"
name = "wrist"
data = { manifest = "wrist.csv", primary = "motion", label = "gait" }
study = { budgets = [2, "all"] }
without = ["logistic"]               # arms that this one leaves out
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transference.core.errors import ConfigError, collect, did_you_mean, must_be
from transference.experiment.config import Config, load, parse, read

TABLES = ("data", "study", "task", "schedule", "arms")
KEYS = ("name", "without", *TABLES)


def load_all(path: str | Path) -> list[Config]:
    """The studies of a file, one for each of its [[variants]]; one where it has none, or where a folder is given.

    Raises
    ------
    ConfigError
        With every fault of the file.
    """
    path = Path(path)
    raw = {} if path.is_dir() else read(path)
    if "variants" not in raw:
        return [load(path)]
    title = str(path)
    found = []
    studies = expand(raw, title)
    with collect(title, ConfigError) as faults:
        for each in studies:
            try:
                found.append(parse(each, path.resolve().parent, each["name"]))
            except ConfigError as error:
                for message in error.faults or (str(error),):
                    faults.add(f"{each['name']}: {message}")
    return found


def expand(raw: Mapping[str, Any], title: str = "study") -> list[dict[str, Any]]:
    """Plain values of each study: those of the file, and over them, table by table, those of the variant.

    >>> [each["name"] for each in expand({"name": "a", "variants": [{"name": "b"}, {"name": "c"}]})]
    ['a-b', 'a-c']
    """
    shared = {key: value for key, value in raw.items() if key != "variants"}
    variants = raw["variants"]
    if not (isinstance(variants, list) and variants and all(isinstance(each, Mapping) for each in variants)):
        raise ConfigError(must_be(f"'variants' of {title!r}", "tables", variants, "Write [[variants]] for each."))
    with collect(title, ConfigError) as faults:
        for message in _no_tables(shared):
            faults.add(message)
        for number, each in enumerate(variants, 1):
            for message in _faults(each, f"variant {number}", shared):
                faults.add(message)
        names = [str(each.get("name")) for each in variants]
        for name in sorted({name for name in names if names.count(name) > 1}):
            faults.add(f"Two variants are called {name!r}. Give each a name of its own.")
    return [_over(shared, each) for each in variants]


def _faults(variant: Mapping[str, Any], where: str, shared: Mapping[str, Any]) -> list[str]:
    told = [f"There is no key {key!r} in {where}. {did_you_mean(key, KEYS)}" for key in variant if key not in KEYS]
    if not isinstance(variant.get("name"), str):
        told.append(f"'name' in {where} is missing. Add name = \"...\".")
    told += _no_tables(variant, f" in {where}")
    arms, without = shared.get("arms", {}), variant.get("without", [])
    if not (isinstance(without, list) and all(isinstance(name, str) for name in without)):
        told.append(must_be(f"'without' in {where}", "a list of arms", without, 'Write without = ["unimodal"].'))
    elif isinstance(arms, Mapping):
        told += [
            f"'without' in {where}: there is no arm {name!r}. {did_you_mean(name, arms)}"
            for name in without
            if name not in arms
        ]
    return told


def _no_tables(given: Mapping[str, Any], where: str = "") -> list[str]:
    wrong = [key for key in TABLES if not isinstance(given.get(key, {}), Mapping)]
    return [must_be(f"{key!r}{where}", "a table", given[key], f"Write {key} = {{ ... }}.") for key in wrong]


def _over(shared: Mapping[str, Any], variant: Mapping[str, Any]) -> dict[str, Any]:
    merged = {**shared, "name": f"{shared.get('name', 'study')}-{variant['name']}"}
    for key in TABLES:
        if key in shared or key in variant:
            merged[key] = {**shared.get(key, {}), **variant.get(key, {})}
    without = variant.get("without", [])
    merged["arms"] = {name: arm for name, arm in merged.get("arms", {}).items() if name not in without}
    return merged
