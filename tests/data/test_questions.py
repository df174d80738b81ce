"""What class an answer names, and templates whose fields are wrong."""

from __future__ import annotations

import pytest

from transference.core.errors import ConfigError
from transference.data.questions import class_named, fields_of, filled


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Answer: dog", "dog"),
        ("It has a tail, so a cat or a dog.\n\n**Answer:** \n Dog.", "dog"),
        ("Answer: cat\nNo, wait. Answer: wild cat", "wild cat"),
        ("The answer is: the dog, I think", "dog"),
        ("I would say a wild cat", "wild cat"),
        ("Answer: cat, not dog", None),
        ("A dog. Answer: none of them", None),
        ("cat or dog", None),
        ("a dogfish or a hot-dog", None),
        ("", None),
    ],
)
def test_the_class_is_what_stands_after_the_last_mark(text: str, wanted: str | None) -> None:
    classes = ["cat", "wild cat", "dog"]
    assert class_named(text, classes) == (None if wanted is None else classes.index(wanted))


def test_numbers_and_case_tell_classes_apart() -> None:
    assert [class_named(text, [1, -1, 10]) for text in ("Answer: -1", "Answer: 10.", "it is 1", "3.1", "1.5")] == [
        1,
        2,
        0,
        None,
        None,
    ]
    assert [class_named(f"Answer: {text}", ["A", "a", "b"]) for text in ("A", "a", "B")] == [0, 1, 2]
    assert class_named("Answer: x (see y)", ["x (see y)", "x"]) == 0
    assert class_named("**Answer:** **[b]**", ["a", "[b]"]) == 1
    assert class_named("I say cat fish it is", ["cat", "cat fish"]) == 1


def test_what_is_shown_is_no_template_itself() -> None:
    assert filled("{a-b}, {c} of {classes}", {"a-b": "{c} {0}"}, ["a-b", "c"], [1, 2]) == "{c} {0}, (not known) of 1, 2"


def test_wrong_fields_are_told() -> None:
    assert fields_of("{{}} {x}", ["x"]) == ["x"]
    for template, told in (("{wrds}", "a field 'wrds' of nothing known. Did you mean 'words'"), ("{}", "a field ''")):
        with pytest.raises(ConfigError, match=told):
            fields_of(template, ["words", "classes"])
    with pytest.raises(ConfigError, match="cannot be read"):
        fields_of("{words")
