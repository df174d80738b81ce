"""Frozen: the primary modality as a few vectors before the words of a language model, which itself learns nothing.

Use it when a language model is at hand that knows what the labels are about, or when rows have a text, labelled or not:
the encoder learns to put what it sees into the space of words, where the model can go on from it. Rows with a text may
be many and labels few. The text is needed in training only.

    v_1 .. v_m = A E(x)                                    E: the primary modality's encoder; A: a new linear map
    h = LM(v_1 .. v_m, w_1 .. w_T)                         LM frozen; w: the words of the row's text
    p(w_k | x, w_<k) = softmax(words' scores of h_(m+k-1))     the first word is said from the last vector's state
    minimise  CE(head(h_m), y) + weight * mean over the words, the end among them, of -log p(w_k | x, w_<k)

The first term is over labelled rows, the second over all rows that have a text. Before, in a stage "captions", the
second is learned alone, so that what the words say is there when few labels begin to choose among what E sees. Nothing
is asked of the places of v_1 .. v_(m-1). Another secondary modality than the text costs the share of its low-level
input's variance that a linear map of h_m misses; the second term is then the mean over the modalities.

LM is `language_model`; else the model that a text was read with (`fine_tune` in the study file); else a small one of
GPT-2's form, which first of all, in a stage "language", learns to say the rows' own text, and is then frozen. The two
stages have as many updates together as the last. Without any text an own model's weights are random, and the method is
a frozen random network between encoder and head. A text of words that a given model has no numbers for is said at once,
like any other modality. An own model knows no more than that text: what its words do not tell of one another it cannot
pass on from the vectors to the later ones, and these are said badly.

`generate` says a row's text, always the likeliest word next. Vectors of several rows and words may also stand by turns
in one sequence: so the model is shown a few examples of a new word and then asked.

Shapes: E(x) (n, width), v (n, m, d), h (n, m + T, d). Cost: forward and backward through LM over m + T places, though
none of its weights moves; after training over m places.

Source: tsimpoukelli2021. Departs from it: the encoder is the default one of the modality rather than a large network
for images, and any modality may be primary; the task's head is learned beside the captions, where the paper asks the
model in words; secondary modalities without words are said too; the model may be a small one of the rows' own text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor, nn

from transference.core.batch import Batch
from transference.core.errors import ConfigError, must_be
from transference.core.method import Card
from transference.core.parameters import Interval
from transference.core.spec import DataSpec
from transference.nn.captions import Captioner
from transference.nn.encoders import encoder
from transference.nn.losses import supervised
from transference.nn.named import ByModality
from transference.train.frozen import freeze
from transference.train.loop import Stage, Step
from transference.train.neural import NeuralMethod
from transference.train.schedule import Schedule


class PrefixNetwork(Captioner):
    """The encoder's output as `prefix` vectors before the words."""

    def __init__(self, spec: DataSpec, language_model: str | None, width: int, prefix: int, says: bool) -> None:
        super().__init__(spec, language_model, width, prefix, says)
        self.encoders = ByModality({spec.primary: encoder(spec.modalities[spec.primary], width)})
        self.enter = nn.Linear(width, prefix * self.speaker.trunk.width)

    def lead(self, batch: Batch) -> Tensor:
        return self.enter(self.encode(batch, self.primary)).unflatten(1, (self.count, -1))


class Prefix(NeuralMethod):
    """A learned prefix to a frozen language model.

    Parameters
    ----------
    prefix
        m, at least 1: how many vectors.
    weight
        Of what the secondary modalities cost, at least 0; at 0 none is said.
    language_model
        ``hf:<id or folder>`` of a causal language model, or None.
    width, schedule, seed
        See `NeuralMethod`; `width` is also that of an own model.
    """

    card: ClassVar[Card] = Card(
        summary="The primary modality as vectors before the words of a frozen language model, which says its text.",
        reference="tsimpoukelli2021",
        modalities=(1, None),
        needs=frozenset({"labels", "unlabelled", "paired", "pretrained"}),
        at_test="primary",
        tasks=frozenset({"classification", "regression", "multilabel", "generation"}),
    )
    constraints = {"prefix": Interval(1, whole=True), "weight": Interval(0)}

    def __init__(
        self,
        *,
        prefix: int = 4,
        weight: float = 1.0,
        language_model: str | None = None,
        width: int = 64,
        schedule: Schedule = Schedule(),
        seed: int = 0,
    ) -> None:
        super().__init__(width=width, schedule=schedule, seed=seed)
        self.prefix = prefix
        self.weight = weight
        self.language_model = language_model

    def build(self, spec: DataSpec) -> PrefixNetwork:
        return PrefixNetwork(spec, self.language_model, self.width, self.prefix, self.weight > 0)

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
            raise ConfigError(must_be("The 'weight' of a Prefix that generates", "above 0 in its fit", 0))
        return net.generated(batch, name)
