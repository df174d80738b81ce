"""The study file written from a table is one that loads, checks and plans."""

from __future__ import annotations

import csv
import tomllib
from pathlib import Path

import numpy as np
import pytest

from transference.core.errors import ConfigError
from transference.experiment.config import load, parse
from transference.experiment.init import write_study
from transference.experiment.plan import plan
from transference.experiment.runner import prepare

WORDS = ["the cat sat down", "a dog ran off fast", "birds sing at dawn", "rain fell all day"]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "my rows.csv"
    rng = np.random.default_rng(0)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["who", "speaker", "s_1", "s_2", "note", "mood"])
        for k in range(40):
            note = "" if k == 3 else f"{WORDS[k % 4]} {k}"
            writer.writerow([f"r{k}", f"p{k % 8}", *rng.normal(size=2).round(3), note, "happy" if k % 2 else "sad"])
    return path


def test_a_written_study_loads_and_plans(table: Path) -> None:
    study = table.parent / "deeper" / "study.toml"
    study.parent.mkdir()
    text = write_study(table, primary="s", label="mood", output=study)
    study.write_text(text)
    config = load(study)
    assert text == write_study(table, primary="s_*", label="mood", output=study)  # as one would write it in the file
    assert config.name == "my-rows"
    assert config.data.manifest == str(table)
    assert (config.data.primary, config.data.label, config.data.group) == ("s", "mood", "speaker")
    assert config.data.modalities["s"].kind == "vector"
    assert config.data.modalities["note"].kind == "text"
    assert config.study.budgets == (2, 10, "all")
    assert "# 1 of 40 rows lack it" in text
    assert text.count("# fine_tune = true  # ") == 1  # of the text, not of the vector
    tuned = text.replace("# encoder = ", "encoder = ").replace("# fine_tune", "fine_tune")
    assert parse(tomllib.loads(tuned), study.parent).data.modalities["note"].fine_tune
    data, cells = prepare(config)
    assert set(data.views.names) == {"s", *config.data.secondary}
    assert cells == plan(config, data)


def test_a_small_class_leaves_out_budgets_that_it_can_not_fill(tmp_path: Path) -> None:
    rows = ["a_1,b_1,a_2,b_2,y", *(f"{k},{k},{k},{k},{'x' if k < 5 else 'z'}" for k in range(30))]
    (tmp_path / "t.csv").write_text("\n".join(rows))
    assert 'budgets = [2, "all"]' in write_study(tmp_path / "t.csv", primary="a", label="y")


def test_many_different_numbers_are_values_to_predict(tmp_path: Path) -> None:
    rows = ["a_1,b_1,a_2,b_2,y", *(f"{k},{k},{k},{k},{k / 7}" for k in range(30))]
    (tmp_path / "t.csv").write_text("\n".join(rows))
    text = write_study(tmp_path / "t.csv", primary="a", label="y")
    assert 'task = "regression"' in text
    assert 'metric = "mae"' in text


def test_wrong_names_are_told(table: Path) -> None:
    with pytest.raises(ConfigError, match="There is no column 'moood' for the label. Did you mean 'mood'?"):
        write_study(table, primary="s", label="moood")
    with pytest.raises(ConfigError, match=r"There is no modality 'nota' in .* Did you mean 'note'?"):
        write_study(table, primary="nota", label="mood")
    (table.parent / "one.csv").write_text("a,y\n1,2\n2,1\n")
    with pytest.raises(ConfigError, match=r"holds no modality but 'a', and a study needs a second one"):
        write_study(table.parent / "one.csv", primary="a", label="y")
