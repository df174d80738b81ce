"""A study file becomes a Config; every fault of the file is told at once, with its place and its remedy. No torch.

name = "my-study"

[data]                               # a named set, or a manifest
manifest = "rows.csv"                # relative to the study file
primary = "audio"
secondary = ["text"]                 # all others, when left out
label = "emotion"

[study]
seeds = 5                            # or [0, 1, 2]
budgets = [2, 10, "all"]             # labelled rows per class, a share below 1, or { yes = 3, no = 9 }
controls = ["shuffle", "noise"]

[task]                               # what is asked; left out: what the labels pose
kind = "few_shot"                    # or "retrieval", "zero_shot", "generation"
unseen = ["bee", "wasp"]             # classes of which no row trains, for "zero_shot" and "few_shot"
tree = { bee = "insect" }            # child to parent, for "zero_shot": how near a wrong class is counts

[schedule]
updates = 500

[arms."transfer.distillation"]       # parameters of the method may follow
[arms.boosted]
method = "unimodal"

[arms.plain]                         # a control of another arm: it can not win, but what it gains was not transferred
method = "unimodal"
control_of = "transfer.distillation"
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Literal, get_type_hints

from pydantic import BaseModel, Field, ValidationError, create_model, field_validator, model_validator

from transference.core.errors import ConfigError, collect, did_you_mean, must_be
from transference.core.metrics import METRICS
from transference.core.registry import names
from transference.core.spec import OF_TWO
from transference.data.corrupt import CONTROLS, Control
from transference.data.modality import ModalityConfig
from transference.experiment.arms import Arm, Table, read_arms
from transference.experiment.store import Store
from transference.train.schedule import Schedule

Budget = int | float | str | dict[str, int]
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class DataConfig(Table):
    """[data]: where the rows come from and what is predicted from what."""

    set: str | None = Field(default=None, description="See 'transference data list'.")
    manifest: str | None = Field(default=None, description="Write the path of a CSV or Parquet file.")
    variant: str | None = None
    primary: str | None = Field(default=None, description="Name one modality.")
    secondary: list[str] | None = Field(default=None, description='Write a list of modalities: secondary = ["text"].')
    label: str | None = Field(default=None, description="Name one column.")
    split: str | None = Field(default=None, description="Name one column.")
    group: str | None = Field(default=None, description="Name one column.")
    id: str | None = Field(default=None, description="Name one column.")
    task: Literal["classification", "regression"] = "classification"
    test: float = Field(default=0.25, gt=0, lt=1, description="It is the share of the rows that test.")
    modalities: dict[str, ModalityConfig] = Field(default={}, description="Write [data.modalities.NAME] for each.")


class StudyConfig(Table):
    """[study]: what is compared."""

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    budgets: tuple[Budget, ...] = ("all",)
    metric: str | None = None
    controls: tuple[Control, ...] = Field(default=("shuffle",), description="Write a list of them, or [] for none.")
    baseline: str = Field(default="unimodal", description="Name an arm.")
    workers: int = Field(default=1, ge=1)

    @field_validator("seeds", mode="before")
    @classmethod
    def _seeds(cls, given: Any) -> tuple[int, ...]:
        if _is_whole(given) and given >= 1:
            return tuple(range(given))
        if isinstance(given, list | tuple) and given and all(_is_whole(seed) and seed >= 0 for seed in given):
            return tuple(dict.fromkeys(given))
        raise ValueError(
            must_be("'seeds' in [study]", "a number or a list of integers of at least 0", given, "Write seeds = 5.")
        )

    @field_validator("budgets", mode="before")
    @classmethod
    def _budgets(cls, given: Any) -> tuple[Budget, ...]:
        budgets = list(given) if isinstance(given, list | tuple) else []
        if not budgets:
            raise ValueError(must_be("'budgets' in [study]", "a list", given, 'Write budgets = [2, 10, "all"].'))
        for budget in budgets:
            by_class = isinstance(budget, dict) and budget and all(_is_whole(n) and n >= 1 for n in budget.values())
            share = isinstance(budget, float) and 0 < budget < 1
            if not (budget == "all" or by_class or share or (_is_whole(budget) and budget >= 0)):
                raise ValueError(
                    must_be(
                        "A budget in [study]",
                        'labelled rows per class (an integer), a share in (0, 1), "all", or a table of rows by class',
                        budget,
                    )
                )
        return tuple({budget_name(budget): budget for budget in budgets}.values())

    @field_validator("controls", mode="before")
    @classmethod
    def _controls(cls, given: Any) -> Any:
        if isinstance(given, list | tuple):
            for each in given:
                if each not in CONTROLS:
                    raise ValueError(f"There is no control {each!r}. {did_you_mean(str(each), CONTROLS)}")
            return tuple(dict.fromkeys(given))
        return given

    @field_validator("metric")
    @classmethod
    def _metric(cls, given: str | None) -> str | None:
        if given is not None and given not in METRICS:
            raise ValueError(f"There is no metric {given!r}. {did_you_mean(given, METRICS)}")
        return given


class TaskConfig(Table):
    """[task]: what is asked of every arm."""

    kind: Literal["classification", "regression", "retrieval", "zero_shot", "few_shot", "generation"] | None = None
    to: str | None = Field(default=None, description="Name a secondary modality.")
    unseen: list[str] = Field(default=[], description='Write a list of classes: unseen = ["bee", "wasp"].')
    tree: dict[str, str] = Field(
        default={}, description='Write the parent of each: tree = { cat = "pet", dog = "pet" }.'
    )
    way: int = Field(default=5, ge=2, description="It is how many classes an episode has.")
    shot: int = Field(default=1, ge=1, description="It is how many rows of each class are shown.")
    queries: int = Field(default=10, ge=1, description="It is how many rows of each class are asked.")
    episodes: int = Field(default=100, ge=1)


_hints = get_type_hints(Schedule)
ScheduleConfig: type[BaseModel] = create_model(
    "ScheduleConfig", __base__=Table, **{each.name: (_hints[each.name], each.default) for each in fields(Schedule)}
)  # type: ignore[call-overload]


class Config(Table):
    """A study, as its file says; paths are absolute."""

    name: str
    data: DataConfig
    study: StudyConfig = StudyConfig()
    task: TaskConfig = TaskConfig()
    schedule: Schedule = Schedule()
    arms: dict[str, Arm]

    @field_validator("name")
    @classmethod
    def _safe(cls, given: str) -> str:
        if not SAFE_NAME.fullmatch(given) or ".." in given:
            raise ValueError(
                must_be(
                    "'name'", "letters, digits, '.', '_' and '-', up to 100", given, "It names a folder under runs."
                )
            )
        return given

    @field_validator("schedule", mode="plain")
    @classmethod
    def _schedule(cls, given: Any) -> Schedule:
        return given if isinstance(given, Schedule) else Schedule(**ScheduleConfig.model_validate(given).model_dump())

    @model_validator(mode="after")
    def _baseline(self) -> Config:
        """The baseline is an arm; where none is named and the task is of two modalities, the first arm that can."""
        if self.task.kind in OF_TWO and "baseline" not in self.study.model_fields_set:
            able = [name for name, arm in self.arms.items() if not arm.control_of and self.task.kind in arm.tasks()]
            if able:
                return self.model_copy(update={"study": self.study.model_copy(update={"baseline": able[0]})})
        if self.study.baseline not in self.arms:
            if self.study.baseline not in names():
                raise ValueError(
                    f"The baseline {self.study.baseline!r} of [study] is no arm. "
                    f"{did_you_mean(self.study.baseline, [*self.arms, 'unimodal'])}"
                )
            self.arms[self.study.baseline] = Arm(method=self.study.baseline, parameters={})
        return self

    @model_validator(mode="after")
    def _arms_as_controls(self) -> Config:
        arms = {name for name, arm in self.arms.items() if arm.control_of is None}
        for name, arm in self.arms.items():
            if arm.control_of is None:
                continue
            if arm.control_of not in arms:
                raise ValueError(
                    f"'control_of' in [arms.{json.dumps(name)}]: {arm.control_of!r} is no arm that can have controls. "
                    f"{did_you_mean(arm.control_of, sorted(arms))}"
                )
            if name in CONTROLS or name == self.study.baseline:
                what = "a control of the data" if name in CONTROLS else "the baseline"
                raise ValueError(
                    f"[arms.{json.dumps(name)}] is a control of an arm and has the name of {what}. Rename it."
                )
        return self

    def to_json(self) -> dict[str, Any]:
        """Plain values that `parse` reads."""
        plain = self.model_dump(mode="json", include={"name", "study"}, exclude_none=True)
        plain["data"] = self.data.model_dump(mode="json", exclude_defaults=True)
        if self.task != TaskConfig():
            plain["task"] = self.task.model_dump(mode="json", exclude_defaults=True)
        plain["schedule"] = {key: value for key, value in asdict(self.schedule).items() if value is not None}
        plain["arms"] = {name: arm.to_json() for name, arm in self.arms.items()}
        return plain


def load(path: str | Path) -> Config:
    """Read the study of a file, or of a folder that a run wrote.

    Raises
    ------
    ConfigError
        With every fault of the file; where it holds several, see `variants.load_all`.
    DataError
        Where a folder holds no whole study.
    """
    path = Path(path)
    if path.is_dir():
        return parse(Store(path).study()["config"], path, str(path / "study.json"))
    raw = read(path)
    if "variants" in raw:
        raise ConfigError(f"{str(path)!r} holds several studies. Read them with load_all.")
    return parse(raw, path.resolve().parent, str(path))


def read(path: Path) -> dict[str, Any]:
    """Plain values of a study file; raises ConfigError unless it is TOML."""
    if not path.is_file():
        raise ConfigError(f"There is no study file {str(path)!r}. Write one with 'transference init'.")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{str(path)!r} is not TOML: {error}. Mend this line; strings need quotes.") from error


def parse(raw: Mapping[str, Any], folder: Path = Path(), title: str = "study") -> Config:
    """A Config from plain values.

    Parameters
    ----------
    raw
        What the study file holds.
    folder
        What a relative manifest path starts from.
    title
        How errors call the file.
    """
    found: list[Config] = []
    with collect(title, ConfigError) as faults:
        arms, messages = read_arms(raw.get("arms", {}))
        for message in _data_faults(raw.get("data"), folder):
            faults.add(message)
        try:
            found.append(Config.model_validate({**raw, "arms": arms}))
        except ValidationError as error:
            for fault in error.errors():
                faults.add(_wording(fault, raw))
        for message in messages:
            faults.add(message)
    config = found[0]
    if config.data.manifest is None:
        return config
    manifest = str((folder / config.data.manifest).resolve())
    return config.model_copy(update={"data": config.data.model_copy(update={"manifest": manifest})})


def budget_name(budget: Budget) -> str:
    """How a budget is written in records: ``"all"``, ``"10"``, ``"course=3, other=9"``.

    >>> budget_name({"other": 9, "course": 3})
    'course=3, other=9'
    """
    if isinstance(budget, dict):
        return ", ".join(f"{name}={rows}" for name, rows in sorted(budget.items()))
    return str(budget)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _data_faults(data: Any, folder: Path) -> Iterator[str]:
    """What [data] must say beyond its types."""
    if not isinstance(data, Mapping):
        return
    if ("set" in data) == ("manifest" in data):
        got = "both" if "set" in data else "neither"
        yield must_be(
            "[data]", "either a 'set' or a 'manifest'", got, 'Write set = "digits", or manifest = "rows.csv".'
        )
    elif "set" in data:
        for key in ("label", "split", "group", "id", "task", "modalities"):
            if key in data:
                yield f"{key!r} in [data] belongs to a manifest, and a named set knows its own. Leave it out."
    else:
        for key in ("primary", "label"):
            if key not in data:
                yield f'[data] must say {key!r} where it has a manifest. Add {key} = "...".'
        if isinstance(data["manifest"], str) and not (folder / data["manifest"]).is_file():
            yield f"There is no manifest {data['manifest']!r} beside the study file. Write its path from there."
        if "variant" in data:
            yield "'variant' in [data] belongs to a named set. Leave it out."
    if isinstance(data.get("secondary"), list) and data.get("primary") in data["secondary"]:
        yield f"{data['primary']!r} in [data] is primary and secondary. Name it once."


_MODELS: Mapping[str, type[BaseModel]] = {
    "data": DataConfig,
    "study": StudyConfig,
    "task": TaskConfig,
    "schedule": ScheduleConfig,
}


def _wording(fault: Any, raw: Mapping[str, Any]) -> str:
    """A fault of pydantic in the house's words."""
    place = [str(part) for part in fault["loc"]]
    of_modality = place[:2] == ["data", "modalities"] and len(place) > 2
    if fault["type"] == "value_error":
        return (f"[{'.'.join(place[:3])}]: " if of_modality else "") + str(fault["ctx"]["error"])
    key, table = place[-1], place[:-1]
    where = f" in [{'.'.join(table)}]" if table else ""
    model = Config if not table else ModalityConfig if of_modality else _MODELS.get(table[0])
    options = list(model.model_fields) if model else []
    if fault["type"] == "extra_forbidden":
        return f"There is no key {key!r}{where}. {did_you_mean(key, options)}"
    if fault["type"] == "missing":
        return f"{key!r}{where} is missing. Add {f'[{key}]' if key in _MODELS else f'{key} = ...'}"
    if fault["type"] in ("model_type", "dict_type"):
        return must_be(f"{key!r}{where}", "a table", fault["input"], f"Write [{'.'.join(place)}] and keys below it.")
    about = model.model_fields.get(place[1] if table and len(place) > 1 else key) if model else None
    remedy = (about.description if about else None) or ""
    return must_be(f"{key!r}{where}", fault["msg"].removeprefix("Input should be "), fault["input"], remedy)
