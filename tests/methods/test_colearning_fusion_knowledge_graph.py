"""GSNN: which concepts become active on a hand-made graph, what the others do not see, and where concepts help."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from transference.colearning.fusion.knowledge_graph import (
    GraphSearch,
    KnowledgeGraph,
    importance_target,
    neighbourhood,
    related,
)
from transference.core.errors import ConfigError
from transference.core.views import Views
from transference.data.loader import to_batch
from transference.deploy.export import export
from transference.train.schedule import Schedule
from transference.unimodal import Unimodal

FAST = Schedule(updates=30, batch_size=16, device="cpu")
PATH = torch.tensor([[0.0, 1, 0, 0], [1, 0, 1, 0], [0, 1, 0, 1], [0, 0, 1, 0]])  # A - B - C - D


def search(steps: int = 1, expand: int = 1, nodes: int = 4, seed: int = 0, context: int = 5) -> GraphSearch:
    torch.manual_seed(seed)
    return GraphSearch(nodes, state=3, context=context, steps=steps, expand=expand, threshold=0.5)


def towards(found: GraphSearch, order: list[float]) -> GraphSearch:
    """With importances that are these numbers, whatever the states."""
    with torch.no_grad():
        found.importance.weight.zero_()
        found.importance.bias.zero_()
        found.importance.weight[0, 3] = 1.0
        found.own.weight[:, 0] = torch.tensor(order)
    return found


SEEN = torch.tensor([[0.9, 0.1, 0.2, 0.3]])  # A alone


@pytest.mark.parametrize(
    ("steps", "expand", "order", "active"),
    [
        (1, 1, [3.0, 2, 1, 0], [1, 1, 0, 0]),  # A is expanded, whose neighbour is active already
        (1, 1, [0.0, 1, 2, 3], [1, 1, 1, 0]),  # B is: C and D are not active yet, however important
        (2, 1, [3.0, 2, 1, 0], [1, 1, 1, 0]),  # A, then B; never A twice
        (2, 1, [0.0, 1, 2, 3], [1, 1, 1, 1]),  # B, then C
        (2, 4, [0.0, 0, 0, 0], [1, 1, 1, 1]),
        (1, 4, [0.0, 0, 0, 0], [1, 1, 1, 0]),
    ],
)
def test_the_active_part_of_a_path(steps: int, expand: int, order: list[float], active: list[int]) -> None:
    found = towards(search(steps, expand), order)
    assert found(SEEN, PATH)[2].tolist() == [active]


def test_the_likeliest_concept_starts_where_none_is_likely() -> None:
    found = towards(search(), [0.0, 1, 2, 3])
    assert found(torch.tensor([[0.1, 0.1, 0.2, 0.3]]), PATH)[2].tolist() == [[0, 0, 1, 1]]  # D, and C beside it


def test_what_is_never_active_says_nothing_and_learns_nothing() -> None:
    found = towards(search(), [0.0, 1, 2, 3])
    confidence = SEEN.clone().requires_grad_()
    contexts, _, _ = found(confidence, PATH)
    assert (contexts[0, 3] == 0).all()
    assert (contexts[0, :3] != 0).all()
    contexts.square().sum().backward()
    assert (found.own.weight.grad[3] == 0).all()
    assert (found.own.weight.grad[:3].abs().sum(1) > 0).all()
    assert confidence.grad[0, 3] == 0


def test_a_concept_keeps_no_state_before_it_is_active(monkeypatch: pytest.MonkeyPatch) -> None:
    found, given = towards(search(steps=2), [3.0, 2, 1, 0]), []
    step = found.step
    monkeypatch.setattr(found, "step", lambda states, graph: (given.append(states), step(states, graph))[1])
    assert found(SEEN, PATH)[2].tolist() == [[1, 1, 1, 0]]
    assert (given[1][0, 3] == 0).all()
    assert (given[1][0, 0] != 0).all()


def test_other_names_of_the_concepts_change_their_order_alone() -> None:
    found, order = search(steps=3, expand=2, nodes=7), torch.tensor([4, 2, 6, 0, 1, 5, 3])
    generator = torch.Generator().manual_seed(1)
    graph = torch.triu((torch.rand(7, 7, generator=generator) < 0.3).float(), 1)
    graph, confidence = graph + graph.T, torch.rand(5, 7, generator=generator)
    before = found(confidence, graph)
    with torch.no_grad():
        found.own.weight.copy_(found.own.weight[order].clone())
    after = found(confidence[:, order], graph[order][:, order])
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(other, one[:, order])


def test_a_step_is_a_gated_recurrent_unit_a_concept() -> None:
    """The equations, concept by concept: what comes along the edges is the input, the state is the memory.

    The reset gate is where PyTorch has it, behind the matrix rather than before it; the docstring says so.
    """
    found = search()
    states = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(2))
    graph = torch.tensor([[0.0, 0.5, 0, 0], [1, 0, 0, 0], [0, 0.5, 0, 1], [0, 0, 2, 0]])
    got = found.step(states, graph)
    w, u = found.cell.weight_ih.split(3), found.cell.weight_hh.split(3)
    b, c = found.cell.bias_ih.split(3), found.cell.bias_hh.split(3)

    def gate(k: int, x: Tensor, h: Tensor) -> Tensor:
        return torch.sigmoid(w[k] @ x + b[k] + u[k] @ h + c[k])

    for row in range(2):
        for to in range(4):
            heard = torch.zeros(3)
            for source in range(4):
                heard = heard + graph[source, to] * found.message(states[row, source])
            h = states[row, to]
            reset, update = gate(0, heard, h), gate(1, heard, h)
            new = torch.tanh(w[2] @ heard + b[2] + reset * (u[2] @ h + c[2]))
            torch.testing.assert_close(got[row, to], (1 - update) * new + update * h)


def test_a_concept_hears_the_mean_of_its_neighbours() -> None:
    """Weighted by the graph, whatever its unit."""
    found = search(steps=2)
    for one, other in zip(found(SEEN, 3 * PATH), found(SEEN, PATH), strict=True):
        torch.testing.assert_close(one, other)


def test_importance_falls_with_the_distance_and_ends_at_the_horizon() -> None:
    present = torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 1]])
    found = importance_target(present, PATH, steps=2, gamma=0.3)
    torch.testing.assert_close(found, torch.tensor([[1, 0.3, 0.09, 0], [0, 0, 0, 0], [1, 0.3, 0.3, 1]]))
    assert neighbourhood(present, PATH).tolist() == [[1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]]


def test_concepts_that_go_together_are_joined() -> None:
    g = np.random.default_rng(0)
    one, other = g.integers(0, 2, (2, 200))
    present = np.stack([one, one ^ (g.random(200) < 0.1), other, 1 - other], 1)
    graph = related(torch.tensor(present, dtype=torch.float32), 1)
    assert graph.tolist() == [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]]  # absence counts too
    third = present[:, 1] ^ (g.random(200) < 0.2)  # nearest to the second, whose nearest is the first
    graph = related(torch.tensor(np.column_stack([present[:, :2], third]), dtype=torch.float32), 1)
    assert graph.tolist() == [[0, 1, 0], [1, 0, 1], [0, 1, 0]]


def concepts(seed: int, labels: int = 6, noise: bool = False) -> tuple[Views, np.ndarray, Views, np.ndarray]:
    """Six concepts, each dimly seen; the class is which three of them there are. Few labels, many pairs."""
    g = np.random.default_rng(seed)
    n, kinds = 700, np.array([[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1], [1, 0, 1, 0, 1, 0]])
    number = g.integers(0, 3, n)
    present = kinds[number] ^ (g.random((n, 6)) < 0.05)
    dim = (2 * present - 1) @ g.normal(size=(6, 40)) + 4 * g.normal(size=(n, 40))
    shown = g.integers(0, 2, (n, 6)) if noise else present
    X, y = Views.of(primary="x", x=dim, tags=shown), np.array(["a", "b", "c"], object)[number]
    train = y[:500].copy()
    train[labels:] = None
    return X[:500], train, X[500:], y[500:]


def test_concepts_of_unlabelled_pairs_help_and_noise_in_their_place_does_not() -> None:
    schedule = Schedule(updates=150, batch_size=32, device="cpu")
    gains: dict[bool, list[float]] = {False: [], True: []}
    for seed in range(3):
        for noise in gains:
            X, y, test, answer = concepts(seed, noise=noise)
            base = Unimodal(schedule=schedule, seed=seed).fit(X, y).score(test, answer)
            gains[noise].append(KnowledgeGraph(schedule=schedule, seed=seed).fit(X, y).score(test, answer) - base)
    assert np.mean(gains[False]) > 0.04
    assert np.mean(gains[True]) < 0.02


def test_what_an_absent_modality_holds_makes_no_concept_present() -> None:
    """Its numbers are next to those of a modality that is there, and would pass their importance on."""
    X, y, _, _ = concepts(0)
    there = np.arange(len(X)) % 2 == 0
    X = Views.of(primary="x", x=X["x"], tags=X["tags"], words=X["tags"][:, ::-1].copy())
    method = KnowledgeGraph(graph=np.eye(12)[::-1], schedule=FAST).fit(X, y)
    held = [X.replace("words", np.where(there[:, None], X["words"], value), present=there) for value in (0.0, 9.0)]
    first, second = (method.losses(method.net_, to_batch(rows, numbers(y))) for rows in held)
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=0, atol=0)


def test_importance_is_taught_where_a_concept_is_known_and_active() -> None:
    X, y, _, _ = concepts(0)
    there = np.arange(len(X)) % 3 > 0
    X = X.replace("tags", X["tags"], present=there)
    graph = np.roll(np.eye(6), 1, 1)
    method = KnowledgeGraph(graph=graph, steps=1, expand=1, gamma=0.7, schedule=FAST).fit(X, y)
    net, batch = method.net_, to_batch(X, numbers(y))
    with torch.no_grad():
        _, logits, active = net.search(net.detector(net.encode(batch, "x")).sigmoid(), net.graph)
        wanted = importance_target(torch.from_numpy(X["tags"]), net.graph, 1, 0.7)
        cost = -(wanted * logits.sigmoid().log() + (1 - wanted) * (1 - logits.sigmoid()).log())
        found = method.losses(net, batch)["importance"]
    counted = active.bool() & torch.from_numpy(there)[:, None]
    assert 0 < counted.sum() < there.sum() * 6
    torch.testing.assert_close(found, cost[counted].mean(), rtol=1e-4, atol=1e-5)


def numbers(y: np.ndarray) -> np.ndarray:
    """Class numbers, -1 where unlabelled."""
    return np.array([-1 if label is None else "abc".index(label) for label in y])


def test_weight_zero_is_the_unimodal_baseline_bit_for_bit() -> None:
    X, y, test, _ = concepts(0)
    one, other = KnowledgeGraph(weight=0, schedule=FAST).fit(X, y), Unimodal(schedule=FAST).fit(X, y)
    assert one.predict_proba(test).tobytes() == other.predict_proba(test).tobytes()


def test_a_given_graph_is_used_as_it_is_and_another_answers_otherwise() -> None:
    X, y, test, _ = concepts(0)
    ring = np.roll(np.eye(6), 1, axis=1)
    one = KnowledgeGraph(graph=ring, schedule=FAST).fit(X, y)
    assert one.net_.graph.tolist() == ring.tolist()
    other = KnowledgeGraph(graph=np.zeros((6, 6)), schedule=FAST).fit(X, y)
    assert abs(one.predict_proba(test) - other.predict_proba(test)).max() > 1e-3
    with pytest.raises(ConfigError, match=r"KnowledgeGraph must be \(6, 6\) numbers of at least 0"):
        KnowledgeGraph(graph=np.eye(5), schedule=FAST).fit(X, y)


def test_the_concepts_are_those_that_are_neither_rare_nor_common() -> None:
    X, y, _, _ = concepts(0)
    often = np.random.default_rng(1).random((500, 5)) < [0.02, 0.5, 0.98, 0.4, 0.05]
    tagged = Views.of(primary="x", x=X["x"], tags=often)
    method = KnowledgeGraph(nodes=2, schedule=FAST).fit(tagged, y)
    assert method.net_.chosen.tolist() == [1, 3]


def test_the_exported_file_answers_alike(tmp_path: Path) -> None:
    X, y, test, _ = concepts(0)
    assert export(KnowledgeGraph(schedule=FAST).fit(X, y), test, tmp_path / "m.onnx") < 1e-5
