"""One cell becomes one record: split, budget, control, fit, predict, score. Whatever goes wrong is a record too."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from transference.core.errors import DivergenceError
from transference.core.method import Method
from transference.core.records import Cell, Environment, Predictions, RunRecord, Status
from transference.core.registry import create, find
from transference.core.seeding import fence
from transference.core.spec import spec_from_json, spec_to_json
from transference.data.corrupt import CONTROLS, control
from transference.data.dataset import Dataset
from transference.data.split import split_rows
from transference.experiment.config import Config
from transference.experiment.plan import budget_of, task_of
from transference.experiment.protocol import answer, fit, kept_labels, kind_of, rows_of
from transference.experiment.setting import package_digest, setting_of
from transference.experiment.store import Model, model_digest, prediction_bytes
from transference.train.schedule import Schedule

PACKAGES = ("transference", "numpy", "scipy", "scikit-learn", "torch")
_ONE_AT_A_TIME = threading.Lock()  # torch's and numpy's random state is one a process


@dataclass(frozen=True)
class Outcome:
    """What a cell hands to the store."""

    record: RunRecord
    predictions: Predictions | None = None
    model: Model | None = None


def run_cell(config: Config, cell: Cell, data: Dataset, digest: str, fingerprint: str) -> Outcome:
    """Run one cell in this process, on one thread.

    Parameters
    ----------
    config, cell, data
        The study, one of its cells, all rows.
    digest, fingerprint
        The hash of the cell and that of the data.
    """
    import torch

    with _ONE_AT_A_TIME, threadpool_limits(1), fence(cell.seed, "cell"):
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return _run(config, cell, data, digest, fingerprint)
        finally:
            torch.set_num_threads(threads)


def fit_cell(config: Config, cell: Cell, data: Dataset) -> tuple[Method, dict[str, int]]:
    """The fitted method of a cell, and how many rows there were of each sort."""
    split = rows_of(config, data, cell.seed)
    X, y = data.views[split.train], data.y[split.train].copy()
    kept = kept_labels(y, budget_of(cell, config), cell.seed)
    y[~kept] = np.nan if y.dtype.kind == "f" else None
    if cell.control in CONTROLS:
        X = control(X, cell.control, cell.seed, data.views.secondary)
    method = fit(new_method(config, cell), X, y, kind_of(config, data))
    labelled = int(kept.sum())
    rows = {"labelled": labelled, "unlabelled": len(y) - labelled, "test": len(split.test)}
    drawn = split_rows(data, cell.seed, config.data.test).test
    lacking = int((~data.views.present[data.views.primary][drawn]).sum())
    if lacking:
        rows["test, not scored: no primary"] = lacking
    return method, rows


def new_method(config: Config, cell: Cell) -> Method:
    """The unfitted method of a cell, with the study's schedule and the cell's seed where it takes them."""
    known = find(cell.method)._get_param_names()
    shared = {"seed": cell.seed, "schedule": config.schedule}
    return create(cell.method, **cell.parameters, **{name: value for name, value in shared.items() if name in known})


def to_model(method: Method) -> Model | None:
    """The network that answers for a fitted method; None where an estimator answers."""
    answering = method.deployed()
    net = getattr(answering, "net_", None)
    parameters = {name: _plain(value) for name, value in answering.get_params(deep=False).items()}
    if net is None or not hasattr(answering, "restore") or any(value is _UNKNOWN for value in parameters.values()):
        return None
    module = type(answering).__module__
    own = module.startswith("transference.")
    about = {
        "method": module.removeprefix("transference.") if own else f"{module}:{type(answering).__qualname__}",
        "parameters": parameters,
        "spec": json.loads(spec_to_json(answering.spec_)),
    }
    state = {name: value.detach().cpu().numpy().copy() for name, value in net.state_dict().items()}
    return Model(json.dumps(about, indent=1, sort_keys=True, ensure_ascii=False), state)


def from_model(model: Model) -> Method:
    """The fitted method that `to_model` took apart; on another device where this machine lacks that of its training."""
    import torch

    about = json.loads(model.about)
    parameters = about["parameters"]
    if parameters.get("schedule") is not None:
        schedule = Schedule(**parameters["schedule"])
        parameters["schedule"] = replace(schedule, device="auto") if missing_device(schedule.device) else schedule
    method: Any = create(about["method"], **parameters)
    state = {name: torch.from_numpy(value.copy()) for name, value in model.state.items()}
    restored: Method = method.restore(spec_from_json(json.dumps(about["spec"])), state)
    return restored


def blank(config: Config, cell: Cell, data: Dataset, digest: str, fingerprint: str) -> RunRecord:
    """The record of a cell before anything has happened: failed, and without a reason."""
    task = task_of(config, data)
    where = environment(config.schedule.device)
    card = find(cell.method).card
    return RunRecord(
        digest,
        config.name,
        cell,
        status="failed",
        error="",
        environment=where,
        task=task,
        data=fingerprint,
        rows={},
        history={},
        findings=(),
        predictions="",
        seconds=0.0,
        peak_memory=0,
        card={"at_test": card.at_test, "needs": sorted(card.needs)},
        setting=setting_of(cell, config),
    )


def missing_device(name: str) -> str:
    """Why torch can not use a device on this machine; "" where it can."""
    import torch

    try:
        torch.empty(0, device="cpu" if name == "auto" else name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        return str(error).partition("\n")[0].rstrip(".")
    return ""


def environment(device: str) -> Environment:
    """What this process runs on, for a schedule that asks for `device`."""
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    there = device.startswith("cuda") and not missing_device(device)  # a cluster's head may lack what its workers have
    shown = f"{device}: {torch.cuda.get_device_name(device)}" if there else device
    processor = platform.processor() or platform.machine()
    return Environment(platform.python_version(), platform.platform(), processor, versions(), 1, shown)


def _run(config: Config, cell: Cell, data: Dataset, digest: str, fingerprint: str) -> Outcome:
    record = blank(config, cell, data, digest, fingerprint)
    _forget_peak()
    start = time.perf_counter()
    try:
        method, rows = fit_cell(config, cell, data)
        predictions, findings = answer(method, config, data, cell.seed)
        seconds = time.perf_counter() - start
        model = None if cell.control is not None else to_model(method)
    except Exception as error:
        status, message = _explain(error)
        seconds = time.perf_counter() - start
        return Outcome(replace(record, status=status, error=message, seconds=seconds, peak_memory=_peak()))
    history = {name: [float(value) for value in line] for name, line in getattr(method, "history_", {}).items()}
    record = replace(
        record,
        status="ok",
        rows=rows,
        history=history,
        findings=tuple(findings),
        predictions=hashlib.sha256(prediction_bytes(predictions)).hexdigest(),
        model="" if model is None else model_digest(model),
        seconds=seconds,
        peak_memory=_peak(),
    )
    return Outcome(record, predictions, model)


def _explain(error: Exception) -> tuple[Status, str]:
    """The status of a cell that raised, and the message with the last lines of its traceback."""
    name = type(error).__name__
    message = str(error) or name
    if isinstance(error, DivergenceError):
        status: Status = "diverged"
    elif isinstance(error, MemoryError) or name == "OutOfMemoryError" or "can't allocate memory" in message:
        status, message = "out_of_memory", f"{message}. Lower the schedule's batch_size, or run fewer workers."
    else:
        status, message = "failed", f"{name}: {message}"
    lines = [
        f"  {Path(frame.filename).name}:{frame.lineno} in {frame.name}: {frame.line}"
        for frame in traceback.extract_tb(error.__traceback__)[-3:]
    ]
    text = "\n".join([message, *lines])
    return status, text.encode(errors="backslashreplace").decode()  # a broken file name has halves of characters


_UNKNOWN = object()


def _plain(value: Any) -> Any:
    """A parameter as JSON would hold it; _UNKNOWN where it can not."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    try:
        return json.loads(json.dumps(value))
    except TypeError:
        return _UNKNOWN


@lru_cache(maxsize=1)
def versions() -> Mapping[str, str]:
    """Of the packages that bear on results; this one's with a digest of its source."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    if "transference" in found:
        found["transference"] += f"+{package_digest()}"
    return found


def _forget_peak() -> None:
    """Start the process's peak of memory anew, where the system can (Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _peak() -> int:
    """Largest resident memory in bytes, since `_forget_peak` or since the process began."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
