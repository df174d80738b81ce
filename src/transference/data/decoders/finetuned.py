"""Cells as a pretrained model that is fine-tuned takes them: token numbers, or the pixels of its image processor.

A token's number is one higher than in its tokenizer: 0 is padding, as in every text, whatever the tokenizer pads with.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from transference.core.errors import ConfigError, DataError, must_be
from transference.data.decoders import image
from transference.data.decoders.parts import Array, CellFault, Prepared, Source
from transference.data.hub import (
    find_model,
    identities,
    load_preparer,
    loading,
    most_tokens,
    require_transformers,
    require_weights,
)


def prepare_tokens(source: Source, options: Mapping[str, Any]) -> Prepared:
    """Rows of (tokens,) numbers, a long text cut as its tokenizer cuts it."""
    found, reading = _model(source, options, "tokenizer")
    tokenizer, shown = load_preparer(found, options["tokenizer"], "text"), options["tokenizer"]
    most = options["length"] if source.fitted else _most(tokenizer, found, shown, options.get("length"))
    texts = source.each(_text)
    answers = tokenizer(list(texts.values()), truncation=True, max_length=most)["input_ids"] if texts else []
    rows = {row: np.array(numbers, np.float32) + 1 for row, numbers in zip(texts, answers, strict=True)}
    length = most if source.fitted else max([1, *map(len, rows.values())])
    _try(source, found, shown, "text", (length,))
    return Prepared(
        "text",
        (length,),
        {row: partial(np.copy, value) for row, value in rows.items()},
        {**reading, "length": length},
        lengths=True,
        vocabulary=max(tokenizer.get_vocab().values()) + 2,
        folder=str(source.files.root),
    )


def prepare_pixels(source: Source, options: Mapping[str, Any]) -> Prepared:
    """Rows of (channels, height, width): resized, cut and scaled as the model's image processor does it."""
    found, reading = _model(source, options, "processor")
    processor, shown = load_preparer(found, options["processor"], "image"), options["processor"]
    shape = _pixels(processor, Image.new("RGB", (64, 64))).shape
    _try(source, found, shown, "image", shape)
    rows = source.each(lambda cell: (source.files.find(cell, "an image"), cell))
    return Prepared(
        "image",
        shape,
        {row: partial(_load, processor, path, cell, shape) for row, (path, cell) in rows.items()},
        reading,
        folder=str(source.files.root),
    )


def _model(source: Source, options: Mapping[str, Any], what: str) -> tuple[Path, dict[str, Any]]:
    """The folder of the model, and what `ModalitySpec.reading` keeps of it; weights are not needed to read new rows."""
    shown = options[what]
    require_transformers()
    try:
        found = find_model(shown, source.files.root)
    except ConfigError as error:
        if not source.fitted:
            raise
        raise DataError(
            f"The column {source.column!r} is read with the {what} of {shown!r}, and there is neither such a folder "
            "beside the table, nor a model of this name that can be fetched. Put the folder that the model was trained "
            "with there; its weights may be left out."
        ) from error
    if not source.fitted:
        require_weights(found, shown)
        return found, {what: shown, "trained": True, **identities(found, what)}
    if identities(found, what)["identity"] != options["identity"]:
        raise DataError(
            f"The {what} of {shown!r} that reads the column {source.column!r} is not the one that the model was "
            "trained with: its files differ. Put the same files back, or train again."
        )
    return found, {key: options[key] for key in (what, "trained", "identity", "weights")}


def _most(tokenizer: Any, found: Path, shown: str, length: int | None) -> int:
    import transformers

    with loading(shown, "text"):
        config = transformers.AutoConfig.from_pretrained(found, trust_remote_code=False, local_files_only=True)
    most, special = most_tokens(tokenizer, config, found, length), tokenizer.num_special_tokens_to_add()
    if most <= special:
        raise ConfigError(must_be(f"The 'length' of a text that {shown!r} reads", f"more than {special} tokens", most))
    return most


def _try(source: Source, found: Path, shown: str, kind: str, shape: tuple[int, ...]) -> None:
    """Refuse a model that cannot be fine-tuned now, rather than in training."""
    if not source.fitted:
        from transference.data.pretrained import load_backbone

        load_backbone(found, shown, kind).size(shown, kind, shape)


def _text(cell: Any) -> str:
    if not isinstance(cell, str):
        raise CellFault(must_be("A cell", "a text", type(cell).__name__))
    return cell


def _pixels(processor: Any, picture: Image.Image) -> Array:
    pixels: Array = processor(images=[picture], return_tensors="np")["pixel_values"][0]
    return pixels


def _load(processor: Any, path: Path, cell: str, shape: tuple[int, ...]) -> Array:
    pixels = _pixels(processor, image.rgb(path, cell))
    if pixels.shape != shape:
        remedy = "Fine-tune a model whose processor gives all images one size, or cut the images."
        raise CellFault(must_be(f"The processed image {cell!r}", f"of shape {shape}", pixels.shape, remedy))
    return pixels
