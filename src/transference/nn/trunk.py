"""A transformer of the transformers library as a part of a network: it is given vectors in place of words.

A vector may come from a word, or from anything else that has the size of one: a piece of an image, a learned prompt.
What is padding changes nothing, wherever it stands. The model is in evaluation mode throughout; whether its weights
move is up to the method.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from transference.core.errors import ConfigError
from transference.core.seeding import fence
from transference.core.spec import ModalitySpec
from transference.data.hub import find_model, require_transformers, require_weights
from transference.data.modality import FINE_TUNED
from transference.nn.encoders.base import mask_of
from transference.nn.pretrained import model_of

SPREAD = 0.02 * 768**0.5  # standard deviation of weights at the start, times the root of the width: GPT-2's at its own
Past = Sequence[tuple[Tensor, Tensor]]


class Trunk(nn.Module):
    """A causal model, in which a place sees those before it, or an encoder, in which it sees all.

    Parameters
    ----------
    model
        Of the transformers library, with what says words at its end or without.
    given
        Whether its weights mean something: they are kept at the start, and would move at a hundredth of the rate.

    Attributes
    ----------
    width
        Size of a vector that it is given.
    out
        Size of a state that it answers with.
    causal
        Whether a place sees only those before it.
    depth, heads, head
        How many layers; how many keys and values a place has in each, and of what size, where it is causal.
    """

    def __init__(self, model: Any, *, given: bool) -> None:
        super().__init__()
        self.model = model.eval()
        self.pretrained = given
        self.width = int(model.get_input_embeddings().embedding_dim)
        with torch.no_grad(), fence(0, "trunk"):
            probe = torch.randn(1, 2, self.width)
            states = self._base(inputs_embeds=probe).last_hidden_state
            alone = self._base(inputs_embeds=probe[:, :1]).last_hidden_state
        self.out = states.shape[2]
        self.causal = bool(torch.allclose(states[:, :1], alone, atol=1e-5))
        self.depth = int(model.config.num_hidden_layers)
        self.heads = int(getattr(model.config, "num_key_value_heads", None) or model.config.num_attention_heads)
        self.head = int(
            getattr(model.config, "head_dim", None) or model.config.hidden_size // model.config.num_attention_heads
        )

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.model.eval()
        return self

    def reset_parameters(self) -> None:
        """Small normal weights, biases of zero; a given one keeps its own."""
        for name, value in self.model.named_parameters():
            if value.ndim > 1:
                nn.init.normal_(value, std=SPREAD / self.width**0.5)
            elif name.endswith("bias"):
                nn.init.zeros_(value)

    @property
    def layers(self) -> nn.ModuleList:
        """Its layers, the first first."""
        for part in self._base.modules():
            if isinstance(part, nn.ModuleList) and len(part) == self.depth:
                return part
        raise ConfigError(f"The layers of {type(self._base).__name__} are not found. Choose another model.")

    def words(self, numbers: Tensor) -> Tensor:
        """(n, length) token numbers, as of the model -> (n, length, width) vectors."""
        return self.model.get_input_embeddings()(numbers)

    def forward(self, vectors: Tensor, real: Tensor, past: Past | None = None, first: int = 0) -> Tensor:
        """(n, length, out) states.

        Parameters
        ----------
        vectors
            (n, length, width); without their places, which the model adds.
        real
            (n, length) bool, True somewhere in every row: the others are padding, and their states mean nothing.
        past
            Keys and values of each layer, (n, heads, m, head), that every place of a causal model sees too, as if they
            were before the first one.
        first
            Number of the first real place of a causal model: m, where the past has places of its own.
        """
        if not self.causal:
            return self._base(inputs_embeds=vectors, attention_mask=real.long()).last_hidden_state
        places = (real.cumsum(1) - 1).clamp_min(0) + first
        seen, cache = real, None
        if past is not None:
            cache = _cache(past)
            seen = torch.cat([real.new_ones(real.shape[0], past[0][0].shape[2]), real], 1)
        fed = {"inputs_embeds": vectors, "attention_mask": seen.long(), "position_ids": places}
        return self._base(**fed, past_key_values=cache, use_cache=False).last_hidden_state

    def says(self, states: Tensor) -> Tensor:
        """(..., out) states -> (..., vocabulary) scores of the next word; of a language model only."""
        return self.model.get_output_embeddings()(states)

    def keep(self, vectors: Tensor, real: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of each layer for these places, as `past` takes them; of a causal model only."""
        places = (real.cumsum(1) - 1).clamp_min(0)
        fed = {"inputs_embeds": vectors, "attention_mask": real.long(), "position_ids": places}
        kept = self._base(**fed, use_cache=True).past_key_values
        return [(layer.keys, layer.values) for layer in kept.layers]

    @property
    def _base(self) -> Any:
        """The model without what says words."""
        return self.model.base_model


def own_trunk(vocabulary: int, width: int, places: int, *, causal: bool, depth: int = 2) -> Trunk:
    """A small trunk that knows nothing yet: one of GPT-2's form where it is causal, otherwise of BERT's.

    Parameters
    ----------
    vocabulary, width, places
        How many token numbers; size of a vector; most places.

    Raises
    ------
    ConfigError
        When the transformers library is not installed.
    """
    require_transformers()
    import transformers

    heads = next(count for count in (4, 2, 1) if width % count == 0)
    if causal:
        form = transformers.GPT2Config(
            vocab_size=vocabulary,
            n_positions=max(2, places),
            n_embd=width,
            n_layer=depth,
            n_head=heads,
            bos_token_id=None,
            eos_token_id=None,
        )
        return Trunk(transformers.GPT2LMHeadModel(form), given=False)
    config = transformers.BertConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        intermediate_size=2 * width,
        max_position_embeddings=max(2, places),
    )
    return Trunk(transformers.BertModel(config, add_pooling_layer=False), given=False)


def given_trunk(name: str, *, says: bool = False, random: bool = False) -> Trunk:
    """The model ``hf:<id or folder>``.

    Parameters
    ----------
    name
        Of the model.
    says
        Whether it comes with what says words at its end.
    random
        Whether its weights are drawn anew: what its form alone is worth.

    Raises
    ------
    ConfigError
        When it cannot be found or loaded.
    """
    found = find_model(name, Path())
    require_weights(found, name)
    return _load(found, name, says, random)


def trunk_of(modality: ModalitySpec, *, says: bool = False, random: bool = False) -> Trunk | None:
    """The model whose tokens a text was read as, None where it was read as words; raises as `given_trunk`."""
    if not is_tokenised(modality):
        return None
    return _load(*model_of(modality), says, random)


def is_tokenised(modality: ModalitySpec) -> bool:
    """Whether a text was read as the tokens of a pretrained model."""
    return modality.kind == "text" and FINE_TUNED["text"] in modality.reading


def says_words(modality: ModalitySpec) -> bool:
    """Whether the model whose tokens a text was read as is a language model, by what its settings say of its form."""
    if not is_tokenised(modality):
        return False
    found, _ = model_of(modality)
    forms = json.loads((found / "config.json").read_text(encoding="utf-8")).get("architectures") or []
    return any(str(form).endswith(("ForCausalLM", "LMHeadModel")) for form in forms)


def numbers_of(modality: ModalitySpec, values: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
    """Token numbers (n, length) of a text as its trunk knows them, and (n, length) bool: which are real.

    Hashed words keep their numbers; those of a pretrained model are one less than the rows hold. The first place is
    always real.
    """
    shift = int(is_tokenised(modality))
    real = (mask_of(lengths, values) > 0) & (values > 0)
    numbers = (values.long() - shift).where(real, 0)
    return numbers, real | (torch.arange(values.shape[1], device=values.device) == 0)


def _load(found: Path, shown: str, says: bool, random: bool) -> Trunk:
    require_transformers()
    from transference.data.pretrained import load_backbone, load_language_model

    model = load_language_model(found, shown) if says else load_backbone(found, shown, "text").model
    return Trunk(model, given=not random)


def _cache(past: Past) -> Any:
    from transformers import DynamicCache

    cache = DynamicCache()
    for layer, (keys, values) in enumerate(past):
        cache.update(keys, values, layer)
    return cache
