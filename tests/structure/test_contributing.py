"""The method and the test that CONTRIBUTING.md shows: they pass as they stand there, lint included."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from transference.testing import check_method

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), flags=re.DOTALL)
ID = "colearning.translation.mean_prediction"


@pytest.fixture
def shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with both files, the method as a plug-in."""
    (tmp_path / "shown_in_contributing.py").write_text(BLOCKS[0])
    (tmp_path / "test_shown.py").write_text(BLOCKS[1].replace(f'"{ID}"', '"shown_in_contributing:MeanPrediction"'))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def test_the_method_on_the_page_keeps_every_promise(shown: Path) -> None:
    check_method("shown_in_contributing:MeanPrediction")


@pytest.mark.parametrize(
    "command",
    [
        ["pytest", "-q", "-p", "no:cacheprovider", "-W", "error", "test_shown.py"],
        ["ruff", "check", "--config", str(ROOT / "pyproject.toml"), "."],
        ["ruff", "format", "--check", "--config", str(ROOT / "pyproject.toml"), "."],
    ],
    ids=["test", "lint", "format"],
)
def test_both_files_pass_what_the_page_asks_for(shown: Path, command: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", *command], cwd=shown, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
