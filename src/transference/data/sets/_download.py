"""Files from their public source: resumed, checked, unpacked without leaving the folder."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np

from transference.core.errors import DataError

ATTEMPTS = 4
CHUNK = 1 << 13  # bytes; the last, incomplete one is lost when a download breaks off
SECONDS = 30  # without an answer
PAUSE = 1.0  # seconds before the second attempt, longer before the later ones


def download(url: str, target: Path, *, progress: bool = True) -> None:
    """Fetch `url` into `target`; an interrupted download goes on where it stopped, now or in the next call.

    What has come so far lies beside the target as ``NAME.part``.
    """
    import requests
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, disable=not progress, transient=True) as bar:
        task = bar.add_task(target.name, total=None)
        for attempt in range(ATTEMPTS):
            try:
                _continue(url, part, lambda done, total: bar.update(task, completed=done, total=total))
                break
            except requests.RequestException as error:
                if attempt == ATTEMPTS - 1 or (error.response is not None and error.response.status_code < 500):
                    raise DataError(
                        f"{url} could not be downloaded: {error}. Check the connection and run the command again; "
                        "it continues where it stopped."
                    ) from error
                time.sleep(PAUSE * 2**attempt)
            except OSError as error:
                raise DataError(
                    f"{part} can not be written: {error}. Free space there and run the command again; "
                    "it continues where it stopped."
                ) from error
    os.replace(part, target)


def _continue(url: str, part: Path, report: Callable[[int, int | None], None]) -> None:
    import requests

    done = part.stat().st_size if part.exists() else 0
    # compressed answers can not be continued at a byte of the file
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={done}-"} if done else {})}
    with requests.get(url, headers=headers, stream=True, timeout=SECONDS) as answer:
        if answer.status_code == 416:  # nothing is left, or the part is not of this file: the checksum will tell
            return
        answer.raise_for_status()
        continued = answer.status_code == 206
        done = done if continued else 0
        size = answer.headers.get("Content-Length")
        total = None if size is None else done + int(size)
        with part.open("ab" if continued else "wb") as file:
            for chunk in answer.iter_content(CHUNK):
                file.write(chunk)
                done += len(chunk)
                report(done, total)


def sha256_of_file(path: Path) -> str:
    """Of the bytes of one file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_folder(path: Path) -> str:
    """Of the names and contents of all files below, in the order of their names; archives may differ, this does not."""
    digest = hashlib.sha256()
    for name in sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()):
        digest.update(f"{name}\0{sha256_of_file(path / name)}\n".encode())
    return digest.hexdigest()


def sha256_of_arrays(path: Path) -> str:
    """Of the names, shapes, types and values of the arrays of an .npz file, whatever its compression."""
    digest = hashlib.sha256()
    with np.load(path, allow_pickle=False) as arrays:
        for name in sorted(arrays.files):
            array = np.ascontiguousarray(arrays[name])
            digest.update(f"{name}{array.shape}{array.dtype.str}\n".encode())
            digest.update(array.data)
    return digest.hexdigest()


def unpack(archive: Path, inside: str, target: Path) -> None:
    """Unpack one folder of a .tar.gz or .zip file; the archive's own top folder is left out of the names.

    Raises
    ------
    DataError
        When a member is a link or a device, or its path leaves the folder. Nothing is left behind.
    """
    fresh = target.with_name(target.name + ".unpacking")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        found = 0
        for name, content in _members(archive):
            path = PurePosixPath(*PurePosixPath(name).parts[1:])
            if not path.is_relative_to(inside):
                continue
            file = fresh / path.relative_to(inside)
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("wb") as out:
                shutil.copyfileobj(content, out)
            found += 1
        if not found:
            raise DataError(f"The archive {archive.name} holds no folder {inside!r}. Its source has changed.")
        shutil.rmtree(target, ignore_errors=True)
        os.replace(fresh, target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Names and contents of the plain files, every member checked."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            for entry in packed.infolist():
                _refuse(archive, entry.filename, link=(entry.external_attr >> 16) & 0o170000 == 0o120000)
                if not entry.is_dir():
                    with packed.open(entry) as content:
                        yield entry.filename, content
        return
    with tarfile.open(archive) as packed_tar:
        for member in packed_tar:
            _refuse(archive, member.name, link=not (member.isfile() or member.isdir()))
            file = packed_tar.extractfile(member) if member.isfile() else None
            if file is not None:
                yield member.name, file


def _refuse(archive: Path, name: str, *, link: bool) -> None:
    path = PurePosixPath(name.replace("\\", "/"))
    if link or path.is_absolute() or ".." in path.parts or (path.parts and path.parts[0].endswith(":")):
        why = "is a link or a device" if link else "leaves the folder"
        raise DataError(f"The archive {archive.name} was refused: its member {name!r} {why}.")
