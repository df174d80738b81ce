"""Descriptions: what a vector is made to say, in words or in another modality's low-level form, and how it is read.

A text is described by the first of its frequent words, one after the other: a recurrent network (GRU) starts from the
vector and says word after word until it says the end marker. Any other modality has no words; its low-level input, see
`nn.inputs`, is said at once. Both cost a share of what they cost one who knows nothing of the row: 1 is the cost of a
word's frequency, or of the mean.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from transference.core.batch import labelled
from transference.core.spec import ModalitySpec
from transference.nn.encoders import Encoder, mask_of, word_counts
from transference.nn.inputs import Inputs

STEPS = 24  # words of a description that are said, its end marker included
WORDS = 1024  # the most frequent ones, the end marker included; the others are left out


def true_tokens(tokens: Tensor) -> Tensor:
    """(n, steps) bool: the words of (n, steps) tokens and, where there is room, the end marker after the last one.

    >>> true_tokens(torch.tensor([[5, 2, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]])).int().tolist()
    [[1, 1, 1, 0], [1, 1, 1, 1], [1, 0, 0, 0]]
    """
    return F.pad(tokens[:, :-1] > 0, (1, 0), value=True)


class Sentences(Encoder):
    """Texts as tokens, (n, length) -> (n, steps) int64: their frequent words, numbered anew; zeros follow.

    Attributes
    ----------
    size
        How many tokens there are; number 0 is the end marker.
    steps
        Most tokens of a row.
    prior
        (size,) logarithm of each token's share of the true tokens of the training rows; very low where it is never met.
    surprise
        Mean cost in nats of a true token to one who knows this share alone.
    """

    number: Tensor
    prior: Tensor
    surprise: Tensor

    def __init__(self, modality: ModalitySpec, steps: int = STEPS, words: int = WORDS) -> None:
        super().__init__(modality)
        self.steps = min(modality.shape[0] + 1, steps)
        self.size = min(modality.vocabulary, words)
        self.register_buffer("number", torch.zeros(modality.vocabulary, dtype=torch.int64))
        self.register_buffer("prior", torch.zeros(self.size))
        self.register_buffer("surprise", torch.ones(()))

    def fit_statistics(self, values: Tensor, lengths: Tensor | None) -> None:
        counts = word_counts(_real(values, lengths), self.modality.vocabulary).sum(0)
        counts[0] = counts.max() + 1  # the end marker comes first
        frequent = counts.argsort(descending=True, stable=True)[: self.size]
        self.number.zero_()
        self.number[frequent] = torch.arange(self.size, device=values.device)
        tokens = self.standard(values, lengths)
        found = torch.bincount(tokens[true_tokens(tokens)], minlength=self.size).float()
        share = found / found.sum()
        self.prior.copy_(share.clamp_min(1e-9).log())
        self.surprise.copy_(-(share * self.prior).sum().clamp(max=-0.1))

    def standard(self, values: Tensor, lengths: Tensor | None) -> Tensor:
        tokens = self.number[_real(values, lengths).long()]
        order = (tokens == 0).to(torch.uint8).argsort(dim=1, stable=True)  # what is left out leaves no gap
        return F.pad(tokens.gather(1, order), (0, 1))[:, : self.steps]

    def body(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        return x


class WordDecoder(nn.Module):
    """Says a text, word after word, from a vector (n, width).

    Attributes
    ----------
    form
        Rows of the modality as what is said: (n, steps) tokens.
    draws
        How many uniform random numbers a description takes.
    """

    def __init__(self, modality: ModalitySpec, width: int) -> None:
        super().__init__()
        self.form = Sentences(modality)
        self.draws = self.form.steps
        self.start = nn.Linear(width, width)
        self.embedding = nn.Embedding(self.form.size, width)  # of the word before; number 0 also stands for the start
        self.cell = nn.GRU(width, width, batch_first=True)
        self.out = nn.Linear(width, self.form.size)

    def nats(self, concept: Tensor, tokens: Tensor) -> Tensor:
        """(n,) cost of saying each description: the sum over its true tokens; what pads it costs nothing."""
        states, _ = self.cell(self.embedding(F.pad(tokens[:, :-1], (1, 0))), self.start(concept)[None])
        real = true_tokens(tokens)
        each = F.cross_entropy(self._logits(states[real]), tokens[real], reduction="none")
        return each.new_zeros(tokens.shape[0]).index_add(0, real.nonzero()[:, 0], each)

    def cost(self, concept: Tensor, tokens: Tensor) -> Tensor:
        """(n,) nats a true token, as a share of the surprise."""
        return self.nats(concept, tokens) / (true_tokens(tokens).sum(1) * self.form.surprise)

    def say(self, concept: Tensor, uniform: Tensor | None = None) -> Tensor:
        """(n, steps) tokens: always the likeliest, or as drawn by numbers (n, draws) in [0, 1)."""
        state = self.start(concept)[None]
        token = torch.zeros(concept.shape[0], dtype=torch.int64, device=concept.device)
        going = torch.ones_like(token, dtype=torch.bool)
        said = []
        for step in range(self.form.steps):
            after, state = self.cell(self.embedding(token)[:, None], state)
            logits = self._logits(after[:, 0])
            token = (logits.argmax(1) if uniform is None else drawn(logits, uniform[:, step])).where(going, 0)
            going = token > 0
            said.append(token)
        return torch.stack(said, 1)

    def _logits(self, states: Tensor) -> Tensor:
        return self.out(states) + self.form.prior


class FormDecoder(nn.Module):
    """Says the low-level form of a modality without words, all at once, from a vector (n, width).

    Attributes
    ----------
    form
        Rows of the modality as what is said: (n, size) numbers.
    draws
        How many uniform random numbers a description takes.
    spread
        (size,) deviation of what was said in training from what was so: how far descriptions that are drawn vary.
    """

    spread: Tensor

    def __init__(self, modality: ModalitySpec, width: int) -> None:
        super().__init__()
        self.form = Inputs(modality)
        self.draws = self.form.size
        self.deep = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, self.form.size))
        self.register_buffer("spread", torch.ones(self.form.size))

    def cost(self, concept: Tensor, form: Tensor) -> Tensor:
        """(n,) squared error as a share of the total variance; in training, `spread` follows it."""
        error = (self.deep(concept) - form).square()  # (n, size)
        if self.training and len(form):
            with torch.no_grad():
                self.spread.copy_(self.spread.square().lerp(error.mean(0), 0.1).sqrt())
        return error.sum(1) / self.form.variance

    def say(self, concept: Tensor, uniform: Tensor | None = None) -> Tensor:
        """(n, size) numbers: the likeliest, or normal about it as drawn by numbers (n, draws) in [0, 1)."""
        likeliest = self.deep(concept)
        if uniform is None:
            return likeliest
        return likeliest + self.spread * torch.special.ndtri(uniform.clamp(1e-6, 1 - 1e-6))


class WordReader(nn.Module):
    """(n, steps) tokens -> (n, width): the mean of their words, and a GRU over them up to the end marker."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(size, width)
        self.cell = nn.GRU(width, width, batch_first=True)
        self.linear = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        words = self.embedding(tokens)  # (n, steps, width)
        real = (tokens > 0)[:, :, None]
        straight = (words * real).sum(1) / real.sum(1).clamp_min(1)
        states, _ = self.cell(words)
        last = real.sum(1).clamp_max(tokens.shape[1] - 1)  # (n, 1): where the end marker is
        deep = states.gather(1, last[:, :, None].expand(-1, -1, states.shape[2]))[:, 0]
        return self.linear(straight) + self.out(deep)


class FormReader(nn.Module):
    """(n, size) low-level form -> (n, width): a linear map plus a perceptron with one hidden layer."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(size, width)
        self.deep = nn.Sequential(nn.Linear(size, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))

    def forward(self, form: Tensor) -> Tensor:
        return self.linear(form) + self.deep(form)


def concepts(h: Tensor, target: Tensor) -> Tensor:
    """(n, d) -> (n, d): the mean over the rows of each one's class; a row without a label (-1) is its own.

    >>> concepts(torch.tensor([[0.0], [2.0], [5.0], [7.0]]), torch.tensor([3, 3, -1, -1])).flatten().tolist()
    [1.0, 1.0, 5.0, 7.0]
    """
    known = labelled(target)
    alike = (target[:, None] == target) & known[:, None]
    share = (alike | torch.eye(len(target), dtype=torch.bool, device=h.device)).to(h.dtype)
    return share @ h / share.sum(1, keepdim=True)


def drawn(logits: Tensor, uniform: Tensor) -> Tensor:
    """(n,) tokens drawn from the softmax of logits (n, size) by numbers (n,) in [0, 1).

    >>> drawn(torch.tensor([[0.25, 0.75]]).log().expand(3, 2), torch.tensor([0.0, 0.24, 0.26])).tolist()
    [0, 0, 1]
    """
    below = logits.double().softmax(1).cumsum(1)
    return (below <= uniform[:, None] * below[:, -1:]).sum(1).clamp_max(logits.shape[1] - 1)


def _real(values: Tensor, lengths: Tensor | None) -> Tensor:
    """(n, length) word numbers, 0 beyond a row's length."""
    return values.where(mask_of(lengths, values) > 0, 0)


def describer(modality: ModalitySpec, width: int) -> WordDecoder | FormDecoder:
    """What says a modality."""
    has_words = modality.kind == "text" and modality.vocabulary > 0 and len(modality.shape) == 1
    return WordDecoder(modality, width) if has_words else FormDecoder(modality, width)


def reader(describer: WordDecoder | FormDecoder, width: int) -> WordReader | FormReader:
    """What reads the descriptions that `describer` says."""
    size = describer.form.size
    return WordReader(size, width) if isinstance(describer, WordDecoder) else FormReader(size, width)
