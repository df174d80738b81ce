"""Vokens: every token of the primary modality learns which secondary content belongs to it, beside the task.

When to use it: the primary modality is a text or a series, of which there are many rows, labelled or not; some of them
have a picture, a sound or numbers that show what single words mean; labels are few. Rows without the secondary modality
get vokens too. The secondary modality is needed in training only.

A token is a word of a text, a step of a series, or the whole of anything else. The first `tokens` words are read; the
steps of a longer series are averaged into as many stretches. C is a small transformer layer over the tokens of a row.

    stage 1  minimise  mean over tokens i of rows r and over rows s != r of  [margin - f_ri . g_r + f_ri . g_s]+
             f = the token in its context, g = the secondary content of a row: linear maps of encodings, of length 1
    between  voken_ri = argmax_k f_ri . key_k  for every token of every training row
    stage 2  minimise  CE(head(E(x) + B pool(C(x))), y)  +  voken CE(V C(x)_i, voken_i)  +  masked guess(C(x)_j, x_j)

E is the encoder of `unimodal`, pool the mean over the real tokens, B a linear map that starts at 0. The keys are g of
at most `keys` training rows, or the centres of their clusters. In stage 2 a share of the tokens, j, is blanked for all
three terms. A blanked word is guessed among the blanked words of the batch (cross-entropy), a blanked step as its
standardised numbers (mean squared error). Several secondary modalities: a bank for each, and the mean of their losses.

With `voken` = 0 nothing of the secondary modality is read and stage 1 is left out: it is masked prediction alone. With
`masked` = 0 besides, the token path is not built: it is `unimodal`, bit for bit. Where there is but one token there is
nothing to guess it from, so `masked` counts as 0. The control ``vokens="random"`` exchanges the retrieved vokens among
all tokens of the training rows: how often each comes is kept, what it says is not.

Shapes: f (n, tokens, width / 2); keys (vokens, width / 2). Cost: as many updates again for stage 1, each with n^2 times
tokens scores for the hinge; in stage 2 the transformer layer, and tokens times vokens scores; once, rows times tokens
times vokens for the retrieval. At test the token path of the primary modality stays.

Source: tan2020. Departs from it: no part is pretrained, so the tokens' context is learned with the matching; every
other row of the batch is a mismatch, not one; the vokens are clusters of the bank, since a small study has few tokens a
key; the task is learned at the same time; a blanked word is sought in the batch, not in the whole vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from transference.core.batch import Batch
from transference.core.errors import ConfigError
from transference.core.method import Card
from transference.core.parameters import Interval, Options
from transference.core.seeding import derive, numpy_generator
from transference.core.spec import DataSpec, ModalitySpec, Task
from transference.core.views import Views
from transference.data.loader import chunks, to_batch
from transference.nn.clusters import k_means
from transference.nn.encoders import encoder, mask_of
from transference.nn.inputs import Inputs
from transference.nn.losses import supervised
from transference.nn.named import ByModality
from transference.nn.network import Network
from transference.train.frozen import freeze
from transference.train.loop import Stage, Step
from transference.train.neural import NeuralMethod
from transference.train.schedule import Schedule

MARGIN = 0.5
BLANKED = 0.15  # of the tokens
NO_TOKEN = -1
CHOICE = Task("classification")


def hinge(tokens: Tensor, things: Tensor, real: Tensor, margin: float = MARGIN) -> Tensor:
    """Mean over real tokens and mismatched rows of [margin - score of the match + score of the mismatch]+.

    Parameters
    ----------
    tokens, things
        (n, length, d) and (n, d), of unit length; row i of the one belongs to row i of the other.
    real
        (n, length) bool.
    """
    n = len(things)
    scores = torch.einsum("itd,jd->itj", tokens, things)
    matched = torch.einsum("itd,id->it", tokens, things)
    other = ~torch.eye(n, dtype=torch.bool, device=things.device)[:, None] & real[:, :, None]  # (n, length, n)
    short = (margin - matched[:, :, None] + scores).relu().where(other, 0.0)
    return short.sum() / (real.sum() * (n - 1)).clamp_min(1)


def nearest(tokens: Tensor, keys: Tensor, rows: int = 4096) -> Tensor:
    """(m,) number of the key (k, d) with the largest inner product with each of (m, d) tokens, `rows` at a time."""
    return torch.cat([(part @ keys.T).argmax(1) for part in tokens.split(rows)])


class Context(nn.Module):
    """One transformer layer: (n, length, width), and which tokens may be looked at, (n, length) bool."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = 2 if width % 2 == 0 else 1
        self.before = nn.LayerNorm(width)
        self.ask = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, visible: Tensor) -> Tensor:
        parts = self.ask(self.before(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = parts.unbind(0)  # (n, heads, length, d)
        seen = F.scaled_dot_product_attention(query, key, value, attn_mask=visible[:, None, None])
        return x + self.out(seen.transpose(1, 2).flatten(2))


class Tokens(nn.Module):
    """One modality as at most `most` tokens in their context, some of which may be blanked where `blanks`."""

    def __init__(self, modality: ModalitySpec, width: int, most: int, blanks: bool = False) -> None:
        super().__init__()
        self.is_text = modality.kind == "text"
        if self.is_text:
            self.length = min(most, modality.shape[0])
            self.words = nn.Embedding(modality.vocabulary, width)
        else:
            self.form = Inputs(modality, min(most, modality.shape[0]))
            self.length = self.form.steps
            self.enter = nn.Linear(self.form.size // self.length, width)
        self.blank = nn.Parameter(torch.zeros(width)) if blanks and self.length > 1 else None
        self.place = nn.Parameter(torch.zeros(self.length, width))
        self.context = Context(width) if self.length > 1 else None  # a single token has none
        self.deep = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.after = nn.LayerNorm(width)

    def reset_parameters(self) -> None:
        width = self.place.shape[1]
        for each in (self.place, self.blank):
            if each is not None:
                nn.init.normal_(each, std=0.1)
        if self.is_text:
            nn.init.normal_(self.words.weight, std=width**-0.5)

    def read(self, values: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """Word numbers (n, length), or standardised steps (n, length, numbers); and which are real, (n, length)."""
        if not self.is_text:
            steps = self.form(values, lengths).unflatten(1, (self.length, -1))
            return steps, torch.ones_like(steps[:, :, 0], dtype=torch.bool)
        cut = values[:, : self.length]
        return cut.long(), (mask_of(lengths, cut) > 0) & (cut > 0)

    def forward(self, given: Tensor, real: Tensor, blanked: Tensor | None = None) -> Tensor:
        """(n, length, width) of what `read` gave; the tokens in `blanked` (n, length) are not seen."""
        x = self.words(given) if self.is_text else self.enter(given)
        if blanked is not None and self.blank is not None:
            x = torch.where(blanked[:, :, None], self.blank, x)
        x = x + self.place
        if self.context is not None:
            first = torch.arange(self.length, device=real.device) == 0  # so that an empty text sees something
            x = self.context(x, real | first)
        return self.after(x + self.deep(x))


def guess_loss(tokens: Tokens, answers: Tensor, truth: Tensor) -> Tensor:
    """Mean over blanked tokens; 0 where there is none.

    Parameters
    ----------
    answers, truth
        (m, width) and (m,) word numbers; or both (m, numbers).
    """
    if not len(truth):
        return answers.sum() * 0.0
    if not tokens.is_text:
        return F.mse_loss(answers, truth)
    words, index = truth.unique(return_inverse=True)
    return F.cross_entropy(answers @ tokens.words(words).T, index)


class Matching(nn.Module):
    """Stage 1: tokens and secondary contents in one space; `keys` (secondary modalities, vokens, narrow) are the banks.

    Keys of zeros are not used.
    """

    keys: Tensor

    def __init__(self, spec: DataSpec, width: int, narrow: int, most: int, vokens: int) -> None:
        super().__init__()
        self.primary, self.names = spec.primary, spec.secondary
        self.tokens = Tokens(spec.modalities[spec.primary], narrow, most)
        self.encoders = ByModality({name: encoder(spec.modalities[name], width) for name in self.names})
        self.of_tokens = ByModality({name: nn.Linear(narrow, narrow) for name in self.names})
        self.of_things = ByModality({name: nn.Linear(width, narrow) for name in self.names})
        self.register_buffer("keys", torch.zeros(len(self.names), vokens, narrow))

    def match_tokens(self, batch: Batch, names: Sequence[str]) -> tuple[list[Tensor], Tensor]:
        """f, (n, length, narrow), for each of `names`; and which tokens are real, (n, length)."""
        given, real = self.tokens.read(batch.views[self.primary], batch.lengths.get(self.primary))
        states = self.tokens(given, real)
        return [F.normalize(self.of_tokens[name](states), dim=2) for name in names], real

    def match_things(self, batch: Batch, name: str) -> Tensor:
        """g, (n, narrow)."""
        encoded = self.encoders[name](batch.views[name], batch.lengths.get(name))
        return F.normalize(self.of_things[name](encoded), dim=1)

    @torch.no_grad()
    def retrieve(self, rows: Batch) -> dict[str, Tensor]:
        """Secondary modality -> (n, length): the voken of every token."""
        found: dict[str, list[Tensor]] = {name: [] for name in self.names}
        for part in chunks(rows):
            tokens, real = self.match_tokens(part, self.names)
            for name, f, keys in zip(self.names, tokens, self.keys, strict=True):
                ids = nearest(f.flatten(0, 1), keys[keys.any(1)]).view(real.shape)
                found[name].append(ids.where(real, NO_TOKEN))
        return {name: torch.cat(parts) for name, parts in found.items()}


class Vokens(NeuralMethod):
    """Predict for every token of the primary modality the secondary content that belongs to it, beside the task.

    Parameters
    ----------
    voken, masked
        Weights, at least 0, of the classification of vokens and of the guesses of blanked tokens.
    vokens
        "retrieved", or the control "random".
    tokens
        How many tokens of a row are read; the base encoder reads them all.
    keys
        Most rows in a bank.
    clusters
        Number of vokens, the clusters of a bank; None = every key is one.
    width, schedule, seed
        See `NeuralMethod`. A token is half as wide as a representation.
    """

    card: ClassVar[Card] = Card(
        summary="Predict for every token of the primary the secondary content that belongs to it, beside the task.",
        reference="tan2020",
        modalities=(2, None),
        needs=frozenset({"labels", "unlabelled", "paired"}),
        at_test="primary",
        tasks=frozenset({"classification", "regression", "multilabel"}),
    )
    constraints = {
        "voken": Interval(0),
        "masked": Interval(0),
        "vokens": Options("retrieved", "random"),
        "tokens": Interval(1, whole=True),
        "keys": Interval(2, whole=True),
        "clusters": Interval(2, whole=True, none=True),
    }

    def __init__(
        self,
        *,
        voken: float = 1.0,
        masked: float = 1.0,
        vokens: Literal["retrieved", "random"] = "retrieved",
        tokens: int = 32,
        keys: int = 2000,
        clusters: int | None = 64,
        width: int = 64,
        schedule: Schedule = Schedule(),
        seed: int = 0,
    ) -> None:
        super().__init__(width=width, schedule=schedule, seed=seed)
        self.voken = voken
        self.masked = masked
        self.vokens = vokens
        self.tokens = tokens
        self.keys = keys
        self.clusters = clusters

    def learn(self, X: Views, target: NDArray[Any]) -> None:
        super().learn(X, target)
        self.__dict__.pop("_table", None)

    def build(self, spec: DataSpec) -> Network:
        net = Network(spec, [spec.primary], self.width)
        narrow = max(1, self.width // 2)  # tokens are many
        language = Tokens(spec.modalities[spec.primary], narrow, self.tokens, blanks=self.masked > 0)
        if not self.voken and language.blank is None:
            return net
        net.language = language
        net.bridge = nn.Parameter(torch.zeros(narrow, self.width))  # at first the token path says nothing
        if language.blank is not None:
            net.guess = nn.Linear(narrow, narrow if language.is_text else language.form.size // language.length)
        if self.voken:
            vokens = self.clusters or self.keys
            net.matching = Matching(spec, self.width, narrow, self.tokens, vokens)
            net.vokens = ByModality({name: nn.Linear(narrow, vokens) for name in spec.secondary})
        return net

    def stages(self, net: Any) -> Sequence[Stage]:
        train = Step(self.losses)
        if not self.voken:
            return (Stage("train", (train,)),)
        match = Step(self._matching_losses, parameters=lambda net: net.matching.parameters())
        return Stage("match", (match,), answers=False), Stage("train", (train,), begin=self._retrieve)

    def losses(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        if not hasattr(net, "language"):
            return self.of_task(net, batch)
        primary, mask = self.spec_.primary, batch.is_labelled
        given, real = net.language.read(batch.views[primary], batch.lengths.get(primary))
        is_masked = net.language.blank is not None
        blanked = (torch.rand(real.shape, device=real.device) < BLANKED) & real if is_masked else None
        states = net.language(given, real, blanked)
        known = batch.take(mask)
        features = net.encode(known, primary) + _pool(states, real)[mask] @ net.bridge
        losses = {"task": supervised(net.head(features), known.target, self.spec_.task)}
        if blanked is not None:
            guess = guess_loss(net.language, net.guess(states[blanked]), given[blanked])
            losses["masked token"] = self.masked * guess
        if self.voken:
            share = self.voken / len(self.spec_.secondary)
            rows, table = self._table
            place = torch.searchsorted(rows, batch.rows)
            for name, ids in table.items():
                scores = net.vokens[name](states[real])
                losses[f"voken of {name}"] = share * supervised(scores, ids[place][real], CHOICE)
        return losses

    def scores(self, net: Any, batch: Batch) -> Tensor:
        return net.head(self._represent(net, batch))

    def embeddings(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        """The primary modality's name -> (n, width): what the head reads."""
        primary = self.spec_.primary
        return {primary: self._represent(net, batch)} if primary in batch.views else {}

    def vokenize(self, X: Views) -> dict[str, NDArray[np.int64]]:
        """Secondary modality -> (n, tokens): each token's voken, by the primary modality alone; -1 beyond the last."""
        X = self._readable(X)
        if not self.voken:
            raise ConfigError("There are no vokens: the 'voken' parameter of Vokens is 0.")
        self.net_.eval()
        found = self.net_.matching.retrieve(to_batch(X, device=self._device()))  # type: ignore[operator, union-attr]
        return {name: ids.cpu().numpy() for name, ids in found.items()}

    def _represent(self, net: Any, batch: Batch) -> Tensor:
        """(n, width)."""
        primary = self.spec_.primary
        features = net.encode(batch, primary)
        if not hasattr(net, "language"):
            return features
        given, real = net.language.read(batch.views[primary], batch.lengths.get(primary))
        return features + _pool(net.language(given, real), real) @ net.bridge

    def _matching_losses(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        losses = {}
        for name in self.spec_.secondary:
            pairs = batch.take(batch.present[name])
            (f,), real = net.matching.match_tokens(pairs, [name])
            losses[f"hinge with {name}"] = hinge(f, net.matching.match_things(pairs, name), real)
        return losses

    def _retrieve(self, net: Any, rows: Batch) -> None:
        """Freeze the matching, fill the banks, and find the voken of every token of the training rows."""
        freeze(net.matching)
        net.matching.eval()
        for bank, name in zip(net.matching.keys, self.spec_.secondary, strict=True):
            there = rows.present[name].nonzero()[:, 0]
            chosen = numpy_generator(self.seed, "bank", name).permutation(len(there))[: self.keys]
            with torch.no_grad():
                shown = chunks(rows.take(there[torch.from_numpy(chosen).to(there.device)]))
                keys = torch.cat([net.matching.match_things(part, name) for part in shown])
            if self.clusters is not None:
                centres, _ = k_means(keys, self.clusters, derive(self.seed, "clusters", name) % 2**32)
                keys = F.normalize(centres, dim=1).to(keys)
            bank[: len(keys)] = keys
        rows = rows.take(rows.rows.argsort(stable=True))
        found = net.matching.retrieve(rows)
        if self.vokens == "random":
            found = {name: self._exchanged(ids, name) for name, ids in found.items()}
        self._table = rows.rows, found

    def _exchanged(self, ids: Tensor, name: str) -> Tensor:
        """(n, length): the vokens of all real tokens, in another order."""
        there = ids[ids != NO_TOKEN]
        order = numpy_generator(self.seed, "random vokens", name).permutation(len(there))
        return ids.masked_scatter(ids != NO_TOKEN, there[torch.from_numpy(order).to(ids.device)])


def _pool(states: Tensor, real: Tensor) -> Tensor:
    """(n, width): the mean over real tokens; zeros where there is none."""
    weight = real.to(states.dtype)[:, :, None]
    return (states * weight).sum(1) / weight.sum(1).clamp_min(1)
