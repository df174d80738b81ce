"""Video to (frames, channels, height, width) in [0, 1]: a folder of images, or an array."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from transference.core.errors import must_be
from transference.data.decoders import image
from transference.data.decoders.parts import Array, CellFault, Prepared, Source, load_npy, natural


def prepare(source: Source, options: Mapping[str, Any]) -> Prepared:
    """Rows of (frames, channels, height, width); a cell names a folder of images, or a .npy (frames, h, w[, c])."""

    def look(cell: Any) -> tuple[int, tuple[int, int], bool, Callable[..., Array]]:
        path = source.files.find(cell, "a folder of frames or a .npy array")
        if path.is_dir():
            frames = frames_of(path, cell)
            size, grey = image.header(frames[0], f"{cell}/{frames[0].name}")
            return len(frames), size, grey, partial(_load_folder, frames, cell)
        if path.suffix.lower() != ".npy":
            raise CellFault(must_be("A video", "a folder of images, or a .npy array (frames, height, width)", cell))
        array = load_npy(path, cell)
        image.check_pixels(array, cell, 3)
        grey = array.ndim == 3 or array.shape[3] == 1
        return len(array), (array.shape[1], array.shape[2]), grey, partial(_load_array, path, cell)

    rows = source.each(look)
    size = image.common_size(options, [row[1] for row in rows.values()])
    channels = image.common_channels(options, [row[2] for row in rows.values()])
    most = int(options.get("length", 0)) or max((row[0] for row in rows.values()), default=1)
    length = most if source.fitted else min(most, max((row[0] for row in rows.values()), default=1))
    return Prepared(
        "video",
        (length, channels, *size),
        {row: partial(load, length, size, channels) for row, (_, _, _, load) in rows.items()},
        {"size": list(size), "channels": channels, "length": length},
        lengths=True,
    )


def frames_of(folder: Path, cell: str) -> list[Path]:
    """The images of a folder in the natural order of their names."""
    frames = [entry for entry in folder.iterdir() if entry.suffix.lower() in image.SUFFIXES and entry.is_file()]
    frames = [entry for entry in frames if entry.resolve().is_relative_to(folder)]
    if not frames:
        raise CellFault(must_be(f"The folder {cell!r}", "a folder with one image a frame", "no image in it"))
    return sorted(frames, key=lambda entry: natural(entry.name))


def _load_folder(frames: list[Path], cell: str, most: int, size: tuple[int, int], channels: int) -> Array:
    return np.stack([image.load(frame, f"{cell}/{frame.name}", size, channels) for frame in frames[:most]])


def _load_array(path: Path, cell: str, most: int, size: tuple[int, int], channels: int) -> Array:
    pixels = image.unit(load_npy(path, cell)[:most], cell)
    return np.stack([image.fit(frame, size, channels) for frame in pixels])
