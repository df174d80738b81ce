"""The id of a method is its path."""

from __future__ import annotations

import pytest

import transference
from transference.core import registry
from transference.core.errors import ConfigError


def test_every_listed_id_has_a_summary_and_a_class() -> None:
    for name in registry.names():
        assert registry.summary(name)
        assert registry.find(name).__module__ == f"transference.{name}"


def test_unknown_ids_and_parameters_suggest() -> None:
    with pytest.raises(ConfigError, match=r"no method 'unimodel'\. Did you mean 'unimodal'\?"):
        transference.create("unimodel")
    with pytest.raises(ConfigError, match=r"unimodal has no parameter 'widht'\. Did you mean 'width'\?"):
        transference.create("unimodal", widht=3)


@pytest.mark.parametrize("method_id", ["../core/errors", "core.errors", "fusion.__init__"])
def test_ids_cannot_reach_other_modules(method_id: str) -> None:
    with pytest.raises(ConfigError, match="There is no method"):
        registry.find(method_id)


def test_a_method_outside_the_package_is_found_by_module_and_class() -> None:
    assert registry.find("transference.unimodal:Unimodal") is registry.find("unimodal")
    with pytest.raises(ConfigError, match="could not be imported"):
        registry.find("nowhere.at_all:Thing")
    for name in (":X", ".relative:X", "os:", "os:nothing"):
        with pytest.raises(ConfigError, match=f"The method '{name}' could not be imported"):
            registry.find(name)
    for name in ("os:getcwd", "os:path", "collections:Counter"):
        with pytest.raises(ConfigError, match=f"The class behind '{name}' must be a transference Method"):
            registry.find(name)
