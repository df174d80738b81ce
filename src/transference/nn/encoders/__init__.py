"""A small encoder for every kind of modality: (n, *shape) -> (n, width).

Each learns its input statistics once, before training, from the training rows that have the modality
(`fit_statistics`), and keeps them as buffers, so that raw rows go in at training, prediction and export alike. A
pretrained model that is fine-tuned comes before such an encoder, see `nn.pretrained`. Every
one of them ends in a linear map of its input beside a deeper path, so that with few labels it is about as good as a
linear model and with many it is better. None of them draws random numbers or mixes rows.
"""

from __future__ import annotations

from transference.core.spec import ModalitySpec
from transference.nn.encoders.base import Encoder, mask_of
from transference.nn.encoders.image import ImageEncoder
from transference.nn.encoders.series import SeriesEncoder
from transference.nn.encoders.sets import SetEncoder
from transference.nn.encoders.vector import VectorEncoder
from transference.nn.encoders.video import VideoEncoder
from transference.nn.encoders.words import WordEncoder, rarity, weighted_words, word_counts

__all__ = [
    "Encoder",
    "ImageEncoder",
    "SeriesEncoder",
    "SetEncoder",
    "VectorEncoder",
    "VideoEncoder",
    "WordEncoder",
    "encoder",
    "mask_of",
    "rarity",
    "weighted_words",
    "word_counts",
]

SMALL = 8  # pixels; an image with a shorter side is a vector


def encoder(modality: ModalitySpec, width: int) -> Encoder:
    """The default encoder for a modality."""
    kind, rank = modality.kind, len(modality.shape)
    if "tokenizer" in modality.reading or "processor" in modality.reading:
        from transference.nn.pretrained import pretrained_encoder

        return pretrained_encoder(modality, width)
    if kind == "text":
        return WordEncoder(modality, width)
    if kind == "image" and rank == 3 and min(modality.shape[1:]) >= SMALL:
        return ImageEncoder(modality, width)
    if kind in ("series", "audio") and rank == 2:
        return SeriesEncoder(modality, width)
    if kind == "video" and rank == 4:
        return VideoEncoder(modality, width)
    if kind == "set" and rank == 2:
        return SetEncoder(modality, width)
    return VectorEncoder(modality, width)
