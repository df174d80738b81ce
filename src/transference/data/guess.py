"""Guesses from the cells of a table: modalities, and the columns for label, split, group and id."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transference.core.spec import Kind
from transference.data.decoders import audio, image
from transference.data.decoders.numbers import is_numeric, parse_list
from transference.data.decoders.parts import CellFault, Files, load_npy
from transference.data.modality import ModalityConfig
from transference.data.rawtable import RawTable, read_table

SAMPLE = 100  # cells of a column that are looked at
NAMES = {
    "label": ("label", "class", "target", "y", "category", "outcome"),
    "split": ("split", "fold", "partition", "subset"),
    "group": ("group", "subject", "speaker", "person", "patient", "participant", "session", "recording", "user"),
    "id": ("id", "uid", "uuid", "key", "row", "index", "name"),
}
LAST = {
    "label": ("label", "class", "target", "category", "outcome"),
    "split": NAMES["split"],
    "group": tuple(f"{word}_id" for word in NAMES["group"]),
    "id": ("id", "uid", "uuid"),
}  # how longer names end: emotion_label, row_id
_NUMBERED = re.compile(r"^(.*?)[_\-. ]?\d+$")
_BETWEEN = re.compile(r"[_\-. ]+")
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Roles:
    """Columns that look like label, split, group and id; None where none does."""

    label: str | None = None
    split: str | None = None
    group: str | None = None
    id: str | None = None

    def columns(self) -> list[str]:
        return [name for name in (self.label, self.split, self.group, self.id) if name is not None]


def guess_modalities(
    path: str | Path, *, exclude: Iterable[str] = (), apart: Iterable[str] = ()
) -> dict[str, ModalityConfig]:
    """Modalities of a table by name.

    Parameters
    ----------
    path
        The table.
    exclude
        Columns that are no modality, such as the label. Columns that look like a split, group or id, and if nothing is
        excluded like a label, are left out as well, unless they are in `apart`.
    apart
        Columns (or prefixes of groups) that must be modalities of their own rather than a part of a table.
    """
    return guess_table(read_table(path), exclude=exclude, apart=apart)


def guess_roles(path: str | Path, *, label: str | None = None) -> Roles:
    """The columns that look like label, split, group and id."""
    return roles_of(read_table(path), label=label)


def roles_of(table: RawTable, label: str | None = None) -> Roles:
    """As `guess_roles`, for a table that is read already."""
    found: dict[str, str | None] = {"label": label}
    for role, names in NAMES.items():
        if found.get(role):
            continue
        candidates = [name for name in table.columns if name != label and _sounds_like(name, names, LAST[role])]
        found[role] = next((name for name in candidates if _fits(role, table.columns[name])), None)
    return Roles(**found)


def left_out_of(table: RawTable, *, exclude: Iterable[str] = (), apart: Iterable[str] = ()) -> dict[str, str]:
    """Column -> role of the columns that `guess_table` leaves out though they are not in `exclude`."""
    excluded = {name for pattern in exclude for name in table.match(pattern)}
    roles = roles_of(table)
    looks = {"label": None if excluded else roles.label, "split": roles.split, "group": roles.group, "id": roles.id}
    kept = excluded | set(apart)
    return {name: role for role, name in looks.items() if name is not None and name not in kept}


def guess_table(
    table: RawTable, *, exclude: Iterable[str] = (), apart: Iterable[str] = ()
) -> dict[str, ModalityConfig]:
    """As `guess_modalities`, for a table that is read already."""
    alone, excluded = list(apart), list(exclude)
    left_out = {name for pattern in excluded for name in table.match(pattern)}
    left_out |= set(left_out_of(table, exclude=excluded, apart=alone))
    free = [name for name in table.columns if name not in left_out]
    kinds = {name: kind_of(table.columns[name], Files(table.path.parent)) for name in free}
    found: dict[str, ModalityConfig] = {}
    for name in free:
        kind = kinds[name]
        if kind is not None:
            found[_safe(name)] = ModalityConfig(kind=kind, column=name)
    scalars = [name for name in free if kinds[name] is None]
    for name in alone:
        if name in scalars:
            found[_safe(name)] = ModalityConfig(kind="table", columns=(name,))
            scalars.remove(name)
    for prefix, columns in _groups(scalars, _numbered_prefix).items():
        if all(is_numeric(_filled(table.columns[name])) for name in columns):
            found[_safe(prefix)] = ModalityConfig(kind="vector", columns=_pattern(table, prefix, columns))
            scalars = [name for name in scalars if name not in columns]
    for prefix, columns in _groups(scalars, lambda name: name.partition("_")[0] if "_" in name else None).items():
        if _safe(prefix) not in found:
            found[_safe(prefix)] = ModalityConfig(kind="table", columns=_pattern(table, prefix, columns))
            scalars = [name for name in scalars if name not in columns]
    if scalars:
        found["table" if "table" not in found else "columns"] = ModalityConfig(kind="table", columns=tuple(scalars))
    return found


def kind_of(cells: Sequence[Any], files: Files) -> Kind | None:
    """What the cells of one column look like; None for single numbers and for categories."""
    sample = [cell for cell in cells if cell is not None][:SAMPLE]
    if not sample:
        return None
    if not isinstance(sample[0], str):
        nested = any(cell and isinstance(cell[0], list | tuple) for cell in sample)
        return "vector" if not nested and len({len(cell) for cell in sample}) == 1 else "series"
    if is_numeric(sample):
        return None
    votes = [_kind_of_cell(cell, files) for cell in sample]
    for kind in ("image", "audio", "video", "series", "vector"):
        if 2 * votes.count(kind) > len(votes):
            return kind
    if 2 * votes.count("numbers") > len(votes):
        nested = any(cell.lstrip()[1:].lstrip().startswith("[") for cell in sample)
        widths = set() if nested else {len(parse_list(cell)) for cell, vote in zip(sample, votes) if vote}  # noqa: B905
        return "vector" if len(widths) == 1 else "series"
    words = sum(len(cell.split()) for cell in sample) / len(sample)
    distinct = len(set(sample)) / len(sample)
    return "text" if words >= 3 and distinct > 0.3 else None


def _kind_of_cell(cell: str, files: Files) -> str | None:
    suffix = Path(cell[-255:]).suffix.lower() if "\n" not in cell else ""
    if suffix in image.SUFFIXES:
        return "image"
    if suffix in audio.SUFFIXES:
        return "audio"
    if suffix == ".npy":
        try:
            axes = load_npy(files.find(cell, "an array"), cell).ndim
        except CellFault:
            return "series"
        return "vector" if axes == 1 else "series" if axes == 2 else "video"
    if suffix in (".csv", ".tsv"):
        return "series"
    if cell.lstrip().startswith("["):
        return "numbers"
    if " " in cell or ";" in cell or "," in cell:
        try:
            return "numbers" if len(parse_list(cell)) > 1 else None
        except CellFault:
            return None
    return "video" if len(cell) < 255 and "\0" not in cell and (files.root / cell).is_dir() else None


def _filled(cells: Sequence[Any]) -> list[str]:
    return [str(cell) for cell in cells if cell is not None]


def _groups(names: Sequence[str], prefix_of: Any) -> dict[str, list[str]]:
    """Prefix -> columns, for the prefixes that two columns or more have."""
    groups: dict[str, list[str]] = {}
    for name in names:
        prefix = prefix_of(name)
        if prefix:
            groups.setdefault(prefix, []).append(name)
    return {prefix: columns for prefix, columns in groups.items() if len(columns) > 1}


def _numbered_prefix(name: str) -> str | None:
    match = _NUMBERED.match(name)
    return match.group(1) if match and match.group(1) else None


def _pattern(table: RawTable, prefix: str, columns: Sequence[str]) -> tuple[str, ...]:
    """One pattern where it stands for exactly these columns; otherwise their names."""
    for pattern in (f"{prefix}_*", f"{prefix}*"):
        if table.match(pattern) == list(columns):
            return (pattern,)
    return tuple(columns)


def _sounds_like(name: str, names: Sequence[str], last: Sequence[str]) -> bool:
    """By whole words: ``row_id`` is an id, ``refractive_index`` and ``age_group`` are measurements."""
    words = _BETWEEN.split(name.lower().strip("_-. "))
    ends = tuple(f"_{each}" for each in last)
    return all(word in names for word in words) or "_".join(["", *words]).endswith(ends)


def _fits(role: str, cells: Sequence[Any]) -> bool:
    filled = _filled(cells)
    distinct = len(set(filled))
    if role == "split":
        return set(filled) == {"train", "test"} and len(filled) == len(cells)
    if role == "id":
        return distinct == len(cells) and not _is_float(filled)
    if role == "group":
        return len(filled) == len(cells) and 1 < distinct < len(cells)
    return distinct > 1


def _is_float(filled: Sequence[str]) -> bool:
    """Whether all cells are numbers, and not all of them whole ones."""
    try:
        list(map(float, filled))
    except ValueError:
        return False
    return not all(cell.lstrip("+-").isdecimal() for cell in filled)


def _safe(name: str) -> str:
    return _UNSAFE.sub("_", name).strip("_") or "modality"
