"""Map the primary modality into the space of the secondary one's vectors, where classes never seen have a place too.

When to use it: the secondary modality is the vector of the class's name (or any other; see `nn.inputs` for the numbers
that it becomes), and classes have to be told apart of which there is no row, but a vector. Beside the map, a softmax
over the classes in training answers as `unimodal` does.

    h = E(x),  f = W2 tanh(W1 h + b1) + b2  ("regression"),  f = M h  ("ranking")
    minimise  mean CE(head(h), y)  +  weight * L
    regression   L = mean |f - w|^2
    ranking      L = mean over rows of  sum_j max(0, 0.1 - w.f + w_j.f)

For regression w is the row's vector less the mean of all, over their root mean squared length (1 where all are alike).
For ranking it is the vector at length 1, and j goes over the others of the batch. `match` is -|f - w|^2, or w.f.

That prefers classes in training. With `novelty`, `match` first asks whether the row is of one of them:

    p(y | x) = p(y | seen, x) p(seen | x) + p(y | unseen, x) p(unseen | x)

A candidate with the vector of a class in training is that class, and p(y | seen, x) is the softmax; for the others
p(y | unseen, x) is proportional to exp(-|f - w_y|^2 / 2e), e the mean of |f - w_c|^2 over labelled rows, c their class.
`match` is the logarithm of p(y | x) without the sum over unseen candidates by which that is divided, so that what else
is asked makes no difference; `posterior` is p(y | x). For ranking, f is brought to length 1 first; since that loss
fixes the order of vectors and no distance, it may take every row for a new one. By `novelty`, p(seen | x) is

    gaussian   the posterior of a Gaussian a class, N(w_c, s_c^2 I), against a broad one around all; prior 1/2. With a
               threshold: 1 where (d - |f - w_c|^2 / s_c^2) / sqrt(2d), 0 on average in class c, is above it for a class
    loop       1 - the least of the local outlier probabilities among the rows of each class (20 neighbours, extent 3).
               With a threshold: 1 where this is above it

Shapes: h (n, width); f and w (n, d), d how many numbers the secondary modality has.
Cost: a perceptron width -> width -> d, or one matrix; for ranking m d a row, m vectors in the batch. After training the
softmax costs as much as `unimodal`, which the method is, bit for bit, at weight 0.

Sources: socher2013 (regression, novelty), frome2013 (ranking), kriegel2009 (outlier probabilities). Departs from them:
encoder, map and softmax are learned together; the regression has no 1/2 and its vectors are scaled, so that 1 is the
loss of answering with the mean; other kinds than vectors are standardised; negatives are not sampled; outlier
probabilities refer to 200 rows a class; broad Gaussian and threshold scale are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from scipy.special import erf, logsumexp
from torch import Tensor, nn
from torch.nn import functional as F

from transference.core.batch import Batch
from transference.core.errors import ConfigError, DataError, must_be
from transference.core.method import Card
from transference.core.parameters import Interval, Options
from transference.core.spec import DataSpec
from transference.core.views import Views
from transference.nn.inputs import Inputs
from transference.nn.losses import supervised
from transference.nn.network import Network
from transference.train.loop import Stage, Step
from transference.train.neural import NeuralMethod
from transference.train.schedule import Schedule

Array = NDArray[Any]
MARGIN = 0.1
NEIGHBOURS, EXTENT = 20, 3.0
KEPT = 200  # rows a class at most, for "loop"
SAME = 1e-4  # largest distance of equal vectors, which are of length 1 or so
SURE = 1e3  # log odds where a threshold decides


def regression(points: Tensor, words: Tensor) -> Tensor:
    """Mean squared distance of rows (n, d) and (n, d).

    >>> regression(torch.tensor([[3.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.0, 4.0], [0.0, 0.0]])).item()
    13.0
    """
    return (points - words).square().sum(1).mean()


def ranking(points: Tensor, targets: Tensor, own: Tensor, margin: float = MARGIN) -> Tensor:
    """Mean over rows (n, d) of the hinges of all targets (m, d) but the row's own, `own` (n,) being its number.

    >>> round(ranking(torch.zeros(2, 3), torch.ones(4, 3), torch.tensor([0, 3])).item(), 6)
    0.3
    """
    scores = points @ targets.T  # (n, m)
    hinges = (margin - scores.gather(1, own[:, None]) + scores).clamp_min(0)
    return hinges.scatter(1, own[:, None], 0.0).sum(1).mean()


def distinct(words: Tensor) -> tuple[Tensor, Tensor]:
    """The different ones among rows of unit length: (m, d), in the order in which they come, and (n,) which is whose.

    >>> targets, own = distinct(torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]))
    >>> targets.tolist(), own.tolist()
    ([[0.0, 1.0], [1.0, 0.0]], [0, 1, 0])
    """
    cosine = (words @ words.T).fill_diagonal_(2)
    first = ~(cosine > 1 - 1e-5).tril(-1).any(1)
    return words[first], cosine[:, first].argmax(1)


def typicality(points: Array, centres: Array, variances: Array) -> Array:
    """(n, classes): (d - |point - centre|^2 / variance) / sqrt(2 d), of points (n, d) and classes as in `log_density`.

    For rows of a class whose numbers have that variance it is 0 on average, of deviation 1.
    """
    d = points.shape[1]
    return (d - cdist(points, centres, "sqeuclidean") / variances) / np.sqrt(2 * d)


def log_density(points: Array, centres: Array, variances: Array) -> Array:
    """(n, classes) ln N(point; centre, variance I), plus d / 2 ln 2 pi: points (n, d), (classes, d), (classes,)."""
    return -points.shape[1] / 2 * np.log(variances) - cdist(points, centres, "sqeuclidean") / (2 * variances)


def outlier_probability(
    reference: Array, points: Array | None = None, neighbours: int = NEIGHBOURS, extent: float = EXTENT
) -> Array:
    """(n,) in [0, 1]: how surely each point lies where the reference rows near it are denser than it is.

    Parameters
    ----------
    reference, points
        (r, d); (n, d), None = the reference rows, each among the others.
    neighbours
        At most; one less than there are reference rows, where they are few. A single row tells nothing: all are 1.
    extent
        Of what is still regarded as inside, in deviations.
    """
    k = min(neighbours, len(reference) - 1)
    if k < 1:
        return np.ones(len(reference if points is None else points))
    among = cdist(reference, reference)
    np.fill_diagonal(among, np.inf)

    def factor(distance: Array, spread: Array | None) -> tuple[Array, Array]:
        """(n,) root mean square distance to the neighbours, and by which share it exceeds theirs."""
        near = np.argsort(distance, axis=1, kind="stable")[:, :k]
        own = np.sqrt(np.square(np.take_along_axis(distance, near, 1)).mean(1))
        return own, own / np.maximum((own if spread is None else spread)[near].mean(1), 1e-12) - 1

    spread, inside = factor(among, None)
    outside = inside if points is None else factor(cdist(points, reference), spread)[1]
    scale = max(extent * float(np.sqrt(np.square(inside).mean())), 1e-12)
    return erf(outside / (scale * np.sqrt(2))).clip(0, 1)


def mixture(novel: Array, seen: Array, unseen: Array, is_seen: Array) -> Array:
    """(n, m) log p(y | x) of candidates, each of the sort that `is_seen` (m,) says.

    From (n,) log odds of a row being of an unseen class, and (n, m) log p(y | seen, x) and log p(y | unseen, x).
    """
    novel = novel[:, None]
    return np.where(is_seen, seen - np.logaddexp(0, novel), unseen - np.logaddexp(0, -novel))


class WordNetwork(Network):
    """The network of the primary modality, a map to the other modality's space, and what is remembered of classes."""

    centre: Tensor
    unit: Tensor
    words: Tensor
    known: Tensor
    variance: Tensor
    error: Tensor
    kept: Tensor
    kept_of: Tensor

    def __init__(self, spec: DataSpec, width: int, ranked: bool, novelty: str) -> None:
        super().__init__(spec, [spec.primary], width)
        self.name = spec.secondary[0]
        self.ranked = ranked
        self.form = Inputs(spec.modalities[self.name])
        size, classes = self.form.size, spec.task.outputs
        bent = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, size))
        self.map = nn.Linear(width, size, bias=False) if ranked else bent
        self.register_buffer("centre", torch.zeros(size))
        self.register_buffer("unit", torch.ones(()))
        if novelty != "none":
            self.register_buffer("words", torch.zeros(classes, size))
            self.register_buffer("known", torch.zeros(classes, dtype=torch.bool))
            self.register_buffer("variance", torch.ones(classes))
            self.register_buffer("error", torch.ones(()))
        if novelty == "loop":
            self.register_buffer("kept", torch.zeros(0, size))
            self.register_buffer("kept_of", torch.zeros(0, dtype=torch.int64))

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        for name in ("kept", "kept_of"):
            if name in self._buffers and name in state_dict:  # as many rows as were kept
                setattr(self, name, torch.empty_like(state_dict[name], device=self.centre.device))
        return super().load_state_dict(state_dict, strict, assign)

    def numbers(self, batch: Batch) -> Tensor:
        """(n, d) of the other modality: vectors as they are, since their shape means something."""
        read = self.form.raw if self.form.modality.kind == "vector" else self.form.standard
        return read(batch.views[self.name], batch.lengths.get(self.name))

    def word(self, batch: Batch) -> Tensor:
        """(n, d) what rows are mapped to."""
        numbers = self.numbers(batch)
        return F.normalize(numbers, dim=1) if self.ranked else (numbers - self.centre) / self.unit

    def begin(self, rows: Batch) -> None:
        """Learn the mean of the vectors and their root mean squared length without it."""
        numbers = self.numbers(rows.take(rows.present[self.name]))
        mean = numbers.mean(0)
        length = (numbers - mean).square().sum(1).mean().sqrt()
        alike = length <= 1e-6 * numbers.abs().max() * numbers.shape[1] ** 0.5  # rounding may leave so much
        self.centre.copy_(torch.where(alike, numbers[0], mean))
        self.unit.copy_(torch.where(alike, 1.0, length))

    def remember(self, points: Array, number: Array, words: Array, of: Array) -> None:
        """Learn what classes are like: rows as mapped (n, d), classes (n,); vectors (m, d), classes `of` them (m,)."""
        squares, kept = [], []
        for k in np.intersect1d(number, of):
            rows, word = np.flatnonzero(number == k), words[of == k].mean(0)
            squares.append(np.square(points[rows] - word).sum(1))
            kept.append(rows[np.linspace(0, len(rows) - 1, min(KEPT, len(rows))).round().astype(int)])
            self.known[k] = True
            self.words[k] = torch.from_numpy(word)
            self.variance[k] = max(float(squares[-1].mean()) / points.shape[1], 1e-12)
        self.error.fill_(max(float(np.concatenate(squares).mean()), 1e-12))
        if "kept" in self._buffers:
            chosen = np.concatenate(kept)
            self.kept = torch.from_numpy(points[chosen]).to(self.kept)
            self.kept_of = torch.from_numpy(number[chosen]).to(self.kept_of)


class WordSpace(NeuralMethod):
    """The primary modality, mapped beside the task to the vector of the row's class.

    Parameters
    ----------
    weight
        Of the map's loss, at least 0; 0 is the unimodal baseline. The default, of the best for two training classes of
        photographs held out in turn, leaves the representation to the task and maps what that learns.
    loss
        "regression": squared distance; "ranking": hinges of dot products.
    novelty
        How `match` tells rows of classes in training from others: "none" does not, "gaussian" by densities, "loop" by
        local outlier probabilities.
    threshold
        Above it, in the unit of `novelty`, a row is of a class in training, below it of none; None = probabilities.
    width, schedule, seed
        See `NeuralMethod`.
    """

    card: ClassVar[Card] = Card(
        summary="Map the primary modality to the vector of its class's name, where classes never seen have a place.",
        reference="socher2013",
        modalities=(2, 2),
        needs=frozenset({"labels", "unlabelled", "paired"}),
        at_test="primary",
        tasks=frozenset({"classification", "retrieval", "zero_shot"}),
    )
    constraints = {
        "weight": Interval(0),
        "loss": Options("regression", "ranking"),
        "novelty": Options("none", "gaussian", "loop"),
        "threshold": Interval(none=True),
    }

    def __init__(
        self,
        *,
        weight: float = 0.03,
        loss: Literal["regression", "ranking"] = "regression",
        novelty: Literal["none", "gaussian", "loop"] = "none",
        threshold: float | None = None,
        width: int = 64,
        schedule: Schedule = Schedule(),
        seed: int = 0,
    ) -> None:
        super().__init__(width=width, schedule=schedule, seed=seed)
        self.weight = weight
        self.loss = loss
        self.novelty = novelty
        self.threshold = threshold

    def build(self, spec: DataSpec) -> Network:
        if not self.weight:
            return Network(spec, [spec.primary], self.width)
        return WordNetwork(spec, self.width, self.loss == "ranking", self.novelty)

    def stages(self, net: Any) -> tuple[Stage, ...]:
        begin = WordNetwork.begin if self.weight else None
        return (Stage("train", (Step(self.losses),), begin=begin),)

    def losses(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        if not self.weight:
            return self.of_task(net, batch)
        features = net.encode(batch, self.spec_.primary)  # (n, width)
        mask = batch.present[net.name]
        points, words = net.map(features[mask]), net.word(batch.take(mask))  # (pairs, d)
        if not len(points):
            loss = points.sum() * 0.0
        else:
            loss = ranking(points, *distinct(words)) if net.ranked else regression(points, words)
        task = supervised(net.head(features), batch.target, self.spec_.task)
        return {"task": task, self.loss: self.weight * loss}

    def scores(self, net: Any, batch: Batch) -> Tensor:
        return net.head(net.encode(batch, self.spec_.primary))

    def embeddings(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        """Name -> (n, d): the primary modality as it is mapped, the other one as what it is mapped to."""
        if not self.weight:
            return super().embeddings(net, batch)
        shown = {name: net.map(net.encode(batch, name)) for name in batch.views if name == self.spec_.primary}
        return shown | ({net.name: net.word(batch)} if net.name in batch.views else {})

    def learn(self, X: Views, target: Array) -> None:
        super().learn(X, target)
        if not self.weight or self.novelty == "none":
            return
        net: Any = self.net_
        rows = (target >= 0) & X.present[X.primary]
        paired = rows & X.present[net.name]
        if not paired.any():
            raise DataError(
                must_be(f"The number of labelled rows with {X.primary!r} and {net.name!r}", "1 or more, for novelty", 0)
            )
        net.remember(self._points(X.take(rows)), target[rows], self._words(X.take(paired)), target[paired])

    def match(self, X: Views, candidates: Views) -> Array:
        """(n, m): log p(y | x), but for a number of each row that unseen candidates share; without novelty, similarity.

        Parameters
        ----------
        X
            n rows, seen through the primary modality.
        candidates
            m rows, seen through the other one.
        """
        self._capable("retrieval", "zero_shot")
        if self.novelty != "none" and self.weight:
            return self._log_posterior(X, candidates, alone=True)
        points, words = self._points(X, turned=False), self._words(candidates)
        return points @ words.T if self.loss == "ranking" else -cdist(points, words, "sqeuclidean")

    def posterior(self, X: Views, candidates: Views) -> Array:
        """(n, m) p(y | x) of candidates, one a class; rows sum to 1 where all classes of training are among them."""
        self._fitted()
        if self.novelty == "none":
            raise ConfigError(must_be("The 'novelty' parameter", "'gaussian' or 'loop' for a posterior", self.novelty))
        return np.exp(self._log_posterior(X, candidates, alone=False))

    def _log_posterior(self, X: Views, candidates: Views, alone: bool) -> Array:
        net: Any = self.net_
        points, words = self._points(X), self._words(candidates)
        classes, known = net.words.cpu().numpy(), net.known.cpu().numpy()
        distance = np.where(known, cdist(words, classes), np.inf)  # (m, classes)
        is_seen = distance.min(1) < SAME
        seen = np.log(self.decide(self._readable(X)).astype(float).clip(1e-30))[:, distance.argmin(1)]
        unseen = -cdist(points, words, "sqeuclidean") / (2 * float(net.error))
        if not alone and not is_seen.all():
            unseen = unseen - logsumexp(unseen[:, ~is_seen], axis=1, keepdims=True)
        return mixture(self._novel(points), seen, unseen, is_seen)

    def _novel(self, points: Array) -> Array:
        """(n,) log odds of a row being of no class in training."""
        net: Any = self.net_
        known = net.known.cpu().numpy()
        if self.novelty == "loop":
            kept, of = net.kept.cpu().numpy().astype(float), net.kept_of.cpu().numpy()
            outlying = np.min([outlier_probability(kept[of == k], points) for k in np.flatnonzero(known)], axis=0)
            if self.threshold is not None:
                return np.where(1 - outlying > self.threshold, -SURE, SURE)
            outlying = outlying.clip(1e-12, 1 - 1e-12)
            return np.log(outlying) - np.log1p(-outlying)
        centres, variances = (value.cpu().numpy()[known].astype(float) for value in (net.words, net.variance))
        if self.threshold is not None:
            return np.where(typicality(points, centres, variances).max(1) > self.threshold, -SURE, SURE)
        middle = centres.mean(0, keepdims=True)
        broad = np.square(centres - middle).mean(1).mean() + variances.mean()
        within = logsumexp(log_density(points, centres, variances), axis=1) - np.log(len(centres))
        return log_density(points, middle, broad)[:, 0] - within

    def _points(self, X: Views, turned: bool = True) -> Array:
        """(n, d) rows as they are mapped; of unit length for "ranking", if `turned`."""
        points = self._shown(X, self.spec_.primary)
        if not turned or self.loss == "regression":
            return points
        return points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-12)

    def _words(self, X: Views) -> Array:
        """(n, d) what rows are mapped to."""
        return self._shown(X, self.spec_.secondary[0])

    def _shown(self, X: Views, name: str) -> Array:
        if not self.weight:
            raise ConfigError(must_be("The 'weight' parameter of WordSpace", "above 0 for a space to match in", 0))
        return self.embed(X.only([name], primary=name))[name].astype(float)
