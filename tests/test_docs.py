"""The catalogue says what the source says, and what was measured."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

from transference.core.registry import FAMILIES, find, names

DOCS = Path(__file__).resolve().parent.parent / "docs"


@pytest.fixture(scope="module")
def build() -> Any:
    spec = importlib.util.spec_from_file_location("build_docs", DOCS / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pages_are_those_of_the_source(build: Any) -> None:
    made = build.pages(build.read())
    there = {file.name: file.read_text(encoding="utf-8") for file in (DOCS / "methods").glob("*.md")}
    stale = sorted(name for name in made.keys() | there.keys() if made.get(name) != there.get(name))
    assert not stale, f"Run 'python docs/build.py': {stale}"


def test_every_method_has_its_source_in_the_references(build: Any) -> None:
    sources = build.references((DOCS / "references.bib").read_text(encoding="utf-8"))
    for name in (name for family in FAMILIES for name in names(family)):
        assert find(name).card.reference in {*sources, ""}, name
    assert all(re.search(r"\w+.* \(\d{4}\), \w", told) for told in sources.values())


def test_a_gain_is_named_by_what_is_told_from_0(build: Any) -> None:
    row = {"gain": "3.0", "p": "0.01", "transferred_low": "0.5"}
    assert build._meaning(row) == "**+3.0 transfers**"
    assert build._meaning(row | {"transferred_low": "-0.5"}) == "+3.0 *regularises*"
    assert build._meaning(row | {"transferred_low": ""}) == "+3.0 (no control)"
    assert build._meaning(row | {"p": "0.05"}) == "+3.0"
    assert build._meaning(row | {"gain": "-3.0"}) == "-3.0 *hurts*"
