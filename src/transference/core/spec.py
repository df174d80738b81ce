"""What the data look like, without the data: modalities, task."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

from transference.core.errors import DataError

Kind = Literal["image", "audio", "video", "text", "series", "table", "vector", "set"]
KINDS: tuple[Kind, ...] = ("image", "audio", "video", "text", "series", "table", "vector", "set")
SEQUENCES: frozenset[Kind] = frozenset({"audio", "video", "text", "series", "set"})
TaskKind = Literal[
    "classification", "regression", "multilabel", "unsupervised", "retrieval", "zero_shot", "few_shot", "generation"
]
POSED: tuple[TaskKind, ...] = ("classification", "regression", "multilabel", "unsupervised")
"""What labels, or their absence, pose to `fit`; the others are ways in which a fitted method is asked."""
OF_TWO: frozenset[TaskKind] = frozenset({"retrieval", "zero_shot", "generation"})
"""What cannot be asked of a method that knows the primary modality alone."""


@dataclass(frozen=True, slots=True)
class ModalitySpec:
    """One modality as a method sees it.

    Attributes
    ----------
    name
        Letters, digits, ``_`` and ``-``.
    kind
        ``image`` (channels, height, width) in [0, 1], or as a pretrained model wants it; ``audio`` (frames, mel bands)
        in log power; ``video`` (frames, channels, height, width); ``text`` (words,) hashed word numbers or (tokens,)
        token numbers, 0 is padding; ``series`` (steps, d); ``set`` (elements, d); ``table`` and ``vector`` (d,).
    shape
        Of one row, padded where rows differ in length.
    lengths
        Whether rows differ in length along the first axis.
    vocabulary
        For text, how many word or token numbers there are, padding included; 0 elsewhere.
    encoder
        How raw input became these numbers when a pretrained encoder did it (``hf:<id>``), else "".
    reading
        What the reader needs to turn a raw cell of this modality into one row again (size, sample rate,
        column names, categories ...), so that a deployed model reads new rows the same way.
    folder
        Where the files of a pretrained model that is fine-tuned are looked up; no part of what the modality is.
    """

    name: str
    kind: Kind
    shape: tuple[int, ...]
    lengths: bool = False
    vocabulary: int = 0
    encoder: str = ""
    reading: Mapping[str, object] = field(default_factory=dict, hash=False)
    folder: str = field(default="", repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Task:
    """What is predicted: the kind and, for classes, their names in the order of the scores."""

    kind: TaskKind
    classes: tuple[object, ...] = ()
    outputs: int = 1


@dataclass(frozen=True, slots=True)
class DataSpec:
    """The modalities by name, which one is deployed, and the task."""

    modalities: Mapping[str, ModalitySpec]
    primary: str
    task: Task

    @property
    def secondary(self) -> tuple[str, ...]:
        """All modalities but the primary one, sorted by name."""
        return tuple(sorted(name for name in self.modalities if name != self.primary))


def spec_to_json(spec: DataSpec) -> str:
    """The text that `spec_from_json` reads."""
    return json.dumps(asdict(spec), indent=1, sort_keys=True, ensure_ascii=False)


def spec_from_json(text: str) -> DataSpec:
    """Raises DataError when the text is not a whole DataSpec.

    >>> spec = DataSpec({"x": ModalitySpec("x", "vector", (3,))}, "x", Task("classification", ("a", "b"), 2))
    >>> spec_from_json(spec_to_json(spec)) == spec
    True
    """
    try:
        raw = json.loads(text)
        modalities = {
            name: ModalitySpec(**{**each, "shape": tuple(each["shape"])}) for name, each in raw["modalities"].items()
        }
        task = Task(**{**raw["task"], "classes": tuple(raw["task"]["classes"])})
        return DataSpec(modalities, raw["primary"], task)
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"A description of the data is damaged: {error!r}. Run the study again.") from error
