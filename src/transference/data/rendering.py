"""Rows written out as texts, for a language model that knows nothing of arrays.

    text in bytes, or cut by a tokenizer    the text itself
    table                                   "age 34, sex male": a name and a value a column, where it was read from one
    vector                                  its numbers with 3 significant digits
    series, set                             a step (an element) in square brackets

Of a vector the first 256 numbers are written, of a series as many steps, spaced evenly from the first to the last, as
make about 256 numbers, of a set the first elements; a note says so. Images, sounds and videos are written out only
where a row has at most 256 numbers. Words that were hashed can not be written out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transference.core.errors import DataError
from transference.core.spec import ModalitySpec
from transference.core.views import Views
from transference.data.decoders.text import from_bytes

MOST = 256  # numbers of a row

Row = NDArray[Any]


def as_texts(X: Views, name: str) -> list[str]:
    """A text for each row, "" where it lacks this modality.

    Raises
    ------
    DataError
        For words that were hashed, and for images, sounds and videos of more than 256 numbers.

    Examples
    --------
    >>> as_texts(Views.of(primary="x", x=[[0.12345, 20.0]], s=[[[1.0], [2.0]]]), "s")
    ['[1] [2]']
    """
    array, spec, present = X[name], X.specs[name], X.present[name]
    lengths = X.lengths.get(name, np.full(len(X), spec.shape[0]))
    write = _writer(spec)
    return [
        write(np.asarray(row)[:length] if spec.lengths else np.asarray(row)) if there else ""
        for row, length, there in zip(array, lengths.tolist(), present.tolist(), strict=True)
    ]


def _writer(spec: ModalitySpec) -> Callable[[Row], str]:
    if spec.kind == "text":
        return _text_writer(spec)
    if spec.kind in ("image", "audio", "video"):
        if math.prod(spec.shape) > MOST:
            raise DataError(
                f"The {spec.kind} {spec.name!r} cannot be written out as text: a row has {math.prod(spec.shape)} "
                f"numbers, and {MOST} are the most. Give its caption or transcript as a modality of the kind 'text', "
                "or leave it out of the study."
            )
        return lambda row: _steps(row.reshape(-1, row.shape[-1]), MOST)
    if spec.kind == "series":
        return _series
    if spec.kind == "set":
        return lambda row: _steps(row, max(1, MOST // max(1, row.shape[1])))
    reading: Mapping[str, Any] = spec.reading
    if spec.kind == "table" and {"columns", "medians", "categories"} <= reading.keys():
        return lambda row: _named(row, reading)
    return _vector


def _text_writer(spec: ModalitySpec) -> Callable[[Row], str]:
    reading: Mapping[str, Any] = spec.reading
    if reading.get("units") == "bytes":
        return from_bytes
    if "tokenizer" in reading:
        from transference.data.hub import find_model, load_preparer

        shown = str(reading["tokenizer"])
        tokenizer = load_preparer(find_model(shown, Path(spec.folder)), shown, "text")

        def decode(row: Row) -> str:
            tokens = row[row > 0].astype(int) - 1  # a token's number is one higher than in its tokenizer
            text: str = tokenizer.decode(tokens.tolist(), skip_special_tokens=True)
            return text

        return decode
    if "vocabulary" in reading:
        raise DataError(
            f"The text {spec.name!r} was read as hashed words, which cannot be written out again. Write units = "
            f'"bytes" under [data.modalities.{spec.name}], so that a language model can be given the text.'
        )
    return lambda row: " ".join(f"word {number}" for number in row[row > 0].astype(int).tolist())


def _number(value: float) -> str:
    return f"{value:.3g}"


def _vector(row: Row) -> str:
    text = ", ".join(map(_number, row[:MOST].tolist()))
    return text if len(row) <= MOST else f"{text} (the first {MOST} of {len(row)} numbers)"


def _steps(rows: Row, most: int) -> str:
    text = " ".join(f"[{_vector(row)}]" for row in rows[:most])
    return text if len(rows) <= most else f"{text} (the first {most} of {len(rows)})"


def _series(row: Row) -> str:
    most = max(2, MOST // max(1, row.shape[1]))
    if len(row) <= most:
        return _steps(row, most)
    chosen = np.linspace(0, len(row) - 1, most).round().astype(int)
    return f"{_steps(row[chosen], most)} ({most} of {len(row)} steps, evenly spaced)"


def _named(row: Row, reading: Mapping[str, Any]) -> str:
    parts, start = [], 0
    for column in reading["columns"]:
        if column in reading["medians"]:
            parts.append(f"{column} {_number(float(row[start]))}")
            start += 1
        else:
            options = [*reading["categories"][column], "other"]
            parts.append(f"{column} {options[int(row[start : start + len(options)].argmax())]}")
            start += len(options)
    return ", ".join(parts)
