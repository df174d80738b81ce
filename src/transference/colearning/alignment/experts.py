"""Product of experts: one latent vector that each modality, or all together, can tell; learned from pairs alone.

When to use it: the modalities are recorded at the same time and show the same events, pairs are plenty and labels few.
A row may lack a secondary modality, in training too: its expert is left out.

    q(z | M)  ~  N(0, 1) * prod over m in M of N(mu_m(x_m), var_m(x_m))        M: the modalities that a row shows
    minimise  told + pairing * mean BCE(paired?, own or another) + kl * KL(q(z | M) || N(0, 1)) / d

mu_m and var_m (n, d) are linear maps of the encoder's (n, width) representation, the variance through a softplus; the
precisions of a product add up, and a missing expert adds none. ``told``: from a sample of z, whether or not modality m
is in M, a decoder answers with the low-level input of m, see `nn.inputs`; the squared error as a share of the input's
variance, mean over modalities. ``own or another``: a perceptron is asked whether a sample of z stems from a row's
primary and its own secondary modality, or from its primary and the secondary of another row.

In training every second row, drawn anew, shows its primary modality alone, so that M is what it will be at test time;
what the others hold has then to be predicted. Labels come after that: the encoders are frozen and the head learns from
the mean of q(z | primary). With `joint` the task is learned at the same time instead, and the losses above are
multiplied by `weight`. With the weight 0 the method is `unimodal`, bit for bit.

Beyond labels: `match` is the log odds that a row and a candidate belong together, and `generate` decodes the mean of
q(z | primary).

Cost: an encoder and a decoder a modality in training; frozen, as many updates again for them as for the head. Deployed:
one encoder and a linear map.

Source: lee2019touch, its variational form. Departs from it: the low-level inputs of all modalities stand in the place
of optical flow, contact and motion, which only a robot has; no action is known; the primary modality is trained to be
enough; the pairing has a perceptron for each secondary modality; losses are shares of a variance and means over
numbers; the frozen representation serves a head, not a policy. The weights are those of the source.
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
from transference.core.spec import DataSpec
from transference.core.views import Views
from transference.data.loader import chunks, to_batch
from transference.nn.experts import GaussianExpert, divergence, draw, product
from transference.nn.losses import unexplained
from transference.nn.named import ByModality
from transference.nn.network import Network
from transference.nn.reversible import Reversible
from transference.train.frozen import head_alone
from transference.train.loop import Stage, Step
from transference.train.neural import NeuralMethod
from transference.train.schedule import Schedule

ALONE = 0.5  # share of rows that show their primary modality alone
HEAD_RATE = 5.0  # of the schedule's learning rate, for a linear head on what is frozen
MOST_PAIRS = 2**15  # matched at a time


def others(n: int) -> Tensor:
    """(n,) for each row another one, each taken once: a random cycle through all of them. For n of at least 2."""
    order = torch.randperm(n)
    return torch.empty_like(order).scatter(0, order, order.roll(1))


class ExpertsNetwork(Network):
    """For each modality an encoder, an expert and a decoder; for each secondary one the question of its pairing."""

    def __init__(self, spec: DataSpec, width: int, paired: bool) -> None:
        names = [spec.primary, *spec.secondary]
        super().__init__(spec, names, width)
        forms = {name: Reversible(spec.modalities[name]) for name in names}
        self.experts = ByModality({name: GaussianExpert(width, width) for name in names})
        self.forms = ByModality(forms)
        self.decoders = ByModality({name: _perceptron(width, width, form.size) for name, form in forms.items()})
        self.pairing = ByModality({name: _perceptron(width, 2 * width, 1) for name in spec.secondary if paired})

    def belief(self, batch: Batch, name: str) -> tuple[Tensor, Tensor]:
        """(n, width) mean and variance of one modality's expert."""
        return self.experts[name](self.encode(batch, name))

    def alone(self, batch: Batch, name: str) -> Tensor:
        """(n, width) mean of z where one modality is shown."""
        mean, variance = self.belief(batch, name)
        return product(mean[None], variance[None])[0]

    def told(self, z: Tensor, batch: Batch, name: str) -> Tensor:
        """Squared error of the decoded low-level input as a share of its variance, over the rows that have it."""
        form: Reversible = self.forms[name]  # type: ignore[assignment]
        truth = form(batch.views[name], batch.lengths.get(name))
        return unexplained(self.decoders[name](z), truth, form.variance, batch.present[name])


class Experts(NeuralMethod):
    """Learn a latent vector that the primary modality shares with the others, then a head on what it tells alone.

    Parameters
    ----------
    weight
        Of what is learned without labels, beside the task; at least 0. Without `joint` the two do not meet, so that
        only 0, which is the unimodal baseline, differs from the rest.
    pairing, kl
        Of at least 0; see above.
    joint
        Whether the task is learned at the same time, by the encoder too, rather than afterwards by a head alone.
    width, schedule, seed
        See `NeuralMethod`. z has `width` numbers.
    """

    card: ClassVar[Card] = Card(
        summary="Learn what all modalities, or the primary alone, tell of a shared latent vector; then a head on it.",
        reference="lee2019touch",
        modalities=(2, None),
        needs=frozenset({"labels", "unlabelled", "paired"}),
        at_test="primary",
        tasks=frozenset(
            {"classification", "regression", "multilabel", "unsupervised", "retrieval", "zero_shot", "generation"}
        ),
    )
    constraints = {
        "weight": Interval(0),
        "pairing": Interval(0),
        "kl": Interval(0),
        "joint": Options(False, True),
    }

    def __init__(
        self,
        *,
        weight: float = 1.0,
        pairing: float = 0.5,
        kl: float = 0.05,
        joint: bool = False,
        width: int = 64,
        schedule: Schedule = Schedule(),
        seed: int = 0,
    ) -> None:
        super().__init__(width=width, schedule=schedule, seed=seed)
        self.weight = weight
        self.pairing = pairing
        self.kl = kl
        self.joint = joint

    def build(self, spec: DataSpec) -> Network:
        if self.weight:
            return ExpertsNetwork(spec, self.width, paired=self.pairing > 0)
        return Network(spec, [spec.primary], self.width)

    def stages(self, net: Network) -> Sequence[Stage]:
        if self.joint or not self.weight:
            return (Stage("train", (Step(self.losses),)),)
        alignment = Stage("alignment", (Step(self.without_labels),), answers=False)
        if self.spec_.task.kind == "unsupervised":
            return (alignment,)
        head = head_alone(lambda net, batch: self._shown(net, batch, self.spec_.primary), self.spec_.task, HEAD_RATE)
        return (alignment, head)

    def losses(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        task = self.of_task(net, batch)
        if not isinstance(net, ExpertsNetwork):
            return task
        return task | {name: self.weight * value for name, value in self.without_labels(net, batch).items()}

    def without_labels(self, net: ExpertsNetwork, batch: Batch) -> dict[str, Tensor]:
        """What pairs alone teach, named."""
        primary, secondary = self.spec_.primary, self.spec_.secondary
        names = (primary, *secondary)
        beliefs = {name: net.belief(batch, name) for name in names}
        means, variances = (torch.stack([beliefs[name][k] for name in names]) for k in (0, 1))  # (m, n, width)
        present = torch.stack([batch.present[name] for name in names])  # (m, n)
        whole = torch.rand(present.shape[1], device=present.device) >= ALONE
        shown = torch.cat([present[:1], present[1:] & whole])
        mean, variance = product(means, variances, shown)
        z = draw(mean, variance)
        losses = {f"telling {name}": net.told(z, batch, name) / len(names) for name in names}
        if self.pairing:
            for name in secondary:
                asked = self._pairing(net, beliefs[primary], beliefs[name], batch.present[name], name)
                losses[f"pairing with {name}"] = self.pairing * asked / len(secondary)
        if self.kl:
            losses["kl"] = self.kl * divergence(mean, variance).mean() / mean.shape[1]
        return losses

    def scores(self, net: Network, batch: Batch) -> Tensor:
        return net.head(self._shown(net, batch, self.spec_.primary))

    def embeddings(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        """Name -> (n, width) mean of z where that modality alone is shown."""
        return {name: self._shown(net, batch, name) for name in batch.views if name in net.encoders}

    def match(self, X: Views, candidates: Views) -> NDArray[Any]:
        """(n, m) log odds that a row and a candidate belong together, mean over the candidates' modalities.

        Without `pairing`, the cosine of the means of z.
        """
        spec = self._fitted()
        primary, net = spec.primary, self.net_.eval()
        names = [name for name in candidates.names if name in spec.secondary]
        if not names or not isinstance(net, ExpertsNetwork) or not self.pairing:
            return super().match(X, candidates)
        with torch.inference_mode():
            rows = self._beliefs(net, X, primary)
            return np.mean([self._odds(net, rows, self._beliefs(net, candidates, name), name) for name in names], 0)

    def generated(self, net: Any, batch: Batch, name: str) -> Tensor:
        if not isinstance(net, ExpertsNetwork):
            raise ConfigError(must_be("The 'weight' of an Experts that generates", "above 0 in its fit", self.weight))
        form: Reversible = net.forms[name]  # type: ignore[assignment]
        return form.rows(net.decoders[name](net.alone(batch, self.spec_.primary)))

    def _shown(self, net: Network, batch: Batch, name: str) -> Tensor:
        """(n, width) of which the head reads a linear map."""
        return net.alone(batch, name) if isinstance(net, ExpertsNetwork) else net.encode(batch, name)

    def _pairing(
        self,
        net: ExpertsNetwork,
        primary: tuple[Tensor, Tensor],
        secondary: tuple[Tensor, Tensor],
        mask: Tensor,
        name: str,
    ) -> Tensor:
        """Mean BCE, in nats, of the question whether a primary and a secondary modality are of one row."""
        ours, theirs = ([value[mask] for value in belief] for belief in (primary, secondary))  # (pairs, width)
        n = ours[0].shape[0]
        if n < 2:
            return primary[0].sum() * 0.0 + secondary[0].sum() * 0.0
        cycle = others(n).to(mask.device)
        means, variances = (
            torch.stack([mine.repeat(2, 1), torch.cat([own, own[cycle]])])
            for mine, own in zip(ours, theirs, strict=True)
        )
        odds = net.pairing[name](draw(*product(means, variances)))[:, 0]  # (2 pairs,)
        return F.binary_cross_entropy_with_logits(odds, (torch.arange(2 * n, device=mask.device) < n).to(odds.dtype))

    def _beliefs(self, net: ExpertsNetwork, X: Views, name: str) -> tuple[Tensor, Tensor]:
        """(n, width) mean and variance of one modality's expert, for rows that all have it."""
        batches = chunks(to_batch(self._through(X, name), device=self._device()))
        parts = [net.belief(batch, name) for batch in batches]
        means, variances = (torch.cat(part) for part in zip(*parts, strict=True))
        return means, variances

    def _odds(
        self, net: ExpertsNetwork, rows: tuple[Tensor, Tensor], candidates: tuple[Tensor, Tensor], name: str
    ) -> NDArray[Any]:
        """(n, m)."""
        m = len(candidates[0])
        found = []
        for mean, variance in zip(*(value.split(max(1, MOST_PAIRS // max(1, m))) for value in rows), strict=True):
            k = len(mean)
            means = torch.stack([mean.repeat_interleave(m, 0), candidates[0].repeat(k, 1)])  # (2, k * m, width)
            variances = torch.stack([variance.repeat_interleave(m, 0), candidates[1].repeat(k, 1)])
            found.append(net.pairing[name](product(means, variances)[0]).view(k, m))
        return torch.cat(found).cpu().numpy()


def _perceptron(width: int, hidden: int, size: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, size))
