"""A graph of concepts between the primary modality and the answer: what is seen activates what is known to go with it.

When to use it: the secondary modality names concepts (attributes, words, tags) that the primary one shows in part, and
what goes with what is known or can be counted. The secondary modality is needed in training only: it teaches which
concepts a row of the primary one shows.

A concept is one number of a secondary modality's low-level form (see `nn.inputs`; of a text, a word), present in a row
where it is above its mean. With h = encoder(x), V concepts and the graph A (V, V):

    c = sigmoid(D h)                               (n, V) how likely each concept is seen
    active: the concepts with c > `threshold`, the likeliest at least, and their neighbours in A
    T times:  s <- GRU(A (M s + m), s) on active concepts; i = sigmoid(I [s, b]); of the active concepts that were not
              expanded yet, the `expand` most important are, and their neighbours become active, with state 0
    context = tanh(P [s, b, c]) * sigmoid(Q [s, b, c])    (n, V, context); 0 where a concept was never active
    minimise  CE(head(h) + R context, y) + weight * (BCE(c, presence) + BCE(i, gamma ^ distance to a present concept))

s (n, V, state) starts as c in its first number where a concept is active; b is a vector a concept. The presence is
taught by all rows that have the secondary modality, labelled or not; the importance target is 0 beyond T steps, and i
is taught as it is after the last of them.

Cost: T multiplications of (V, V) with the states of a batch, also at test time; V is at most `nodes`.

Source: marino2017 (GSNN). Departs from it: the detector of concepts is learned from the secondary modality rather than
given; a concept hears the mean of its neighbours, weighted by the graph, rather than their sum, and from those that are
not active m; the unit is PyTorch's, whose reset gate multiplies U s + c rather than s; without a graph, each concept is
joined to the `neighbours` whose presence in training rows goes with its own most closely, be it or its absence; the
importance loss has no squared error beside it; at weight 0 there is no graph and the method is `unimodal` bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from transference.core.batch import Batch
from transference.core.errors import ConfigError, DataError, must_be
from transference.core.method import Card
from transference.core.parameters import Interval
from transference.core.spec import DataSpec
from transference.data.loader import chunks
from transference.nn.inputs import Inputs
from transference.nn.losses import supervised
from transference.nn.named import ByModality
from transference.nn.network import Network
from transference.train.loop import Stage, Step
from transference.train.neural import NeuralMethod
from transference.train.schedule import Schedule

BIAS = 2  # numbers of the vector that each concept has of its own


def neighbourhood(active: Tensor, graph: Tensor) -> Tensor:
    """(n, V) which concepts are active or next to one that is, from (n, V) zeros and ones and (V, V).

    >>> neighbourhood(torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[0.0, 1, 0], [1, 0, 1], [0, 1, 0]])).tolist()
    [[1.0, 1.0, 0.0]]
    """
    return ((active + active @ (graph > 0).to(active.dtype)) > 0).to(active.dtype)


def importance_target(present: Tensor, graph: Tensor, steps: int, gamma: float) -> Tensor:
    """(n, V) gamma to the power of the distance in the graph to the nearest present concept; 0 beyond `steps`."""
    reached, target = present, present
    for distance in range(1, steps + 1):
        wider = neighbourhood(reached, graph)
        target = target + (wider - reached) * gamma**distance
        reached = wider
    return target


def related(present: Tensor, neighbours: int) -> Tensor:
    """(V, V) symmetric zeros and ones: each concept and those whose presence in (n, V) rows correlates most with it."""
    centred = present - present.mean(0)
    scale = centred.norm(dim=0).clamp_min(1e-12)
    strength = (centred.T @ centred / scale / scale[:, None]).abs().fill_diagonal_(-1.0)
    k = min(neighbours, present.shape[1] - 1)
    nearest = strength.topk(k, dim=1).indices if k else strength[:, :0].long()
    graph = torch.zeros_like(strength).scatter_(1, nearest, 1.0)
    return torch.maximum(graph, graph.T)


class GraphSearch(nn.Module):
    """Propagation over the active part of a graph, and its growth.

    Parameters
    ----------
    nodes, state, context
        V; numbers of a concept's state and of its context.
    steps, expand, threshold
        T; concepts expanded a step; confidence above which a concept is active from the beginning.
    """

    def __init__(self, nodes: int, state: int, context: int, steps: int, expand: int, threshold: float) -> None:
        super().__init__()
        self.state = state
        self.steps = steps
        self.expand = min(expand, nodes)
        self.threshold = threshold
        self.message = nn.Linear(state, state)
        self.cell = nn.GRUCell(state, state)
        self.own = nn.Embedding(nodes, BIAS)
        self.importance = nn.Linear(state + BIAS, 1)
        self.content = nn.Linear(state + BIAS + 1, context)
        self.gate = nn.Linear(state + BIAS + 1, context)

    def forward(self, confidence: Tensor, graph: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(n, V) confidences and (V, V) to contexts (n, V, context), importances as logits (n, V), active (n, V)."""
        least = confidence.amax(1, keepdim=True).clamp(max=self.threshold)
        active = (confidence >= least).to(confidence.dtype)
        annotation = confidence * active
        states = F.pad(annotation[:, :, None], (0, self.state - 1))  # (n, V, state)
        own = self.own.weight.expand(confidence.shape[0], -1, -1)
        active = neighbourhood(active, graph)
        expanded = torch.zeros_like(active)
        logits = torch.zeros_like(active)
        degree = graph.sum(0).clamp_min(1.0)
        for _ in range(self.steps):
            states = self.step(states, graph / degree) * active[:, :, None]
            logits = self.importance(torch.cat([states, own], 2))[:, :, 0]
            open_to = active * (1 - expanded)
            chosen = (logits.sigmoid() * open_to).topk(self.expand, dim=1)
            grown = torch.zeros_like(active).scatter(1, chosen.indices, (chosen.values > 0).to(active.dtype))
            expanded = torch.maximum(expanded, grown)
            active = torch.maximum(active, neighbourhood(grown, graph))
        known = torch.cat([states, own, annotation[:, :, None]], 2)
        contexts = self.content(known).tanh() * self.gate(known).sigmoid() * active[:, :, None]
        return contexts, logits, active

    def step(self, states: Tensor, graph: Tensor) -> Tensor:
        """(n, V, state) after one exchange along the edges (from, to) of (V, V)."""
        heard = torch.einsum("vw,nvs->nws", graph, self.message(states))
        return self.cell(heard.flatten(0, 1), states.flatten(0, 1)).view_as(states)


class GraphNetwork(Network):
    """The network of the primary modality, a detector of concepts, and a search over their graph."""

    graph: Tensor
    chosen: Tensor

    def __init__(self, spec: DataSpec, width: int, nodes: int, search: dict[str, Any]) -> None:
        super().__init__(spec, [spec.primary], width)
        self.forms = ByModality({name: Inputs(spec.modalities[name]) for name in spec.secondary})
        count = min(nodes, sum(form.size for _, form in self.forms.items()))  # type: ignore[misc]
        self.register_buffer("chosen", torch.arange(count))
        self.register_buffer("graph", torch.zeros(count, count))
        self.detector = nn.Linear(width, count)
        self.search = GraphSearch(count, **search)
        self.reading = nn.Linear(count * search["context"], spec.task.outputs)

    def presence(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(n, numbers) whether each number of the secondary modalities is above its mean; whether it is known."""
        values, known = [], []
        for name, form in self.forms.items():
            value = form(batch.views[name], batch.lengths.get(name))
            values.append((value > 0).to(value.dtype))
            known.append(batch.present[name][:, None].expand_as(value).to(value.dtype))
        return torch.cat(values, 1), torch.cat(known, 1)


class KnowledgeGraph(NeuralMethod):
    """Answer from the primary modality and from the concepts that it activates in a graph.

    Parameters
    ----------
    weight
        Of what teaches concepts and their importance, at least 0; 0 is the unimodal baseline.
    graph
        (V, V) numbers of at least 0, from row to column, over all numbers of the secondary modalities in the order of
        their names; None = counted in the training rows.
    nodes, neighbours
        Most concepts of a counted graph, those that are neither rare nor common first; how many each is joined to.
    steps, expand, threshold, gamma
        T, at least 1; concepts expanded a step; confidence in (0, 1) from which a concept is active; in (0, 1].
    state, context
        Numbers of a concept's state, at least 1, and of what it tells the answer.
    width, schedule, seed
        See `NeuralMethod`.
    """

    card: ClassVar[Card] = Card(
        summary="Concepts that the primary modality shows activate a graph of what goes with them.",
        reference="marino2017",
        modalities=(2, None),
        needs=frozenset({"labels", "unlabelled", "paired"}),
        at_test="primary",
        tasks=frozenset({"classification", "regression", "multilabel"}),
    )
    constraints = {
        "weight": Interval(0),
        "nodes": Interval(2, whole=True),
        "neighbours": Interval(1, whole=True),
        "steps": Interval(1, whole=True),
        "expand": Interval(1, whole=True),
        "threshold": Interval(0, 1, open_low=True, open_high=True),
        "gamma": Interval(0, 1, open_low=True),
        "state": Interval(1, whole=True),
        "context": Interval(1, whole=True),
    }

    def __init__(
        self,
        *,
        weight: float = 1.0,
        graph: Any = None,
        nodes: int = 32,
        neighbours: int = 3,
        steps: int = 2,
        expand: int = 5,
        threshold: float = 0.5,
        gamma: float = 0.3,
        state: int = 10,
        context: int = 5,
        width: int = 64,
        schedule: Schedule = Schedule(),
        seed: int = 0,
    ) -> None:
        super().__init__(width=width, schedule=schedule, seed=seed)
        self.weight = weight
        self.graph = graph
        self.nodes = nodes
        self.neighbours = neighbours
        self.steps = steps
        self.expand = expand
        self.threshold = threshold
        self.gamma = gamma
        self.state = state
        self.context = context

    def build(self, spec: DataSpec) -> Network:
        if not self.weight:
            return Network(spec, [spec.primary], self.width)
        search = {name: getattr(self, name) for name in ("state", "context", "steps", "expand", "threshold")}
        nodes = self.nodes if self.graph is None else len(np.asarray(self.graph))
        return GraphNetwork(spec, self.width, nodes, search)

    def stages(self, net: Any) -> Sequence[Stage]:
        return (Stage("train", (Step(self.losses),), begin=self._join if self.weight else None),)

    def losses(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        if not self.weight:
            return self.of_task(net, batch)
        h = net.encode(batch, self.spec_.primary)
        seen = net.detector(h)
        contexts, importance, active = net.search(seen.sigmoid(), net.graph)
        present, known = (part[:, net.chosen] for part in net.presence(batch))
        wanted = importance_target(present * known, net.graph, self.steps, self.gamma)
        return {
            "task": supervised(net.head(h) + net.reading(contexts.flatten(1)), batch.target, self.spec_.task),
            "concepts": self.weight * _mean(F.binary_cross_entropy_with_logits(seen, present, reduction="none"), known),
            "importance": self.weight
            * _mean(F.binary_cross_entropy_with_logits(importance, wanted, reduction="none"), known * active),
        }

    def scores(self, net: Any, batch: Batch) -> Tensor:
        h = net.encode(batch, self.spec_.primary)
        if not self.weight:
            return net.head(h)
        contexts, _, _ = net.search(net.detector(h).sigmoid(), net.graph)
        return net.head(h) + net.reading(contexts.flatten(1))

    def _join(self, net: GraphNetwork, rows: Batch) -> None:
        """Choose the concepts and the graph."""
        parts = [net.presence(chunk) for chunk in chunks(rows)]
        present, known = (torch.cat([part[k] for part in parts]) for k in range(2))
        if self.graph is not None:
            given = np.asarray(self.graph, np.float32)
            if given.shape != (present.shape[1],) * 2 or not (given >= 0).all():
                expected = f"{(present.shape[1],) * 2} numbers of at least 0, for every number of the secondary ones"
                raise ConfigError(must_be("The 'graph' parameter of KnowledgeGraph", expected, f"shape {given.shape}"))
            net.graph.copy_(torch.from_numpy(given))
            return
        share = (present * known).sum(0) / known.sum(0).clamp_min(1)
        order = (share * (1 - share)).argsort(descending=True, stable=True)[: len(net.chosen)]
        net.chosen.copy_(order.sort().values)
        whole = known.all(1)
        if not whole.any():
            raise DataError("No training row has every secondary modality, so that concepts can not be counted.")
        net.graph.copy_(related(present[whole][:, net.chosen], self.neighbours))


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    """Over what is in the mask; 0 where nothing is."""
    return (values * mask).sum() / mask.sum().clamp_min(1)
