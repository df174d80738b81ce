"""A transformer that learned from another modality computes, almost all of it frozen: a universal computation engine.

Use it to ask whether what a language model has learned carries over to series, images or numbers: few weights are
trained, and the rest is as it came. Hold it against the same form with random weights (`random`), and tune the learning
rate of each: much of what such a trunk is worth is its form.

    x (n, *shape) -> v (n, places, width)       pieces of the row by a new linear map; a text's own tokens as they are
    h = trunk(v) (n, places, out)               attention and perceptrons frozen; layer norms and places trained
    scores = head(h at the last place)          (an encoder, which sees all places, gives the mean of its states)

    minimise  mean over labelled rows of  CE(scores, y)

The trunk is the model whose tokens the primary modality was read as (`fine_tune` in the study file), else
`language_model`, else a small one of GPT-2's form with random weights: then the method says what random, frozen
attention is worth, no more.

Cost: forward and backward of the whole trunk, though few of its weights move. The gradient passes through all layers.

Source: lu2022. Departs from it: pieces are those of `nn.tokens`, at most 16 of a row; a modality is standardised first;
the linear map has a bias that starts at 0 and orthogonal weights of gain 1.41, as there, but is trained at the same
rate and without dropout; all updates are those of the schedule.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from transference.core.batch import Batch
from transference.core.errors import ConfigError, must_be
from transference.core.method import Card
from transference.core.parameters import Interval, Options
from transference.core.spec import DataSpec
from transference.nn.network import Network
from transference.nn.reading import Reader
from transference.nn.tokens import Numbers
from transference.train.loop import Stage, Step
from transference.train.neural import NeuralMethod
from transference.train.schedule import Schedule

GAIN = 2**0.5
PARTS = ("norms", "places", "attention", "perceptrons")
NORMS = ("ln", "norm")
PLACES = ("wpe", "position_embeddings")


def part_of(name: str) -> str:
    """Which part of a trunk a parameter belongs to, by its name.

    >>> [part_of(name) for name in ("h.0.ln_1.weight", "wpe.weight", "h.0.attn.c_attn.bias", "h.0.mlp.c_fc.weight")]
    ['norms', 'places', 'attention', 'perceptrons']
    """
    parts = name.lower().split(".")
    if any(piece in part for part in parts for piece in NORMS):
        return "norms"
    if any(part in PLACES for part in parts):
        return "places"
    return "attention" if any("attn" in part or "attention" in part for part in parts) else "perceptrons"


def freeze_but(trunk: nn.Module, trained: Collection[str]) -> None:
    """No gradient for the parameters of other parts than these; see `part_of`."""
    for name, value in trunk.named_parameters():
        value.requires_grad_(part_of(name) in trained)


class FrozenTransformer(NeuralMethod):
    """A frozen transformer between a new input layer and a new head.

    Parameters
    ----------
    language_model
        ``hf:<id or folder>`` of a causal model or an encoder, or None.
    random
        Whether its weights are drawn anew: the control of what it knows.
    trained
        Which parts of the trunk are trained: some of "norms", "places", "attention" and "perceptrons".
    rate
        Of these parts and the new ones, as a multiple of the schedule's learning rate.
    """

    card: ClassVar[Card] = Card(
        summary="A pretrained transformer, frozen but for its layer norms and places, reads another modality.",
        reference="lu2022",
        modalities=(1, None),
        needs=frozenset({"labels", "pretrained"}),
        at_test="primary",
        tasks=frozenset({"classification", "regression", "multilabel", "few_shot"}),
    )
    constraints = {"random": Options(True, False), "rate": Interval(0, open_low=True)}

    def __init__(
        self,
        *,
        language_model: str | None = None,
        random: bool = False,
        trained: Collection[str] = ("norms", "places"),
        rate: float = 1.0,
        width: int = 64,
        schedule: Schedule = Schedule(),
        seed: int = 0,
    ) -> None:
        super().__init__(width=width, schedule=schedule, seed=seed)
        self.language_model = language_model
        self.random = random
        self.trained = trained
        self.rate = rate

    def check_parameters(self) -> None:
        super().check_parameters()
        if isinstance(self.trained, str) or not set(self.trained) <= set(PARTS):
            raise ConfigError(must_be("'trained' of FrozenTransformer", f"some of {PARTS}", self.trained))

    def build(self, spec: DataSpec) -> Network:
        reader = Reader(spec.modalities[spec.primary], self.width, self.language_model, causal=True, random=self.random)
        freeze_but(reader.trunk, self.trained)
        return Network.of({spec.primary: reader}, reader.trunk.out, spec.task)

    def losses(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        return self.of_task(net, batch)

    def scores(self, net: Any, batch: Batch) -> Tensor:
        return net.head(net.encode(batch, self.spec_.primary))

    def stages(self, net: Any) -> Sequence[Stage]:
        return (Stage("train", (Step(self.losses, optimizer=self._optimizer, rate=self.rate),), begin=self._begin),)

    def _begin(self, net: Any, rows: Batch) -> None:
        enter = net.encoders[self.spec_.primary].enter
        if isinstance(enter, Numbers):
            nn.init.orthogonal_(enter.linear.weight, GAIN)
            nn.init.zeros_(enter.linear.bias)

    def _optimizer(self, parameters: list[nn.Parameter], rate: float) -> Optimizer:
        """The norms of a pretrained trunk move as fast as what is new."""
        return AdamW(parameters, lr=rate, weight_decay=self.schedule.weight_decay, fused=True)
