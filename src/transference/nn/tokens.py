"""Any modality as a short sequence of tokens, and a small transformer over them.

A token is by kind: of a text a word, or up to four, evenly spaced, where there is room for more than 16 words (words
evenly spaced again where a text has more than 64); of a series or a sound one of at most 16 equal stretches of its real
steps, each as up to four means in a row; of a video one of as many stretches of frames of at most 8 by 8 pixels; of an
image one of 16 fields, 4 by 4, of at most 32 by 32 pixels. Anything else is one token.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from transference.core.spec import ModalitySpec
from transference.nn.encoders import SMALL
from transference.nn.encoders.base import Standardised
from transference.nn.inputs import Inputs
from transference.nn.resampling import block_of, resample, shrink

MOST = 16  # tokens of a modality
PER = 4  # words or steps of a token
GRID = 4  # fields of an image, down and across
PIXELS, FRAME = 32, 8  # longest side of an image, and of a frame
SPREAD = 0.3  # standard deviation of the vectors of places and modalities at the start


class Pieces(Standardised):
    """(n, *shape) -> (n, length, size): stretches of a sequence or fields of an image, standardised; nothing learned.

    Attributes
    ----------
    length, size
        How many pieces, and how many numbers each.
    """

    def __init__(self, modality: ModalitySpec) -> None:
        shape = modality.shape
        self.kind = modality.kind
        if self.kind == "image":
            block = block_of((shape[1], shape[2]), PIXELS)
            self.sides = [-(-(side // by) // GRID) for side, by in zip(shape[1:], block, strict=True)]
            self.length, self.size = GRID * GRID, shape[0] * math.prod(self.sides)
        else:
            self.length = min(MOST, shape[0])
            self.per = 1 if self.kind == "video" else min(PER, -(-shape[0] // MOST))
            self.size = self.per * shrink(torch.zeros(1, *shape[1:]), FRAME).numel() if self.kind == "video" else 0
            self.size = self.size or self.per * math.prod(shape[1:])
        super().__init__(modality, (self.size,))

    def raw(self, values: Tensor, lengths: Tensor | None) -> Tensor:
        """(n, length, size), not yet standardised."""
        if self.kind == "image":
            x = shrink(values, PIXELS)
            down, across = self.sides
            x = F.pad(x, (0, GRID * across - x.shape[3], 0, GRID * down - x.shape[2]))
            fields = x.unflatten(3, (GRID, across)).unflatten(2, (GRID, down))  # (n, channels, 4, down, 4, across)
            return fields.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        if self.kind == "video":
            values = shrink(values.flatten(0, 1), FRAME).unflatten(0, (-1, values.shape[1]))
        return resample(values.flatten(2), lengths, self.length * self.per).unflatten(1, (self.length, -1)).flatten(2)

    def fit_statistics(self, values: Tensor, lengths: Tensor | None) -> None:
        self.set_statistics(self.raw(values, lengths).flatten(0, 1))

    def standard(self, values: Tensor, lengths: Tensor | None) -> Tensor:
        return super().standard(self.raw(values, lengths), lengths)

    def body(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        return x


class Words(nn.Module):
    """(n, words) word numbers -> (n, length, width): means of learned vectors of up to four words each."""

    def __init__(self, modality: ModalitySpec, width: int) -> None:
        super().__init__()
        self.per = 1 if modality.shape[0] <= MOST else PER
        self.length = min(MOST, -(-modality.shape[0] // self.per))
        self.table = nn.Embedding(modality.vocabulary, width, padding_idx=0)

    def forward(self, values: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """Tokens, and (n, length) bool: which hold a word."""
        values = values.long()
        count = self.length * self.per
        place = torch.arange(count, device=values.device)
        last = torch.full_like(values[:, :1], values.shape[1]) if lengths is None else lengths[:, None]  # (n, 1)
        chosen = torch.where(last > count, place * last // count, place)  # (n, count)
        number = values.gather(1, chosen.clamp_max(values.shape[1] - 1)).where(chosen < last, 0)
        number = number.unflatten(1, (self.length, self.per))
        real = number > 0  # (n, length, per)
        total = (self.table(number) * real[..., None]).sum(2)
        return total / real.sum(2, keepdim=True).clamp_min(1), real.any(2)


class Numbers(nn.Module):
    """(n, *shape) -> (n, length, width): a linear map of each piece, or of the whole low-level input."""

    def __init__(self, pieces: Pieces | Inputs, width: int) -> None:
        super().__init__()
        self.pieces = pieces
        self.length = pieces.length if isinstance(pieces, Pieces) else 1
        self.linear = nn.Linear(pieces.size, width)

    def forward(self, values: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """Tokens, and (n, length) bool: all are real."""
        tokens = self.linear(self.pieces(values, lengths).flatten(1).unflatten(1, (self.length, -1)))
        return tokens, torch.ones_like(tokens[:, :, 0], dtype=torch.bool)


def content_of(modality: ModalitySpec, width: int) -> Words | Numbers:
    """What a modality's tokens hold, (n, *shape) -> (n, length, width)."""
    kind, rank = modality.kind, len(modality.shape)
    if kind == "text":
        return Words(modality, width)
    in_time = (kind in ("series", "audio") and rank == 2) or (kind == "video" and rank == 4)
    fields = kind == "image" and rank == 3 and min(modality.shape[1:]) >= SMALL
    return Numbers(Pieces(modality) if in_time or fields else Inputs(modality), width)


class Tokens(nn.Module):
    """One modality's tokens: what they hold, where they are, and which are real.

    Attributes
    ----------
    length
        How many there are.
    """

    def __init__(self, modality: ModalitySpec, width: int) -> None:
        super().__init__()
        self.content = content_of(modality, width)
        self.length = self.content.length
        self.place = Learned((self.length, width))
        self.modality = Learned((width,))

    def places(self) -> Tensor:
        """(length, width) of each place, the same for all rows."""
        return self.place.value + self.modality.value

    def forward(self, values: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """(n, length, width) tokens without their places; (n, length) bool, the first of which is always real."""
        tokens, real = self.content(values, lengths)
        return tokens, real | (torch.arange(self.length, device=values.device) == 0)


class Learned(nn.Module):
    """A parameter that starts as small normal numbers."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.empty(shape))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.value, std=SPREAD)


class Block(nn.Module):
    """Attention, then a perceptron, each of normalised tokens and added to them."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.asked = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.deep = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor, read: Tensor) -> Tensor:
        parts = self.asked(self.before(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = parts.unbind(0)  # (n, heads, tokens, width / heads)
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=read[:, None, None, :])
        x = x + self.out(found.transpose(1, 2).flatten(2))
        return x + self.deep(self.between(x))


class Transformer(nn.Module):
    """Layers of attention among tokens of which some are read and all ask.

    A token that is not read changes no other: padding, or a place that asks what it might hold. Deterministic, and no
    row depends on another one.
    """

    def __init__(self, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))

    def forward(self, x: Tensor, read: Tensor) -> list[Tensor]:
        """What each layer makes of (n, tokens, width); `read` (n, tokens) is True somewhere in every row."""
        layers = []
        for block in self.blocks:
            x = block(x, read)
            layers.append(x)
        return layers
