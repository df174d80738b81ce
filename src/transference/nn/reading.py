"""A modality as a transformer reads it: words that it knows are its own, all else enters by a learned linear map."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from transference.core.errors import ConfigError
from transference.core.spec import ModalitySpec
from transference.nn.tokens import Numbers, Words, content_of
from transference.nn.trunk import Trunk, given_trunk, is_tokenised, numbers_of, own_trunk, trunk_of


class Reader(nn.Module):
    """A trunk, and what makes vectors of a modality's rows for it.

    The trunk is the model whose tokens the text was read as; else `language_model`; else a small one of its own, which
    knows nothing.

    Parameters
    ----------
    modality
        Of any kind.
    width
        Of an own trunk.
    language_model
        ``hf:<id or folder>`` or None.
    causal
        Whether an own trunk is causal.
    more
        Places that an own trunk has beside those of the rows.
    random
        Whether the weights of a given model are drawn anew.

    Attributes
    ----------
    places
        How many vectors stand for a row, at most.
    """

    def __init__(
        self,
        modality: ModalitySpec,
        width: int,
        language_model: str | None = None,
        *,
        causal: bool,
        more: int = 0,
        random: bool = False,
    ) -> None:
        super().__init__()
        self.modality = modality
        if is_tokenised(modality) and language_model is not None:
            raise ConfigError(
                f"{modality.name!r} was read as tokens of {modality.reading['tokenizer']!r}, so no other model can "
                "read it. Leave 'language_model' out."
            )
        found = trunk_of(modality, random=random)
        if found is None and language_model is not None:
            found = given_trunk(language_model, random=random)
        self.enter: Words | Numbers | None = None
        if is_tokenised(modality):
            self.places = modality.shape[0]
        else:
            self.enter = content_of(modality, width if found is None else found.width)
            self.places = self.enter.length
        self.trunk: Trunk = own_trunk(2, width, self.places + more, causal=causal) if found is None else found
        if self.enter is not None:  # its own words are never asked for
            self.trunk.model.get_input_embeddings().requires_grad_(False)

    def vectors(self, values: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """(n, places, trunk's width), and (n, places) bool: which are real, the first always."""
        if self.enter is None:
            numbers, real = numbers_of(self.modality, values, lengths)
            return self.trunk.words(numbers), real
        vectors, real = self.enter(values, lengths)
        return vectors, real | (torch.arange(self.places, device=values.device) == 0)

    def pooled(self, states: Tensor, real: Tensor) -> Tensor:
        """(n, out) of (n, length, out): the state of the last real place where the trunk is causal, or their mean."""
        if self.trunk.causal:
            steps = torch.arange(real.shape[1], device=real.device)
            last = (real * steps).argmax(1)  # (n,)
            return states.gather(1, last[:, None, None].expand(-1, 1, states.shape[2]))[:, 0]
        weight = real[:, :, None].to(states.dtype)
        return (states * weight).sum(1) / weight.sum(1)

    def forward(self, values: Tensor, lengths: Tensor | None) -> Tensor:
        """(n, out)."""
        vectors, real = self.vectors(values, lengths)
        return self.pooled(self.trunk(vectors, real), real)
