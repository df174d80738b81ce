"""Every public name resolves, and the five lines of the README work on a table."""

from __future__ import annotations

from pathlib import Path

import pytest

import transference


@pytest.mark.parametrize("name", transference.__all__)
def test_public_names_resolve(name: str) -> None:
    assert getattr(transference, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        transference.nothing  # noqa: B018


def test_the_five_lines_of_the_readme(tmp_path: Path) -> None:
    lines = ["sound_1,sound_2,words,emotion"]
    lines += [f"{k % 2},{k},{'glad' if k % 2 else 'sad'} word{k},{'joy' if k % 2 else 'grief'}" for k in range(40)]
    (tmp_path / "rows.csv").write_text("\n".join(lines))
    data = transference.load_manifest(tmp_path / "rows.csv", primary="sound", label="emotion")
    schedule = transference.Schedule(updates=60)
    method = transference.create("colearning.alignment.latent", weight=0.5, schedule=schedule).fit(data.views, data.y)
    answers = method.predict(data.views.only(["sound"]))
    assert (answers == data.y).mean() > 0.9
