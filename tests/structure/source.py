"""The source as syntax trees: files, modules, and what each imports."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
PACKAGE = PROJECT / "src" / "transference"
LEAVES = ("unimodal", "fusion", "colearning", "transfer", "induction")


@dataclass(frozen=True)
class Import:
    """One imported module, and whether importing the file imports it at once."""

    module: str
    at_once: bool
    line: int


@cache
def modules() -> dict[str, Path]:
    """Dotted name within the package -> file; packages by their own name."""
    found = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


@cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


@cache
def imports(file: Path) -> tuple[Import, ...]:
    """Everything a file imports, `from package import module` taken as the module."""
    found: list[Import] = []
    _collect(tree(file).body, True, found)
    return tuple(found)


def within(module: str) -> str | None:
    """``core.spec`` of ``transference.core.spec``; None for a module of another package."""
    package, _, rest = module.partition(".")
    return rest if package == "transference" else None


def _collect(body: list[ast.stmt], at_once: bool, found: list[Import]) -> None:
    for node in body:
        if isinstance(node, ast.Import):
            found += [Import(alias.name, at_once, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            for alias in node.names:
                inner = within(f"{base}.{alias.name}")
                is_module = inner is not None and inner in modules()
                found.append(Import(f"{base}.{alias.name}" if is_module else base, at_once, node.lineno))
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            _collect(node.body, False, found)
            _collect(node.orelse, at_once, found)
        else:
            inside = at_once and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            for field in ("body", "orelse", "finalbody"):
                _collect(getattr(node, field, []), inside, found)
            for part in (*getattr(node, "handlers", []), *getattr(node, "cases", [])):
                _collect(part.body, inside, found)
