"""A key that something echoes is struck out: of answers, of what errors say, of the log lines of an HTTP client."""

from __future__ import annotations

import logging
import os
import re

STRUCK = "[key]"
SHORTEST = 12  # characters of a key that is struck out of answers
LOGGERS = ("openai", "httpx", "httpcore")  # with whatever follows


def struck(text: str, key: str) -> str:
    """The text without the key, however often a backslash was put before its quotes and backslashes.

    >>> struck("Bearer abc is wrong", "abc"), struck("nothing to strike", "")
    ('Bearer [key] is wrong', 'nothing to strike')
    """
    letters = [re.escape(letter) for letter in key if letter != "\\"]
    return re.sub(r"\\*".join(letters), STRUCK, text) if letters else text


def struck_from_answer(text: str, key: str) -> str:
    """The text of an answer without the key; a short one is a word that stands in for none, such as "none"."""
    return struck(text, key) if len(key) >= SHORTEST else text


def told(error: Exception, key: str) -> str:
    """What an error says, on one line and cut; the key is struck out before."""
    return f"{type(error).__name__}: {' '.join(struck(str(error), key).split())[:300]}".rstrip(".")


def guard_logs(variable: str) -> None:
    """From now on the client's loggers strike out what this environment variable holds."""
    _GUARD.variables.add(variable)
    for name in [each for each in logging.root.manager.loggerDict if each.startswith(LOGGERS)]:
        logging.getLogger(name).addFilter(_GUARD)


class _Guard(logging.Filter):
    def __init__(self) -> None:
        super().__init__()
        self.variables: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        said = safe = record.getMessage()
        for variable in self.variables:
            safe = struck(safe, os.environ.get(variable, "").strip())
        if safe != said:
            record.msg, record.args = safe, ()
        return True


_GUARD = _Guard()
