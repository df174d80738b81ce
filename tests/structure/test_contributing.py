"""The method that CONTRIBUTING.md shows passes the conformance suite as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from transference.testing import check_method

PAGE = Path(__file__).parents[2] / "CONTRIBUTING.md"


def test_the_method_on_the_page_keeps_every_promise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)[0]
    (tmp_path / "shown_in_contributing.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    check_method("shown_in_contributing:MeanPrediction")
