"""Questions about rows put to a language model, and what class its answer names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from string import Formatter
from typing import Any

from transference.core.errors import ConfigError, did_you_mean

NOTHING = "(not known)"
_AROUND = " \t\"'`*_.()[]<>"  # that a name may stand in
_MARK = re.compile(r"\banswer\b[\s*_]*(?:is)?[\s*_]*[:=]", flags=re.IGNORECASE)


def fields_of(template: str, known: Iterable[str] | None = None) -> list[str]:
    """The fields of a template; ConfigError unless they are well formed and, where given, among the known ones.

    >>> fields_of("Is {words} one of {classes}?", ["words", "classes", "look"])
    ['words', 'classes']
    """
    try:
        fields = [field for _, field, _, _ in Formatter().parse(template) if field is not None]
    except (ValueError, TypeError) as error:
        raise ConfigError(f"The template {template!r} cannot be read: {error}. Write a brace as '{{{{'.") from error
    options = None if known is None else list(known)
    for field in fields:
        if options is not None and field not in options:
            raise ConfigError(f"The template has a field {field!r} of nothing known. {did_you_mean(field, options)}")
    return fields


def filled(template: str, shown: Mapping[str, str], names: Iterable[str], classes: Sequence[Any]) -> str:
    """A template with ``{classes}``, with ``{views}``, a line for each modality that is shown, and with single ones.

    >>> filled("{views}; {b}? {classes}", {"a": "x"}, ["a", "b"], ["ant", "bee"])
    'a: x; (not known)? ant, bee'
    """
    views = "\n".join(f"{name}: {text}" for name, text in shown.items())
    each = {name: shown.get(name, NOTHING) for name in names}
    return template.format_map({"views": views, "classes": ", ".join(map(str, classes)), **each})


def class_named(text: str, classes: Sequence[Any]) -> int | None:
    """The number of the one class that a text names, after its last "Answer:" where it has one; None otherwise.

    Upper and lower case are the same. A class is named by its whole name, the longest that fits.

    >>> classes = ["cat", "wild cat", "dog"]
    >>> class_named("A dog? No. Answer: **Wild cat**.", classes), class_named("cat", classes)
    (1, 0)
    >>> class_named("Answer: cat or dog", classes), class_named("a catfish", classes)
    (None, None)
    """
    marks = list(_MARK.finditer(text))
    told = text
    if marks:
        told = next((line for line in text[marks[-1].end() :].splitlines() if line.strip(_AROUND)), "")
    whole = _number(told.strip(_AROUND), classes)
    if whole is not None:
        return whole
    longest = "|".join(re.escape(name) for name in sorted(map(str, classes), key=len, reverse=True))
    pattern = rf"(?<![\w-])(?<!\d[.,])(?:{longest})(?![\w-]|[.,]\d)"
    found = {_number(name, classes) for name in re.findall(pattern, told, flags=re.IGNORECASE)}
    return found.pop() if len(found) == 1 else None


def _number(name: str, classes: Sequence[Any]) -> int | None:
    """The class of this name; of several that differ in case the one that is written so."""
    names = [str(each) for each in classes]
    if name in names:
        return names.index(name)
    alike = [k for k, each in enumerate(names) if each.casefold() == name.casefold()]
    return alike[0] if len(alike) == 1 else None
