"""Text to word numbers: lower-case words, hashed; 0 is padding. Tags of HTML count as words."""

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


def prepare(source: Source, options: Mapping[str, Any]) -> Prepared:
    """Rows of (words,) numbers."""
    vocabulary = int(options.get("vocabulary", VOCABULARY))
    most = int(options.get("length", LENGTH))
    known: dict[str, int] = {}

    def look(cell: Any) -> Array:
        if not isinstance(cell, str):
            raise CellFault(must_be("A cell", "a text", type(cell).__name__))
        found = words(cell)[:most]
        for word in found:
            if word not in known:
                known[word] = number(word, vocabulary)
        return np.array([known[word] for word in found], np.float32)

    rows = source.each(look)
    length = most if source.fitted else max(map(len, rows.values()), default=1)
    return Prepared(
        "text",
        (length,),
        {row: partial(_same, value) for row, value in rows.items()},
        {"vocabulary": vocabulary, "length": length},
        lengths=True,
        vocabulary=vocabulary,
    )


def _same(value: Array) -> Array:
    return value
