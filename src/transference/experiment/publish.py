"""The page of a study, from its records alone."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from transference.core.errors import DataError
from transference.experiment.store import Store
from transference.report.page import render
from transference.report.summary import summarise


def publish(folder: str | Path) -> dict[str, Any]:
    """Write ``summary.json`` and ``report.html`` into a study's folder and return the summary.

    Raises
    ------
    DataError
        When the folder holds no finished cell.
    """
    store = Store(Path(folder))
    records = store.records()
    if not records:
        raise DataError(f"The folder {str(folder)!r} holds no finished cell. Run the study first: transference run")
    predictions = {record.hash: store.predictions(record.hash) for record in records if record.status == "ok"}
    study = store.study()
    summary = summarise(records, predictions, study["data"])
    unfinished = len(study["cells"]) - len(records)
    if unfinished:
        summary["notes"].append(f"{unfinished} of {len(study['cells'])} cells have not run yet, or are damaged.")
    text = json.dumps(summary, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    _write(store.folder / "summary.json", text + "\n")
    _write(store.folder / "report.html", render(summary, records))
    return summary


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
