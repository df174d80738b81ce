"""The rules of the house that a machine can check."""

from __future__ import annotations

import ast
import re
import subprocess

import pytest
from source import LEAVES, PROJECT, modules, tree

from transference.core import registry

LONGEST = 400
SHARED_PLACES = re.compile(r"(?<![\w.:/])/(work|root|home|tmp|Users|mnt|content)/\w")
WRITTEN = {".py", ".md", ".toml", ".txt", ".yml", ".yaml", ".cfg", ".html", ".css", ".bib", ".sh", ".json", ""}


def keys() -> set[str]:
    text = (PROJECT / "docs" / "references.bib").read_text(encoding="utf-8")
    found = re.findall(r"^@\w+\{([^,\s]+),", text, flags=re.MULTILINE)
    assert len(found) == len(set(found)), "a key is there twice"
    return set(found)


def tracked() -> list[str]:
    """Paths of the files of the project, new ones included, ignored ones not."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False)
    if listed.returncode == 0:
        return [path for path in listed.stdout.splitlines() if (PROJECT / path).is_file()]
    folders = ("src", "tests", "docs", "examples", "benchmarks")
    return [
        str(path.relative_to(PROJECT)) for name in folders for path in (PROJECT / name).rglob("*") if path.is_file()
    ]


@pytest.mark.parametrize("method_id", registry.names())
def test_every_method_has_a_test_file_and_a_source(method_id: str) -> None:
    assert (PROJECT / "tests" / "methods" / f"test_{method_id.replace('.', '_')}.py").is_file()
    assert registry.find(method_id).card.reference in keys()


def test_every_source_named_in_a_method_is_listed() -> None:
    for method_id in registry.names():
        cited = re.findall(r"\b[a-z]{3,}(?:19|20)\d{2}[a-z]*\b", registry.docstring(method_id))
        assert set(cited) <= keys(), method_id


def test_no_file_is_longer_than_it_should_be() -> None:
    long = {
        path: lines
        for path in tracked()
        if path.endswith(".py") and (lines := len((PROJECT / path).read_text(encoding="utf-8").splitlines())) > LONGEST
    }
    assert not long


def test_nothing_is_called_utils() -> None:
    assert not [path for path in tracked() if re.search(r"(^|[/_])utils?([/_.]|$)", path)]


@pytest.mark.parametrize("module", modules())
def test_source_has_no_print_pickle_or_eval(module: str) -> None:
    for node in ast.walk(tree(modules()[module])):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [getattr(node, "module", None), *(alias.name for alias in node.names)]
            assert not {"pickle", "cloudpickle", "dill", "shelve", "marshal"} & set(names), f"line {node.lineno}"
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        assert called not in ("print", "eval", "exec", "torch.load", "joblib.load", "pickle.load"), (
            f"line {node.lineno}"
        )
        for keyword in node.keywords:
            loads = keyword.arg == "allow_pickle" and not (
                isinstance(keyword.value, ast.Constant) and keyword.value.value is False
            )
            assert not loads, f"line {node.lineno}"


@pytest.mark.parametrize("module", modules())
def test_source_asserts_nothing(module: str) -> None:
    assert not [node.lineno for node in ast.walk(tree(modules()[module])) if isinstance(node, ast.Assert)]


def test_methods_say_what_they_are_where_they_come_from_and_cost() -> None:
    for method_id in registry.names():
        text = registry.docstring(method_id)
        assert text.partition("\n")[0].endswith("."), method_id
        assert "minimise" in text or "    " in text, f"{method_id} has no equation"
        assert "Cost" in text, method_id
        assert "Depart" in text or "depart" in text, method_id


def test_every_skip_and_expected_failure_has_a_reason() -> None:
    files = [path for path in tracked() if path.startswith("tests/") and path.endswith(".py")]
    assert len(files) > 20
    for path in files:
        nodes = list(ast.walk(ast.parse((PROJECT / path).read_text(encoding="utf-8"))))
        calls = [node for node in nodes if isinstance(node, ast.Call)]
        called = {id(node.func) for node in calls}
        bare = [node for node in nodes if isinstance(node, ast.Attribute) and id(node) not in called]
        assert not {ast.unparse(node) for node in bare} & {"pytest.mark.skip", "pytest.mark.xfail"}, path
        for node in calls:
            name = ast.unparse(node.func)
            if name in ("pytest.mark.skip", "pytest.mark.skipif", "pytest.mark.xfail"):
                assert any(each.arg == "reason" and ast.unparse(each.value) != "''" for each in node.keywords), path
            elif name in ("pytest.skip", "pytest.xfail"):
                assert node.args or node.keywords, path


def test_no_file_knows_somebodys_machine() -> None:
    found = []
    for path in tracked():
        if path.startswith("tests/structure/") or not any(path.endswith(suffix) for suffix in WRITTEN if suffix):
            continue
        text = (PROJECT / path).read_text(encoding="utf-8")
        found += [f"{path}:{k}" for k, line in enumerate(text.splitlines(), 1) if SHARED_PLACES.search(line)]
    assert not found


def test_families_are_the_leaves() -> None:
    assert set(registry.FAMILIES) == set(LEAVES)
