"""Who may import whom: floors, leaves, and what must not load torch."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest
from source import LEAVES, imports, modules, tree, within

FLOORS = {
    "core": 1,
    "data": 2,
    "nn": 2,
    "assessment": 2,
    "report": 2,
    "experiment": 3,
    "testing": 3,
    "train": 3,
    "deploy": 3,
    "cli": 4,
    **dict.fromkeys(LEAVES, 4),
}
ABOVE_METHODS = frozenset({"assessment", "report", "experiment", "testing", "deploy", "cli"})
NEVER: dict[str, frozenset[str]] = {
    "assessment": frozenset({"train", "nn", "data", "report"}),
    "report": frozenset({"data", "nn", "assessment"}),
    "train": frozenset({"experiment", "testing", "deploy"}),
    **dict.fromkeys(LEAVES, ABOVE_METHODS),
}
REPORT_MAY_SEE = {"core.records", "core.errors", "core.metrics", "core.spec"}
WITHOUT_TORCH = (
    "",
    "cli",
    "report.page",
    "report.summary",
    "experiment.config",
    "experiment.plan",
    "core.errors",
    "core.spec",
    "core.records",
    "core.registry",
    "core.views",
    "core.metrics",
    "core.seeding",
    "data.dataset",
    "data.manifest",
    "data.readers",
    "data.split",
    "data.corrupt",
    "data.tabular",
    "train.schedule",
    "deploy.predictor",
)


def edges() -> list[tuple[str, str, int]]:
    """(module, module of this package that it imports, line), at once or later."""
    return [
        (module, inner, found.line)
        for module, file in modules().items()
        for found in imports(file)
        if (inner := within(found.module))
    ]


def test_every_folder_has_a_floor() -> None:
    assert {module.partition(".")[0] for module in modules()} - {""} == set(FLOORS)
    assert len(edges()) > 150


def test_imports_go_down_or_stay() -> None:
    up = []
    for module, inner, line in edges():
        here, there = module.partition(".")[0], inner.partition(".")[0]
        if here == there or not here:
            continue
        if FLOORS[there] > FLOORS[here] or there in NEVER.get(here, ()):
            up.append(f"{module}:{line} imports {inner}")
    assert not up


def test_nobody_imports_a_method_by_name() -> None:
    by_name = [
        f"{module}:{line} imports {inner}" for module, inner, line in edges() if inner.partition(".")[0] in LEAVES
    ]
    assert not by_name
    for module, file in modules().items():
        for node in ast.walk(tree(file)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not node.value.startswith(tuple(f"transference.{leaf}." for leaf in LEAVES)), module


def test_the_report_knows_records_alone() -> None:
    seen = {inner for module, inner, _ in edges() if module.startswith("report") and not inner.startswith("report")}
    assert seen <= REPORT_MAY_SEE


def test_packages_of_methods_import_nothing() -> None:
    packages = [
        module
        for module, file in modules().items()
        if file.name == "__init__.py" and module.partition(".")[0] in LEAVES
    ]
    assert len(packages) >= 7
    assert [module for module in packages if imports(modules()[module])] == []
    assert all(ast.get_docstring(tree(file)) for file in modules().values())


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_some_modules_never_lead_to_torch(module: str) -> None:
    """Over the syntax trees, packages on the way included."""
    waiting, seen = [module], set()
    while waiting:
        current = waiting.pop()
        if current in seen or current not in modules():
            continue
        seen.add(current)
        waiting += [current.rpartition(".")[0]] if current else []
        for found in imports(modules()[current]):
            if found.at_once:
                assert found.module.partition(".")[0] not in ("torch", "transformers"), f"{current}:{found.line}"
                inner = within(found.module)
                waiting += [] if inner is None else [inner]
    assert module in seen


@pytest.mark.parametrize("arguments", [["-c", "import transference"], ["-m", "transference.cli", "--help"]])
def test_the_door_opens_fast(arguments: list[str]) -> None:
    """Neither the package nor the help loads torch, scikit-learn or anything as heavy."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert done.returncode == 0, done.stderr
    assert "transference" in loaded
    assert not loaded & {"torch", "sklearn", "scipy", "pandas", "transformers", "matplotlib", "librosa", "ray", "dask"}
