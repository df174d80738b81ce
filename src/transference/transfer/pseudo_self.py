"""Pseudo-self attention: every layer of a frozen language model attends to the encoded primary as if it were its words.

Use it where `transfer.prefix` is used, when the primary modality has parts (steps, fields of an image, words) and what
is said depends on some of them: the model chooses anew in each layer, for each word, what it looks at. The text is
needed in training only.

    X = E(x)                                               (m, width): the encoded tokens of the primary modality
    Y' = softmax((Y W_q) [X U_k ; Y W_k]^T / sqrt(d)) [X U_v ; Y W_v]      in each layer; W frozen, U new

One softmax is over both; a place of Y, the words so far, sees all of X and the words before it. U = W would make words
of X that stand before Y. The words begin with a start: h_0 is the state of its place, h_k that of word k.

    p(w_k | x, w_<k) = softmax(words' scores of h_(k-1))
    minimise  CE(head(h_0), y) + weight * mean over the words, the end among them, of -log p(w_k | x, w_<k)

The first term is over labelled rows, the second over all rows that have a text. Before, in a stage "captions", the
second is learned alone, so that what the words say is there when few labels begin to choose among what E sees. Another
secondary modality than the text costs the share of its low-level input's variance that a linear map of h_0 misses; the
second term is then the mean over the modalities.

The language model is `language_model`; else the model that a text was read with (`fine_tune` in the study file); else a
small one of GPT-2's form, which first of all, in a stage "language", learns to say the rows' own text, and is then
frozen. The two stages have as many updates together as the last. Without any text an own model's weights are random. A
text of words that a given model has no numbers for is said at once, like any other modality. `generate` says a row's
text, always the likeliest word next.

E makes tokens (see `nn.tokens`) and lets them attend to one another in one layer; what a pretrained model is fine-tuned
on is one token. Shapes: X (n, m, width), at most 16 tokens; U of L layers together 2 L d (width + 1) new numbers, for
models that share keys among heads fewer. Cost: forward and backward through the model over 1 + T places and m more keys
in each layer, though none of its weights moves; after training over one place.

Source: ziegler2019. Departs from it: the model is frozen, an option there; any modality may be primary, with a small
encoder; a head for the task is learned beside the text; no bias makes the context less attended to at the start, and
no words are copied from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from transference.core.batch import Batch
from transference.core.errors import ConfigError, must_be
from transference.core.method import Card
from transference.core.parameters import Interval
from transference.core.spec import DataSpec, ModalitySpec
from transference.nn.captions import Captioner
from transference.nn.encoders import Encoder, encoder
from transference.nn.losses import supervised
from transference.nn.named import ByModality
from transference.nn.tokens import Block, Tokens
from transference.nn.trunk import Past, Trunk
from transference.train.frozen import freeze
from transference.train.loop import Stage, Step
from transference.train.neural import NeuralMethod
from transference.train.schedule import Schedule


class Encoded(nn.Module):
    """A modality's tokens after one layer of attention, normalised; their mean stands for the row."""

    parts: Tokens
    block: Block

    def __init__(self, modality: ModalitySpec, width: int) -> None:
        super().__init__()
        pretrained = "tokenizer" in modality.reading or "processor" in modality.reading
        self.whole: Encoder | None = encoder(modality, width) if pretrained else None
        if not pretrained:
            self.parts = Tokens(modality, width)
            self.block = Block(width, next(heads for heads in (4, 2, 1) if width % heads == 0))
        self.norm = nn.LayerNorm(width)

    def tokens(self, values: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """(n, m, width), and (n, m) bool: which are real, the first always."""
        if self.whole is not None:
            x = self.whole(values, lengths)[:, None]
            return self.norm(x), torch.ones_like(x[:, :, 0], dtype=torch.bool)
        x, real = self.parts(values, lengths)
        return self.norm(self.block(x + self.parts.places(), real)), real

    def forward(self, values: Tensor, lengths: Tensor | None) -> Tensor:
        """(n, width)."""
        x, real = self.tokens(values, lengths)
        weight = real[:, :, None].to(x.dtype)
        return (x * weight).sum(1) / weight.sum(1)


class Projections(nn.Module):
    """U_k and U_v of every layer."""

    def __init__(self, trunk: Trunk, width: int) -> None:
        super().__init__()
        size = trunk.heads * trunk.head
        self.heads = trunk.heads
        self.keys = nn.ModuleList(nn.Linear(width, size) for _ in range(trunk.depth))
        self.values = nn.ModuleList(nn.Linear(width, size) for _ in range(trunk.depth))

    def forward(self, x: Tensor) -> Past:
        """(n, m, width) -> for each layer keys and values, (n, heads, m, head)."""

        def split(linear: nn.Module) -> Tensor:
            return linear(x).unflatten(2, (self.heads, -1)).transpose(1, 2)

        return [(split(key), split(value)) for key, value in zip(self.keys, self.values, strict=True)]


class PseudoSelfNetwork(Captioner):
    """The encoded tokens as keys and values in every layer; before the words comes their start alone."""

    def __init__(self, spec: DataSpec, language_model: str | None, width: int, says: bool) -> None:
        super().__init__(spec, language_model, width, 1, says)
        self.encoders = ByModality({spec.primary: Encoded(spec.modalities[spec.primary], width)})
        self.projections = Projections(self.speaker.trunk, width)

    def lead(self, batch: Batch) -> Tensor:
        return self.speaker.starts(batch.rows.shape[0], 1)

    def context(self, batch: Batch) -> tuple[Past, Tensor]:
        part: Encoded = self.encoders[self.primary]  # type: ignore[assignment]
        x, real = part.tokens(batch.views[self.primary], batch.lengths.get(self.primary))
        return self.projections(x), real


class PseudoSelf(NeuralMethod):
    """New keys and values in every layer of a frozen language model.

    Parameters
    ----------
    weight
        Of what the secondary modalities cost, at least 0; at 0 none is said.
    language_model
        ``hf:<id or folder>`` of a causal language model, or None.
    width, schedule, seed
        See `NeuralMethod`; `width` is also that of an own model.
    """

    card: ClassVar[Card] = Card(
        summary="Every layer of a frozen language model attends to the encoded primary, and says its text.",
        reference="ziegler2019",
        modalities=(1, None),
        needs=frozenset({"labels", "unlabelled", "paired", "pretrained"}),
        at_test="primary",
        tasks=frozenset({"classification", "regression", "multilabel", "generation"}),
    )
    constraints = {"weight": Interval(0)}

    def __init__(
        self,
        *,
        weight: float = 1.0,
        language_model: str | None = None,
        width: int = 64,
        schedule: Schedule = Schedule(),
        seed: int = 0,
    ) -> None:
        super().__init__(width=width, schedule=schedule, seed=seed)
        self.weight = weight
        self.language_model = language_model

    def build(self, spec: DataSpec) -> PseudoSelfNetwork:
        return PseudoSelfNetwork(spec, self.language_model, self.width, self.weight > 0)

    def stages(self, net: Any) -> Sequence[Stage]:
        trunk = net.speaker.trunk
        train = Stage("train", (Step(self.losses),), begin=lambda net, rows: freeze(trunk))
        ahead = []
        if net.speaker.heard is not None:
            own = Step(lambda net, batch: net.language(batch), parameters=lambda net: trunk.parameters())
            ahead.append(Stage("language", (own,), begin=lambda net, rows: trunk.requires_grad_(True)))
        if net.tells:
            ahead.append(replace(train, name="captions", steps=(Step(lambda net, batch: net.told(batch)[1]),)))
        return (*(replace(each, share=1 / len(ahead), answers=False) for each in ahead), train)

    def losses(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        state, costs = net.told(batch)
        losses = {"task": supervised(net.head(state), batch.target, self.spec_.task)}
        return losses | {name: self.weight / len(costs) * cost for name, cost in costs.items()}

    def scores(self, net: Any, batch: Batch) -> Tensor:
        return net.head(net.state(batch))

    def generated(self, net: Any, batch: Batch, name: str) -> Tensor:
        if not self.weight:
            raise ConfigError(must_be("The 'weight' of a PseudoSelf that generates", "above 0 in its fit", 0))
        return net.generated(batch, name)
