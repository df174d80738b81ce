"""Texts as hashed word numbers."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from transference.core.spec import ModalitySpec
from transference.nn.encoders.base import Encoder


def word_counts(words: Tensor, vocabulary: int) -> Tensor:
    """(n, vocabulary) how often each word occurs; number 0 is padding and counts for nothing."""
    empty = torch.zeros(words.shape[0], vocabulary, device=words.device)
    number = words.long()
    return empty.scatter_add(1, number, (number > 0).to(empty.dtype))


def rarity(words: Tensor, vocabulary: int) -> Tensor:
    """(vocabulary,) smoothed inverse document frequency of each word."""
    documents = (word_counts(words, vocabulary) > 0).sum(0)
    return torch.log((1 + len(words)) / (1 + documents)) + 1


def weighted_words(words: Tensor, rarity: Tensor) -> Tensor:
    """(n, vocabulary) tf-idf with logarithmic counts, every row of length vocabulary ** 0.25."""
    weight = torch.log1p(word_counts(words, len(rarity))) * rarity
    return F.normalize(weight, dim=1) * weight.shape[1] ** 0.25


class WordEncoder(Encoder):
    """Word numbers to tf-idf, unit length, then a linear map. Number 0 is padding and counts for nothing.

    Rarity is damped by the fourth root of a word's share of the documents, since adaptive optimisers move the weight of
    a rare word as far as that of a frequent one.
    """

    rarity: Tensor

    def __init__(self, modality: ModalitySpec, width: int) -> None:
        super().__init__(modality)
        self.standard_shape = (modality.vocabulary,)
        self.register_buffer("rarity", torch.ones(modality.vocabulary))
        self.linear = nn.Linear(modality.vocabulary, width)

    def fit_statistics(self, values: Tensor, lengths: Tensor | None) -> None:
        documents = (word_counts(values, self.modality.vocabulary) > 0).sum(0)
        share = (documents + 1) / (len(values) + 1)
        self.rarity.copy_(rarity(values, self.modality.vocabulary) * share**0.25)

    def standard(self, values: Tensor, lengths: Tensor | None) -> Tensor:
        return weighted_words(values, self.rarity)

    def body(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        return self.linear(x / x.shape[1] ** 0.25)  # of unit length
