"""Text to word numbers: lower-case words, hashed; 0 is padding. Tags of HTML count as words.

Or to its bytes of UTF-8, each one higher, from which it can be written out again.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from transference.core.errors import must_be
from transference.data.decoders.parts import Array, CellFault, Prepared, Source

VOCABULARY = 8192
LENGTH = 1024
BYTES = 4096  # that are kept of a text in bytes, at most

_IDEOGRAPHS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_JOINERS = "\u200c\u200d"  # within words of Persian and Hindi
_MARKS = "".join(each for each in map(chr, range(0x300, 0xFFFF)) if unicodedata.category(each)[0] == "M") + _JOINERS
_LETTERS = rf"[^\W{_IDEOGRAPHS}]"
_WORD = re.compile(rf"[{_IDEOGRAPHS}]|{_LETTERS}+(?:[{_MARKS}]+{_LETTERS}*)*")


def words(text: str) -> list[str]:
    """The words of a text, which keep their accents and vowel signs, however these are encoded.

    Chinese and Japanese are cut by character; a text without words is cut by its punctuation marks.

    >>> words("Don't <B>panic</B>!"), words("?!")
    (['don', 't', 'b', 'panic', 'b'], ['?', '!'])
    """
    lower = unicodedata.normalize("NFC", text.lower())
    return _WORD.findall(lower) or list("".join(lower.split()))


def number(word: str, vocabulary: int) -> int:
    """The number of a word, in [1, vocabulary)."""
    return zlib.crc32(word.encode("utf-8", "surrogatepass")) % (vocabulary - 1) + 1


def as_bytes(text: str, most: int | None = None) -> Array:
    """(bytes,) numbers of the bytes of a text, each one higher: 0 is padding. It is cut between two characters.

    >>> as_bytes("é!").tolist(), as_bytes("né", 2).tolist()
    ([196.0, 170.0, 34.0], [111.0])
    """
    whole = text.encode("utf-8", "replace")[:most].decode("utf-8", "ignore").encode()
    return np.frombuffer(whole, np.uint8).astype(np.float32) + 1


def from_bytes(numbers: Array) -> str:
    """The text of which these are the bytes, padding left out.

    >>> from_bytes(as_bytes("né"))
    'né'
    """
    real = np.asarray(numbers)[np.asarray(numbers) > 0] - 1
    return real.astype(np.uint8).tobytes().decode("utf-8", "replace")


def prepare(source: Source, options: Mapping[str, Any]) -> Prepared:
    """Rows of (words,) or (bytes,) numbers."""
    in_bytes = options.get("units") == "bytes"
    vocabulary = 257 if in_bytes else int(options.get("vocabulary", VOCABULARY))
    most = int(options.get("length", BYTES if in_bytes else LENGTH))
    known: dict[str, int] = {}

    def look(cell: Any) -> Array:
        if not isinstance(cell, str):
            raise CellFault(must_be("A cell", "a text", type(cell).__name__))
        if in_bytes:
            return as_bytes(cell, most)
        found = words(cell)[:most]
        for word in found:
            if word not in known:
                known[word] = number(word, vocabulary)
        return np.array([known[word] for word in found], np.float32)

    rows = source.each(look)
    length = most if source.fitted else max([1, *map(len, rows.values())])
    units: dict[str, Any] = {"units": "bytes"} if in_bytes else {"vocabulary": vocabulary}
    return Prepared(
        "text",
        (length,),
        {row: partial(_same, value) for row, value in rows.items()},
        {**units, "length": length},
        lengths=True,
        vocabulary=vocabulary,
    )


def _same(value: Array) -> Array:
    return value
