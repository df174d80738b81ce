"""Dense supervision: a paired signal, predicted at every step in time, teaches what one label a row cannot.

Use it for long sequences with few labels, when training rows, labelled or not, come with a second signal of the same
time that shows what the label depends on: breathing and brain waves of one night. That signal is needed in training
only.

    z_1 .. z_K = C(x)                                    convolutions over time, on a grid of K equal stretches
    p = sum_k a_k z_k,   a = softmax of  v' tanh z      attention over time
    minimise  CE(head(p), y) + dense * mean over k of |D z_k - t_k|^2 / V

D is a linear map, t_k the secondary modality in the same stretch of its row, which must cover the same time from end
to end; V is its variance over the training rows: 1 is the loss of answering with the mean. CE over labelled rows, the
second term over all rows that have t; for several secondary modalities the mean over them. One without time (a vector,
a text) is predicted from p. A primary modality without time is a single step: z_1 = p = E(x), E its default encoder.

A step is a frame of a series, a sound or a video, or a word of a text. C reads every one of them, standardised, with a
window of 5, averages what it found over at most `grid` stretches, and goes on with convolutions of growing reach.
v starts at 0: attention is even until the labels say where to look. From a random start it may settle on the places
that say nothing and be as right. `attention` shows the weights of a row's own steps: each stretch's, divided among its
steps.

The second term is learned alone first, for as many updates as both are learned after it: otherwise few labels are
explained by whatever C finds at the start, and what it finds later is not asked for.

With `dense` 0 none of this is built: the method is `unimodal`, CE(head(E(x)), y), bit for bit. So above 0 the model is
another one, and what the second signal taught is told by the controls, in which C learns from a shuffled one. With
`whole` the label is read off p + E(x), the baseline with C beside it: for labels that depend on when something happens
in a row, or on all of it. Few labels may then soon be explained by E, so that the head asks for nothing of C.

Shapes: z (n, K, width); a (n, K); t (n, K, d_t). Cost: a convolution of 5 * d_x * width over all steps, three of
3 * width^2 over the grid, on as many rows again where there are unlabelled ones, and as many updates again; C is
what is deployed.

Rows of one person on both sides of a split would be recognised by the person: name it as the study's ``data.group``.

Source: yang2022. Departs from it: the encoder is small and has no recurrent part; the target is the signal itself, or
the features of it that the study names, rather than its spectrum.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from transference.core.batch import Batch
from transference.core.errors import ConfigError, must_be
from transference.core.method import Card
from transference.core.parameters import Interval, Options
from transference.core.spec import DataSpec, ModalitySpec
from transference.core.views import Views
from transference.data.loader import chunks, to_batch
from transference.nn.encoders import mask_of
from transference.nn.encoders.base import Standardised
from transference.nn.encoders.video import SIDE
from transference.nn.losses import supervised, unexplained
from transference.nn.named import ByModality
from transference.nn.network import Network
from transference.nn.resampling import resample, shrink
from transference.nn.reversible import Reversible
from transference.train.loop import Stage, Step
from transference.train.neural import NeuralMethod
from transference.train.schedule import Schedule

RANKS = {"text": 1, "series": 2, "audio": 2, "video": 4}  # of a row that unfolds in time
WINDOW = 5  # steps
REACH = (1, 2, 4)  # stretches between what a convolution over the grid looks at
STEPS = 8  # of a secondary modality where the primary one has no time


def unfolds(modality: ModalitySpec) -> bool:
    """Whether a row has steps in time; what a pretrained model is fine-tuned on has none."""
    whole = not {"tokenizer", "processor"}.isdisjoint(modality.reading)
    return RANKS.get(modality.kind) == len(modality.shape) and modality.shape[0] > 1 and not whole


def over_steps(weights: Tensor, lengths: Tensor | None, length: int) -> Tensor:
    """(n, length) weights of steps whose stretches have the weights (n, grid): the transpose of `resample`.

    >>> over_steps(torch.tensor([[0.25, 0.75]]), torch.tensor([3]), 4).round(decimals=3).tolist()
    [[0.16699999570846558, 0.3330000042915344, 0.5, 0.0]]
    """
    with torch.inference_mode(False), torch.enable_grad():
        steps = torch.zeros(len(weights), length, 1, device=weights.device, requires_grad=True)
        stretches = resample(steps, lengths, weights.shape[1])
        return torch.autograd.grad(stretches, steps, weights.clone()[:, :, None])[0][:, :, 0]


class Even(nn.Linear):
    """A linear map that starts at 0."""

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)


class Timeline(Standardised):
    """C and the attention over what it found: (n, *shape) -> (n, width).

    Attributes
    ----------
    grid
        Stretches of a row.
    """

    def __init__(self, modality: ModalitySpec, width: int, grid: int) -> None:
        channels = modality.shape[1:2] or (1,)
        super().__init__(modality, (*channels, *[1] * len(modality.shape[2:])))
        self.grid = min(grid, modality.shape[0])
        frame = torch.zeros(1, *modality.shape[1:])
        size = shrink(frame, SIDE).numel() if modality.kind == "video" else frame.numel()
        if modality.kind == "text":
            self.words, size = nn.Embedding(modality.vocabulary, width, padding_idx=0), width
        self.first = nn.Conv1d(size, width, WINDOW, padding=WINDOW // 2)
        self.further = nn.ModuleList(nn.Conv1d(width, width, 3, padding=reach, dilation=reach) for reach in REACH)
        self.energy = Even(width, 1, bias=False)

    def fit_statistics(self, values: Tensor, lengths: Tensor | None) -> None:
        if self.modality.kind != "text":
            steps = values[mask_of(lengths, values) > 0]  # (steps of all rows, channels, ...)
            self.set_statistics(steps.movedim(1, -1).flatten(0, -2))

    def standard(self, values: Tensor, lengths: Tensor | None) -> Tensor:
        if self.modality.kind == "text":
            return values
        mask = mask_of(lengths, values).view(*values.shape[:2], *[1] * (values.ndim - 2))
        return super().standard(values, lengths) * mask

    def real(self, values: Tensor, lengths: Tensor | None) -> Tensor | None:
        """(n,) real steps of each row; of a text, up to its last word."""
        if self.modality.kind != "text":
            return lengths
        return (torch.arange(1, values.shape[1] + 1, device=values.device) * (values > 0)).amax(1)

    def steps(self, x: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """(n, grid, width) what was found in each stretch of standard values, and (n, grid) how much it counts."""
        real = self.real(x, lengths)
        if self.modality.kind == "text":
            x = self.words(x.long())
        if self.modality.kind == "video":
            x = shrink(x.flatten(0, 1), SIDE).flatten(1).unflatten(0, (-1, x.shape[1]))
        x = F.relu(self.first(x.transpose(1, 2)))  # (n, width, length)
        z = resample(x.transpose(1, 2), real, self.grid).transpose(1, 2)
        for layer in self.further:
            z = z + F.relu(layer(z))
        z = z.transpose(1, 2)
        return z, self.energy(torch.tanh(z))[:, :, 0].softmax(1)

    def body(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        return pooled(*self.steps(x, lengths))


def pooled(z: Tensor, weights: Tensor) -> Tensor:
    """(n, width) from (n, grid, width) and (n, grid)."""
    return torch.einsum("nk,nkw->nw", weights, z)


class DenseNetwork(Network):
    """Steps of the primary modality, their mean by attention, a head, and a prediction of every other modality."""

    def __init__(self, spec: DataSpec, width: int, grid: int, whole: bool) -> None:
        modality = spec.modalities[spec.primary]
        super().__init__(spec, [spec.primary] if whole or not unfolds(modality) else [], width)
        self.primary = spec.primary
        self.timeline = Timeline(modality, width, grid) if unfolds(modality) else None
        steps = self.timeline.grid if self.timeline else STEPS
        forms = {name: Reversible(spec.modalities[name], steps, SIDE) for name in spec.secondary}
        self.forms = ByModality(forms)
        sizes = {name: form.size // (form.steps if self.in_step(form) else 1) for name, form in forms.items()}
        self.predictions = ByModality({name: nn.Linear(width, size) for name, size in sizes.items()})

    def in_step(self, form: Reversible) -> bool:
        """Whether what is predicted has the time of the primary modality."""
        return self.timeline is not None and form.steps > 1

    def represent(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """(n, width) what the head reads, (n, width) p, (n, grid, width) z."""
        if self.timeline is None:
            h = self.encode(batch, self.primary)
            return h, h, h[:, None]
        z, weights = self.found(batch)
        p = pooled(z, weights)
        return p + self.encode(batch, self.primary) if self.primary in self.encoders else p, p, z

    def found(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(n, grid, width) what was found in each stretch, and (n, grid) how much it counts."""
        if self.timeline is None:
            z = self.represent(batch)[2]
            return z, torch.ones_like(z[:, :, 0])
        lengths = batch.lengths.get(self.primary)
        return self.timeline.steps(self.timeline.standard(batch.views[self.primary], lengths), lengths)

    def missed(self, batch: Batch, name: str, p: Tensor, z: Tensor) -> Tensor:
        """Share of a secondary modality's variance that is not predicted, from (n, width) and (n, grid, width)."""
        form: Reversible = self.forms[name]  # type: ignore[assignment]
        answer = self.predictions[name](z if self.in_step(form) else p).flatten(1)
        target = form(batch.views[name], batch.lengths.get(name))
        return unexplained(answer, target, form.variance, batch.present[name])


class DenseSupervision(NeuralMethod):
    """The primary modality, with steps in time that also predict the secondary ones.

    Parameters
    ----------
    dense
        Weight, of at least 0, of predicting the secondary modalities; 0 is the unimodal baseline.
    grid
        Most stretches that a row is divided into; at least 2.
    whole
        Whether the baseline's representation of the row as a whole is added to that of its steps.
    width, schedule, seed
        See `NeuralMethod`.
    """

    card: ClassVar[Card] = Card(
        summary="Predict the secondary modality at every step in time, beside a label for the whole row.",
        reference="yang2022",
        modalities=(2, None),
        needs=frozenset({"labels", "unlabelled", "paired"}),
        at_test="primary",
        tasks=frozenset({"classification", "regression", "multilabel"}),
    )
    constraints = {"dense": Interval(0), "grid": Interval(2, whole=True), "whole": Options(False, True)}

    def __init__(
        self,
        *,
        dense: float = 10.0,
        grid: int = 64,
        whole: bool = False,
        width: int = 64,
        schedule: Schedule = Schedule(),
        seed: int = 0,
    ) -> None:
        super().__init__(width=width, schedule=schedule, seed=seed)
        self.dense = dense
        self.grid = grid
        self.whole = whole

    def build(self, spec: DataSpec) -> Network:
        if self.dense == 0:
            return Network(spec, [spec.primary], self.width)
        return DenseNetwork(spec, self.width, self.grid, self.whole)

    def stages(self, net: Network) -> Sequence[Stage]:
        """First the signal alone, so that labels meet steps that already mean something; then both."""
        both = Stage("train", (Step(self.losses),))
        if not isinstance(net, DenseNetwork):
            return (both,)
        return (Stage("signal", (Step(self._of_signal),), answers=False), both)

    def losses(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        if not isinstance(net, DenseNetwork):
            return self.of_task(net, batch)
        read, p, z = net.represent(batch)
        task = supervised(net.head(read), batch.target, self.spec_.task)
        return {"task": task, "dense": self._missed(net, batch, p, z)}

    def scores(self, net: Network, batch: Batch) -> Tensor:
        return net.head(self.embeddings(net, batch)[self.spec_.primary])

    def embeddings(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        """The primary's name -> (n, width) what the head reads; nothing where the batch lacks it."""
        name = self.spec_.primary
        if name not in batch.views:
            return {}
        return {name: net.represent(batch)[0] if isinstance(net, DenseNetwork) else net.encode(batch, name)}

    def attention(self, X: Views) -> NDArray[Any]:
        """(n, length) how much each step of the primary modality counts; 1 in all over a row's real steps, 0 beyond.

        A modality without time is one step.

        Raises
        ------
        ConfigError
            When `dense` is 0, for the baseline looks at all steps alike.
        """
        self._fitted()
        net = self.net_
        if not isinstance(net, DenseNetwork):
            raise ConfigError(must_be("The 'dense' parameter of DenseSupervision", "above 0 for attention", 0))
        net.eval()
        parts = []
        for batch in chunks(to_batch(self._readable(X), device=self._device())):
            values, lengths = batch.views[net.primary], batch.lengths.get(net.primary)
            with torch.inference_mode():
                weights = net.found(batch)[1]
            if net.timeline is not None:
                weights = over_steps(weights, net.timeline.real(values, lengths), values.shape[1])
            parts.append(weights.cpu().numpy())
        return np.concatenate(parts)

    def _of_signal(self, net: DenseNetwork, batch: Batch) -> dict[str, Tensor]:
        return {"dense": self._missed(net, batch, *net.represent(batch)[1:])}

    def _missed(self, net: DenseNetwork, batch: Batch, p: Tensor, z: Tensor) -> Tensor:
        """The weighted mean over the secondary modalities of what is not predicted of them."""
        return self.dense * torch.stack([net.missed(batch, name, p, z) for name in self.spec_.secondary]).mean()
