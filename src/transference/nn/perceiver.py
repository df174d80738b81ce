"""A perceiver: a few latents that ask the tokens of any modality, with the same weights for all; a network of them.

    token   t_k = c W[:size] x_k + P f(k) + r          x_k the numbers of token k, standardised; f(k) Fourier features
    latents z  <- Block(Crossing(z, t))                from learned ones; `depth` times, with the same weights

That is the linear map of [x_k | zeros | f(k) | which modality], written as the sum that it is: zeros up to the size of
the largest modality are inert, so they are never made, and a modality of its own has no weights but its row r. c makes
a token of few numbers as loud as one of many.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from transference.core.batch import Batch
from transference.core.spec import DataSpec, ModalitySpec, Task
from transference.nn.heads import head
from transference.nn.named import ByModality
from transference.nn.tokens import Block, Learned, Tokens, Words

BANDS = 4
LOUD = 64  # numbers of a token whose content is taken as it is
HEADS = 4  # at most, of the attention among latents
LOST = 0.5  # of the rows of three modalities or more lose one in an update


def positions(length: int) -> Tensor:
    """(length, 2 BANDS + 1) the place in [-1, 1], and the sine and cosine of pi 2^b times it.

    >>> positions(3)[:, 0].tolist()
    [-1.0, 0.0, 1.0]
    """
    place = torch.linspace(-1, 1, length) if length > 1 else torch.zeros(1)
    angle = math.pi * place[:, None] * 2.0 ** torch.arange(BANDS)
    return torch.cat([place[:, None], angle.sin(), angle.cos()], 1)


class Flat(nn.Module):
    """One modality as a sequence of numbers in the unit of the training rows, and the row that stands for it.

    The numbers are those of `nn.tokens`, before its linear map. For a text they are the learned vectors of its words.

    Attributes
    ----------
    size
        How many numbers a token has.
    """

    place: Tensor

    def __init__(self, modality: ModalitySpec, width: int) -> None:
        super().__init__()
        content = Tokens(modality, width).content
        self.numbers = content if isinstance(content, Words) else content.pieces
        self.size = width if isinstance(content, Words) else content.pieces.size
        self.length = content.length
        self.row = Learned((width,))
        self.register_buffer("place", positions(self.length))

    def forward(self, values: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """(n, length, size) numbers; (n, length) bool, which tokens are real, the first of which always is."""
        if isinstance(self.numbers, Words):
            found, real = self.numbers(values, lengths)
            return found, real | (torch.arange(self.length, device=values.device) == 0)
        found = self.numbers(values, lengths).flatten(1).unflatten(1, (self.length, self.size))
        return found, torch.ones_like(found[:, :, 0], dtype=torch.bool)


class Entry(nn.Module):
    """(n, length, size) numbers to (n, length, width) tokens, with the same weights for all modalities.

    Parameters
    ----------
    channels
        Most numbers that a token has; one of fewer numbers uses the first rows of `content`.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.content = nn.Parameter(torch.empty(channels, width))
        self.place = nn.Linear(2 * BANDS + 1, width)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.content, std=LOUD**-0.5)

    def forward(self, numbers: Tensor, place: Tensor, row: Tensor) -> Tensor:
        """Tokens; `place` (length, 2 BANDS + 1) are the `positions`, `row` (width,) is that of the modality."""
        size = numbers.shape[2]
        return (LOUD / size) ** 0.5 * (numbers @ self.content[:size]) + self.place(place) + row


def channels_of(specs: Iterable[DataSpec], width: int) -> int:
    """Most numbers that a token of any of these modalities has."""
    return max(Flat(each, width).size for spec in specs for each in spec.modalities.values())


class Crossing(nn.Module):
    """Some vectors ask others: attention with one head, then a perceptron, each added to the one that asks.

    There is always nothing to read too, a key and a value of zeros: of a modality of one token it is learned how much.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.before, self.told, self.between = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.deep = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))

    def forward(self, asking: Tensor, told: Tensor, real: Tensor | None = None) -> Tensor:
        """(n, asking, width) of (n, asking, width) and (n, told, width), of which only the `real` ones are read."""
        key, value = F.pad(self.key_value(self.told(told)), (0, 0, 1, 0))[:, None].chunk(2, 3)
        mask = None if real is None else F.pad(real, (1, 0), value=True)[:, None, None, :]
        query = self.query(self.before(asking))[:, None]  # (n, 1 head, asking, width)
        x = asking + self.out(F.scaled_dot_product_attention(query, key, value, attn_mask=mask)[:, 0])
        return x + self.deep(self.between(x))


class Perceiver(nn.Module):
    """Tokens of any modality to `latents` vectors. Deterministic; no row depends on another one.

    Parameters
    ----------
    channels
        Most numbers that a token has.
    depth
        How often the latents ask the tokens and one another.
    """

    def __init__(self, channels: int, width: int, latents: int, depth: int) -> None:
        super().__init__()
        self.depth = depth
        self.entry = Entry(channels, width)
        self.latents = Learned((latents, width))
        self.crossing = Crossing(width)
        self.block = Block(width, math.gcd(width, HEADS))

    def forward(self, numbers: Tensor, real: Tensor, place: Tensor, row: Tensor) -> Tensor:
        """(n, latents, width).

        Parameters
        ----------
        numbers, real
            (n, length, size); (n, length) bool, True somewhere in every row.
        place, row
            As in `Entry`.
        """
        tokens = self.entry(numbers, place, row)
        latents = self.latents.value.expand(numbers.shape[0], -1, -1)
        every = torch.ones_like(latents[:, :, 0], dtype=torch.bool)
        for _ in range(self.depth):
            latents = self.block(self.crossing(latents, tokens, real), every)
        return latents


class HighNetwork(nn.Module):
    """Tokens and a head for each modality of one set, perceivers by group, what asks across pairs, the joint head.

    Attributes
    ----------
    names
        The modalities, the primary one first.
    together
        The joint head; there is none for one modality.
    """

    group_of: Tensor

    def __init__(
        self, spec: DataSpec, width: int, latents: int, depth: int, groups: Mapping[str, int], channels: int
    ) -> None:
        super().__init__()
        self.spec, self.width = spec, width
        self.names = (spec.primary, *spec.secondary)
        self.tokens = ByModality({name: Flat(spec.modalities[name], width) for name in self.names})
        numbers = [groups[name] for name in self.names]
        self.register_buffer("group_of", torch.tensor(numbers))
        self.groups = {name: str(number) for name, number in zip(self.names, numbers, strict=True)}
        self.encoders = nn.ModuleDict(
            {str(k): Perceiver(channels, width, latents, depth) for k in sorted(set(numbers))}
        )
        self.alone = ByModality({name: _head(width, spec.task) for name in self.names})
        pairs = len(self.names) * (len(self.names) - 1)
        if pairs:
            self.crossing = Crossing(width)
            self.together = _head(pairs * width, spec.task)

    def encoder_of(self, name: str) -> nn.Module:
        """The perceiver that reads this modality."""
        return self.encoders[self.groups[name]]

    def encode(self, batch: Batch, name: str) -> Tensor:
        """(n, latents, width) of one modality; what a row that lacks it gets means nothing."""
        part: Any = self.tokens[name]
        numbers, real = part(batch.views[name], batch.lengths.get(name))
        found: Tensor = self.encoder_of(name)(numbers, real, part.place, part.row.value)
        return found

    def crossed(self, latents: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> Tensor:
        """(n, M (M - 1) width) the last latent of every ordered pair; zeros where a row lacks one of the two."""
        some = next(iter(latents.values()))
        parts = []
        for one_ in self.names:
            for other in self.names:
                if one_ == other:
                    continue
                if one_ not in latents or other not in latents:
                    parts.append(torch.zeros_like(some[:, -1]))
                    continue
                asked = self.crossing(latents[one_][:, -1:], latents[other])[:, 0]
                parts.append(asked.where((present[one_] & present[other])[:, None], 0.0))
        return torch.cat(parts, 1)


def _head(width: int, task: Task) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(width), head(width, task))


def thinned(present: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Presence after half of the rows of three modalities or more have lost one of them, drawn anew.

    Name -> (n,) bool. With two modalities or fewer nothing is drawn.
    """
    if len(present) < 3:
        return dict(present)
    here = torch.stack(list(present.values()), 1)  # (n, modalities)
    n, device = here.shape[0], here.device
    lost = torch.rand(here.shape, device=device).where(here, -1.0).argmax(1)  # one that the row has
    losing = (here.sum(1) > 2) & (torch.rand(n, device=device) < LOST)
    kept = here & ~(F.one_hot(lost, here.shape[1]).bool() & losing[:, None])
    return dict(zip(present, kept.unbind(1), strict=True))
