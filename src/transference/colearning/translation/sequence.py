"""Bimodal translation, sequence to sequence: what is read off the primary modality, step by step, says the secondary.

Use it when both modalities unfold in time, there are many pairs, labelled or not, and what the secondary one says when
matters for the label. `colearning.translation.cyclic` translates all steps at once, and back again; here a decoder
gives them one after another and looks at the primary's own steps. The secondary modality is needed in training only.

    h = E(x),  r_1 .. r_K = R(E(x_1) .. E(x_K)),  t^_1 .. t^_M = G(h; r_1 .. r_K)
    minimise  CE(head(h), y) + translation * |t^ - t|^2 / V_t

E is the primary modality's encoder, R a recurrent layer in both directions, summed, and G the decoder of
`nn.decoder`, which starts from h and attends to r. x_k is the row with nothing but its k-th step, everything else at
the mean of the training rows. CE over labelled rows, the second term over all rows that have t; for several secondary
modalities the mean over them, each with a decoder of its own. t is the low-level input of `nn.inputs`, sequences as
the means of `steps` stretches; V_t is its total variance, so that 1 is the loss of answering with the mean.

A step is one of at most `steps` equal stretches of a row of a series, a sound or a video, or of the words of a text.
Anything else is one step: then r = h, without a recurrent layer and without a choice where to look.

Nothing of x reaches the decoder but through E. A memory with weights of its own would let the decoder translate past
h, and the representation that predicts would learn nothing: so the encoded steps are what E itself makes of each. For
words and for the linear path of a series E(x) is, up to its length, the sum of the E(x_k).

Shapes: h (n, width); r (n, K, width), K <= `steps`; t^ (n, M, d_t / M). Cost: K + 1 encodings in place of one, on as
many rows again where there are unlabelled ones, and K + M steps of a recurrent layer of size `width`. After training
the same as `unimodal`, which the method is, bit for bit, when `translation` is 0.

Source: pham2019 (its bimodal part). Departs from it: the encoder is the default one of the modality, so that the
baseline has the same; the label is read off h rather than off the encoded sequence; nothing bounds what the decoder
gives; no normalisation by the largest value; the loss is relative to the variance.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from transference.core.batch import Batch
from transference.core.errors import ConfigError, must_be
from transference.core.method import Card
from transference.core.parameters import Interval
from transference.core.spec import DataSpec
from transference.nn.decoder import SequenceDecoder
from transference.nn.encoders import Encoder, SeriesEncoder, VideoEncoder, WordEncoder
from transference.nn.encoders.video import SIDE
from transference.nn.losses import supervised, unexplained
from transference.nn.named import ByModality
from transference.nn.network import Network
from transference.nn.resampling import resample, shrink
from transference.nn.reversible import Reversible
from transference.train.neural import NeuralMethod
from transference.train.schedule import Schedule

CELLS = 32  # that a sequence is averaged into before its steps are told apart; no encoder sees more


def stretches(lengths: Tensor, count: Tensor, most: int, length: int) -> Tensor:
    """(n, most, length) bool: which places belong to each of `count` equal parts of the first `lengths` ones.

    Parts beyond a row's count are empty.

    >>> stretches(torch.tensor([5]), torch.tensor([2]), 3, 6).long().tolist()
    [[[1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 1, 0], [0, 0, 0, 0, 0, 0]]]
    """
    number = torch.arange(most + 1, device=lengths.device)
    edges = torch.minimum(number * lengths[:, None] // count[:, None].clamp_min(1), lengths[:, None])  # (n, most + 1)
    place = torch.arange(length, device=lengths.device)
    return (place >= edges[:, :-1, None]) & (place < edges[:, 1:, None])


class SequenceNetwork(Network):
    """The network of the primary modality, a recurrent layer over its encoded steps, a decoder for every other one."""

    def __init__(self, spec: DataSpec, width: int, steps: int, forcing: float) -> None:
        super().__init__(spec, [spec.primary], width)
        self.primary = spec.primary
        several = isinstance(self.encoders[spec.primary], SeriesEncoder | VideoEncoder | WordEncoder)
        self.steps = min(steps, spec.modalities[spec.primary].shape[0]) if several else 1
        self.recurrent = nn.GRU(width, width, batch_first=True, bidirectional=True) if self.steps > 1 else None
        self.forms = ByModality({name: Reversible(spec.modalities[name], steps) for name in spec.secondary})
        self.decoders = ByModality()
        for name in spec.secondary:
            form: Reversible = self.forms[name]  # type: ignore[assignment]
            size = form.size // form.steps
            self.decoders[name] = SequenceDecoder(width, form.steps, size, self.steps > 1, forcing)

    def memory(self, batch: Batch, h: Tensor) -> tuple[Tensor, Tensor]:
        """(n, K, width) encoded steps of the primary modality, and (n, K) bool, which of them are real."""
        if self.recurrent is None:
            return h[:, None], torch.ones(len(h), 1, dtype=torch.bool, device=h.device)
        parts, real = self.parts(batch.views[self.primary], batch.lengths.get(self.primary))
        count = real.sum(1).clamp_min(1).cpu()
        packed = pack_padded_sequence(parts, count, batch_first=True, enforce_sorted=False)
        both, _ = pad_packed_sequence(self.recurrent(packed)[0], batch_first=True, total_length=self.steps)
        forth, back = both.chunk(2, dim=2)
        return forth + back, real

    def parts(self, values: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """(n, K, width) what the encoder makes of each step alone, and (n, K) bool, which of them are real."""
        encoder: Encoder = self.encoders[self.primary]  # type: ignore[assignment]
        n, length = values.shape[:2]
        if isinstance(encoder, WordEncoder):
            place = torch.arange(1, length + 1, device=values.device)
            lengths = (place * (values > 0)).amax(1)  # up to the last word
            shown = stretches(lengths, lengths.clamp_max(self.steps), self.steps, length)
            encoded = encoder((values[:, None] * shown).flatten(0, 1), None)
        else:
            full = torch.full((n,), CELLS, device=values.device)
            lengths = torch.full_like(full, length) if lengths is None else lengths
            x = encoder.standard(values, lengths)
            if isinstance(encoder, VideoEncoder):
                x = shrink(x.flatten(0, 1), SIDE).unflatten(0, (n, length))
            x = resample(x, lengths, CELLS)  # (n, cells, *d)
            shown = stretches(full * (lengths > 0), lengths.clamp_max(self.steps), self.steps, CELLS)
            alone = x[:, None] * shown.view(n, self.steps, CELLS, *[1] * (x.ndim - 2))
            encoded = encoder.body(alone.flatten(0, 1), None)
        return encoded.unflatten(0, (n, self.steps)), shown.any(2)

    def translate(self, batch: Batch, h: Tensor, names: tuple[str, ...], truth: bool = False) -> dict[str, Tensor]:
        """Name -> (n, d) the low-level input of a secondary modality, from the primary one.

        With `truth` the decoder may be given true steps in training: see `SequenceDecoder`.
        """
        states, real = self.memory(batch, h)
        found = {}
        for name in names:
            decoder: SequenceDecoder = self.decoders[name]  # type: ignore[assignment]
            true = self.form(batch, name).unflatten(1, (decoder.steps, -1)) if truth and decoder.forcing else None
            found[name] = decoder(h, states, real, true).flatten(1)
        return found

    def form(self, batch: Batch, name: str) -> Tensor:
        """(n, d) low-level input of a secondary modality."""
        return self.forms[name](batch.views[name], batch.lengths.get(name))


class Sequence(NeuralMethod):
    """The primary modality, with an encoder whose steps translate to those of the secondary ones.

    Parameters
    ----------
    translation
        Weight, of at least 0; 0 is the unimodal baseline.
    steps
        Most steps, at least 2, that a row of either modality is read or translated in.
    forcing
        Probability that, in training, the decoder is given the true step before the one it is asked for; in [0, 1].
    width, schedule, seed
        See `NeuralMethod`.
    """

    card: ClassVar[Card] = Card(
        summary="The primary's encoded steps must also translate, step after step, to the secondary modality.",
        reference="pham2019",
        modalities=(2, None),
        needs=frozenset({"labels", "unlabelled", "paired"}),
        at_test="primary",
        tasks=frozenset({"classification", "regression", "multilabel", "unsupervised", "generation"}),
    )
    constraints = {"translation": Interval(0), "steps": Interval(2, whole=True), "forcing": Interval(0, 1)}

    def __init__(
        self,
        *,
        translation: float = 10.0,
        steps: int = 8,
        forcing: float = 0.0,
        width: int = 64,
        schedule: Schedule = Schedule(),
        seed: int = 0,
    ) -> None:
        super().__init__(width=width, schedule=schedule, seed=seed)
        self.translation = translation
        self.steps = steps
        self.forcing = forcing

    def build(self, spec: DataSpec) -> Network:
        if self.translation == 0:
            return Network(spec, [spec.primary], self.width)
        return SequenceNetwork(spec, self.width, self.steps, self.forcing)

    def losses(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        if not isinstance(net, SequenceNetwork):
            return self.of_task(net, batch)
        names = self.spec_.secondary
        h = net.encode(batch, self.spec_.primary)
        translated = net.translate(batch, h, names, truth=True)
        parts = [self._missed(net, translated[name], batch, name) for name in names]
        return {
            "task": supervised(net.head(h), batch.target, self.spec_.task),
            "translation": self.translation * torch.stack(parts).mean(),
        }

    def scores(self, net: Network, batch: Batch) -> Tensor:
        return net.head(net.encode(batch, self.spec_.primary))

    def generated(self, net: Any, batch: Batch, name: str) -> Tensor:
        if not isinstance(net, SequenceNetwork):
            raise ConfigError(must_be("The 'translation' of a Sequence that generates", "above 0 in its fit", 0))
        form: Reversible = net.forms[name]  # type: ignore[assignment]
        return form.rows(net.translate(batch, net.encode(batch, self.spec_.primary), (name,))[name])

    def _missed(self, net: SequenceNetwork, answer: Tensor, batch: Batch, name: str) -> Tensor:
        """Share of the low-level input's variance that `answer` (n, d) misses."""
        form: Reversible = net.forms[name]  # type: ignore[assignment]
        return unexplained(answer, net.form(batch, name), form.variance, batch.present[name])
