"""Prompt tuning and prefix tuning: a frozen transformer is told what to do by a few learned vectors before the input.

Use it where one pretrained model shall serve many tasks: a task is a prompt and a head, a few kilobytes beside a model
that never changes. It needs a good model; a small one is better fine-tuned.

    v (n, places, width)       the row as the trunk reads it: a text's own tokens, or its pieces by a new linear map
    prompt    h = trunk([P ; v]),  P (length, width)
    prefix    h = trunk(v), in every layer of which all places see `length` more keys and values, an affine map of
              tanh(B E);  E (length, hidden)
    scores = head(h at the last place)          (an encoder, which sees all places, gives the mean over the row's own)

    minimise  mean over labelled rows of  CE(scores, y)

The trunk is the model whose tokens the primary modality was read as (`fine_tune` in the study file), else
`language_model`, else a small one of GPT-2's form with random weights: what the method is worth without a model.
Frozen is every weight of the trunk. Padding may stand before or behind.

Trained numbers: length * width for a prompt, the head, and the linear map where the trunk does not know the input.
Cost: forward and backward of the whole trunk over `length` more places.

Sources: lester2021 (prompt), li2021prefix (prefix). Departs from them: classes by a head, not by words; the prefix's
perceptron stays after training, since its answer is computed once a batch; the optimiser and its rate are the
schedule's, times `rate`, not Adafactor's 0.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from transference.core.batch import Batch
from transference.core.errors import ConfigError
from transference.core.method import Card
from transference.core.parameters import Interval, Options
from transference.core.spec import DataSpec, ModalitySpec
from transference.nn.network import Network
from transference.nn.reading import Reader
from transference.nn.trunk import Past, Trunk
from transference.train.frozen import freeze
from transference.train.loop import Stage, Step
from transference.train.neural import NeuralMethod
from transference.train.schedule import Schedule


def prompted(trunk: Trunk, prompt: Tensor, vectors: Tensor, real: Tensor) -> Tensor:
    """(n, length, out) states of the places of `vectors`, before which each row has its prompt.

    Parameters
    ----------
    prompt
        (n, p, width), a prompt a row; or (p, width), the same for all.
    vectors, real
        (n, length, width), and (n, length) bool.
    """
    before = prompt.expand(vectors.shape[0], -1, -1)
    seen = torch.cat([real.new_ones(before.shape[:2]), real], 1)
    return trunk(torch.cat([before, vectors], 1), seen)[:, before.shape[1] :]


class Prompted(nn.Module):
    """A reader whose frozen trunk sees learned vectors before the row."""

    def __init__(self, reader: Reader, length: int) -> None:
        super().__init__()
        self.reader = reader
        self.length = length
        self.prompt = nn.Parameter(torch.zeros(length, reader.trunk.width))

    def reset_parameters(self) -> None:
        """The vectors of tokens that are drawn."""
        vocabulary = self.reader.trunk.model.get_input_embeddings().num_embeddings
        drawn = torch.randint(vocabulary, (1, self.length), device=self.prompt.device)
        with torch.no_grad():
            self.prompt.copy_(self.reader.trunk.words(drawn)[0])

    def forward(self, values: Tensor, lengths: Tensor | None) -> Tensor:
        """(n, out)."""
        vectors, real = self.reader.vectors(values, lengths)
        return self.reader.pooled(prompted(self.reader.trunk, self.prompt, vectors, real), real)


class Prefixed(nn.Module):
    """A reader whose frozen trunk sees learned keys and values before the row in every layer."""

    def __init__(self, reader: Reader, length: int, hidden: int) -> None:
        super().__init__()
        self.reader = reader
        self.length = length
        trunk = reader.trunk
        self.given = nn.Embedding(length, hidden)
        self.deep = nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, trunk.depth * 2 * trunk.heads * trunk.head)

    def past(self, n: int) -> Past:
        """Keys and values of each layer, (n, heads, length, head)."""
        trunk = self.reader.trunk
        every = self.out(self.deep(self.given.weight).tanh())  # (length, depth * 2 * heads * head)
        parts = every.unflatten(1, (trunk.depth, 2, trunk.heads, trunk.head)).permute(1, 2, 3, 0, 4)
        return [(k.expand(n, -1, -1, -1), v.expand(n, -1, -1, -1)) for k, v in parts]

    def forward(self, values: Tensor, lengths: Tensor | None) -> Tensor:
        """(n, out)."""
        vectors, real = self.reader.vectors(values, lengths)
        states = self.reader.trunk(vectors, real, self.past(vectors.shape[0]), first=self.length)
        return self.reader.pooled(states, real)


class Prompt(NeuralMethod):
    """Learned vectors before the input of a frozen transformer.

    Parameters
    ----------
    language_model
        ``hf:<id or folder>`` of a causal model or an encoder, or None.
    form
        "prompt": vectors before the input; "prefix": keys and values in every layer, of a causal model only.
    length
        How many.
    hidden
        Width of the perceptron that makes a prefix.
    rate
        Of all that is trained, as a multiple of the schedule's learning rate.
    """

    card: ClassVar[Card] = Card(
        summary="A frozen transformer is told what to do by a few learned vectors before the input.",
        reference="lester2021",
        modalities=(1, None),
        needs=frozenset({"labels", "pretrained"}),
        at_test="primary",
        tasks=frozenset({"classification", "regression", "multilabel", "few_shot"}),
    )
    constraints = {
        "form": Options("prompt", "prefix"),
        "length": Interval(1, whole=True),
        "hidden": Interval(1, whole=True),
        "rate": Interval(0, open_low=True),
    }

    def __init__(
        self,
        *,
        language_model: str | None = None,
        form: str = "prompt",
        length: int = 8,
        hidden: int = 64,
        rate: float = 1.0,
        width: int = 64,
        schedule: Schedule = Schedule(),
        seed: int = 0,
    ) -> None:
        super().__init__(width=width, schedule=schedule, seed=seed)
        self.language_model = language_model
        self.form = form
        self.length = length
        self.hidden = hidden
        self.rate = rate

    def build(self, spec: DataSpec) -> Network:
        reader = Reader(spec.modalities[spec.primary], self.width, self.language_model, causal=True, more=self.length)
        freeze(reader.trunk)
        told = self._told(reader, spec.modalities[spec.primary])
        return Network.of({spec.primary: told}, reader.trunk.out, spec.task)

    def losses(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        return self.of_task(net, batch)

    def scores(self, net: Any, batch: Batch) -> Tensor:
        return net.head(net.encode(batch, self.spec_.primary))

    def stages(self, net: Any) -> Sequence[Stage]:
        return (Stage("train", (Step(self.losses, rate=self.rate),)),)

    def _told(self, reader: Reader, modality: ModalitySpec) -> nn.Module:
        if self.form == "prompt":
            return Prompted(reader, self.length)
        if not reader.trunk.causal:
            raise ConfigError(
                f"An encoder reads {modality.name!r} and takes no keys and values from outside. Use form='prompt', or "
                "name a causal 'language_model'."
            )
        return Prefixed(reader, self.length, self.hidden)
