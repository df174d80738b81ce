"""How one modality of a table is read: what a user writes under ``[data.modalities.NAME]``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from transference.core.errors import must_be
from transference.core.spec import Kind

OPTIONS: Mapping[Kind, frozenset[str]] = {
    "image": frozenset({"size", "channels"}),
    "video": frozenset({"size", "channels", "length"}),
    "audio": frozenset({"rate", "mels", "length"}),
    "text": frozenset({"vocabulary", "length", "units"}),
    "series": frozenset({"length"}),
    "set": frozenset({"length"}),
    "table": frozenset({"categories"}),
    "vector": frozenset(),
}
ENCODED: frozenset[Kind] = frozenset({"text", "image", "audio"})
FINE_TUNED: Mapping[Kind, str] = {"text": "tokenizer", "image": "processor"}
"""Kind -> what of a pretrained model reads the cells when its weights are trained too."""


class ModalityConfig(BaseModel):
    """One modality of a table: where it is and how it is read.

    Attributes
    ----------
    kind
        What the cells hold; see `ModalitySpec`.
    column
        The column; the name of the modality when neither it nor `columns` is given.
    columns
        A group of columns, for tables and vectors: a pattern (``profile_*``) or a list of names and patterns.
    encoder
        ``hf:<id or folder>`` for frozen features of a pretrained encoder (text, image, audio), else "".
    fine_tune
        Whether the weights of `encoder` (of text or images) are trained too, at a hundredth of the learning rate, and
        kept with every trained model. Slow without a GPU. What knows no encoders (`fusion.early`, scikit-learn
        estimators) is given counts of tokens, or the pixels.
    size
        Of images and video frames, in pixels: one number or [height, width]. When left out: the size that all have in
        common, if that is at most 256 pixels a side; 64 otherwise.
    channels
        Of images and video: 1 or 3. When left out: 1 if all are grey, otherwise 3.
    rate
        Of audio, in samples a second. When left out: the highest rate of the files, at most 16000.
    mels
        Mel bands of audio; 40 when left out.
    length
        The most that is kept of one row: words of text (when left out, the longest row, at most 1024; bytes, at most
        4096; with an encoder tokens, and what the model allows), frames of audio and video, steps of series, elements
        of sets (when left out, the longest row).
    vocabulary
        How many word numbers text has, padding included; 8192 when left out.
    units
        What text is cut into: "words", hashed, when left out; or "bytes" of UTF-8, from which the text can be written
        out again, as for a language model.
    categories
        Columns of a table to be read as categories though they hold numbers.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Kind
    column: str = ""
    columns: tuple[str, ...] = ()
    encoder: str = ""
    fine_tune: bool = False
    size: tuple[int, int] | None = None
    channels: int | None = None
    rate: int | None = Field(default=None, ge=1000)
    mels: int | None = Field(default=None, ge=1)
    length: int | None = Field(default=None, ge=1)
    vocabulary: int | None = Field(default=None, ge=2, le=2**24)
    units: Literal["words", "bytes"] | None = None
    categories: tuple[str, ...] | None = None

    @field_validator("columns", mode="before")
    @classmethod
    def _one_pattern(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("size", mode="before")
    @classmethod
    def _square(cls, value: Any) -> Any:
        return (value, value) if isinstance(value, int) else value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.column and self.columns:
            raise ValueError("Give either 'column' or 'columns', not both.")
        if self.columns and self.kind not in ("table", "vector"):
            raise ValueError(
                f"A group of columns is a table or a vector, and the kind is {self.kind!r}. Give one 'column' instead."
            )
        if self.encoder and not (self.encoder.startswith("hf:") and len(self.encoder) > 3):
            raise ValueError(must_be("The 'encoder' option", "'hf:<id or folder>'", self.encoder))
        if self.encoder and self.kind not in ENCODED:
            raise ValueError(
                f"A pretrained encoder reads text, images or audio, and the kind is {self.kind!r}. Leave 'encoder' out."
            )
        if self.fine_tune and not self.encoder:
            raise ValueError(
                "The option 'fine_tune' trains the weights of a pretrained encoder, and none is named. Name an "
                "'encoder', or leave it out."
            )
        if self.fine_tune and self.kind not in FINE_TUNED:
            raise ValueError(
                f"Fine-tuning reads text and images, and the kind is {self.kind!r}. Leave 'fine_tune' out for frozen "
                "features."
            )
        allowed = frozenset({"length"} if self.kind == "text" else ()) if self.encoder else OPTIONS[self.kind]
        for name in sorted(frozenset().union(*OPTIONS.values()) - allowed):
            if getattr(self, name) is not None:
                where = f"the kind {self.kind!r} with an encoder" if self.encoder else f"the kind {self.kind!r}"
                raise ValueError(f"The option {name!r} has no meaning for {where}. Leave it out.")
        if self.units == "bytes" and self.vocabulary is not None:
            raise ValueError(
                "The option 'vocabulary' has no meaning for text in bytes, of which there are 256. Leave it out."
            )
        if self.size is not None and min(self.size) < 1:
            raise ValueError(must_be("The 'size' option", "at least 1 pixel", self.size))
        if self.channels not in (None, 1, 3):
            raise ValueError(must_be("The 'channels' option", "1 or 3", self.channels))
        return self

    def options(self) -> dict[str, Any]:
        """The reading options that were given, as JSON values."""
        given = self.model_dump(mode="json", include=set().union(*OPTIONS.values()), exclude_none=True)
        return given
