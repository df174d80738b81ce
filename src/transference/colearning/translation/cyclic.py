"""Cyclic translation: the representation that predicts must also hold what the secondary modality would say.

Use it when there are many pairs, labelled or not, and the secondary modality is easier to label from than the primary
one: translating forces the encoder to find in the primary modality whatever it shares with the secondary one. The
secondary modality is needed in training only.

    h  = E(x),  t^ = G(h)          E: the primary modality's encoder; G: a decoder, one for each secondary modality t
    h' = E(t^), x^ = G(h')         back again, with the same encoder and the same decoder
    minimise  CE(head(h), y) + translation * |t^ - t|^2 / V_t + cycle * |x^ - x|^2 / V_x

CE over labelled rows; the translation over all rows that have t; the cycle over all rows; for several secondary
modalities, means over them. x and t are low-level inputs, see `nn.inputs`: standardised features, sequences as the
means of 8 stretches. V is their total variance: 1 is the loss of answering with the mean, whatever the modality.

Where t^ has fewer numbers than E reads it is padded with zeros; where it has more it is folded: added up in as many
layers as it needs, and divided by the root of their number. For a series E reads any number of steps: a sequence stays
a sequence of 8 steps, and anything else becomes a sequence of one. A text is read after its tf-idf weighting, and what
a pretrained model is fine-tuned on, after that model.

With `hierarchical` several secondary modalities t_1 .. t_m, in `order`, are translated one after another, each from an
encoding of the encoding before it, and only the first with a cycle:

    h_1 = E(x),  h_k = h_(k-1) + P_k(h_(k-1)),  t^_k = G_k(h_k)          P_k: a perceptron
    minimise  CE(head(h_m), y) + translation * mean over k of |t^_k - t_k|^2 / V_k + cycle * |x^ - x|^2 / V_x

With two modalities that is the same. P_k belongs to the deployed model, G_k does not. Without `translation` there is no
further encoding.

Shapes: h (n, width); G: width -> max(d_t, d_x), of which t^ takes the first d_t numbers and x^ the first d_x.
Cost: two encodings in place of one, on as many rows again where there are unlabelled ones, and a two-layer perceptron a
pass: about twice the baseline. After training, the same as `unimodal`, which the method is, bit for bit, when both
weights are 0.

Source: pham2019 (MCTN). Departs from it: the encoder is the default one of the modality rather than a bidirectional
LSTM, and the decoder gives all steps at once rather than one after another with attention, so that every kind of
modality can be translated and the baseline has the same encoder; no tanh bounds what the decoder can reach; losses are
relative to the variance; several secondary modalities are translated side by side unless `hierarchical`, where the
second encoding, a recurrent layer over the encoded sequence in the paper, is a perceptron of h.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from transference.core.batch import Batch
from transference.core.errors import ConfigError, must_be
from transference.core.method import Card
from transference.core.parameters import Interval, Options
from transference.core.spec import DataSpec
from transference.core.views import Views
from transference.nn.encoders import Encoder, SeriesEncoder
from transference.nn.joint import Residual
from transference.nn.losses import supervised, unexplained
from transference.nn.named import ByModality
from transference.nn.network import Network
from transference.nn.reversible import Reversible
from transference.train.neural import NeuralMethod
from transference.train.schedule import Schedule


def fit_to(x: Tensor, size: int) -> Tensor:
    """(n, ..., d) -> (n, ..., size): padded with zeros, or folded with the variance of independent numbers kept.

    >>> fit_to(torch.tensor([[1.0, 2.0]]), 3).tolist()
    [[1.0, 2.0, 0.0]]
    >>> fit_to(torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]]), 2).tolist()
    [[8.0, 10.0]]
    """
    layers = -(-x.shape[-1] // size)
    padded = F.pad(x, (0, layers * size - x.shape[-1]))
    return padded.unflatten(-1, (layers, size)).sum(-2) / layers**0.5


class CyclicNetwork(Network):
    """The network of the primary modality, and a decoder for every secondary one.

    Parameters
    ----------
    cycled
        The secondary modalities that are translated back.
    further
        Those that are translated from an encoding of the encoding before; in this order.
    """

    def __init__(self, spec: DataSpec, width: int, cycled: Sequence[str], further: Sequence[str] = ()) -> None:
        super().__init__(spec, [spec.primary], width)
        self.primary = spec.primary
        self.cycled = tuple(cycled)
        self.further = ByModality({name: Residual(width, dropout=0.0) for name in further})
        forms = {name: Reversible(modality) for name, modality in sorted(spec.modalities.items())}
        self.forms = ByModality(forms)
        self.decoders = ByModality()
        for name in sorted({*cycled, *further}):
            size = max(forms[each].size for each in {name, spec.primary if name in self.cycled else name})
            self.decoders[name] = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, size))

    def encodings(self, batch: Batch) -> dict[str, Tensor]:
        """Name -> (n, width) from which a secondary modality is translated; the last one is read by the head."""
        h = self.encode(batch, self.primary)
        found = {name: h for name in self.decoders if name not in self.further}
        for name, again in self.further.items():
            h = again(h)
            found[name] = h
        return found

    def form(self, batch: Batch, name: str) -> Tensor:
        """(n, d) low-level input of one modality."""
        return self.forms[name](batch.views[name], batch.lengths.get(name))

    def unexplained(self, answer: Tensor, batch: Batch, name: str) -> Tensor:
        """Share of the low-level input's variance that `answer` (n, d) misses."""
        part: Reversible = self.forms[name]  # type: ignore[assignment]
        return unexplained(answer, self.form(batch, name), part.variance, batch.present[name])

    def decode(self, h: Tensor, by: str, to: str) -> Tensor:
        """(n, d_to): what the decoder of the secondary modality `by` makes of a representation (n, width)."""
        part: Reversible = self.forms[to]  # type: ignore[assignment]
        return self.decoders[by](h)[:, : part.size]

    def encode_again(self, translated: Tensor, name: str) -> Tensor:
        """(n, width): a translation (n, d) into the modality `name`, through the primary modality's encoder."""
        encoder: Encoder = self.encoders[self.primary]  # type: ignore[assignment]
        form: Reversible = self.forms[name]  # type: ignore[assignment]
        shape = encoder.standard_shape
        if isinstance(encoder, SeriesEncoder):
            return encoder.body(fit_to(translated.unflatten(1, (form.steps, -1)), shape[1]), None)
        return encoder.body(fit_to(translated, math.prod(shape)).unflatten(1, shape), None)


class Cyclic(NeuralMethod):
    """The primary modality, with an encoder that also translates to the secondary ones and back.

    Parameters
    ----------
    translation, cycle
        Weights, of at least 0, of the two reconstruction losses. With both 0 the method is `unimodal`; with
        `translation` alone it is one-way translation.
    hierarchical
        Whether several secondary modalities are translated one after another rather than side by side.
    order
        The names of all secondary modalities, in the order in which they then are; None = by name.
    width, schedule, seed
        See `NeuralMethod`.
    """

    card: ClassVar[Card] = Card(
        summary="The representation that predicts must also translate to the secondary modality and back.",
        reference="pham2019",
        modalities=(2, None),
        needs=frozenset({"labels", "unlabelled", "paired"}),
        at_test="primary",
        tasks=frozenset({"classification", "regression", "multilabel"}),
    )
    constraints = {"translation": Interval(0), "cycle": Interval(0), "hierarchical": Options(False, True)}

    def __init__(
        self,
        *,
        translation: float = 10.0,
        cycle: float = 1.0,
        hierarchical: bool = False,
        order: Sequence[str] | None = None,
        width: int = 64,
        schedule: Schedule = Schedule(),
        seed: int = 0,
    ) -> None:
        super().__init__(width=width, schedule=schedule, seed=seed)
        self.translation = translation
        self.cycle = cycle
        self.hierarchical = hierarchical
        self.order = order

    def learn(self, X: Views, target: NDArray[Any]) -> None:
        names = self.spec_.secondary
        if self.order is not None and sorted(map(str, self.order)) != sorted(names):
            expected = f"None or all of {', '.join(map(repr, names))}, each once"
            raise ConfigError(must_be("The 'order' parameter of Cyclic", expected, self.order))
        super().learn(X, target)

    def build(self, spec: DataSpec) -> Network:
        if self.translation == 0 and self.cycle == 0:
            return Network(spec, [spec.primary], self.width)
        if not self.hierarchical:
            return CyclicNetwork(spec, self.width, spec.secondary)
        first, *further = spec.secondary if self.order is None else self.order
        return CyclicNetwork(spec, self.width, [first], further if self.translation > 0 else ())

    def losses(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        if not isinstance(net, CyclicNetwork):
            return self.of_task(net, batch)
        encodings = net.encodings(batch)
        last = list(encodings.values())[-1]
        losses = {"task": supervised(net.head(last), batch.target, self.spec_.task)}
        names = sorted(encodings)
        translated = {name: net.decode(encodings[name], name, name) for name in names}
        if self.translation > 0:
            parts = [net.unexplained(translated[name], batch, name) for name in names]
            losses["translation"] = self.translation * torch.stack(parts).mean()
        if self.cycle > 0:
            back = [self._cycle(net, batch, translated[name], name) for name in net.cycled]
            losses["cycle"] = self.cycle * torch.stack(back).mean()
        return losses

    def scores(self, net: Network, batch: Batch) -> Tensor:
        if isinstance(net, CyclicNetwork):
            return net.head(list(net.encodings(batch).values())[-1])
        return net.head(net.encode(batch, self.spec_.primary))

    def _cycle(self, net: CyclicNetwork, batch: Batch, translated: Tensor, name: str) -> Tensor:
        primary = self.spec_.primary
        back = net.decode(net.encode_again(translated, name), name, primary)
        return net.unexplained(back, batch, primary)
