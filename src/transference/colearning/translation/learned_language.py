"""Learned language: new classes are told apart by descriptions that are guessed from a few rows and then interpreted.

When to use it: classes come with descriptions that name what matters in them; and new classes are met later through the
primary modality alone, a few rows of each. Descriptions are needed in training only.

    f(x, w) = g(x) . r(w) / sqrt(width) + b                     interpretation: does w describe x?
    q(w | rows) = the decoder's, from the mean of g over them   proposal: what would describe all of these?
    minimise  mean CE(head(g(x)), y)  +  w0 mean of [ (misfit + choice) / 2  +  cost of the true descriptions under q ]
    misfit = mean over descriptions of: half the mean over matching rows of -ln sigma(f), half that over others of
             -ln sigma(-f); the whole of either where the other has no row
    choice = mean over rows of -ln (the share of the matching descriptions in a softmax over all)

g is the primary's encoder, (n, *shape) -> (n, width); r reads a description, and the decoder says one from the mean of
the rows of its class in the batch, see `nn.language`: texts word by word, the cost in nats a word as a share of what
its frequency alone costs; modalities without words as their low-level form at once. A pair is a labelled row of the
batch and the description of a labelled row; it matches where they are of one class. A row without a label is a class of
its own to q and nothing to f. For several secondary modalities: means over them.

New classes (`episode`): for each class and modality, `samples` descriptions are drawn from q given the rows shown, the
first being the likeliest word by word. That with the smallest misfit to the labels of the rows shown is kept, and the
probabilities of a query are a softmax over classes of f(query, kept). `match` is f itself with descriptions that are
given: where these are true, it is what guessed ones should not be expected to surpass.

Shapes: g, r (n, width); f (n rows, m descriptions). Cost: two GRUs over at most 24 words and a softmax over at most
1024, in training, about four times the baseline; in an episode the same for classes * samples rows. Deployed for the
classes of the training rows, the same as `unimodal`, which the method is, bit for bit, when the weight is 0.

Source: andreas2018 (L3). Departs from it: besides f there is a head for the classes met in training; f meets the
descriptions of all rows of a batch, not one a task, matching pairs weigh as much as the many others, and `choice` is
learned beside, since several classes are told apart (chosen on planted rows, where guessed descriptions gained from
it); rows of a batch are at once what is shown and what is asked; a description is kept for each class, where the paper
has one concept to tell from its opposite; the encoder is the modality's default one; only frequent words are said. On
planted rows the prototypes of the same encoder tell new classes better (.71) than guessed descriptions do (.63), which
is not the paper's order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from transference.core.batch import Batch
from transference.core.errors import ConfigError, DataError, must_be
from transference.core.method import Card
from transference.core.parameters import Interval
from transference.core.seeding import torch_generator
from transference.core.spec import DataSpec
from transference.core.views import Views
from transference.data.loader import to_batch
from transference.nn.language import concepts, describer, reader
from transference.nn.losses import supervised
from transference.nn.named import ByModality
from transference.nn.network import Network
from transference.train.neural import NeuralMethod
from transference.train.schedule import Schedule


def misfit(scores: Tensor, matches: Tensor) -> Tensor:
    """(..., m) balanced cross-entropy in nats of scores (..., n, m) with whether each of n rows matches, (n, m) bool.

    Matching rows weigh as much, together, as the others; a column that has only the one or the other is their mean.

    >>> misfit(torch.zeros(3, 2), torch.tensor([[True, True], [False, True], [False, True]])).tolist()
    [0.6931471824645996, 0.6931471824645996]
    """
    cost = F.softplus(torch.where(matches, -scores, scores))
    sides = torch.stack([matches, ~matches]).to(scores.dtype)  # (2, n, m)
    counts = sides.sum(1)  # (2, m)
    weights = (sides / counts.clamp_min(1)[:, None]).sum(0) / (counts > 0).sum(0)
    return (cost * weights).sum(-2)


def choice(scores: Tensor, matches: Tensor) -> Tensor:
    """Mean over rows of -ln of the share that matching columns have in a softmax of scores (n, m); in nats.

    Rows that nothing matches take no part; 0 where there is no other.

    >>> choice(torch.zeros(2, 4), torch.tensor([[True, True, False, False], [False, False, False, False]]))
    tensor(0.6931)
    """
    matched = matches.any(1)
    if not matched.any():
        return scores.sum() * 0.0
    likely = scores[matched].log_softmax(1)
    return -likely.masked_fill(~matches[matched], -torch.inf).logsumexp(1).mean()


@dataclass(frozen=True)
class Described:
    """Classes as one modality describes them.

    Attributes
    ----------
    said
        (classes, steps) tokens or (classes, size) numbers: the description kept for each class.
    score
        (classes,) minus its misfit to the labels of the rows shown, in nats; at most 0.
    """

    said: Tensor
    score: Tensor


class Interpreter(Network):
    """The network of the primary modality, and for every secondary one what says and what reads its descriptions."""

    def __init__(self, spec: DataSpec, width: int) -> None:
        super().__init__(spec, [spec.primary], width)
        parts = {name: describer(spec.modalities[name], width) for name in spec.secondary}
        self.describers = ByModality(parts)
        self.readers = ByModality({name: reader(part, width) for name, part in parts.items()})
        self.bias = nn.Parameter(torch.zeros(()))

    def form(self, batch: Batch, name: str) -> Tensor:
        """(n, steps) tokens or (n, size) numbers: the rows' descriptions in one modality."""
        part: Any = self.describers[name]
        return part.form(batch.views[name], batch.lengths.get(name))

    def interpret(self, h: Tensor, said: Tensor, name: str) -> Tensor:
        """(..., n, m) f of representations (n, width) and descriptions (..., m, size)."""
        read = self.readers[name](said.flatten(0, -2)).unflatten(0, said.shape[:-1])  # (..., m, width)
        return h @ read.transpose(-1, -2) / h.shape[1] ** 0.5 + self.bias


class LearnedLanguage(NeuralMethod):
    """The primary modality, with descriptions that are guessed from a few rows and interpreted in others.

    Parameters
    ----------
    weight
        w0, at least 0, of interpretation and proposal; 0 is the unimodal baseline, episodes by prototypes included. Its
        default was chosen on planted rows.
    samples
        How many descriptions are tried for each class of an episode, the likeliest one included.
    width, schedule, seed
        See `NeuralMethod`; the seed also draws the descriptions, so that an episode is always answered alike.
    """

    card: ClassVar[Card] = Card(
        summary="New classes are told apart by descriptions guessed from a few rows and then interpreted.",
        reference="andreas2018",
        modalities=(2, None),
        needs=frozenset({"labels", "unlabelled", "paired"}),
        at_test="primary",
        tasks=frozenset({"classification", "few_shot", "zero_shot"}),
    )
    constraints = {"weight": Interval(0), "samples": Interval(1, whole=True)}

    def __init__(
        self,
        *,
        weight: float = 5.0,
        samples: int = 10,
        width: int = 64,
        schedule: Schedule = Schedule(),
        seed: int = 0,
    ) -> None:
        super().__init__(width=width, schedule=schedule, seed=seed)
        self.weight = weight
        self.samples = samples

    def build(self, spec: DataSpec) -> Network:
        return Interpreter(spec, self.width) if self.weight else Network(spec, [spec.primary], self.width)

    def losses(self, net: Any, batch: Any) -> dict[str, Tensor]:
        if not self.weight:
            return self.of_task(net, batch)
        h = net.encode(batch, self.spec_.primary)  # (n, width)
        concept = concepts(h, batch.target)
        terms = [self._language(net, h, concept, batch, name) for name in self.spec_.secondary]
        share = self.weight / len(terms)
        return {
            "task": supervised(net.head(h), batch.target, self.spec_.task),
            "interpretation": share * torch.stack([one for one, _ in terms]).sum(),
            "proposal": share * torch.stack([other for _, other in terms]).sum(),
        }

    def scores(self, net: Any, batch: Batch) -> Tensor:
        return net.head(net.encode(batch, self.spec_.primary))

    def match(self, X: Views, candidates: Views) -> NDArray[Any]:
        """(n, m) f of each row and each candidate's description, averaged over the modalities that candidates hold."""
        net = self._interpreter("match")
        others = [name for name in candidates.names if name in net.describers]
        if not others:
            known = " or ".join(map(repr, self.spec_.secondary))
            raise DataError(must_be("The candidates to match", f"seen through {known}", candidates.names))
        h, device = self._represented(X), self._device()
        shown = {name: to_batch(self._through(candidates, name), device=device) for name in others}
        with torch.inference_mode():
            found = [net.interpret(h, net.form(shown[name], name), name) for name in others]
        return torch.stack(found).mean(0).cpu().numpy()

    def episode(self, support: Views, y: ArrayLike, query: Views) -> NDArray[Any]:
        """(n, classes) probabilities of the classes of `y`, sorted, by their descriptions; see `Method.episode`.

        Of the rows shown, too, the primary modality alone is read.
        """
        self._fitted()
        if not self.weight:
            return super().episode(support, y, query)
        net, h = self._interpreter("episode"), self._represented(query)
        described = self.describe(support, y)
        with torch.inference_mode():
            found = [net.interpret(h, each.said, name) for name, each in described.items()]
        return torch.stack(found).mean(0).softmax(1).cpu().numpy()

    def describe(self, support: Views, y: ArrayLike) -> dict[str, Described]:
        """Name of each secondary modality -> the descriptions kept for the classes of `y`, sorted.

        Parameters
        ----------
        support
            A few rows of each class, of which the primary modality alone is read.
        y
            Their labels.
        """
        net, h = self._interpreter("describe"), self._represented(support)
        number = torch.from_numpy(np.unique(np.asarray(y), return_inverse=True)[1]).to(h.device)
        matches = number[:, None] == torch.arange(int(number.max()) + 1, device=h.device)  # (n, classes)
        share = matches.to(h.dtype)
        with torch.inference_mode():
            concept = share.T @ h / share.sum(0)[:, None]  # (classes, width)
            return {name: self._keep(net, h, concept, matches, name) for name in net.describers}

    def _language(self, net: Interpreter, h: Tensor, concept: Tensor, batch: Any, name: str) -> tuple[Tensor, Tensor]:
        """Interpretation and proposal of the descriptions in one modality."""
        here, known = batch.present[name], batch.is_labelled
        if not here.any():
            return h.sum() * 0.0, h.sum() * 0.0
        rows = batch.take(here)
        form, nothing = net.form(rows, name), h.sum() * 0.0
        part: Any = net.describers[name]
        proposal = part.cost(concept[here], form).mean()
        told = rows.is_labelled
        if not told.any():
            return nothing, proposal
        matches = batch.target[known][:, None] == rows.target[told]  # (labelled, descriptions)
        scores = net.interpret(h[known], form[told], name)
        return (misfit(scores, matches).mean() + choice(scores, matches)) / 2, proposal

    def _keep(self, net: Interpreter, h: Tensor, concept: Tensor, matches: Tensor, name: str) -> Described:
        """Of the descriptions drawn for each class, that which fits the labels of the rows (n, width) best."""
        part: Any = net.describers[name]
        tried = [part.say(concept)]
        for k in range(1, self.samples):
            generator = torch_generator(self.seed, "description", name, str(k))  # more samples hold the same first ones
            uniform = torch.rand(1, part.draws, generator=generator).to(h.device)
            tried.append(part.say(concept, uniform.expand(len(concept), -1)))  # alike, whatever the classes are called
        said = torch.stack(tried)  # (samples, classes, size)
        score = -misfit(net.interpret(h, said, name), matches)  # (samples, classes)
        best = score.argmax(0)
        each = torch.arange(len(concept), device=h.device)
        return Described(said[best, each], score[best, each])

    def _represented(self, X: Views) -> Tensor:
        """(n, width) of the primary modality."""
        primary = self.spec_.primary
        return torch.from_numpy(self.embed(self._through(X, primary))[primary]).to(self._device())

    def _interpreter(self, verb: str) -> Any:
        self._fitted()
        if not self.weight:
            raise ConfigError(must_be(f"The 'weight' parameter of LearnedLanguage to {verb}", "above 0", self.weight))
        return self.net_.eval()
