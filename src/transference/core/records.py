"""What a study leaves behind: frozen records, to and from JSON. No torch."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any, Literal

from numpy.typing import NDArray

from transference.core.errors import DataError, must_be

Status = Literal["ok", "failed", "diverged", "out_of_memory"]


@dataclass(frozen=True)
class Finding:
    """One measured number: the only thing that the report knows.

    `low` and `high` bound a 95 % interval where there is one. `of` says of what: ``{"modality": "audio"}``.
    """

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    unit: str = ""
    better: Literal["higher", "lower", "neither"] = "neither"
    bounds: tuple[float | None, float | None] = (None, None)
    n: int = 0
    of: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Environment:
    """What a cell ran on."""

    python: str
    platform: str
    processor: str
    packages: Mapping[str, str]
    threads: int
    device: str


@dataclass(frozen=True)
class Cell:
    """One point of a study: an arm, a control or none, a seed, a label budget.

    `arm` is the name in the study file, `method` the id behind it. `budget` is labelled rows per class, a fraction
    below 1 of the labelled rows, or "all".
    """

    arm: str
    method: str
    parameters: Mapping[str, Any]
    control: str | None
    seed: int
    budget: int | float | str


@dataclass(frozen=True)
class RunRecord:
    """What one cell left behind, whether it worked or not.

    Attributes
    ----------
    hash
        `cell_hash` of `cell`, `setting` and `data`.
    study, cell, status, error
        `error` is the message of a cell that is not "ok", with its last lines of traceback.
    task
        ``{"kind": ..., "classes": [...], "metric": ...}``.
    data
        Fingerprint of the data.
    rows
        How many rows were labelled, unlabelled, and tested.
    history
        Named losses (means between two checks) and "update", lists of equal length; empty for estimators.
    findings
        Scores on the test rows, and what probes added.
    predictions
        SHA-256 of the file beside the record that holds test rows, targets and scores; "" when there is none.
    seconds, peak_memory
        Wall seconds of fit and predict; bytes.
    card
        ``{"at_test": ..., "needs": [...]}`` of the method's Card.
    model
        SHA-256 of ``model.safetensors`` followed by ``model.json``; "" when no network was kept.
    setting
        What bears on the result besides the cell and the data: the schedule, the share of test rows, every parameter of
        the method with its default, the source of a method of another package.
    """

    hash: str
    study: str
    cell: Cell
    status: Status
    error: str
    environment: Environment
    task: Mapping[str, Any]
    data: str
    rows: Mapping[str, int]
    history: Mapping[str, list[float]]
    findings: tuple[Finding, ...]
    predictions: str
    seconds: float
    peak_memory: int
    card: Mapping[str, Any] = field(default_factory=dict)
    model: str = ""
    setting: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps(_plain(asdict(self)), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> RunRecord:
        """Raises DataError when the text is not a whole record, or a value in it has another type than it should."""
        try:
            raw = _unplain(json.loads(text))
            _check_types(raw)
            return cls(
                **{
                    **raw,
                    "cell": Cell(**raw["cell"]),
                    "environment": Environment(**raw["environment"]),
                    "findings": tuple(Finding(**{**each, "bounds": tuple(each["bounds"])}) for each in raw["findings"]),
                }
            )
        except (ValueError, TypeError, KeyError) as error:
            what = str(error).rstrip(".")
            raise DataError(f"A record is damaged: {what}. Run the study again; its cell will be repeated.") from error


def cell_hash(cell: Cell, setting: Mapping[str, Any], data: str) -> str:
    """32 hexadecimal digits of a cell, its setting and its data's fingerprint; the same after a way through JSON."""
    content = {"cell": asdict(cell), "setting": setting, "data": data}
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class Predictions:
    """What one cell answered for the test rows; lies beside its record as ``predictions.safetensors``.

    `rows` (n,) int64, rows in the manifest; `target` (n,) int64 class numbers or float32 values; `scores` (n, classes)
    or (n, outputs) float32.
    """

    rows: NDArray[Any]
    target: NDArray[Any]
    scores: NDArray[Any]


@cache
def _types() -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(RunRecord)


def _check_types(raw: Any) -> None:
    from pydantic import ValidationError

    try:
        _types().validate_json(json.dumps(raw), strict=True)
    except ValidationError as error:
        fault = error.errors()[0]
        place = repr(".".join(map(str, fault["loc"])) or "record")
        if fault["type"] == "missing":
            raise DataError(f"{place} is missing") from error
        raise DataError(must_be(place, fault["msg"].removeprefix("Input should be "), fault["input"])) from error
    lengths = {name: len(line) for name, line in raw["history"].items()}
    if len(set(lengths.values())) > 1:
        raise DataError(must_be("'history'", "lists of equal length", lengths))


_SPECIAL = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value


def _unplain(value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {"float"} and value["float"] in _SPECIAL:
            return _SPECIAL[value["float"]]
        return {key: _unplain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_unplain(each) for each in value]
    return value
