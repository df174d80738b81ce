"""A generalist: all modalities and the label become one flat sequence of tokens, for one transformer and one loss.

When to use it: labelled rows of modalities of different kinds, and one set of weights that shall answer for any of
them. With few rows a method with more structure is better.

    sequence  s = [tokens of the primary | tokens of each secondary, by name | separator | label]
    minimise  mean over label tokens of  -log p(s_i | s_<i)   +   text * the same over words that follow a word

p is a transformer in which a token reads itself and what is before it. No other observation has to be told. Tokens:

    a text           its first `words` words, each by its number
    few numbers      a low-level input x of up to 16, see `nn.inputs`: for each one of 1024 equal bins of [-1, 1], which
                     F(x) = sign(x) log(|x| mu + 1) / log(M mu + 1) is in;   mu = 100, M = 256
    anything else    a linear map of each piece: fields of an image, stretches of a series, see `nn.tokens`
    a label          its class number, 0 or 1 for each of several labels, or the bin of a standardised value

Words, classes and bins share one numbering, and one table of vectors that is read from and answered with. Vectors of
bins are smooth (splines with 35 learned knots), so that close values start alike. Each place of a modality and of an
answer has a learned vector; padding and what a row lacks are not read.

A share `alone` of the rows, drawn anew every time, trains with the primary modality alone, the others with all that
they have: one set of weights answers from either (`joint_scores`). A class is the likeliest, a value the mean of the
bins from the lowest to the highest label's. Of several labels each is answered after the ones before it, for which the
likelier of 0 and 1 is taken.

Shapes: at most `words` or 16 tokens a modality, (n, tokens, width). Cost: `depth` layers over all tokens; deployed,
over those of the primary modality, as many times as there are labels to answer.

Source: reed2022 (Gato), whose constants are those above. Departs from it: a linear map of an image's pieces rather than
a residual network; smooth bins; numbers standardised before F; the words of the data; no prompts that tell the task.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from transference.core.batch import Batch
from transference.core.errors import DataError, must_be
from transference.core.method import Card
from transference.core.parameters import Interval
from transference.core.spec import DataSpec, ModalitySpec, Task
from transference.nn.encoders import mask_of
from transference.nn.inputs import Inputs
from transference.nn.named import ByModality
from transference.nn.tokens import Block, Learned, Tokens
from transference.train.loop import Stage, Step
from transference.train.neural import NeuralMethod
from transference.train.schedule import Schedule

MU, MOST, BINS, WORDS = 100.0, 256.0, 1024, 32_000
FEW = 16  # most numbers that are a token each
KNOTS = 35  # learned vectors of which those of the bins are smooth mixtures
HEADS = 4
CONTINUOUS = -1  # in the place of a token's number, where it has none


def mu_law(x: Tensor, mu: float = MU, most: float = MOST) -> Tensor:
    """F(x), odd and rising; 1 at `most`.

    >>> [round(value, 5) for value in mu_law(torch.tensor([0.0, 1.0, 256.0, -256.0])).tolist()]
    [0.0, 0.45467, 1.0, -1.0]
    """
    return x.sign() * (x.abs() * mu + 1).log() / math.log(most * mu + 1)


def to_bins(x: Tensor, bins: int = BINS) -> Tensor:
    """The number in [0, bins) of the bin of F(x) that holds each value; what is out of range is in the last one.

    >>> to_bins(torch.tensor([-1e9, -256.0, 0.0, 256.0, 1e9])).tolist()
    [0, 0, 512, 1023, 1023]
    """
    return ((mu_law(x).clamp(-1, 1) + 1) / 2 * bins).long().clamp_max(bins - 1)


def from_bins(number: Tensor, bins: int = BINS) -> Tensor:
    """The value in the middle of each bin, as F sees it."""
    middle = (number + 0.5) / bins * 2 - 1
    return middle.sign() * (middle.abs() * math.log(MOST * MU + 1)).expm1() / MU


def tokenise(values: Mapping[str, Tensor], words: int = WORDS) -> Tensor:
    """(n, tokens) int64: all (n, ...) values, by name, flat. Whole numbers are tokens; others are bins after `words`.

    Raises DataError when a whole number is no token.

    >>> tokenise({"arm": torch.tensor([[256.0]]), "a word": torch.tensor([[7, 9]])}).tolist()
    [[7, 9, 33023]]
    """
    parts = []
    for name, value in sorted(values.items()):
        whole = not value.is_floating_point()
        if whole and value.numel() and not 0 <= int(value.min()) <= int(value.max()) < words:
            met = f"{int(value.min())} to {int(value.max())}"
            raise DataError(must_be(f"The whole numbers of {name!r}", f"in [0, {words})", met))
        parts.append((value.long() if whole else words + to_bins(value)).flatten(1))
    return torch.cat(parts, 1)


def detokenise(tokens: Tensor, like: Mapping[str, Tensor], words: int = WORDS) -> dict[str, Tensor]:
    """What `tokenise` was given: exactly, for whole numbers. `like` has its names, types and shapes of a row.

    >>> values = {"a word": torch.tensor([[7, 9]]), "arm": torch.tensor([[[20.0], [-3.0]]])}
    >>> detokenise(tokenise(values), values)["arm"].round().tolist()
    [[[20.0], [-3.0]]]
    """
    names, found = sorted(like), {}
    parts = tokens.split([like[name][:1].flatten(1).shape[1] for name in names], 1)
    for name, part in zip(names, parts, strict=True):
        value = from_bins(part - words) if like[name].is_floating_point() else part
        found[name] = value.to(like[name].dtype).unflatten(1, like[name].shape[1:])
    return found


def masked_loss(logits: Tensor, numbers: Tensor, counted: Tensor) -> Tensor:
    """Mean over the counted tokens of -log p, in nats; 0 where none is.

    `logits` (n, tokens, choices) are for the token at each place, `numbers` (n, tokens) int64 which choice it is.
    """
    cost = F.cross_entropy(logits.flatten(0, 1), numbers.where(counted, CONTINUOUS).flatten(), ignore_index=CONTINUOUS)
    return cost if bool(counted.any()) else logits.sum() * 0.0


def splines(places: Tensor, knots: int = KNOTS) -> Tensor:
    """(n, knots) cubic B-splines at places in [-1, 1], their knots evenly from one beyond -1 to one beyond 1.

    >>> (48 * splines(torch.tensor([-1.0, 0.0, 1.0]), 4)).round().int().tolist()
    [[8, 32, 8, 0], [1, 23, 23, 1], [0, 8, 32, 8]]
    """
    spacing = 2 / (knots - 3)
    away = (places[:, None] - torch.linspace(-1 - spacing, 1 + spacing, knots)).abs() / spacing
    return torch.where(away < 1, 2 / 3 - away**2 + away**3 / 2, (2 - away).clamp_min(0) ** 3 / 6)


class Alphabet(nn.Module):
    """One numbering of `symbols` words and classes, then of `bins`, and a vector for each of them."""

    shares: Tensor
    values: Tensor

    def __init__(self, symbols: int, bins: int, width: int) -> None:
        super().__init__()
        self.symbols, self.bins = symbols, bins
        if symbols:
            self.table = Learned((symbols, width))
        if bins:
            self.knots = Learned((KNOTS, width))
            self.register_buffer("shares", splines((torch.arange(bins) + 0.5) / bins * 2 - 1))
            self.register_buffer("values", from_bins(torch.arange(bins), bins))

    def vectors(self) -> Tensor:
        """(symbols + bins, width)."""
        if not self.bins:
            return self.table.value
        bins = self.shares @ self.knots.value
        return torch.cat([self.table.value, bins]) if self.symbols else bins

    def forward(self, numbers: Tensor) -> Tensor:
        return self.vectors()[numbers]


class Numbered(nn.Module):
    """A text, at most `words` of it, or a few numbers, as `length` numbered tokens."""

    def __init__(self, modality: ModalitySpec, words: int, width: int) -> None:
        super().__init__()
        self.form = None if modality.kind == "text" else Inputs(modality)
        self.length = min(words, modality.shape[0]) if self.form is None else self.form.size
        self.place = Learned((self.length, width))

    def places(self) -> Tensor:
        return self.place.value

    def forward(self, values: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """(n, length) numbers of words, or of bins; (n, length) bool, which are real."""
        if self.form is not None:
            numbers = to_bins(self.form(values, lengths))
            return numbers, torch.ones_like(numbers, dtype=torch.bool)
        numbers = values.where(mask_of(lengths, values) > 0, 0.0)[:, : self.length].long()
        return numbers, numbers > 0


def part_of(modality: ModalitySpec, words: int, width: int) -> Numbered | Tokens:
    """What makes tokens of a modality, most `words` of a text: bins of a few numbers, pieces of many."""
    if modality.kind == "text":
        return Numbered(modality, words, width)
    pieces = Tokens(modality, width)
    return Numbered(modality, words, width) if pieces.length == 1 and Inputs(modality).size <= FEW else pieces


class CausalBlock(Block):
    """As `nn.tokens.Block`, with a choice of what each token reads, (n, tokens, tokens)."""

    def forward(self, x: Tensor, read: Tensor) -> Tensor:
        parts = self.asked(self.before(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = parts.unbind(0)  # (n, heads, tokens, width / heads)
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=read[:, None])
        x = x + self.out(found.transpose(1, 2).flatten(2))
        return x + self.deep(self.between(x))


def readable(real: Tensor) -> Tensor:
    """(n, tokens, tokens) bool: each token reads itself and the real ones before it.

    >>> readable(torch.tensor([[True, False, True]])).int().tolist()
    [[[1, 0, 0], [1, 1, 0], [1, 0, 1]]]
    """
    itself = torch.eye(real.shape[1], dtype=torch.bool, device=real.device)
    return torch.ones_like(itself).tril() & real[:, None, :] | itself


class GeneralistNetwork(nn.Module):
    """Tokens of any of these modalities, in this order, then an answer of at most `answers` tokens.

    `symbols` are words and classes; with `values` an answer may be one of the bins, too.
    """

    def __init__(
        self, parts: Mapping[str, Numbered | Tokens], symbols: int, values: bool, answers: int, width: int, depth: int
    ) -> None:
        super().__init__()
        self.parts = ByModality(dict(parts))
        binned = values or any(isinstance(part, Numbered) and part.form is not None for part in parts.values())
        self.alphabet = Alphabet(symbols, BINS if binned else 0, width)
        self.separator = Learned((answers, width))  # the separator, then the place of each answered token
        self.blocks = nn.ModuleList(CausalBlock(width, math.gcd(width, HEADS)) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def observe(self, batch: Batch, shown: Mapping[str, Tensor] | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """(n, tokens, width) of the modalities that the batch holds; (n, tokens) which are real; (n, tokens) numbers.

        A row shows what `shown` says, name -> (n,) bool, or all that it has.
        """
        tokens, real, numbers = [], [], []
        for name in self.parts:
            if name in batch.views:
                part: Any = self.parts[name]
                found, here = part(batch.views[name], batch.lengths.get(name))
                number = torch.full_like(here, CONTINUOUS, dtype=torch.int64)
                if isinstance(part, Numbered):
                    number = found if part.form is None else self.alphabet.symbols + found
                    found = self.alphabet(number)
                tokens.append(found + part.places())
                real.append(here & (shown or batch.present)[name][:, None])
                numbers.append(number)
        return torch.cat(tokens, 1), torch.cat(real, 1), torch.cat(numbers, 1)

    def told(self, tokens: Tensor, real: Tensor, before: Tensor | None = None) -> Tensor:
        """(n, tokens + 1 + m, width) what tells the token after each; m answered ones `before` (n, m) are given."""
        asked = self.separator.value[:1].expand(tokens.shape[0], -1, -1)
        if before is not None:
            asked = torch.cat([asked, self.alphabet(before) + self.separator.value[1 : 1 + before.shape[1]]], 1)
        x = torch.cat([tokens, asked], 1)
        read = readable(torch.cat([real, torch.ones_like(asked[:, :, 0], dtype=torch.bool)], 1))
        for block in self.blocks:
            x = block(x, read)
        return self.norm(x)

    def logits(self, told: Tensor, first: int, count: int) -> Tensor:
        """(n, tokens, count) for `count` tokens from the number `first` on."""
        return told @ self.alphabet.vectors()[first : first + count].T / told.shape[2] ** 0.5

    def say(self, tokens: Tensor, real: Tensor, first: int, count: int, answers: int) -> tuple[Tensor, Tensor]:
        """(n, answers) tokens, each the likeliest after those before it; (n, answers, count) their logits."""
        said: list[Tensor] = []
        logits: list[Tensor] = []
        for _ in range(answers):
            told = self.told(tokens, real, torch.cat(said, 1) if said else None)
            logits.append(self.logits(told[:, -1:], first, count))
            said.append(first + logits[-1].argmax(2))
        return torch.cat(said, 1), torch.cat(logits, 1)


class Generalist(NeuralMethod):
    """One transformer over a flat sequence of all modalities' tokens, which ends in the label.

    Parameters
    ----------
    alone
        Share of rows that train with their primary modality alone; with 1 the others are never seen.
    text
        Weight of telling the words of texts too, at least 0.
    words
        Most words of a text.
    depth
        Layers of the transformer.
    width, schedule, seed
        See `NeuralMethod`.
    """

    card: ClassVar[Card] = Card(
        summary="One transformer over a flat sequence of all modalities' tokens, which ends in the label.",
        reference="reed2022",
        modalities=(1, None),
        needs=frozenset({"labels", "paired"}),
        at_test="primary",
        tasks=frozenset({"classification", "regression", "multilabel"}),
    )
    constraints = {
        "alone": Interval(0, 1),
        "text": Interval(0),
        "words": Interval(1, whole=True),
        "depth": Interval(1, 8, whole=True),
    }

    def __init__(
        self,
        *,
        alone: float = 0.5,
        text: float = 0.0,
        words: int = 32,
        depth: int = 2,
        width: int = 64,
        schedule: Schedule = Schedule(),
        seed: int = 0,
    ) -> None:
        super().__init__(width=width, schedule=schedule, seed=seed)
        self.alone = alone
        self.text = text
        self.words = words
        self.depth = depth

    def build(self, spec: DataSpec) -> GeneralistNetwork:
        used = [spec.modalities[name] for name in (spec.primary, *(spec.secondary if self.alone < 1 else ()))]
        parts = {each.name: part_of(each, self.words, self.width) for each in used}
        kind, outputs = spec.task.kind, spec.task.outputs
        choices = {"classification": outputs, "regression": BINS}.get(kind, 2)
        values, answers = kind == "regression", outputs if kind == "multilabel" else 1
        symbols = max(0 if values else choices, *(each.vocabulary for each in used))
        net = GeneralistNetwork(parts, symbols, values, answers, self.width, self.depth)
        net.register_buffer("possible", torch.ones(choices, dtype=torch.bool))  # which tokens may be an answer
        return net

    def stages(self, net: Any) -> tuple[Stage, ...]:
        values = self.spec_.task.kind == "regression"
        return (Stage("train", (Step(self.losses),), begin=_bound if values else None),)

    def losses(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        known = batch.labelled
        tokens, real, numbers = net.observe(known, self._shown(net, known))
        label = _label(known.target, self.spec_.task)  # (n, answers)
        told = net.told(tokens, real, self._first(net) + label[:, :-1])
        length = tokens.shape[1]
        losses = {"task": masked_loss(self._logits(net, told[:, length:]), label, torch.ones_like(label) > 0)}
        if self.text:
            words = real & (numbers >= 0) & (numbers < net.alphabet.symbols)
            guessed = net.logits(told[:, : length - 1], 0, net.alphabet.symbols)
            losses["text"] = self.text * masked_loss(guessed, numbers[:, 1:], words[:, 1:] & words[:, :-1])
        return losses

    def scores(self, net: Any, batch: Batch) -> Tensor:
        return self.joint_scores(net, batch.only([self.spec_.primary]))

    def joint_scores(self, net: Any, batch: Batch) -> Tensor:
        """Scores from every modality that the batch holds and a row has."""
        tokens, real, _ = net.observe(batch)
        kind = self.spec_.task.kind
        if kind == "multilabel":
            logits = net.say(tokens, real, 0, 2, self.spec_.task.outputs)[1]
            return logits[:, :, 1] - logits[:, :, 0]
        logits = self._logits(net, net.told(tokens, real)[:, -1:])[:, 0]
        return logits.softmax(1) @ net.alphabet.values[:, None] if kind == "regression" else logits

    def embeddings(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        """Name -> (n, width): what tells the answer, from that modality alone."""
        named = [name for name in net.parts if name in batch.views]
        return {name: net.told(*net.observe(batch.only([name]))[:2])[:, -1] for name in named}

    def _shown(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        """Name -> (n,) bool: which rows show what they have of it."""
        if len(net.parts) == 1 or self.alone == 0:
            return dict(batch.present)
        whole = torch.rand(batch.rows.shape[0], device=batch.rows.device) >= self.alone
        return {name: here if name == self.spec_.primary else here & whole for name, here in batch.present.items()}

    def _first(self, net: Any) -> int:
        """The number of the first token that may be an answer."""
        return net.alphabet.symbols if self.spec_.task.kind == "regression" else 0

    def _logits(self, net: Any, told: Tensor) -> Tensor:
        """(n, answers, choices), as good as none for a value that no label comes near."""
        return net.logits(told, self._first(net), len(net.possible)).masked_fill(~net.possible, -1e9)


def _label(target: Any, task: Task) -> Tensor:
    """(n, answers) int64: which choice each token of a label is."""
    return (to_bins(target) if task.kind == "regression" else target.long()).view(len(target), -1)


def _bound(net: Any, rows: Batch) -> None:
    """Values are from the lowest to the highest label's bin."""
    number = to_bins(rows.labelled.target)  # type: ignore[arg-type]
    every = torch.arange(BINS, device=number.device)
    net.possible.copy_((every >= number.min()) & (every <= number.max()))
