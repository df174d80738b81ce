"""One error family, one wording: subject, expectation, what came, remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

MOST_CHOICES = 40  # that a suggestion lists


class TransferenceError(Exception):
    """Every error that this package raises on purpose.

    Attributes
    ----------
    faults
        The messages in it, one by one, where several were gathered.
    """

    faults: tuple[str, ...] = ()


class ConfigError(TransferenceError, ValueError):
    """A study file, a parameter or a name is wrong."""


class DataError(TransferenceError, ValueError):
    """A manifest, a file it names, or an array is wrong."""


class NotFittedError(TransferenceError, AttributeError):
    """A method was asked for an answer before it was fitted."""


class DivergenceError(TransferenceError, ArithmeticError):
    """A loss stopped being a finite number."""


def must_be(subject: str, expected: str, got: object, remedy: str = "") -> str:
    """The one wording of the house: ``'x' must be ... Got ... instead. Remedy.``

    >>> must_be("The 'weight' parameter of Latent", "a float in [0, 1]", 1.2)
    "The 'weight' parameter of Latent must be a float in [0, 1]. Got 1.2 instead."
    """
    shown = got if isinstance(got, str) and " " in got else repr(got)
    return f"{subject} must be {expected}. Got {shown} instead." + (f" {remedy}" if remedy else "")


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """A suggestion for a misspelt name, with the choice (of many, the first few) where nothing is close.

    >>> did_you_mean("fusion.erly", ["fusion.early", "fusion.late"])
    "Did you mean 'fusion.early'?"
    >>> did_you_mean("zzz", ["a", "b"])
    "Choose one of 'a', 'b'."
    """
    choices = sorted(options)
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.55)
    if close:
        return f"Did you mean {close[0]!r}?"
    rest = f", ... ({len(choices)} in all)" if len(choices) > MOST_CHOICES else ""
    return f"Choose one of {', '.join(map(repr, choices[:MOST_CHOICES]))}{rest}." if choices else ""


class Faults:
    """Faults gathered while one thing is read, so that they are all told at once."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def add(self, message: str) -> None:
        if message not in self.messages:
            self.messages.append(message)


@contextmanager
def collect(title: str, error: type[TransferenceError] = DataError, most: int = 50) -> Iterator[Faults]:
    """Gather faults in the body and raise them together as one `error` at its end.

    An `error` raised in the body joins the faults; any other exception passes through.
    """
    faults = Faults()
    try:
        yield faults
    except error as raised:
        faults.add(str(raised))
    if faults.messages:
        shown = faults.messages[:most]
        rest = len(faults.messages) - len(shown)
        lines = [f"{title}: {len(faults.messages)} fault{'s' if len(faults.messages) > 1 else ''}"]
        lines += [f"  {k}. {message}" for k, message in enumerate(shown, 1)]
        lines += [f"  ... and {rest} more"] if rest else []
        together = error("\n".join(lines))
        together.faults = tuple(faults.messages)
        raise together
