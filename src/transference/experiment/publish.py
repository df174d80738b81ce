"""The page of a study, from its records alone."""

from __future__ import annotations

import json
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
        When the folder holds no finished cell, or can not be written; the files that were there stay as they were.
    """
    store = Store(Path(folder))
    study, records = store.study(), store.records()
    if not records:
        first = next(iter(store.damaged().values()), "Run the study first: transference run")
        raise DataError(f"The folder {str(folder)!r} holds no whole finished cell. {first}")
    predictions = {record.hash: store.predictions(record.hash) for record in records if record.status == "ok"}
    summary = summarise(records, predictions, study["data"])
    unfinished = len(study["cells"]) - len(records)
    if unfinished:
        summary["notes"].append(f"{unfinished} of {len(study['cells'])} cells have not run yet, or are damaged.")
    text = json.dumps(summary, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    store.put({"summary.json": text + "\n", "report.html": render(summary, records)})
    return summary
