"""Modules by modality name."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView

from torch import nn


class ByModality(nn.ModuleDict):
    """A ModuleDict that takes any modality's name: a table may have a column ``type`` or ``keys``.

    Where a Module already has an attribute of that name, the part is kept under the name and "_modality".
    """

    def add_module(self, name: str, module: nn.Module | None) -> None:
        super().add_module(_attribute(name), module)

    def __getitem__(self, key: str) -> nn.Module:
        return super().__getitem__(_attribute(key))

    def __contains__(self, key: object) -> bool:
        return super().__contains__(_attribute(str(key)))

    def __iter__(self) -> Iterator[str]:
        return (_name(key) for key in self._modules)

    def keys(self) -> KeysView[str]:
        return dict.fromkeys(self).keys()

    def items(self) -> ItemsView[str, nn.Module]:
        return {name: self[name] for name in self}.items()


_SUFFIX = "_modality"
_TAKEN = frozenset(dir(nn.ModuleDict())) | {"training"}


def _attribute(name: str) -> str:
    return name + _SUFFIX if name in _TAKEN else name


def _name(attribute: str) -> str:
    plain = attribute.removesuffix(_SUFFIX)
    return plain if plain in _TAKEN else attribute
