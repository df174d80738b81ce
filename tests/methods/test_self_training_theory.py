"""Why consistency mends labels: the denoising bound on a graph small enough to go through all classifiers.

The rows are the nodes of a graph, B(x) is x with its neighbours, and N(V) are the nodes whose B meets that of V. Where
every small set V of a class has P(N(V)) >= c P(V), the minimiser G of

    (c + 1) / (c - 1) P(G(x) != label(x))  +  2 c / (c - 1) R(G),    R(G) = P(some x' in B(x) has G(x') != G(x))

errs on at most 2 / (c - 1) of the share of wrong labels, and 2 c / (c - 1) R(truth).
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from transference.core.registry import create
from transference.core.spec import Task
from transference.core.views import Views
from transference.nn.losses import soft_cross_entropy, supervised
from transference.train.schedule import Schedule

torch.set_num_threads(1)
EACH = 8  # nodes of a class
NODES = 2 * EACH
TRUTH = np.repeat([0, 1], EACH)
EVERY = (np.arange(2**NODES)[:, None] >> np.arange(NODES) & 1).astype(np.int8)  # (classifiers, nodes)
SURE = 30.0  # the logit of a classifier that says one class


def rings(linked: bool) -> NDArray[np.bool_]:
    """(nodes, nodes) B of a ring a class; linked, one node of each is next to the other's."""
    near = np.zeros((NODES, NODES), bool)
    for start in (0, EACH):
        for k in range(EACH):
            for step in (-1, 0, 1):
                near[start + k, start + (k + step) % EACH] = True
    near[0, EACH] = near[EACH, 0] = linked
    return near


def expansion(near: NDArray[np.bool_], most: int) -> float:
    """The largest c with P(N(V)) >= min(c P(V), 1) within each class, for all V of up to `most` of its nodes."""
    reached = near @ near
    found = []
    for nodes in (range(EACH), range(EACH, NODES)):
        for size in range(1, most + 1):
            for chosen in itertools.combinations(nodes, size):
                neighbours = int(reached[list(chosen)].any(0)[list(nodes)].sum())
                found += [neighbours / size] if neighbours < EACH else []
    return min(found)


def inconsistent(near: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(classifiers,) R of every classifier."""
    changes = np.zeros(EVERY.shape, bool)
    for one, other in zip(*np.nonzero(near), strict=True):
        changes[:, one] |= EVERY[:, one] != EVERY[:, other]
    return changes.mean(1)


def costs() -> tuple[float, float]:
    """What the package's two losses charge a sure classifier for a wrong label, and for a neighbour that disagrees."""
    scores = torch.tensor([[SURE, 0.0]], dtype=torch.float64)
    other = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    wrong = supervised(scores, torch.tensor([1]), Task("classification", ("a", "b"), 2))
    return wrong.item(), soft_cross_entropy(scores, other).item()


def minimisers(labels: NDArray[Any], c: float, weight: float, unstable: NDArray[np.float64]) -> NDArray[np.float64]:
    """Errors of the classifiers of least loss, `weight` being that of consistency."""
    wrong, disagreeing = costs()
    loss = (c + 1) / (c - 1) * wrong * (labels != EVERY).mean(1) + weight * disagreeing * unstable
    best = EVERY[loss <= loss.min() + 1e-9]
    return (best != TRUTH).mean(1)


@pytest.mark.parametrize("linked", [False, True])
def test_the_minimiser_over_all_classifiers_keeps_to_the_bound_and_without_consistency_does_not(linked: bool) -> None:
    near = rings(linked)
    c = expansion(near, 1)
    assert c == 5.0  # a node, two to the left and two to the right
    unstable = inconsistent(near)
    mu = unstable[(EVERY == TRUTH).all(1)][0]
    assert mu == (2 / NODES if linked else 0.0)
    for first, second in itertools.product(range(EACH), range(EACH, NODES)):  # one wrong label in each class
        labels = TRUTH.copy()
        labels[[first, second]] = 1 - labels[[first, second]]
        noise = 2 / NODES
        bound = 2 / (c - 1) * noise + 2 * c / (c - 1) * mu
        errors = minimisers(labels, c, 2 * c / (c - 1), unstable)
        assert errors.max() <= bound
        assert errors.max() == 0.0 or linked
        alone = minimisers(labels, c, 0.0, unstable)
        assert alone.tolist() == [noise]  # what it was taught
        assert noise > bound or linked


def test_many_wrong_labels_are_past_the_expansion() -> None:
    """Five in a row of eight have N of all eight: c is 8 / 5, nothing is promised, and the class turns wrong."""
    near = rings(False)
    labels = TRUTH.copy()
    labels[:5] = 1
    errors = minimisers(labels, 5.0, 2.5, inconsistent(near))
    assert errors.tolist() == [0.5]


def test_the_network_unlearns_wrong_labels_with_consistency_and_learns_them_without() -> None:
    """A fifth of the labels is wrong, and there are numbers enough to learn them by heart."""
    for seed in range(3):
        generator = np.random.default_rng(seed)
        truth = np.arange(80) % 2
        x = generator.normal(size=(80, 60)) + 0.8 * (2 * truth - 1)[:, None]
        labels = truth.copy()
        labels[:16] = 1 - labels[:16]
        X = Views.of(primary="x", x=x)
        errors = []
        for weight in (0.0, 30.0):
            method = create(
                "induction.self_training",
                rounds=1,
                consistency=weight,
                noise=1.0,
                schedule=Schedule(updates=150, batch_size=40),
            )
            errors.append(np.mean(method.fit(X, labels).predict(X) != truth))
        assert errors[0] > 0.15
        assert errors[1] < 0.05
