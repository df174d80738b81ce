"""Learned language: the losses by hand, the descriptions that are kept, and what guessed and true ones are worth."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from shape_world import episodes, shape_world
from torch import Tensor, nn
from torch.nn import functional as F
from two_factors import two_factors

from transference.colearning.translation.learned_language import LearnedLanguage, choice, misfit
from transference.core.errors import ConfigError, DataError
from transference.core.method import Method
from transference.core.registry import create
from transference.core.views import Views
from transference.data.loader import to_batch
from transference.train.schedule import Schedule

QUICK = Schedule(updates=8, batch_size=16, device="cpu")


def data(n: int = 40, seed: int = 0) -> tuple[Views, NDArray[Any]]:
    """x shows four classes; t names them among other words; v is a vector. A quarter lacks a label, a fifth t."""
    g = np.random.default_rng(seed)
    number = np.arange(n) % 4
    words = np.where(np.arange(5) < g.integers(1, 6, n)[:, None], g.integers(5, 9, (n, 5)), 0)
    words[:, 0] = 1 + number
    x = 2 * np.eye(4)[number] + g.normal(size=(n, 4))
    X = Views.of(primary="x", kinds={"t": "text"}, x=x, t=words, v=g.normal(size=(n, 3)) + number[:, None])
    told = np.arange(n) % 5 != 2
    X = X.replace("t", X["t"] * told[:, None], present=told)
    y = np.array(["a", "b", "c", "d"], object)[number]
    y[n - n // 4 :] = None
    return X, y


def numbers(y: NDArray[Any]) -> NDArray[Any]:
    return np.array([-1 if name is None else "abcd".index(name) for name in y])


def test_a_misfit_by_hand() -> None:
    """One of three rows matches: it weighs a half, the two others a quarter each."""
    scores = torch.tensor([[2.0], [-1.0], [0.5]])
    matches = torch.tensor([[True], [False], [False]])
    expected = 0.5 * math.log(1 + math.exp(-2)) + 0.25 * math.log(1 + math.exp(-1)) + 0.25 * math.log(1 + math.exp(0.5))
    assert misfit(scores, matches).item() == pytest.approx(expected, rel=1e-6)
    alone = (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(1)) + math.log(1 + math.exp(-0.5))) / 3
    assert misfit(scores, matches | True).item() == pytest.approx(alone, rel=1e-6)
    several = torch.randn(5, 3, 2), torch.tensor([[True, False], [False, True], [True, False]])
    torch.testing.assert_close(misfit(*several)[4], misfit(several[0][4], several[1]))


def test_a_choice_as_a_slow_loop() -> None:
    scores = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    matches = torch.tensor([[1, 1, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 1, 0, 0], [1, 1, 1, 1, 1]]).bool()
    costs = []
    for row, mask in zip(scores.tolist(), matches.tolist(), strict=True):
        if any(mask):
            likely = [math.exp(each) for each in row]
            costs.append(-math.log(sum(p for p, yes in zip(likely, mask, strict=True) if yes) / sum(likely)))
    assert choice(scores, matches).item() == pytest.approx(sum(costs) / 3, rel=1e-5)
    assert choice(scores, matches & False).item() == 0.0


def test_the_losses_as_a_slow_loop() -> None:
    X, y = data()
    model = LearnedLanguage(weight=3.0, width=8, schedule=QUICK).fit(X, y)
    net: Any = model.net_.eval()
    number, batch = numbers(y), to_batch(X, numbers(y))
    h = net.encode(batch, "x")
    losses = model.losses(net, batch)
    torch.testing.assert_close(losses["task"], F.cross_entropy(net.head(h[:30]), torch.from_numpy(number[:30])))
    interpretations, proposals = [], []
    for name in ("t", "v"):
        told = np.flatnonzero(X.present[name])
        form = {i: net.form(batch.take(torch.tensor([i])), name) for i in told}
        means = {i: h[number == number[i]].mean(0) if number[i] >= 0 else h[i] for i in told}
        proposals.append(torch.cat([net.describers[name].cost(means[i][None], form[i]) for i in told]).mean())
        columns = []
        for j in told[told < 30]:
            f = h[:30] @ net.readers[name](form[j])[0] / 8**0.5 + net.bias
            alike = torch.from_numpy(number[:30] == number[j])
            columns.append((f, alike, (F.softplus(-f[alike]).mean() + F.softplus(f[~alike]).mean()) / 2))
        scores = torch.stack([f for f, _, _ in columns], 1)
        matches = torch.stack([alike for _, alike, _ in columns], 1)
        each = torch.stack([cost for _, _, cost in columns]).mean()
        interpretations.append((each + choice(scores, matches)) / 2)
    torch.testing.assert_close(losses["proposal"], 1.5 * torch.stack(proposals).sum())
    torch.testing.assert_close(losses["interpretation"], 1.5 * torch.stack(interpretations).sum())
    assert set(losses) == {"task", "proposal", "interpretation"}


def test_with_weight_zero_it_is_unimodal_bit_for_bit() -> None:
    X, y = data()
    same = LearnedLanguage(weight=0.0, schedule=QUICK, seed=4).fit(X, y)
    alone = create("unimodal", schedule=QUICK, seed=4).fit(X, y)
    np.testing.assert_array_equal(same.predict_proba(X), alone.predict_proba(X))
    np.testing.assert_array_equal(same.episode(X[:12], y[:12], X[12:]), alone.episode(X[:12], y[:12], X[12:]))
    assert same.history_ == alone.history_
    assert set(same.net_.state_dict()) == set(alone.net_.state_dict())
    with pytest.raises(ConfigError, match="The 'weight' parameter of LearnedLanguage to match must be above 0"):
        same.match(X, X)


def test_only_the_primary_modality_is_read_of_what_is_shown_and_asked() -> None:
    X, y = data()
    model = LearnedLanguage(schedule=QUICK).fit(X, y)
    answer, played = model.predict_proba(X), model.episode(X[:12], y[:12], X[12:])
    poisoned = X.replace("t", np.full_like(X["t"], 1e6)).replace("v", np.full_like(X["v"], np.nan))
    for other in (poisoned, X.only(["x"])):
        np.testing.assert_array_equal(model.predict_proba(other), answer)
        np.testing.assert_array_equal(model.episode(other[:12], y[:12], other[12:]), played)


def test_what_is_kept_follows_from_the_labels_shown_and_not_from_the_queries() -> None:
    X, y = data()
    model = LearnedLanguage(schedule=QUICK, samples=20).fit(X, y)
    whole = model.episode(X[:12], y[:12], X[12:])
    alone = model.episode(X[:12], y[:12], X[20:21])
    np.testing.assert_allclose(alone, whole[8:9], atol=1e-6)
    far = X.replace("x", X["x"] * np.where(np.arange(40) < 21, 1.0, 50.0)[:, None].astype(np.float32))
    np.testing.assert_allclose(model.episode(X[:12], y[:12], far[12:])[:9], whole[:9], atol=1e-6)
    turned = model.describe(X[:12], np.roll(y[:12], 1))
    kept = model.describe(X[:12], y[:12])
    torch.testing.assert_close(turned["t"].score[[3, 0, 1, 2]], kept["t"].score)  # the same classes under other names
    mixed = model.describe(X[:12], y[:12][[0, 1, 2, 3, 5, 4, 7, 6, 10, 11, 8, 9]])
    assert (mixed["t"].score < kept["t"].score).all()


def test_a_query_is_answered_by_the_descriptions_kept_in_all_modalities() -> None:
    X, y = data()
    model = LearnedLanguage(schedule=QUICK).fit(X, y)
    net: Any = model.net_
    kept = model.describe(X[:12], y[:12])
    with torch.inference_mode():
        h = net.encode(to_batch(X[12:]), "x")
        read = {name: net.readers[name](each.said) for name, each in kept.items()}  # (classes, width)
        logits = (h @ read["t"].T + h @ read["v"].T) / 2 / 64**0.5 + net.bias
    np.testing.assert_allclose(model.episode(X[:12], y[:12], X[12:]), logits.softmax(1), atol=1e-5)


def test_the_more_are_tried_the_better_is_kept_and_the_first_is_the_likeliest() -> None:
    X, y, train = shape_world(0, base=30, rows=4)
    model = LearnedLanguage(width=16, schedule=Schedule(updates=60, device="cpu")).fit(X[train], y[train])
    shown, labels, _, _ = episodes(X[~train], y[~train], shot=2)[0]
    kept = []
    for n in (1, 2, 5, 10, 40):
        model.samples = n
        kept.append(model.describe(shown, labels)["t"])
    net: Any = model.net_
    with torch.inference_mode():
        h = net.encode(to_batch(shown), "x")
        concept = h.unflatten(0, (10, 2)).mean(1)
        assert torch.equal(kept[0].said, net.describers["t"].say(concept))
        matches = torch.eye(10, dtype=torch.bool).repeat_interleave(2, 0)
        for each in kept:
            torch.testing.assert_close(each.score, -misfit(net.interpret(h, each.said, "t"), matches))
    for fewer, more in pairwise(kept):
        assert (more.score >= fewer.score).all()
    assert (kept[-1].score > kept[0].score + 1e-3).float().mean() > 0.5


def test_an_episode_is_answered_alike_whatever_the_global_generator_is() -> None:
    X, y = data()
    model = LearnedLanguage(schedule=QUICK).fit(X, y)
    torch.manual_seed(1)
    one = model.episode(X[:12], y[:12], X[12:])
    after = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), after)
    np.testing.assert_array_equal(model.episode(X[:12], y[:12], X[12:]), one)
    model.seed = 1
    assert not np.array_equal(model.episode(X[:12], y[:12], X[12:]), one)


class Identity(nn.Module):
    """x is the representation, (n, 4): two attributes, each 0 or 1, as one of a pair."""

    def forward(self, values: Tensor, lengths: Tensor | None) -> Tensor:
        return values


class Speaker(nn.Module):
    """Says which of four concepts, 1 to 4, it is, or another one: at first, if so told, and in four of five draws."""

    def __init__(self, wrong_at_first: bool) -> None:
        super().__init__()
        self.draws = 1
        self.wrong_at_first = wrong_at_first

    def say(self, concept: Tensor, uniform: Tensor | None = None) -> Tensor:
        token = 1 + 2 * concept[:, 1].round().long() + concept[:, 3].round().long()
        wrong = (
            torch.full_like(token, self.wrong_at_first, dtype=torch.bool) if uniform is None else uniform[:, 0] < 0.8
        )
        return torch.where(wrong, (token + 1) % 4 + 1, token)[:, None]


class Reader(nn.Module):
    """Means what is said."""

    def forward(self, said: Tensor) -> Tensor:
        k = said[:, 0] - 1
        return 40 * torch.stack([1.0 - k // 2, k // 2, 1.0 - k % 2, k % 2], 1) - 20


def perfect(samples: int, wrong_at_first: bool) -> float:
    X, y = data()
    model = LearnedLanguage(width=4, samples=samples, schedule=Schedule(updates=1, device="cpu")).fit(X, y)
    net: Any = model.net_
    net.encoders["x"], net.describers, net.readers = (
        Identity(),
        nn.ModuleDict({"t": Speaker(wrong_at_first)}),
        nn.ModuleDict({"t": Reader()}),
    )
    k = np.repeat(np.arange(4), 10)
    new = Views.of(primary="x", x=np.stack([1 - k // 2, k // 2, 1 - k % 2, k % 2], 1).astype(np.float32))
    shown = np.arange(40) % 10 < 2
    names = np.array(["p", "q", "r", "s"])[k]
    return float((model.episode(new[shown], names[shown], new[~shown]).argmax(1) == k[~shown]).mean())


def test_perfect_proposals_perfectly_interpreted_are_always_right() -> None:
    assert perfect(samples=1, wrong_at_first=False) == 1.0
    assert perfect(samples=1, wrong_at_first=True) < 0.3
    assert perfect(samples=60, wrong_at_first=True) == 1.0  # one in five is right, and the labels shown tell which


def test_a_match_is_the_interpretation_averaged_over_what_candidates_hold() -> None:
    X, y = data()
    model = LearnedLanguage(schedule=QUICK).fit(X, y)
    net: Any = model.net_
    X = X[X.present["t"] & X.present["v"]]
    with torch.inference_mode():
        batch = to_batch(X)
        f = {name: net.interpret(net.encode(batch, "x"), net.form(batch, name), name).numpy() for name in ("t", "v")}
        slow = torch.stack([net.encode(batch, "x")[3] @ net.readers["v"](net.form(batch, "v"))[7]]) / 8 + net.bias
    np.testing.assert_allclose(f["v"][3, 7], slow.item(), rtol=1e-4)
    np.testing.assert_allclose(model.match(X, X), (f["t"] + f["v"]) / 2, atol=1e-5)
    np.testing.assert_allclose(model.match(X, X.only(["v"], primary="v")), f["v"], atol=1e-5)
    with pytest.raises(DataError, match="The candidates to match must be seen through 't' or 'v'"):
        model.match(X, X.only(["x"]))
    lacking = X.replace("v", X["v"], present=np.arange(len(X)) != 2)
    with pytest.raises(DataError, match=r"1 rows lack 'v', through which they are asked: \[\d+\]"):
        model.match(X, lacking)


def accuracies(seed: int) -> dict[str, float]:
    """Two rows of 10 new concepts shown: without language, by prototypes, by guessed and by true descriptions."""
    X, y, train = shape_world(seed, rows=3)
    schedule = Schedule(updates=100, learning_rate=4e-3, device="cpu")
    model, meta = (
        LearnedLanguage(weight=w, width=32, schedule=schedule, seed=seed).fit(X[train], y[train]) for w in (5.0, 0.0)
    )
    right: dict[str, list[float]] = {"meta": [], "joint": [], "greedy": [], "learned": [], "oracle": []}
    for shown, labels, asked, truth in episodes(X[~train], y[~train], shot=2):
        answers = {
            "meta": meta.episode(shown, labels, asked),
            "joint": Method.episode(model, shown, labels, asked),
            "greedy": model.set_params(samples=1).episode(shown, labels, asked),
            "learned": model.set_params(samples=10).episode(shown, labels, asked),
            "oracle": model.match(asked, shown[::2].only(["t"], primary="t")),
        }
        for name, answer in answers.items():
            right[name].append(float((answer.argmax(1) == truth).mean()))
    return {name: float(np.mean(each)) for name, each in right.items()}


def test_language_helps_and_true_descriptions_bound_it() -> None:
    """meta < learned < oracle, and meta < joint < oracle; here the prototypes (joint) do better than guesses."""
    runs = [accuracies(seed) for seed in range(3)]
    found = {name: np.mean([run[name] for run in runs]) for name in runs[0]}
    assert found["meta"] + 0.05 < found["joint"] < found["oracle"], found
    assert found["meta"] + 0.05 < found["learned"] < found["oracle"] - 0.05, found


def test_what_has_no_words_describes_too_and_noise_gives_nothing() -> None:
    gains: dict[bool, list[float]] = {False: [], True: []}
    for seed in range(3):
        for noise, gain in gains.items():
            X, y, few = two_factors(seed, noise, 800, "v")
            alone, ours = (
                create(name, schedule=Schedule(updates=80, device="cpu"), width=16, seed=seed)
                .fit(X[:500], few[:500])
                .score(X[500:], y[500:])
                for name in ("unimodal", "colearning.translation.learned_language")
            )
            gain.append(ours - alone)
    assert np.mean(gains[False]) > 0.02
    assert np.mean(gains[True]) < 0.01


def test_new_classes_are_told_apart_by_what_has_no_words() -> None:
    X, y = data(120)
    model = LearnedLanguage(width=16, schedule=Schedule(updates=60, device="cpu")).fit(X.only(["v", "x"])[:80], y[:80])
    answer = model.episode(X[80:92], np.array(list("abcd"))[np.arange(12) % 4], X[92:])
    assert (answer.argmax(1) == np.arange(92, 120) % 4).mean() > 0.5


def test_a_batch_without_descriptions_or_without_their_labels() -> None:
    X, y = data()
    model = LearnedLanguage(schedule=QUICK).fit(X, y)
    loss = model.losses(model.net_, to_batch(X.without("t").without("v"), numbers(y)))
    assert loss["interpretation"].item() == loss["proposal"].item() == 0.0
    loss = model.losses(model.net_, to_batch(X[30:], numbers(y[30:])))
    assert loss["interpretation"].item() == loss["task"].item() == 0.0
    assert loss["proposal"].item() > 0
