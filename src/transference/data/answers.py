"""What a language model said, and the folder that keeps it: one JSON file an answer, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transference.core.errors import DataError


@dataclass(frozen=True)
class Answer:
    """What a model said.

    Attributes
    ----------
    text
        Empty in a dry run.
    likely
        The log-probabilities, in nats, of the likeliest first tokens; empty if not asked for, or not told.
    tokens
        Of the question and of the answer, as the server counts them; estimated where it does not.
    cached
        Whether it was on disk.
    """

    text: str
    likely: Mapping[str, float] = field(default_factory=dict)
    tokens: tuple[int, int] = (0, 0)
    cached: bool = False


class Kept:
    """Answers by name, below a folder; None = the user's cache folder for this package."""

    def __init__(self, folder: str | Path | None) -> None:
        from transference.data.readers import default_cache

        self.folder = Path(default_cache() if folder is None else folder).expanduser() / "chat"

    def path(self, name: str) -> Path:
        return self.folder / name[:2] / f"{name}.json"

    def load(self, name: str) -> Answer | None:
        """None where there is no such answer, or where it is damaged, which a warning tells."""
        path = self.path(name)
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            if kept.pop("blake2b") == _checksum(kept):
                return Answer(kept["text"], kept["likely"], (kept["tokens"][0], kept["tokens"][1]), cached=True)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, LookupError, AttributeError, TypeError):
            pass  # as where the checksum differs
        warnings.warn(f"The kept answer {path.name} is damaged and is asked for again.", stacklevel=4)
        return None

    def keep(self, name: str, answer: Answer) -> None:
        """Write it, so that it is there whole or not at all."""
        path = self.path(name)
        kept: dict[str, Any] = {"text": answer.text, "likely": dict(answer.likely), "tokens": list(answer.tokens)}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(suffix=".part", dir=path.parent)
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    json.dump({**kept, "blake2b": _checksum(kept)}, file)
                os.replace(temporary, path)
            finally:
                Path(temporary).unlink(missing_ok=True)
        except OSError as error:
            raise DataError(
                f"An answer cannot be written to {str(path.parent)!r}: {error}. "
                "Free space there, or choose another cache folder."
            ) from error


def digest(about: Any) -> str:
    """The name of an answer, from all that it depends on."""
    text = json.dumps(about, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=20).hexdigest()


def _checksum(kept: Mapping[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(kept, sort_keys=True).encode(), digest_size=16).hexdigest()
