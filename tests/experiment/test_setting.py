"""What a cell's setting holds, so that no result is taken for one that was computed otherwise."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from small_study import small_config, small_data

import transference.experiment.runner as runner
from transference.core.records import Cell
from transference.core.registry import ROOT, find, names
from transference.core.spec import ModalitySpec
from transference.experiment import setting
from transference.experiment.runner import run
from transference.experiment.setting import package_digest, plain, setting_of, source_digest
from transference.experiment.store import Store
from transference.unimodal import Unimodal

CELL = Cell("unimodal", "unimodal", {"width": 8}, None, 0, 2)


@pytest.mark.parametrize("method", names())
def test_every_method_has_its_parameters_with_their_defaults_as_json(method: str) -> None:
    found = setting_of(replace(CELL, method=method, parameters={}), small_config())
    assert json.loads(json.dumps(found)) == found
    assert set(found["parameters"]) == set(find(method)._get_param_names()) - {"seed", "schedule"}
    assert found["source"] == ""


def test_another_default_is_another_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    cell, config = replace(CELL, parameters={}), small_config()
    before = setting_of(cell, config)
    monkeypatch.setitem(Unimodal.__init__.__kwdefaults__, "width", 65)
    assert setting_of(cell, config) == before | {"parameters": before["parameters"] | {"width": 65}}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (LogisticRegression(C=1.0), LogisticRegression(C=2.0)),
        (GaussianNB(), LogisticRegression()),
        (GaussianNB, LogisticRegression),
        (np.arange(3), np.arange(4)),
        (ModalitySpec("a", "vector", (3,)), ModalitySpec("a", "vector", (4,))),
        ({"a": [GaussianNB()]}, {"a": [GaussianNB(var_smoothing=0.5)]}),
    ],
)
def test_parameters_that_differ_are_plain_and_differ(one: Any, other: Any) -> None:
    texts = [json.dumps(plain(each)) for each in (one, other)]
    assert texts[0] != texts[1]
    assert " at 0x" not in texts[0]
    assert plain({3, 1, 2}) == [1, 2, 3]


def test_the_source_of_a_plug_in_is_part_of_its_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "plugged"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "base.py").write_text("from small_study import Means\n\n\nclass Base(Means):\n    pass\n")
    (package / "mine.py").write_text("from plugged.base import Base\n\n\nclass Mine(Base):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    cls = find("plugged.mine:Mine")
    seen = [source_digest(cls)]
    digest = source_digest.__wrapped__
    for file in ("mine.py", "base.py"):
        with open(package / file, "a") as end:
            end.write("\n# another line\n")
        seen.append(digest(cls))
    assert len(set(seen)) == 3
    text = (package / "mine.py").read_bytes()
    (package / "mine.py").write_bytes(text.replace(b"\n", b"\r\n"))
    assert digest(cls) == seen[-1]
    assert setting_of(replace(CELL, method="plugged.mine:Mine", parameters={}), small_config())["source"] == seen[0]


def test_the_digest_of_the_package_follows_the_code_that_bears_on_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "transference"
    shutil.copytree(ROOT, root, ignore=shutil.ignore_patterns("__pycache__"))
    before = package_digest.__wrapped__()
    monkeypatch.setattr(setting, "ROOT", root)
    assert package_digest.__wrapped__() == before
    for name in ("report/page.py", "deploy/export.py", "cli.py"):
        (root / name).write_text("")
        assert package_digest.__wrapped__() == before
    for name in (
        "core/views.py",
        "data/split.py",
        "nn/heads.py",
        "train/loop.py",
        "assessment/scores.py",
        "unimodal.py",
    ):
        (root / name).write_text("")
        assert package_digest.__wrapped__() != before
        before = package_digest.__wrapped__()


def test_cells_of_other_code_are_kept_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small_config(study={"seeds": 1, "controls": []})
    told: list[str] = []
    study = run(config, folder=tmp_path, data=small_data(), notice=told.append)
    made_by = {record.environment.packages["transference"] for record in Store(study).records()}
    assert told == []
    assert made_by == {f"0.1.0+{package_digest()}"}
    before = {path: path.stat().st_mtime_ns for path in study.glob("*/*")}
    monkeypatch.setattr(runner, "versions", lambda: {"transference": "0.1.0+other"})
    run(config, folder=tmp_path, data=small_data(), notice=told.append)
    assert {path: path.stat().st_mtime_ns for path in study.glob("*/*")} == before
    assert told == [
        f"2 finished cells were computed by other code of this package ({made_by.pop()}; now 0.1.0+other) "
        "and are kept. "
        f"To compute them again, delete {str(study)!r} and run the study."
    ]
