"""A pretrained model as an encoder, its weights trained with the rest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from transference.core.errors import ConfigError
from transference.core.spec import ModalitySpec
from transference.data.hub import find_model, identities, require_weights
from transference.data.modality import FINE_TUNED
from transference.data.pretrained import Backbone, load_backbone
from transference.nn.encoders.base import mask_of
from transference.nn.encoders.vector import VectorEncoder

ROWS = 32  # at a time where no gradient is wanted: activations of a transformer are large


class PretrainedEncoder(VectorEncoder):
    """What stands for a cell in a pretrained model, then the encoder of vectors.

    With a learning rate of 0 for the model this is the encoder of its frozen features; their statistics over the
    training rows are those of the model as it came. `standard` is that vector, in the unit of these statistics.

    The model is in evaluation mode throughout: it draws no random numbers, and no row depends on another one. It is
    marked `pretrained`, so that it keeps its weights at the start and moves at a fraction of the learning rate.

    Parameters
    ----------
    modality
        A ``text`` of token numbers, each one higher than in the tokenizer, 0 where there is none; or an ``image``.
    width
        Size of the representation.
    backbone
        The model.
    trained
        Whether its weights are trained; frozen ones get no gradient.
    shown
        How the study names the model, for messages.
    """

    def __init__(
        self, modality: ModalitySpec, width: int, backbone: Backbone, trained: bool = True, shown: str = ""
    ) -> None:
        size = backbone.size(shown, modality.kind, modality.shape)
        super().__init__(replace(modality, kind="vector", shape=(size,)), width)
        self.modality = modality
        self.backbone = backbone.requires_grad_(trained).eval()
        self.backbone.pretrained = True  # type: ignore[assignment]
        self.trained = trained

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.backbone.eval()
        return self

    def fit_statistics(self, values: Tensor, lengths: Tensor | None) -> None:
        with torch.no_grad():
            self.set_statistics(self.vectors(values, lengths))

    def standard(self, values: Tensor, lengths: Tensor | None) -> Tensor:
        return super().standard(self.vectors(values, lengths), lengths)

    def vectors(self, values: Tensor, lengths: Tensor | None) -> Tensor:
        """(n, d) what the model makes of the rows."""
        if torch.compiler.is_compiling():
            return self._vectors(values, lengths)
        if not len(values):
            return values.new_zeros(0, len(self.mean))
        with torch.set_grad_enabled(self.trained and torch.is_grad_enabled()):
            rows = len(values) if torch.is_grad_enabled() else ROWS
            parts = values.split(rows)
            sizes = [None] * len(parts) if lengths is None else lengths.split(rows)
            return torch.cat([self._vectors(*part) for part in zip(parts, sizes, strict=True)])

    def _vectors(self, values: Tensor, lengths: Tensor | None) -> Tensor:
        if self.modality.kind == "image":
            return self.backbone.image(values)
        if lengths is not None and not torch.compiler.is_compiling():
            values = values[:, : max([1, *lengths.tolist()])]  # no time for what pads every row
        real = (mask_of(lengths, values) > 0) & (values > 0)  # (n, tokens)
        first = torch.arange(values.shape[1], device=values.device) == 0
        numbers = (values.long() - 1).where(real, 0)
        return self.backbone.text({"input_ids": numbers, "attention_mask": (real | first).long()})


def pretrained_encoder(modality: ModalitySpec, width: int) -> PretrainedEncoder:
    """The encoder of a modality that was read to be fine-tuned.

    Raises
    ------
    ConfigError
        When the model's files are gone, or are not those that the modality was read with.
    """
    found, shown = model_of(modality)
    backbone = load_backbone(found, shown, modality.kind)
    return PretrainedEncoder(modality, width, backbone, bool(modality.reading["trained"]), shown)


def model_of(modality: ModalitySpec) -> tuple[Path, str]:
    """The folder of the model that a modality was read to be fine-tuned with, and how the study names it; raises
    ConfigError as `pretrained_encoder`.
    """
    reading = modality.reading
    what = FINE_TUNED[modality.kind]
    shown = str(reading[what])
    found = find_model(shown, Path(modality.folder))
    require_weights(found, shown)
    if any(reading[name] != value for name, value in identities(found, what).items()):
        raise ConfigError(
            f"The encoder {shown!r} of {modality.name!r} is not the one that the rows were read for: its files differ. "
            "Put the same files back, or train again."
        )
    return found, shown
