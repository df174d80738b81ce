"""Skills: the dynamic programme by brute force, EM that never loses, names that a tenth of the rows give to all."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.stats import norm, poisson
from sklearn.metrics import normalized_mutual_info_score
from torch import Tensor

from transference.colearning.translation.skills import Skills
from transference.core.errors import ConfigError
from transference.core.registry import create
from transference.core.views import Views
from transference.data.loader import to_batch
from transference.nn.grammar import Grammar, compact, induce, products, segment
from transference.train.schedule import Schedule

QUICK = Schedule(updates=8, batch_size=12, device="cpu")


def segmentations(length: int, states: int) -> Iterator[list[tuple[int, int, int]]]:
    """All lists of (state, start, end) that cover the steps, no state twice in a row."""
    for cuts in itertools.product([False, True], repeat=length - 1):
        edges = [0, *(k + 1 for k, cut in enumerate(cuts) if cut), length]
        for path in itertools.product(range(states), repeat=len(edges) - 1):
            if all(a != b for a, b in itertools.pairwise(path)):
                yield [(state, a, b) for state, a, b in zip(path, edges[:-1], edges[1:], strict=True)]


def worth(parts: list[tuple[int, int, int]], emission: Tensor, duration: Tensor, chain: Tensor) -> float:
    """The objective of one segmentation, term by term."""
    states = emission.shape[1]
    path = [states, *(state for state, _, _ in parts), states]
    total = sum(float(chain[a, b]) for a, b in itertools.pairwise(path))
    for state, start, end in parts:
        total += float(duration[end - start - 1, state]) + sum(float(emission[t, state]) for t in range(start, end))
    return total


def random_grammar(skills: int, size: int, seed: int, unused: tuple[int, ...] = ()) -> Grammar:
    g = torch.Generator().manual_seed(seed)
    weight = torch.rand(skills + 1, skills + 1, generator=g, dtype=torch.float64) * (1 - torch.eye(skills + 1))
    for k in unused:
        weight[k], weight[:, k] = 0, 0
    chain = (weight / weight.sum(1, keepdim=True).clamp_min(1e-9)).log()
    mean = torch.randn(skills, size, generator=g, dtype=torch.float64)
    rate = 3 * torch.rand(skills, generator=g, dtype=torch.float64) + 0.2
    return Grammar(mean, 0.5 + torch.rand(size, generator=g, dtype=torch.float64), rate, chain)


def demonstrations(
    seed: int, told: float, n: int = 120, skills: int = 5, noise: float = 0.4
) -> tuple[Tensor, Tensor, NDArray[np.int64]]:
    """Rows of a grammar: (n, 20, 4) steps, the names of a share of the rows, and the skill of every step."""
    g = np.random.default_rng(seed)
    mean, follow = 1.5 * g.normal(size=(skills, 4)), g.dirichlet(np.ones(skills - 1), size=skills)
    truth, names = np.zeros((n, 20), np.int64), np.full((n, 20), -1)
    for row in range(n):
        t, skill = 0, g.integers(skills)
        for j in range(20):
            if t < 20:
                names[row, j] = skill
                until = t + 1 + g.poisson(3)
                truth[row, t:until] = skill
                t, skill = until, (skill + 1 + g.choice(skills - 1, p=follow[skill])) % skills
    x = mean[truth] + noise * g.normal(size=(n, 20, 4))
    return torch.from_numpy(x), torch.from_numpy(np.where((g.random(n) < told)[:, None], names, -1)), truth


def data(n: int = 40, seed: int = 0) -> tuple[Views, NDArray[Any]]:
    """Series of 2 to 9 steps, beside texts that half of the rows have, numbers, and another series."""
    g = np.random.default_rng(seed)
    y = g.integers(0, 2, n)
    X = Views.of(
        primary="motion",
        kinds={"words": "text"},
        motion=g.normal(size=(n, 9, 3)) + y[:, None, None],
        words=g.integers(0, 6, (n, 5)),
        z=g.normal(size=(n, 4)) + y[:, None],
        sound=g.normal(size=(n, 12, 2)),
    )
    X = X.replace("motion", X["motion"], lengths=g.integers(2, 10, n))
    return X.replace("words", X["words"], present=np.arange(n) % 2 == 0), np.where(np.arange(n) < 28, y, -1)


@pytest.mark.parametrize(("length", "states"), [(1, 2), (2, 1), (5, 3), (6, 3), (10, 2)])
def test_the_programme_finds_the_best_of_all_segmentations(length: int, states: int) -> None:
    g = torch.Generator().manual_seed(length)
    emission = torch.randn(4, length, states, generator=g, dtype=torch.float64)
    duration = torch.randn(length, states, generator=g, dtype=torch.float64)
    chain = torch.randn(states + 1, states + 1, generator=g, dtype=torch.float64)
    chain.fill_diagonal_(-math.inf)
    labels, value = segment(emission, duration[None], chain[None])
    for row in range(4):
        every = [(worth(parts, emission[row], duration, chain), parts) for parts in segmentations(length, states)]
        best, parts = max(every)
        assert value[row].item() == pytest.approx(best, abs=1e-10)
        assert labels[row].tolist() == [state for state, start, end in parts for _ in range(start, end)]


def test_names_leave_nothing_but_the_boundaries_to_be_found() -> None:
    grammar = random_grammar(4, 2, seed=1)
    x = torch.randn(5, 5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    names = torch.tensor([[2, 0, 2, -1], [1, -1, -1, -1], [-1, -1, -1, -1], [0, 3, 1, 2], [3, 1, -1, -1]])
    labels, objective = grammar.cut(x, names)
    emission, duration = grammar.emission(x), grammar.duration(5)
    total = float(grammar.chain[grammar.chain > -math.inf].sum())
    for row, given in enumerate(names.tolist()):
        wanted = [name for name in given if name >= 0]
        every = [
            (worth(parts, emission[row], duration, grammar.chain), parts)
            for parts in segmentations(5, 4)
            if not wanted or [state for state, _, _ in parts] == wanted
        ]
        best, parts = max(every)
        total += best
        assert labels[row].tolist() == [state for state, start, end in parts for _ in range(start, end)]
    assert objective == pytest.approx(total, abs=1e-9)


def test_densities_and_durations_are_those_of_the_distributions() -> None:
    grammar = random_grammar(3, 2, seed=2)
    x = torch.randn(4, 5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mean, scale = grammar.mean.numpy(), grammar.variance.sqrt().numpy()
    slow = norm.logpdf(x.numpy()[:, :, None], mean, scale).sum(3)
    np.testing.assert_allclose(grammar.emission(x).numpy(), slow, atol=1e-10)
    duration = poisson.logpmf(np.arange(6)[:, None], grammar.rate.numpy())
    np.testing.assert_allclose(grammar.duration(6).numpy(), duration, atol=1e-10)


def test_an_update_by_hand() -> None:
    x = torch.tensor([[[1.0], [3.0], [8.0], [9.0]], [[10.0], [2.0], [2.0], [2.0]]], dtype=torch.float64)
    labels = torch.tensor([[0, 0, 1, 1], [1, 0, 0, 0]])
    start = Grammar(*(torch.full(s, 7.0, dtype=torch.float64) for s in ((3, 1), (1,), (3,), (4, 4))))
    forbidden = torch.eye(4, dtype=torch.bool)
    forbidden[2], forbidden[:, 2] = True, True
    start = start._replace(chain=start.chain.masked_fill(forbidden, -math.inf))
    mean, variance, rate, chain = start.update(x, labels)
    assert mean[:, 0].tolist() == [2.0, 9.0, 7.0]  # the last one is not used
    assert variance.item() == pytest.approx((1 + 1 + 1 + 0 + 1) / 8)
    assert rate.tolist() == pytest.approx([(5 - 2) / 2, (3 - 2) / 2, 7.0])
    share = chain.exp()  # every change counts as seen once more: 0 -> 1, 0 -> end; 1 -> 0, 1 -> end; begin -> 0, 1
    assert share[0].tolist() == pytest.approx([0, 2 / 4, 0, 2 / 4])
    assert share[1].tolist() == pytest.approx([2 / 4, 0, 0, 2 / 4])
    assert share[3].tolist() == pytest.approx([2 / 4, 2 / 4, 0, 0])
    assert not share[2].any()


@pytest.mark.parametrize("unused", [(), (1,)])
def test_the_posterior_is_the_sum_over_all_paths(unused: tuple[int, ...]) -> None:
    grammar = random_grammar(3, 2, seed=3, unused=unused)
    x = torch.randn(2, 5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    used = [k for k in range(3) if k not in unused]
    likely, change = grammar.emission(x).exp(), grammar.chain.exp()
    slow = torch.zeros(2, 5, 3, dtype=torch.float64)
    for row in range(2):
        for path in itertools.product(used, repeat=5):
            p = float(change[3, path[0]] * likely[row, 0, path[0]])
            for t in range(1, 5):
                a, b = path[t - 1], path[t]
                stay = float(grammar.rate[a] / (1 + grammar.rate[a]))
                others = float(sum(change[a, k] for k in used))
                p *= (stay if a == b else (1 - stay) * float(change[a, b]) / others) * float(likely[row, t, b])
            for t, skill in enumerate(path):
                slow[row, t, skill] += p
    torch.testing.assert_close(grammar.posterior(x), slow / slow.sum(2, keepdim=True))
    torch.testing.assert_close(grammar.posterior(x[:, :1]).sum(2), torch.ones(2, 1, dtype=torch.float64))
    alone = random_grammar(2, 2, seed=3, unused=(1,)).posterior(x)
    assert torch.equal(alone, torch.tensor([1.0, 0.0], dtype=torch.float64).expand(2, 5, 2))


def test_products_are_those_of_a_loop_up_to_a_factor() -> None:
    factors = torch.rand(2, 6, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found, slow = products(factors), factors[:, 0]
    for t in range(6):
        slow = slow @ factors[:, t] if t else slow
        torch.testing.assert_close(found[:, t] / found[:, t].sum((1, 2), True), slow / slow.sum((1, 2), True))


@pytest.mark.parametrize(("told", "noise"), [(0.0, 0.4), (0.1, 0.4), (0.1, 1.2), (0.5, 1.2), (0.0, 1.2)])
def test_the_objective_never_falls(told: float, noise: float) -> None:
    for seed in range(3):
        x, names, _ = demonstrations(seed, told, n=60, noise=noise)
        trace = np.array(induce(x, names, 6, seed)[2])
        assert len(trace) > 2
        assert (np.diff(trace) >= -1e-9 * abs(trace[:-1])).all()
        assert trace[-1] > trace[0]


def test_a_tenth_of_the_rows_names_the_skills_of_all() -> None:
    for seed in range(4):
        x, names, truth = demonstrations(seed, 0.1)
        grammar, found, _ = induce(x, names, 5, 0)
        assert normalized_mutual_info_score(truth.ravel(), found.numpy().ravel()) > 0.9
        assert (found.numpy() == truth).mean() > 0.95
        soft = grammar.posterior(x).argmax(2).numpy()  # what answers: durations are geometric
        assert (soft == truth).mean() > 0.9


@pytest.mark.parametrize("seed", [0, 1])
def test_rows_with_names_keep_them_through_em(seed: int) -> None:
    x, names, _ = demonstrations(seed, 0.5, n=40, noise=1.2)
    for row, given in zip(induce(x, names, 5, 0)[1], names.tolist(), strict=True):
        told = [name for name in given if name >= 0]
        assert not told or torch.unique_consecutive(row).tolist() == told


def test_without_a_name_skills_are_found_up_to_their_order() -> None:
    plain = []
    for seed in range(4):
        x, names, truth = demonstrations(seed, 0.0)
        found = induce(x, names, 5, 0)[1].numpy()
        assert normalized_mutual_info_score(truth.ravel(), found.ravel()) > 0.9
        counts = np.zeros((5, 5))
        np.add.at(counts, (found, truth), 1)
        assert counts[linear_sum_assignment(-counts)].sum() / truth.size > 0.95
        plain.append((found == truth).mean())
    assert min(plain) < 0.5


def test_the_named_skills_are_all_there_are_where_some_row_has_names() -> None:
    x, names, truth = demonstrations(0, 0.2)
    grammar, labels, _ = induce(x, names, 9, 0)
    assert set(labels.flatten().tolist()) == set(range(5))
    assert (labels.numpy() == truth).mean() > 0.95
    assert not grammar.posterior(x)[:, :, 5:].any()
    zeros = torch.zeros_like(x)  # where the means of skills that nobody named still are
    assert (grammar.cut(zeros, torch.full_like(names, -1))[0] < 5).all()


def test_names_of_texts_are_their_frequent_words_in_order() -> None:
    assert compact(torch.tensor([[-1, 4, -1, 4, 2, 4], [-1] * 6])).tolist() == [[4, 2, 4, -1, -1, -1], [-1] * 6]
    words = np.array([[7, 3, 3, 7], [7, 0, 5, 0], [3, 9, 7, 2], [3, 0, 0, 0], [9, 9, 9, 9], [5, 7, 9, 3]], np.float32)
    x = np.random.default_rng(0).normal(size=(6, 6, 2))
    X = Views.of(primary="x", kinds={"words": "text"}, x=x, words=words)
    words[4] = np.nan  # which is absent
    X = X.replace("words", words, present=np.arange(6) != 4, lengths=np.array([4, 4, 4, 4, 4, 3]))
    model = Skills(skills=3, schedule=QUICK).fit(X, [0, 1, 0, 1, 0, 1])
    part: Any = model.net_.induced["words"]
    assert part.words.tolist() == [7, 3, 5]  # in 4, 3 and 2 texts; 9 as well in 2, but 5 comes first
    names = part.names(to_batch(X), 0)
    assert names.tolist() == [[0, 1, 0, -1], [0, 2, -1, -1], [1, 0, -1, -1], [1, -1, -1, -1], [-1] * 4, [2, 0, -1, -1]]


def test_what_is_no_text_is_named_by_its_clusters() -> None:
    kind = np.arange(30) % 3
    turned = np.array([-5.0, 0.0, 5.0])[(kind[:, None] + (np.arange(40) >= 20)) % 3]  # one of three, then the next
    X = Views.of(primary="x", x=np.random.default_rng(0).normal(size=(30, 9, 2)), z=turned[:, :2], s=turned[:, :, None])
    model = Skills(skills=3, schedule=QUICK).fit(X, kind)
    z, s = (model.net_.induced[name].names(to_batch(X), 0) for name in ("z", "s"))
    assert z.shape == (30, 1)
    assert len({(a, b) for a, b in zip(kind, z[:, 0].tolist(), strict=True)}) == len(set(z[:, 0].tolist())) == 3
    assert s.shape == (30, 8)
    assert (s[:, 2:] == -1).all()
    assert len({(a, *b) for a, b in zip(kind, s[:, :2].tolist(), strict=True)}) == 3
    assert torch.equal(s[kind == 0, 1], s[kind == 1, 0])


def test_steps_are_the_series_in_the_unit_of_all_steps() -> None:
    X, y = data()
    model = Skills(steps=4, schedule=QUICK).fit(X, y)
    values = np.stack([
        [part.mean(0) for part in np.split(np.repeat(row[:length], 4, axis=0), 4)]
        for row, length in zip(X["motion"], X.lengths["motion"], strict=True)
    ])  # fmt: skip
    expected = (values - values.mean((0, 1))) / values.std((0, 1))
    read: Any = model.net_.steps.read
    np.testing.assert_allclose(read(to_batch(X)).numpy(), expected, atol=1e-4)
    assert {name: found.shape for name, found in model.segments(X).items()} == dict.fromkeys(X.secondary, (40, 4))


def test_the_head_reads_what_is_done_in_each_quarter() -> None:
    X, y = data()
    X = X.only(["motion", "z"])
    model = Skills(weight=2.0, skills=3, steps=8, schedule=QUICK).fit(X, y)
    net: Any = model.net_
    with torch.no_grad():
        batch = to_batch(X)
        shares = net.induced["z"].grammar().posterior(net.steps.read(batch))
        quarters = shares.view(40, 4, 2, 3).mean(2).flatten(1)
        features = net.encode(batch, "motion") + 2 * 3 * quarters @ net.bridge
        answers = net.head(features).softmax(1)
    assert net.bridge.any()
    np.testing.assert_allclose(model.embed(X)["motion"], features.numpy(), atol=1e-5)
    np.testing.assert_allclose(model.decide(X), answers.numpy(), atol=1e-5)
    trace = model.objective_["z"]
    assert (np.diff(trace) >= -1e-9 * abs(trace[0])).all()


def test_weight_zero_is_the_unimodal_baseline_bit_for_bit() -> None:
    X, y = data()
    plain = create("unimodal", schedule=QUICK, seed=4).fit(X, y)
    zero = Skills(weight=0.0, schedule=QUICK, seed=4).fit(X, y)
    np.testing.assert_array_equal(zero.decide(X), plain.decide(X))
    assert zero.history_ == plain.history_
    assert set(zero.net_.state_dict()) == set(plain.net_.state_dict())
    assert not np.array_equal(Skills(weight=0.1, schedule=QUICK, seed=4).fit(X, y).decide(X), plain.decide(X))
    with pytest.raises(ConfigError, match="no skills: the 'weight' parameter of Skills is 0"):
        zero.segments(X)


def test_nothing_but_the_primary_modality_of_the_row_itself_is_read() -> None:
    X, y = data()
    model = Skills(schedule=QUICK).fit(X, y)
    poisoned = X
    for name in X.secondary:
        poisoned = poisoned.replace(name, np.full_like(X[name], np.nan))
    beyond = np.arange(9)[:, None] >= X.lengths["motion"][:, None, None]
    padded = X.replace("motion", np.where(beyond, 50, X["motion"]).astype(np.float32))
    for other in (X.only(["motion"]), poisoned, padded):
        np.testing.assert_array_equal(model.decide(other), model.decide(X))
        for name, found in model.segments(other).items():
            np.testing.assert_array_equal(found, model.segments(X)[name])
    np.testing.assert_allclose(model.decide(X[[17, 3]]), model.decide(X)[[17, 3]], atol=1e-6)


def planted(seed: int, noise: bool, n: int = 400) -> tuple[Views, NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Four skills in some order, told for half of the rows, beneath something louder; which of two comes first?"""
    g = np.random.default_rng(seed)

    def order_and_steps() -> tuple[NDArray[Any], NDArray[Any]]:
        order, lasting = g.random((n, 4)).argsort(1), 1 + g.multinomial(12, np.ones(4) / 4, size=n)
        return order, np.stack([np.repeat(*pair) for pair in zip(order, lasting, strict=True)])

    (order, skill), (_, loud) = order_and_steps(), order_and_steps()
    mix = np.linalg.qr(g.normal(size=(24, 24)))[0][:8]
    x = np.concatenate([2 * np.eye(4)[skill], 2.8 * np.eye(4)[loud]], 2) @ mix + 0.6 * g.normal(size=(n, 16, 24))
    words = 1 + (g.random((n, 4)).argsort(1) if noise else order)
    X = Views.of(primary="x", kinds={"words": "text"}, x=x, words=words)
    y = (order.argsort(1)[:, 0] < order.argsort(1)[:, 1]).astype(int)
    return (
        X.replace("words", words.astype(np.float32), present=g.random(n) < 0.6),
        y,
        np.where(np.arange(n) < 16, y, -1),
        skill,
    )


def test_names_point_at_the_skills_that_help_and_noise_does_not() -> None:
    schedule = Schedule(updates=60, batch_size=32, learning_rate=1e-2, device="cpu")
    gains: dict[bool, list[float]] = {False: [], True: []}
    for seed in range(3):
        for noise, gain in gains.items():
            X, y, few, skill = planted(seed, noise)
            alone, skills = (
                create(name, width=16, schedule=schedule, seed=seed).fit(X[:300], few[:300])
                for name in ("unimodal", "colearning.translation.skills")
            )
            gain.append(skills.score(X[300:], y[300:]) - alone.score(X[300:], y[300:]))
            alike = normalized_mutual_info_score(skill.ravel(), skills.segments(X)["words"].ravel())  # type: ignore[attr-defined]
            assert alike < 0.5 if noise else alike > 0.9
    assert np.mean(gains[False]) > 0.05
    assert np.mean(gains[True]) < 0.02
