"""Images to (channels, height, width) in [0, 1]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from transference.core.errors import must_be
from transference.data.decoders.parts import Array, CellFault, Prepared, Source, load_npy

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"})
DEFAULT_SIZE = 64
LARGEST_DEFAULT = 256
_ORIENTATION, _TURNED = 0x0112, frozenset({5, 6, 7, 8})
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)


def prepare(source: Source, options: Mapping[str, Any]) -> Prepared:
    """Rows of (channels, height, width): turned upright by EXIF, transparency on white, stretched to one size.

    Bytes are divided by 255 and deeper integers, of files too that hold 32 bits, by 65535; floats must lie in [0, 1].
    """

    def look(cell: Any) -> tuple[Path, str, tuple[int, int], bool]:
        path = source.files.find(cell, "an image")
        return path, cell, *header(path, cell)

    rows = source.each(look)
    size = common_size(options, [row[2] for row in rows.values()])
    channels = common_channels(options, [row[3] for row in rows.values()])
    return Prepared(
        "image",
        (channels, *size),
        {row: partial(load, path, cell, size, channels) for row, (path, cell, _, _) in rows.items()},
        {"size": list(size), "channels": channels},
    )


def common_size(options: Mapping[str, Any], sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """(height, width): as asked for; or what all have in common, unless that is large; or 64 by 64."""
    if "size" in options:
        height, width = options["size"]
        return int(height), int(width)
    if len(set(sizes)) == 1 and max(sizes[0]) <= LARGEST_DEFAULT:
        return sizes[0]
    return DEFAULT_SIZE, DEFAULT_SIZE


def common_channels(options: Mapping[str, Any], grey: Sequence[bool]) -> int:
    return int(options["channels"]) if "channels" in options else 1 if grey and all(grey) else 3


def header(path: Path, cell: str) -> tuple[tuple[int, int], bool]:
    """(height, width) upright, and whether it is grey; nothing is decoded."""
    if path.suffix.lower() == ".npy":
        array = load_npy(path, cell)
        check_pixels(array, cell, 2)
        return (array.shape[0], array.shape[1]), array.ndim == 2 or array.shape[2] == 1
    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(_ORIENTATION) in _TURNED
            return ((width, height) if turned else (height, width)), _is_grey(image)
    except _UNREADABLE as error:
        raise _unreadable(cell, error) from error


def load(path: Path, cell: str, size: tuple[int, int], channels: int) -> Array:
    """(channels, height, width) float32 in [0, 1]."""
    if path.suffix.lower() == ".npy":
        return fit(unit(load_npy(path, cell), cell), size, channels)
    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened)
            if image.mode == "F":
                return fit(unit(np.asarray(image), cell), size, channels)
            if image.mode.startswith("I"):
                return fit(_deep(np.asarray(image), cell), size, channels)
            if "A" in image.getbands() or "transparency" in image.info:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            image = image.convert("L" if channels == 1 else "RGB")
            if (image.height, image.width) != size:
                image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
            pixels = np.asarray(image, np.float32) / 255
    except _UNREADABLE as error:
        raise _unreadable(cell, error) from error
    return pixels[None] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def rgb(path: Path, cell: str) -> Image.Image:
    """The whole image upright in colour, for encoders with a preprocessing of their own."""
    size, _ = header(path, cell)
    pixels = load(path, cell, size, 3)
    return Image.fromarray((pixels.transpose(1, 2, 0) * 255).round().astype(np.uint8))


def check_pixels(array: Array, cell: str, axes: int) -> None:
    """`axes` axes ending in height and width, and perhaps 1, 3 or 4 channels."""
    names = "(height, width)" if axes == 2 else "(frames, height, width)"
    plain = array.ndim == axes
    if not (plain or (array.ndim == axes + 1 and array.shape[-1] in (1, 3, 4))) or 0 in array.shape:
        raise CellFault(
            must_be(f"The array {cell!r}", f"of shape {names}, with 1, 3 or 4 channels last if any", array.shape)
        )


def unit(array: Array, cell: str) -> Array:
    """Pixels in [0, 1]: bytes and 16-bit numbers are divided by their largest value, floats are in it already."""
    if array.dtype.kind in "bu":
        return np.asarray(array, np.float32) / (1 if array.dtype.kind == "b" else np.iinfo(array.dtype).max)
    pixels = np.asarray(array, np.float32)
    if not (pixels.min() >= 0 and pixels.max() <= 1):
        raise _out_of_range(array, cell, "unsigned integers, or floats in [0, 1]")
    return pixels


def _deep(array: Array, cell: str) -> Array:
    """Pixels in [0, 1] from integers of 16 bits, which files and Pillow also keep in 32."""
    if array.min() < 0 or array.max() > 65535:
        raise _out_of_range(array, cell, "integers in [0, 65535], or floats in [0, 1]")
    return np.asarray(array, np.float32) / 65535


def _out_of_range(array: Array, cell: str, expected: str) -> CellFault:
    met = f"{array.dtype} from {array.min():g} to {array.max():g}"
    return CellFault(must_be(f"The pixels of {cell!r}", expected, met, "Scale them."))


def fit(pixels: Array, size: tuple[int, int], channels: int) -> Array:
    """(height, width[, channels]) in [0, 1] to (channels, *size)."""
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.shape[2] == 4:
        alpha = pixels[:, :, 3:]
        pixels = pixels[:, :, :3] * alpha + (1 - alpha)
    if channels == 1 and pixels.shape[2] == 3:
        pixels = pixels @ np.array([[0.299], [0.587], [0.114]], np.float32)
    planes = [np.ascontiguousarray(pixels[:, :, k]) for k in range(pixels.shape[2])]
    if pixels.shape[:2] != size:
        planes = [
            np.asarray(Image.fromarray(plane).resize((size[1], size[0]), Image.Resampling.BILINEAR)) for plane in planes
        ]
    return np.stack(planes * (channels // len(planes))).astype(np.float32)


def _is_grey(image: Image.Image) -> bool:
    return image.mode in ("1", "L", "LA", "La", "F") or image.mode.startswith("I")


def _unreadable(cell: str, error: BaseException) -> CellFault:
    got = f"{type(error).__name__}: {error}" if not isinstance(error, Image.UnidentifiedImageError) else "another file"
    return CellFault(
        must_be(
            f"The image {cell!r}",
            "a readable image file",
            f"{got}"[:120],
            "Save it again as PNG or JPEG, or empty the cell.",
        )
    )
