"""Guided diffusion: samples of a secondary modality, made from noise under the condition of the primary one.

Use it to make what the secondary modality of a row may have been, where there is more than one answer: a picture of a
digit that was spoken, a sound of a picture. The other methods that generate answer with a mean, which is nearer but is
itself no example. Guidance trades variety for samples that show their condition more clearly.

    x_t = sqrt(a) x + sqrt(1 - a) e,   v = sqrt(a) e - sqrt(1 - a) x          e ~ N(0, I); t uniform in [0, 1]
    minimise  CE(head(E(x_p)), y) + weight * mean over secondary x of |D(x_t, t, c) - v|^2 / V_x

x is the low-level input of `nn.inputs`, V its total variance, so that 1 is the loss of a denoiser D that knows nothing
but variances; E is the primary modality's encoder. CE is over labelled rows, the second term over all rows that have x.
See `nn.diffusion` for a, the steps from noise to a sample, and the two kinds of guidance. The condition c is

    primary    h = E(x_p), which D teaches too: the secondary modality then shapes what is predicted from
    class      y in training; asked, what is predicted from x_p. Predictions are those of `unimodal`, bit for bit,
               unless the schedule clips the gradient, whose norm is of all that is learned

and the guidance, with one `scale` gamma for all (0 unconditional, 1 conditional, above 1 guided; w = gamma - 1)

    classifier_free   D without condition is D of a null token, learned in rows that lose c with probability `drop`, or
                      that have none. gamma 1 is conditional sampling bit for bit
    classifier        D has no condition; C(x_t, t) learns y from noised rows, in the sum as `noised task`. gamma 1 is
                      conditional as far as C is right. For values, log p is that of N(C, 1) in deviations of y
    conditional       no null token: gamma is 1, whatever `scale` says

`scale`, `steps`, `fresh` and `bounded` are read when a fitted method generates; so is `seed`, for other samples.

The noise that a row starts from is drawn from the seed and from what the row's primary modality holds: the same rows
give the same samples, whatever else is asked with them. Equal rows get equal samples.

Shapes: h (n, width), c (n, width) or (n, classes), x, v (n, d); D and C are perceptrons of two residual blocks of four
times the width. Cost: in training about three perceptron passes a secondary modality beside `unimodal`, which the
method is, bit for bit, when the weight is 0; `steps` passes of D a sample, two each with a null token, and as many of C
there and back. What is predicted costs the same as in `unimodal`. A denoiser wants thousands of updates.

Sources: ho2022 (classifier-free), dhariwal2021 (classifier), ho2020, song2021ddim, salimans2022 (v). Departs from them:
t is continuous and steps are equal in the angle of signal and noise; a perceptron of low-level inputs of any kind, not
a U-net of pixels; the condition is another modality, or its predicted class, and not a class that is given.
"""

from __future__ import annotations

import hashlib
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from transference.core.batch import Batch
from transference.core.errors import ConfigError, must_be
from transference.core.method import Card
from transference.core.parameters import Interval, Options
from transference.core.seeding import numpy_generator
from transference.core.spec import DataSpec, ModalitySpec, Task
from transference.nn.diffusion import (
    Field,
    Judge,
    Perceptron,
    by_classifier,
    classifier_free,
    kept,
    noise_in,
    noised,
    sample,
    velocity,
)
from transference.nn.encoders import mask_of
from transference.nn.losses import supervised, unexplained
from transference.nn.named import ByModality
from transference.nn.network import Network
from transference.nn.reversible import Reversible
from transference.train.neural import NeuralMethod
from transference.train.schedule import Schedule


class Bounded(Reversible):
    """A low-level input that remembers between which values its numbers are in the training rows."""

    low: Tensor
    high: Tensor

    def __init__(self, modality: ModalitySpec) -> None:
        super().__init__(modality)
        self.register_buffer("low", torch.zeros(self.size))
        self.register_buffer("high", torch.zeros(self.size))

    def fit_statistics(self, values: Tensor, lengths: Tensor | None) -> None:
        super().fit_statistics(values, lengths)
        x = self(values, lengths)
        self.low.copy_(x.amin(0))
        self.high.copy_(x.amax(0))


class DiffusionNetwork(Network):
    """The network of the primary modality and, for every other one, a denoiser and perhaps a judge of noised rows."""

    def __init__(self, spec: DataSpec, width: int, given: int, null: bool, judged: bool) -> None:
        super().__init__(spec, [spec.primary], width)
        self.forms = ByModality({name: Bounded(spec.modalities[name]) for name in spec.secondary})
        self.denoisers = ByModality()
        self.judges = ByModality()
        for name in spec.secondary:
            size = self.form(name).size
            self.denoisers[name] = Perceptron(size, size, 4 * width, given, null)
            if judged:
                self.judges[name] = Judge(size, spec.task.outputs, 4 * width)

    def form(self, name: str) -> Bounded:
        return self.forms[name]  # type: ignore[return-value]

    def varied(self, name: str, noise: Tensor) -> Tensor:
        """Noise (..., d) in the numbers that vary over the training rows; the others are 0 in every row."""
        return noise.where(self.form(name).scale > 0, 0.0)


def as_numbers(target: Tensor, task: Task) -> Tensor:
    """(n, k) labels as a condition: one of the classes, several, or a value; unlabelled rows mean nothing."""
    if task.kind == "classification":
        return F.one_hot(target.clamp_min(0), task.outputs).float()
    return target.view(len(target), -1).nan_to_num(0.0)


def most_likely(scores: Tensor, task: Task) -> Tensor:
    """The labels, as in a batch, that these scores say."""
    if task.kind == "classification":
        return scores.argmax(1)
    return (scores > 0).to(scores.dtype) if task.kind == "multilabel" else scores[:, 0]


def log_likelihood(scores: Tensor, target: Tensor, task: Task) -> Tensor:
    """(n,) log p(y), but for a constant, of labels under such scores."""
    if task.kind == "classification":
        return scores.log_softmax(1).gather(1, target[:, None])[:, 0]
    if task.kind == "multilabel":
        return -F.binary_cross_entropy_with_logits(scores, target, reduction="none").sum(1)
    return -0.5 * (scores[:, 0] - target).square()


def noise_of(values: Tensor, lengths: Tensor | None, shape: tuple[int, int], seed: int, name: str) -> Tensor:
    """(count, n, d) normal numbers, those of a row from the seed, the name and what the row holds; shape (count, d)."""
    if lengths is not None:
        real = mask_of(lengths, values).bool()
        values = values.where(real.view(*real.shape, *[1] * (values.ndim - 2)), 0.0)
    held = (values + 0.0).flatten(1).cpu().numpy()  # -0 becomes 0
    names = [hashlib.blake2b(row.tobytes(), digest_size=16).hexdigest() for row in held]
    draws = [numpy_generator(seed, "noise", name, each).standard_normal(shape, np.float32) for each in names]
    return torch.from_numpy(np.stack(draws, 1)).to(values.device)


class GuidedDiffusion(NeuralMethod):
    """The primary modality, with denoisers of the secondary ones under its condition.

    Parameters
    ----------
    condition
        ``primary``, its representation, or ``class``, what is predicted from it; see above.
    guidance
        ``classifier_free``, ``classifier`` (of classes, values or several labels, so with ``condition="class"``) or
        ``conditional``.
    scale
        gamma, at least 0: 0 is unconditional, 1 conditional. Learned fields are wrong far out: from about 4 on, samples
        may vary more again.
    steps
        From noise to a sample.
    fresh
        How much of the expected noise is replaced in every step, in [0, 1]: 0 is DDIM, 1 is DDPM.
    bounded
        Whether what is expected stays, in every step, between the least and the largest value that the training rows
        have in each number of the low-level input: guidance pushes beyond them.
    drop
        Probability that a row loses its condition in training, in (0, 1); of no meaning without a null token.
    weight
        Of the denoisers in the sum that is minimised, at least 0; 0 is the unimodal baseline, which generates nothing.
    width, schedule, seed
        See `NeuralMethod`.
    """

    card: ClassVar[Card] = Card(
        summary="Samples of the secondary modality, denoised under the guidance of the primary one or of its class.",
        reference="ho2022",
        modalities=(2, None),
        needs=frozenset({"labels", "unlabelled", "paired"}),
        at_test="primary",
        tasks=frozenset({"classification", "regression", "multilabel", "unsupervised", "generation"}),
    )
    constraints = {
        "condition": Options("primary", "class"),
        "guidance": Options("classifier_free", "classifier", "conditional"),
        "scale": Interval(0),
        "steps": Interval(1, whole=True),
        "fresh": Interval(0, 1),
        "bounded": Options(True, False),
        "drop": Interval(0, 1, open_low=True, open_high=True),
        "weight": Interval(0),
    }

    def __init__(
        self,
        *,
        condition: Literal["primary", "class"] = "primary",
        guidance: Literal["classifier_free", "classifier", "conditional"] = "classifier_free",
        scale: float = 2.0,
        steps: int = 50,
        fresh: float = 0.0,
        bounded: bool = True,
        drop: float = 0.15,
        weight: float = 1.0,
        width: int = 64,
        schedule: Schedule = Schedule(),
        seed: int = 0,
    ) -> None:
        super().__init__(width=width, schedule=schedule, seed=seed)
        self.condition = condition
        self.guidance = guidance
        self.scale = scale
        self.steps = steps
        self.fresh = fresh
        self.bounded = bounded
        self.drop = drop
        self.weight = weight

    def check_parameters(self) -> None:
        super().check_parameters()
        if self.guidance == "classifier" and self.condition == "primary":
            subject = "The 'condition' parameter of GuidedDiffusion with guidance='classifier'"
            raise ConfigError(must_be(subject, "'class'", self.condition, "A classifier tells no representation."))

    def build(self, spec: DataSpec) -> Network:
        if self.weight == 0:
            return Network(spec, [spec.primary], self.width)
        if self.condition == "class" and spec.task.kind == "unsupervised":
            subject = "The 'condition' parameter of GuidedDiffusion without labels"
            raise ConfigError(must_be(subject, "'primary'", self.condition))
        judged = self.guidance == "classifier"
        given = self.width if self.condition == "primary" else spec.task.outputs
        return DiffusionNetwork(spec, self.width, 0 if judged else given, self.guidance == "classifier_free", judged)

    def scores(self, net: Network, batch: Batch) -> Tensor:
        return net.head(net.encode(batch, self.spec_.primary))

    def losses(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        if self.weight == 0:
            return self.of_task(net, batch)
        if self.condition == "class":
            given, known = as_numbers(batch.target, self.spec_.task), batch.is_labelled  # type: ignore[arg-type]
            losses = self.of_task(net, batch)
        else:
            given = net.encode(batch, self.spec_.primary)
            known = torch.ones(len(batch), dtype=torch.bool, device=given.device)
            losses = {"task": supervised(net.head(given), batch.target, self.spec_.task)}
        parts = [self._of_noised(net, batch, name, given, known) for name in self.spec_.secondary]
        for key in parts[0]:
            losses[key] = self.weight * torch.stack([part[key] for part in parts]).mean()
        return losses

    def _of_noised(self, net: Any, batch: Batch, name: str, given: Tensor, known: Tensor) -> dict[str, Tensor]:
        """The losses of one secondary modality, noised."""
        form, here = net.form(name), batch.present[name]
        x = form(batch.views[name], batch.lengths.get(name))
        t, noise = torch.rand(len(x), device=x.device), net.varied(name, torch.randn_like(x))
        a = kept(t)[:, None]
        noisy, asked = noised(x, noise, a), velocity(x, noise, a)
        if self.guidance == "classifier":
            scores = net.judges[name](noisy, t)[here]
            answer = net.denoisers[name](noisy, t)
            judged = {"noised task": supervised(scores, batch.target[here], self.spec_.task)}  # type: ignore[index]
            return {"denoising": unexplained(answer, asked, form.variance, here), **judged}
        if self.guidance == "classifier_free":
            known = known & (torch.rand(len(x), device=x.device) >= self.drop)
        else:
            here = here & known
        answer = net.denoisers[name](noisy, t, given, known)
        return {"denoising": unexplained(answer, asked, form.variance, here)}

    def generated(self, net: Any, batch: Batch, name: str) -> Tensor:
        if not isinstance(net, DiffusionNetwork):
            raise ConfigError(must_be("The 'weight' of a GuidedDiffusion that generates", "above 0 in its fit", 0))
        form, primary = net.form(name), self.spec_.primary
        count = 1 + self.steps if self.fresh > 0 else 1
        drawn = noise_of(batch.views[primary], batch.lengths.get(primary), (count, form.size), self.seed, name)
        drawn = net.varied(name, drawn)
        fresh = drawn[1:] if self.fresh > 0 else None
        bounds = (form.low, form.high) if self.bounded else None
        return form.rows(sample(self.field(net, batch, name), drawn[0], self.steps, self.fresh, fresh, bounds))

    def field(self, net: Any, batch: Batch, name: str) -> Field:
        """The guided field of these rows in the secondary modality `name`; see `nn.diffusion`."""
        denoiser, gamma = net.denoisers[name], float(self.scale)
        h = net.encode(batch, self.spec_.primary)
        target = most_likely(net.head(h), self.spec_.task)
        given = h if self.condition == "primary" else as_numbers(target, self.spec_.task)
        nobody = torch.zeros(len(h), dtype=torch.bool, device=h.device)

        def conditional(x: Tensor, t: Tensor) -> Tensor:
            return noise_in(x, denoiser(x, t, given), kept(t))

        def unconditional(x: Tensor, t: Tensor) -> Tensor:
            return noise_in(x, denoiser(x, t, given, nobody), kept(t))

        def free(x: Tensor, t: Tensor) -> Tensor:
            return classifier_free(conditional(x, t), unconditional(x, t), gamma)

        def judged(x: Tensor, t: Tensor) -> Tensor:
            gradient = _gradient(net.judges[name], x, t, target, self.spec_.task)
            return by_classifier(unconditional(x, t), gradient, kept(t), gamma)

        if self.guidance == "conditional" or (self.guidance == "classifier_free" and gamma == 1):
            return conditional
        if gamma == 0:
            return unconditional
        return judged if self.guidance == "classifier" else free


def _gradient(judge: nn.Module, x: Tensor, t: Tensor, target: Tensor, task: Task) -> Tensor:
    """(n, d) gradient of log p(y | x_t) in x_t; no row's depends on another one."""
    with torch.inference_mode(False), torch.enable_grad():
        x = x.clone().requires_grad_()
        return torch.autograd.grad(log_likelihood(judge(x, t.clone()), target.clone(), task).sum(), x)[0]
