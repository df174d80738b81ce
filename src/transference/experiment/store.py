"""What a study leaves on disk: ``runs/<study>/<hash>/``, each cell written in one piece or not at all.

study.json                                 the config, the cells it stands for, what the data are
<hash>/record.json                         the record of a cell
<hash>/predictions.safetensors             rows, targets and scores of its test rows
<hash>/model.safetensors, model.json       the network that answers, where there is one, for cells without a control
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from transference.core.errors import DataError
from transference.core.records import Predictions, RunRecord, cell_hash

PARTIAL = ".partial-"
STUDY = {"config": dict, "cells": list, "data": dict, "fingerprint": str}


@dataclass(frozen=True)
class Model:
    """A fitted network: `about` is the text of model.json, `state` its numbers by name."""

    about: str
    state: Mapping[str, NDArray[Any]]


class Store:
    """The folder of one study.

    Parameters
    ----------
    folder
        ``runs/<study>``; made when something is written.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def begin(self, study: Mapping[str, Any]) -> None:
        """Say which study this is; ``study["cells"]`` lists the hashes that belong to it, in order."""
        with _on_disk(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            for leftover in self.folder.glob(f"{PARTIAL}*"):
                shutil.rmtree(leftover)
        self.put({"study.json": json.dumps(study, indent=1, sort_keys=True, ensure_ascii=False)})

    def put(self, texts: Mapping[str, str]) -> None:
        """Write files of the study as a whole, by name: where one can not be written, all stay as they were."""
        partials = {self.folder / f".{name}.part": self.folder / name for name in texts}
        with _on_disk(self.folder, *partials):
            for partial, text in zip(partials, texts.values(), strict=True):
                _write_file(partial, text.encode())
            for partial, path in partials.items():
                os.replace(partial, path)
            _sync_folder(self.folder)

    def study(self) -> dict[str, Any]:
        """What `begin` wrote: "config", "cells", "data" and "fingerprint"."""
        path = self.folder / "study.json"
        if not path.is_file():
            raise DataError(
                f"There is no study in {str(self.folder)!r}: it has no study.json. "
                "Name the folder that 'transference run' wrote, such as runs/demo."
            )
        try:
            found = json.loads(path.read_bytes())
            wrong = [name for name, kind in STUDY.items() if not isinstance(found[name], kind)]
            if wrong or not all(isinstance(cell, str) for cell in found["cells"]):
                raise TypeError(f"{', '.join(wrong) or 'cells'} is of another type than it should be")
        except (OSError, ValueError, TypeError, KeyError) as error:
            what = f"it has no {error}" if isinstance(error, KeyError) else error
            raise DataError(
                f"{str(path)!r} is damaged: {what}. Run the study again from its study file; finished cells are kept."
            ) from error
        return dict(found)

    def records(self) -> list[RunRecord]:
        """The study's records whose predictions are whole too, in its order; see `damaged` for the others."""
        return self._read_all()[0]

    def damaged(self) -> dict[str, str]:
        """Hash -> what is wrong, for cells whose record, predictions or network is not whole; a run runs them again."""
        whole, damaged = self._read_all()
        for record in whole:
            try:
                self._model(record)
            except DataError as error:
                damaged[record.hash] = str(error)
        return damaged

    def record(self, cell: str) -> RunRecord:
        """The record of a cell, its predictions checked against it."""
        folder = self.folder / cell
        try:
            record = RunRecord.from_json((folder / "record.json").read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(
                f"The record of cell {cell} is damaged: {error}. Run the study again; the cell will be repeated."
            ) from error
        except DataError as error:
            raise DataError(f"{str(folder / 'record.json')!r}: {error}") from error
        if record.hash != cell:
            raise DataError(f"The record in {str(folder)!r} belongs to cell {record.hash}. Run the study again.")
        if cell_hash(record.cell, record.setting, record.data) != cell:
            raise DataError(
                f"The record of cell {cell} was changed, or is of another version: "
                "its cell, setting and data do not give its hash. "
                "Run the study again; the cell will be repeated."
            )
        if record.status == "ok":
            self._prediction_bytes(cell, record.predictions)
        return record

    def predictions(self, cell: str) -> Predictions:
        """What a cell answered for its test rows."""
        arrays = load(self._prediction_bytes(cell, self.record(cell).predictions))
        return Predictions(arrays["rows"], arrays["target"], arrays["scores"])

    def model(self, cell: str) -> Model | None:
        """The network of a cell, checked against its record; None where none was kept."""
        return self._model(self.record(cell))

    def write(self, record: RunRecord, predictions: Predictions | None, model: Model | None = None) -> None:
        """Put a cell on disk in one piece, in place of what was there.

        Raises
        ------
        DataError
            When the disk is full; nothing half-written stays.
        """
        folder = self.folder / record.hash
        partial = self.folder / f"{PARTIAL}{record.hash}"
        with _on_disk(self.folder, partial):
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            if predictions is not None:
                _write_file(partial / "predictions.safetensors", prediction_bytes(predictions))
            if model is not None:
                _write_file(partial / "model.safetensors", _save(model.state))
                _write_file(partial / "model.json", model.about.encode())
            _write_file(partial / "record.json", record.to_json().encode())
            _sync_folder(partial)
            if folder.exists():
                shutil.rmtree(folder)
            os.replace(partial, folder)
            _sync_folder(self.folder)

    def rewrite(self, record: RunRecord) -> None:
        """Replace the text of a record whose predictions stay."""
        folder = self.folder / record.hash
        partial = folder / ".record.json.part"
        with _on_disk(self.folder, partial):
            _write_file(partial, record.to_json().encode())
            os.replace(partial, folder / "record.json")
            _sync_folder(folder)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Inside, no other process runs this study; the system frees the lock of a process that was killed."""
        try:
            import fcntl
        except ImportError:  # Windows
            yield
            return
        with _on_disk(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            handle = (self.folder / ".lock").open("w")
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise DataError(
                    f"Another process is running the study in {str(self.folder)!r}. Wait for it, or stop it first."
                ) from error
            yield

    def _read_all(self) -> tuple[list[RunRecord], dict[str, str]]:
        whole, damaged = [], {}
        for cell in self.study()["cells"]:
            if (self.folder / cell).is_dir():
                try:
                    whole.append(self.record(cell))
                except DataError as error:
                    damaged[cell] = str(error)
        return whole, damaged

    def _model(self, record: RunRecord) -> Model | None:
        if not record.model:
            return None
        cell, folder = record.hash, self.folder / record.hash
        try:
            numbers, about = (folder / "model.safetensors").read_bytes(), (folder / "model.json").read_bytes()
        except OSError as error:
            raise DataError(
                f"The model of cell {cell} can not be read: {error}. Run the study again; the cell will be repeated."
            ) from error
        if hashlib.sha256(numbers + about).hexdigest() != record.model:
            raise DataError(
                f"The model of cell {cell} is damaged: it lacks the sum that its record states. "
                "Run the study again; the cell will be repeated."
            )
        return Model(about.decode(), load(numbers))

    def _prediction_bytes(self, cell: str, digest: str) -> bytes:
        path = self.folder / cell / "predictions.safetensors"
        content = path.read_bytes() if path.is_file() else b""
        if not digest or hashlib.sha256(content).hexdigest() != digest:
            raise DataError(
                f"The predictions of cell {cell} are {'damaged' if content else 'missing'}: they lack the sum that "
                "its record states. Run the study again; the cell will be repeated."
            )
        return content


def prediction_bytes(predictions: Predictions) -> bytes:
    """The content of predictions.safetensors; equal predictions give equal bytes."""
    return _save({"rows": predictions.rows, "target": predictions.target, "scores": predictions.scores})


def model_digest(model: Model) -> str:
    """What `RunRecord.model` states: the SHA-256 of model.safetensors followed by model.json."""
    return hashlib.sha256(_save(model.state) + model.about.encode()).hexdigest()


def _save(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """safetensors.numpy writes the memory of an array as if its rows were contiguous: see that they are."""
    return save({name: np.array(array, order="C") for name, array in arrays.items()})


def _write_file(path: Path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def _on_disk(folder: Path, *partials: Path) -> Iterator[None]:
    """A write that fails leaves nothing half-written and says so in one message."""
    try:
        yield
    except OSError as error:
        for partial in partials:
            shutil.rmtree(partial, ignore_errors=True)
            with suppress(OSError):
                partial.unlink()
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise DataError(
            f"The disk that holds {str(folder)!r} is full. "
            "Free some space and run the study again; finished cells are kept."
            if full
            else f"{str(folder)!r} can not be written: {error}. Choose another folder with --runs, or mend this one."
        ) from error
