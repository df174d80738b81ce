"""What every named set says of itself, where its files lie, and how decoded arrays are kept."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from platformdirs import user_cache_dir, user_data_dir

from transference.core.errors import DataError
from transference.data.sets import _download

FOLDER = "TRANSFERENCE_DATA"


@dataclass(frozen=True)
class Part:
    """One file, or one folder of an archive, of a set.

    Attributes
    ----------
    url
        Where it is published; pinned to a commit where that is possible.
    path
        Where it lies below the folder of all sets.
    sha256
        Checksum, of what `of` says: the bytes of the file, the names and files of the folder, or the arrays of an .npz.
    inside
        For archives, the folder in it that becomes `path`.
    by_hand
        Where no file can be fetched: what to make of what is published at `url`, to be put at `path`.
    """

    url: str
    path: str
    sha256: str
    of: Literal["bytes", "folder", "arrays"] = "bytes"
    inside: str = ""
    by_hand: str = ""

    def digest(self, root: Path) -> str:
        measure = {
            "bytes": _download.sha256_of_file,
            "folder": _download.sha256_of_folder,
            "arrays": _download.sha256_of_arrays,
        }
        return measure[self.of](root / self.path)

    def is_in(self, root: Path) -> bool:
        """Whether it lies below `root`, a folder also as an archive beside its place."""
        return (root / self.path).exists() or self.packed(root).exists()

    def packed(self, root: Path) -> Path:
        return root / f"{self.path}.tar.gz"

    def files(self, root: Path) -> dict[str, bytes]:
        """Name below the folder -> content, of all files of a folder or of the archive beside its place."""
        folder = root / self.path
        if folder.exists():
            return {file.relative_to(folder).as_posix(): file.read_bytes() for file in _files(folder)}
        with tarfile.open(self.packed(root)) as archive:
            members = {member.name.partition("/")[2]: archive.extractfile(member) for member in archive}
            return {name: file.read() for name, file in sorted(members.items()) if file is not None}


@dataclass(frozen=True)
class Source:
    """A named set: what it is, who made it, what one may do with it.

    Attributes
    ----------
    title, licence, citation
        In words; a key of docs/references.bib.
    modalities
        All there are; the first is the default primary, the second the default secondary one.
    parts
        What has to be fetched; empty for sets that need no download.
    notes
        What a reader of a report should know.
    variants
        Names that `load` accepts as `variant`.
    """

    title: str
    licence: str
    citation: str
    modalities: tuple[str, ...]
    parts: tuple[Part, ...] = ()
    notes: str = ""
    variants: tuple[str, ...] = ()

    def as_text(self) -> dict[str, str]:
        """What goes with the data into a report."""
        urls = ", ".join(sorted({part.url for part in self.parts}))
        pairs = {
            "title": self.title,
            "licence": self.licence,
            "citation": self.citation,
            "notes": self.notes,
            "source": urls,
        }
        return {key: text for key, text in pairs.items() if text}


def roots() -> list[Path]:
    """Where sets are looked for: the folder named by TRANSFERENCE_DATA first, then the user's data folder."""
    own = Path(user_data_dir("transference")) / "sets"
    named = os.environ.get(FOLDER, "")
    return [Path(named).expanduser(), own] if named else [own]


def find(source: Source) -> Path | None:
    """The first root that holds every part of the set."""
    return next((root for root in roots() if all(part.is_in(root) for part in source.parts)), None)


def fetch(source: Source, *, progress: bool = True) -> Path:
    """The root that holds the set, downloaded into the user's data folder unless it is there already."""
    here = find(source)
    if here is not None:
        return here
    root = roots()[-1]
    made = [part for part in source.parts if part.by_hand and not (root / part.path).exists()]
    if made:
        told = " ".join(f"{root / part.path}: {part.by_hand} ({part.url})." for part in made)
        raise DataError(f"Nothing that can be fetched has this form; it has to be made. {told}")
    for part in source.parts:
        if not (root / part.path).exists() or part.digest(root) != part.sha256:
            _fetch_part(part, root, progress)
    for part in source.parts:
        _archive(part, root).unlink(missing_ok=True)
    return root


def _archive(part: Part, root: Path) -> Path:
    """One archive may hold several parts."""
    return root / (hashlib.sha256(part.url.encode()).hexdigest()[:16] + ".archive")


def _fetch_part(part: Part, root: Path, progress: bool) -> None:
    target, archive = root / part.path, _archive(part, root)
    if part.inside and not archive.exists():
        _download.download(part.url, archive, progress=progress)
    elif not part.inside:
        _download.download(part.url, target, progress=progress)
    try:
        if part.inside:
            _download.unpack(archive, part.inside, target)
        found = part.digest(root)
    except (DataError, OSError, EOFError, ValueError, tarfile.TarError, zipfile.BadZipFile) as error:
        _remove(target, archive)
        raise DataError(f"{part.url} can not be read, and was removed: {error}") from error
    if found != part.sha256:
        _remove(target, archive)
        raise DataError(
            f"The checksum of {part.url} must be {part.sha256}. Got {found} instead. The download was removed; "
            "run the command again, and if it fails again the source has changed."
        )


def _remove(target: Path, archive: Path) -> None:
    archive.unlink(missing_ok=True)
    if target.is_dir():
        shutil.rmtree(target)
    else:
        target.unlink(missing_ok=True)


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())


def cached(
    recipe: str, files: Iterable[Path], build: Callable[[], Mapping[str, NDArray[Any]]]
) -> dict[str, NDArray[Any]]:
    """Arrays decoded once: kept in the user's cache folder under a key of the recipe and the files' contents.

    Parameters
    ----------
    recipe
        Changes whenever `build` would give other arrays for the same files.
    files
        What the arrays are made of.
    build
        Makes them. A damaged copy in the cache is made again.
    """
    digest = hashlib.blake2b(recipe.encode(), digest_size=16)
    for path in sorted(files):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    kept = Path(user_cache_dir("transference")) / "sets" / f"{digest.hexdigest()}.npz"
    try:
        with kept.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        arrays = dict(build())
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        handle, fresh = tempfile.mkstemp(dir=kept.parent, suffix=".npz")
        with os.fdopen(handle, "wb") as out:
            np.savez(out, allow_pickle=False, **arrays)
        os.replace(fresh, kept)
    except OSError:  # a cache that can not be written costs time, nothing else
        pass
    return arrays
