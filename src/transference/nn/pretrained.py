"""A pretrained transformer as the encoder of a text, its weights trained or frozen."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from transference.core.spec import ModalitySpec
from transference.nn.encoders.base import Encoder, mask_of


class TokenEncoder(Encoder):
    """Token numbers through a transformer, the mean over the real tokens, then a linear map to the width.

    The transformer is in evaluation mode throughout: it draws no random numbers. Its subtree is marked `pretrained`,
    so that it keeps its weights at the start and, when trained, moves at a fraction of the learning rate.

    Parameters
    ----------
    modality
        Of kind ``text``; its rows are token numbers and its lengths how many are real.
    width
        Size of the representation.
    model
        A transformers model; its output has ``last_hidden_state`` (n, length, hidden).
    trained
        Whether its weights are trained too; frozen ones get no gradient.
    """

    def __init__(self, modality: ModalitySpec, width: int, model: nn.Module, trained: bool) -> None:
        super().__init__(modality)
        self.model = model.requires_grad_(trained).eval()
        self.model.pretrained = True  # type: ignore[assignment]
        self.trained = trained
        hidden: Any = model.config.hidden_size  # type: ignore[union-attr]
        self.out = nn.Linear(hidden, width)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.model.eval()
        return self

    def fit_statistics(self, values: Tensor, lengths: Tensor | None) -> None:
        """A transformer brings its own."""

    def standard(self, values: Tensor, lengths: Tensor | None) -> Tensor:
        return values

    def body(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        mask = mask_of(lengths, x)  # (n, length)
        with torch.set_grad_enabled(self.trained and torch.is_grad_enabled()):
            tokens = self.model(input_ids=(x * mask).long(), attention_mask=mask.long()).last_hidden_state
        mean = (tokens * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True).clamp_min(1)
        return self.out(mean)


def token_encoder(modality: ModalitySpec, width: int) -> TokenEncoder:
    """The encoder that ``reading["tokenizer"]`` names (``hf:<id or folder>``), trained if ``reading["trained"]``."""
    from transformers import AutoModel

    from transference.data.features import find_encoder

    folder = find_encoder(str(modality.reading["tokenizer"]), Path(), "text").folder
    model = AutoModel.from_pretrained(str(folder), use_safetensors=True, local_files_only=True)
    return TokenEncoder(modality, width, model, bool(modality.reading.get("trained", False)))
