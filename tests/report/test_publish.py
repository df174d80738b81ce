"""The page of a study that is on disk."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from small_studies import Study, answers

from transference.core.records import cell_hash
from transference.experiment.publish import publish
from transference.experiment.store import Store, prediction_bytes


def test_cells_that_have_not_run_are_counted_and_leaks_are_told(tmp_path):
    study, store, hashes = Study(), Store(tmp_path), []
    for seed in range(2):
        found = answers([1, 0, 1])
        study.add("unimodal", seed, found)
        record = study.records[-1]
        digest = hashlib.sha256(prediction_bytes(found)).hexdigest()
        hashes.append(cell_hash(record.cell, record.setting, record.data))
        store.write(replace(record, hash=hashes[-1], predictions=digest), found)
    about = {"config": {}, "fingerprint": "", "cells": hashes, "data": {}}
    store.begin(about | {"cells": [*hashes, "f" * 32], "data": {"leaks": ["Three <rows> are in both."]}})
    notes = publish(tmp_path)["notes"]
    assert notes[0] == "Three <rows> are in both."
    assert "1 of 3 cells have not run yet, or are damaged." in notes
    page = (tmp_path / "report.html").read_text()
    assert "Three &lt;rows&gt; are in both." in page
    assert "1 of 3 cells have not run yet, or are damaged." in page
    store.begin(about)
    assert not any("have not run yet" in note for note in publish(tmp_path)["notes"])
