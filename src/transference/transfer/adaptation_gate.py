"""A multimodal adaptation gate inside a pretrained encoder: what else is heard or seen shifts the words' states.

Use it when the primary modality is a text with a good pretrained encoder, the other modalities change what its words
mean (a tone, a face), and all of them are there at test time.

    Z (n, places, d)               what enters layer l of the trunk; l = 0: what its embeddings answer
    A_m (n, places, width)         each other modality, a vector a place: the piece of it that was at the same share of
                                   the row; one that has no pieces is the same everywhere
    g_m = relu(W_gm [Z ; A_m] + b_gm)
    H   = sum over m of  g_m * (W_m A_m) + b
    Z'  = LayerNorm(Z + a H),      a = min(share |Z| / |H|, 1) in every place

    minimise  mean over labelled rows of  CE(head(states, mean or last), y)

The trunk is the model whose tokens the primary was read as (`fine_tune` in the study file), else `language_model`, else
a small one of BERT's form that knows nothing yet; the last is trained with the rest, the first two are trained at a
hundredth of the rate, or `frozen`.

Cost: forward and backward of the trunk, and two linear maps a modality and place.

Source: rahman2020mag. Departs from it: what is heard and seen during a word, known there by forced alignment, is here
the piece at the same share of the row, so that any series will do; marks at the ends of a text are shifted like
words; there is no dropout, so that answers repeat; b is added after the gates.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from transference.core.batch import Batch
from transference.core.errors import ConfigError, must_be
from transference.core.method import Card
from transference.core.parameters import Interval, Options
from transference.core.spec import DataSpec
from transference.nn.heads import head
from transference.nn.named import ByModality
from transference.nn.reading import Reader
from transference.nn.shift import shifted
from transference.nn.tokens import Numbers, Words, content_of
from transference.train.frozen import freeze
from transference.train.neural import NeuralMethod
from transference.train.schedule import Schedule


def beside(pieces: Tensor, of: Tensor, real: Tensor) -> Tensor:
    """(n, places, width): for every real place the piece at the same share of the row.

    Parameters
    ----------
    pieces, of
        (n, length, width), and (n, length) bool: which are real; these come first.
    real
        (n, places) bool, as `of`.

    Examples
    --------
    >>> pieces = torch.tensor([[[1.0], [2.0], [9.0]]])
    >>> of, real = torch.tensor([[True, True, False]]), torch.ones(1, 4, dtype=torch.bool)
    >>> beside(pieces, of, real).flatten().tolist()
    [1.0, 1.0, 2.0, 2.0]
    """
    place = (real.cumsum(1) - 1).clamp_min(0)
    chosen = place * of.sum(1, keepdim=True) // real.sum(1, keepdim=True)
    return pieces.gather(1, chosen.clamp_max(pieces.shape[1] - 1)[:, :, None].expand(-1, -1, pieces.shape[2]))


class Gate(nn.Module):
    """(n, places, d), and (n, places, width) of each other modality, to (n, places, d)."""

    def __init__(self, size: int, width: int, names: tuple[str, ...], share: float, normalised: bool) -> None:
        super().__init__()
        self.share = share
        self.gates = ByModality({name: nn.Linear(size + width, size) for name in names})
        self.shifts = ByModality({name: nn.Linear(width, size, bias=False) for name in names})
        self.bias = nn.Parameter(torch.zeros(size))
        self.norm = nn.LayerNorm(size) if normalised else nn.Identity()

    def forward(self, z: Tensor, others: dict[str, Tensor]) -> Tensor:
        shift = self.bias
        for name, value in others.items():
            gate = self.gates[name](torch.cat([z, value], 2)).relu()
            shift = shift + gate * self.shifts[name](value)
        return self.norm(shifted(z, shift.expand_as(z), self.share))


class Gated(nn.Module):
    """A reader of the primary modality whose trunk is shifted at one layer by the other modalities."""

    def __init__(self, reader: Reader, others: dict[str, Words | Numbers], gate: Gate, layer: int) -> None:
        super().__init__()
        self.reader = reader
        self.others = ByModality(others)
        self.gate = gate
        self._heard: dict[str, Tensor] = {}
        reader.trunk.layers[layer].register_forward_pre_hook(self._shift, with_kwargs=True)

    def forward(self, batch: Batch) -> Tensor:
        """(n, out)."""
        name = self.reader.modality.name
        vectors, real = self.reader.vectors(batch.views[name], batch.lengths.get(name))
        try:
            for other, content in self.others.items():
                pieces, of = content(batch.views[other], batch.lengths.get(other))
                self._heard[other] = beside(pieces, of, real)
            return self.reader.pooled(self.reader.trunk(vectors, real), real)
        finally:
            self._heard.clear()

    def _shift(self, layer: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if not self._heard:  # the trunk is asked alone
            return None
        if given:
            return (self.gate(given[0], self._heard), *given[1:]), named
        return given, {**named, "hidden_states": self.gate(named["hidden_states"], self._heard)}


class AdaptationGate(NeuralMethod):
    """Other modalities shift the states of a pretrained text encoder.

    Parameters
    ----------
    language_model
        ``hf:<id or folder>`` of an encoder or a causal model, or None.
    layer
        Before which layer of the trunk the states are shifted; 0 is the first.
    share
        The longest shift, as a share of a state's own length, above 0.
    normalised
        Whether a layer norm follows the shift.
    frozen
        Whether the trunk keeps its weights.
    """

    card: ClassVar[Card] = Card(
        summary="Other modalities shift the states of a pretrained text encoder, gated place by place.",
        reference="rahman2020mag",
        modalities=(2, None),
        needs=frozenset({"labels", "pretrained"}),
        at_test="all",
        tasks=frozenset({"classification", "regression", "multilabel"}),
    )
    constraints = {
        "layer": Interval(0, whole=True),
        "share": Interval(0, open_low=True),
        "normalised": Options(True, False),
        "frozen": Options(True, False),
    }

    def __init__(
        self,
        *,
        language_model: str | None = None,
        layer: int = 0,
        share: float = 1.0,
        normalised: bool = True,
        frozen: bool = False,
        width: int = 64,
        schedule: Schedule = Schedule(),
        seed: int = 0,
    ) -> None:
        super().__init__(width=width, schedule=schedule, seed=seed)
        self.language_model = language_model
        self.layer = layer
        self.share = share
        self.normalised = normalised
        self.frozen = frozen

    def build(self, spec: DataSpec) -> nn.Module:
        reader = Reader(spec.modalities[spec.primary], self.width, self.language_model, causal=False)
        if self.layer >= reader.trunk.depth:
            expected = f"below the number of layers, {reader.trunk.depth}"
            raise ConfigError(must_be("The 'layer' parameter of AdaptationGate", expected, self.layer))
        if self.frozen:
            freeze(reader.trunk)
        others = {name: content_of(spec.modalities[name], self.width) for name in spec.secondary}
        gate = Gate(reader.trunk.out, self.width, spec.secondary, self.share, self.normalised)
        net = nn.Module()
        net.gated = Gated(reader, others, gate, self.layer)
        net.head = head(reader.trunk.out, spec.task)
        return net

    def losses(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        return self.of_task(net, batch)

    def scores(self, net: Any, batch: Batch) -> Tensor:
        return net.head(net.gated(batch))

    def embeddings(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        """The states of the primary, shifted by all others."""
        return {self.spec_.primary: net.gated(batch)}
