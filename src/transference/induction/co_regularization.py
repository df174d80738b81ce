"""Co-regularisation: a model of each modality, trained together, and their disagreement is penalised.

Use it when each modality suffices alone and rows with both are plenty, labelled or not: of the functions of the primary
that fit the few labels, those are preferred which some function of the secondary can follow. It is co-training without
rounds, as one convex problem in its closed forms.

    minimise   fit  +  weight · mean over pairs of views (v, u) of mean_i |f_v(x_i,v) - f_u(x_i,u)|²
                    +  ridge · sum_v |f_v|²   (closed forms only)
    fit        loss = "each":  sum_v mean over labelled rows of L(y, f_v(x_v))
               loss = "sum":   mean over labelled rows of L(y, sum_v f_v(x_v))   (closed forms only)

f_v (n, classes) or (n, outputs); i are the rows that have both views, labelled or not. The primary's function alone
answers: f_p, or with "sum", where every view holds a part of the answer, f_p times the number of views, as if the
others agreed.

    form = "deep"     f_v is a network, L the loss of the task. Compared are probabilities or, with compare = "scores",
                      what they are made from. A row's term has the gradient 2 (f_v - f_u) to f_v, its negative to f_u.
    form = "linear"   f_v = z_v w_v with |f_v|² = |w_v|², L squared error. z_v is the low-level input of `nn.inputs`
                      (tf-idf, standardised numbers), scaled to a mean squared length of about 1.
    form = "kernel"   f_v in the space of the kernel exp(-gamma |z - z'|²), spanned by at most `centres` rows: all that
                      have the view where there are no more, which is then exact, otherwise drawn ones (Nyström).

The closed forms are one ridge regression: labelled rows, and under them a row [z_v, -z_u] with target 0 for every
pair. With "sum", two views and sums for means, f_v + f_u equals kernel ridge regression with the one kernel
K = s - d_P' (I / weight + s_PP)^-1 d_P,  s = (K_v + K_u) / ridge,  d = (K_v - K_u) / ridge,  P the pairs.
A class is a value, 1 in its rows and 0 in others (one against the rest); these values sum to 1 over the classes, as
do what is answered for them, and what is below 0.001 becomes 0.001. Values of regression are standardised.

Weight 0 is, for "deep", `unimodal` bit for bit; for the closed forms with "each", ridge regression of the primary.

Cost: "deep" a network a modality in training; the closed forms one solve of as many unknowns as all views have
features, or as there are rows where those are fewer; the kernel also an SVD of its centres by its centres.

Source: "each" is sindhwani2005, "sum" with its kernel sindhwani2008. Departs from them: any number of views and
classes, networks; means for sums, so that weights mean the same whatever the number of rows; labelled pairs shall
agree too; the primary's function answers alone, where they add or average over the views.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.kernel_approximation import Nystroem
from torch import Tensor, nn

from transference.core.batch import Batch
from transference.core.errors import ConfigError, must_be
from transference.core.method import Card
from transference.core.parameters import Interval, Options
from transference.core.seeding import derive
from transference.core.spec import DataSpec, Task
from transference.data.loader import chunks
from transference.nn.agreement import Function, co_regularized, disagreement
from transference.nn.heads import head
from transference.nn.inputs import Inputs
from transference.nn.losses import supervised
from transference.nn.named import ByModality
from transference.nn.network import Network
from transference.train.loop import Stage
from transference.train.neural import NeuralMethod
from transference.train.schedule import Schedule

LEAST = 1e-3  # the smallest value of a class that is answered

Array = NDArray[np.float64]


class CoRegularization(NeuralMethod):
    """Models of the modalities that shall agree.

    Parameters
    ----------
    form
        "deep", "linear" or "kernel".
    weight
        Of the disagreement, at least 0.
    compare
        Of networks: "probabilities" or "scores". For regression these are the same.
    loss
        "each" or "sum": what shall be right on labelled rows, the function of each view or their sum.
    ridge
        Of the closed forms, above 0.
    gamma
        Of the kernel, above 0; rows are about 2 apart, squared.
    centres
        Most rows that span the functions of the kernel.
    width, schedule, seed
        See `NeuralMethod`. The closed forms have no use for the first two.
    """

    card: ClassVar[Card] = Card(
        summary="A model of each modality, trained together; where they disagree on a row, both pay.",
        reference="sindhwani2005",
        modalities=(2, None),
        needs=frozenset({"labels", "unlabelled", "paired"}),
        at_test="primary",
        tasks=frozenset({"classification", "regression", "multilabel"}),
    )
    constraints = {
        "form": Options("deep", "linear", "kernel"),
        "weight": Interval(0),
        "compare": Options("probabilities", "scores"),
        "loss": Options("each", "sum"),
        "ridge": Interval(0, open_low=True),
        "gamma": Interval(0, open_low=True),
        "centres": Interval(1, whole=True),
    }

    def __init__(
        self,
        *,
        form: str = "deep",
        weight: float = 1.0,
        compare: str = "probabilities",
        loss: str = "each",
        ridge: float = 0.03,
        gamma: float = 1.0,
        centres: int = 500,
        width: int = 64,
        schedule: Schedule = Schedule(),
        seed: int = 0,
    ) -> None:
        super().__init__(width=width, schedule=schedule, seed=seed)
        self.form = form
        self.weight = weight
        self.compare = compare
        self.loss = loss
        self.ridge = ridge
        self.gamma = gamma
        self.centres = centres

    def check_parameters(self) -> None:
        super().check_parameters()
        if self.form == "deep" and self.loss == "sum":
            remedy = "Choose the form 'linear' or 'kernel' for a loss of the sum."
            raise ConfigError(must_be("The 'loss' of CoRegularization", "'each' with the form 'deep'", "sum", remedy))

    def build(self, spec: DataSpec) -> nn.Module:
        if self.form != "deep":
            centres = self.centres if self.form == "kernel" else 0
            return Functions(spec, centres, self.gamma, len(spec.modalities) if self.loss == "sum" else 1)
        secondary = spec.secondary if self.weight else ()
        net = Network(spec, [spec.primary, *secondary], self.width)
        if secondary:
            net.heads = ByModality({name: head(self.width, spec.task) for name in secondary})
        return net

    def stages(self, net: Any) -> Sequence[Stage]:
        if self.form == "deep":
            return super().stages(net)
        return (Stage("solve", (), share=0.0, begin=self._solve),)

    def losses(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        if not self.weight:
            return self.of_task(net, batch)
        task, scores = self.spec_.task, {self.spec_.primary: self.scores(net, batch)}
        losses = {"task": supervised(scores[self.spec_.primary], batch.target, task)}
        for name in self.spec_.secondary:
            here = batch.present[name]
            scores[name] = net.heads[name](net.encode(batch, name))
            target = None if batch.target is None else batch.target[here]
            losses[f"task of {name}"] = supervised(scores[name][here], target, task)
        pairs = list(combinations(scores, 2))
        for one, other in pairs:
            both = batch.present[one] & batch.present[other]
            apart = disagreement(*(self._compared(scores[name][both]) for name in (one, other)))
            losses[f"disagreement of {one} and {other}"] = self.weight / len(pairs) * apart
        return losses

    def scores(self, net: Any, batch: Batch) -> Tensor:
        encoded = net.encode(batch, self.spec_.primary)
        return net.head(encoded) if self.form == "deep" else _scores(net.answer(encoded), self.spec_.task)

    def _compared(self, scores: Tensor) -> Tensor:
        """(n, classes) or (n, outputs): what shall agree."""
        kind = self.spec_.task.kind
        if self.compare == "scores" or kind == "regression":
            return scores
        return scores.softmax(1) if kind == "classification" else scores.sigmoid()

    def _solve(self, net: Functions, rows: Batch) -> None:
        """The closed form: put the functions' weights into the network."""
        target = _columns(rows, self.spec_.task)  # (n, k)
        offset = np.nanmean(target, 0)
        present = {name: mask.cpu().numpy() for name, mask in rows.present.items()}
        features: dict[str, Array] = {}
        maps: dict[str, Nystroem] = {}
        for name in net.encoders:
            with torch.no_grad():
                z = torch.cat([net.encode(part, name) for part in chunks(rows)]).double().cpu().numpy()
            if self.form == "kernel":
                drawn = derive(self.seed, "centres", name) % 2**32
                count = min(self.centres, int(present[name].sum()))
                maps[name] = Nystroem(gamma=self.gamma, n_components=count, random_state=drawn).fit(z[present[name]])
                z = maps[name].transform(z)
            features[name] = z
        found = co_regularized(features, present, target - offset, ridge=self.ridge, weight=self.weight, loss=self.loss)
        net.offset.copy_(torch.from_numpy(offset))
        for name, weights in found.items():
            function: Function = net.functions[name]  # type: ignore[assignment]
            if name in maps:
                function.spanned(maps[name].components_, maps[name].normalization_.T @ weights)
            else:
                function.weights.copy_(torch.from_numpy(weights))


class Functions(nn.Module):
    """A function of each modality's low-level input; what the primary's answers, times `factor`, plus an offset."""

    offset: Tensor

    def __init__(self, spec: DataSpec, centres: int, gamma: float, factor: int) -> None:
        super().__init__()
        self.primary = spec.primary
        self.factor = factor
        inputs = {name: Inputs(modality) for name, modality in spec.modalities.items()}
        self.encoders = ByModality(inputs)
        sizes = {name: part.size for name, part in inputs.items()}
        self.functions = ByModality(
            {name: Function(size, spec.task.outputs, centres, gamma) for name, size in sizes.items()}
        )
        self.register_buffer("offset", torch.zeros(spec.task.outputs))

    def encode(self, batch: Batch, name: str) -> Tensor:
        """(n, size) of a mean squared length of about 1."""
        part: Inputs = self.encoders[name]  # type: ignore[assignment]
        return part(batch.views[name], batch.lengths.get(name)) / part.variance.sqrt()

    def answer(self, z: Tensor) -> Tensor:
        """(n, k) values, from the primary's (n, size)."""
        return self.factor * self.functions[self.primary](z) + self.offset


def _columns(rows: Batch, task: Task) -> Array:
    """(n, k) a value for each output, 1 and 0 for classes; nan where unlabelled."""
    target, known = rows.target.cpu().numpy(), rows.is_labelled.cpu().numpy()  # type: ignore[union-attr]
    if task.kind == "classification":
        return np.where(known[:, None], np.eye(task.outputs)[target], np.nan)
    return np.where(known[:, None], target.reshape(len(target), -1), np.nan).astype(np.float64)


def _scores(values: Tensor, task: Task) -> Tensor:
    """What the probabilities or values that are answered are made from."""
    if task.kind == "classification":
        return values.clamp_min(LEAST).log()
    return values.clamp(LEAST, 1 - LEAST).logit() if task.kind == "multilabel" else values
