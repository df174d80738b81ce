"""Latent language: the losses by hand, the Meta baseline that it is without descriptions, and what descriptions buy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from shape_world import episodes, shape_world
from torch.nn import functional as F
from two_factors import two_factors

from transference.colearning.translation.latent_language import LatentLanguage, episode_loss
from transference.core.errors import ConfigError
from transference.core.registry import create
from transference.core.views import Views
from transference.data.loader import to_batch
from transference.nn.language import concepts
from transference.nn.losses import supervised
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


def test_an_episode_by_hand() -> None:
    """Rows 0 and 2 of class 0, 10 and 14 of class 1, 3 alone of class 2, which is never asked but always there."""
    h, target = torch.tensor([[0.0], [2.0], [10.0], [14.0], [3.0]]), torch.tensor([0, 0, 1, 1, 2])
    squares = [(4, 144, 9), (4, 100, 1), (81, 16, 49), (169, 16, 121)]  # to the other of its class, and to the means
    right = (0, 0, 1, 1)
    cost = [d[k] + math.log(sum(math.exp(-each) for each in d)) for d, k in zip(squares, right, strict=True)]
    assert episode_loss(h, target, 4, "distance").item() == pytest.approx(sum(cost) / 4, rel=1e-5)


@pytest.mark.parametrize("compare", ["distance", "dot"])
def test_an_episode_as_a_slow_loop(compare: Any) -> None:
    g = torch.Generator().manual_seed(0)
    h, target = torch.randn(12, 3, generator=g), torch.tensor([0, 1, 0, 2, 2, 1, 0, 4, 2, 5, 5, 1])
    costs = []
    for i in range(12):
        logits, names = [], []
        for k in range(6):
            others = [h[j] for j in range(12) if j != i and target[j] == k]
            if others:
                p = torch.stack(others).mean(0)
                logits.append(h[i] @ p if compare == "dot" else -((h[i] - p) ** 2).sum())
                names.append(k)
        if int(target[i]) in names:
            costs.append(-torch.stack(logits).log_softmax(0)[names.index(int(target[i]))])
    assert len(costs) == 11
    torch.testing.assert_close(episode_loss(h, target, 6, compare), torch.stack(costs).mean())
    order = torch.randperm(12, generator=g)
    torch.testing.assert_close(episode_loss(h[order], target[order], 6, compare), torch.stack(costs).mean())
    assert episode_loss(h[:2], target[:2], 6, compare).item() == 0.0  # no class has two


@pytest.mark.parametrize(("training", "describe"), [("classes", "class"), ("classes", "row"), ("episodes", "class")])
def test_the_losses_as_a_slow_loop(training: Any, describe: Any) -> None:
    X, y = data()
    model = LatentLanguage(weight=3.0, training=training, describe=describe, width=8, schedule=QUICK).fit(X, y)
    net: Any = model.net_.eval()
    number, batch = numbers(y), to_batch(X, numbers(y))
    h = net.encode(batch, "x")
    losses = model.losses(net, batch)
    known = torch.from_numpy(number >= 0)
    task = F.cross_entropy(net.head(h[known]), torch.from_numpy(number)[known])
    torch.testing.assert_close(losses.pop("task"), task)
    if training == "episodes":
        torch.testing.assert_close(losses.pop("episode"), episode_loss(h[:30], batch.target[:30], 4, "distance"))  # type: ignore[index]
    means = []
    for name in ("t", "v"):
        costs = []
        for i in np.flatnonzero(X.present[name]):
            shown = h[number == number[i]].mean(0) if describe == "class" and number[i] >= 0 else h[i]
            part, row = net.describers[name], batch.take(torch.tensor([i]))
            costs.append(part.cost(shown[None], part.form(row.views[name], row.lengths.get(name)))[0])
        assert len(costs) == (32 if name == "t" else 40)
        means.append(torch.stack(costs).mean())
    torch.testing.assert_close(losses.pop("description"), 3.0 * (means[0] + means[1]) / 2)
    assert not losses


def test_a_concept_is_the_mean_of_its_class() -> None:
    h, target = torch.randn(6, 3), torch.tensor([2, -1, 0, 2, -1, 2])
    found = concepts(h, target)
    torch.testing.assert_close(found[[0, 3, 5]], h[[0, 3, 5]].mean(0).expand(3, 3))
    torch.testing.assert_close(found[[1, 2, 4]], h[[1, 2, 4]])


def test_with_weight_zero_it_is_unimodal_bit_for_bit() -> None:
    X, y = data()
    same = LatentLanguage(weight=0.0, schedule=QUICK, seed=4).fit(X, y)
    alone = create("unimodal", schedule=QUICK, seed=4).fit(X, y)
    np.testing.assert_array_equal(same.predict_proba(X), alone.predict_proba(X))
    np.testing.assert_array_equal(same.episode(X[:12], y[:12], X[12:]), alone.episode(X[:12], y[:12], X[12:]))
    assert same.history_ == alone.history_
    assert set(same.net_.state_dict()) == set(alone.net_.state_dict())


def test_with_weight_zero_and_episodes_it_is_a_prototypical_network() -> None:
    """Which never meets a description, and whose head learns from the encoder without teaching it."""
    X, y = data()
    meta = LatentLanguage(weight=0.0, training="episodes", schedule=QUICK, seed=4).fit(X, y)
    other = X.replace("t", np.roll(X["t"], 1, 0)).replace("v", -X["v"])
    again = LatentLanguage(weight=0.0, training="episodes", schedule=QUICK, seed=4).fit(other, y)
    np.testing.assert_array_equal(meta.predict_proba(X), again.predict_proba(X))
    assert not hasattr(meta.net_, "describers")
    net: Any = meta.net_
    losses = meta.losses(net, to_batch(X, numbers(y)))
    assert set(losses) == {"task", "episode"}
    net.zero_grad()
    losses["task"].backward()
    assert all(parameter.grad is None for parameter in net.encoders.parameters())
    assert net.head.weight.grad.abs().sum() > 0
    losses["episode"].backward()
    assert net.encoders["x"].linear.weight.grad.abs().sum() > 0


def test_descriptions_teach_the_encoder() -> None:
    X, y = data()
    model = LatentLanguage(schedule=QUICK).fit(X, y)
    net: Any = model.net_
    net.zero_grad()
    model.losses(net, to_batch(X, numbers(y)))["description"].backward()
    assert net.encoders["x"].linear.weight.grad.abs().sum() > 0
    assert net.head.weight.grad is None


def test_the_decoder_is_discarded_and_only_the_primary_modality_read() -> None:
    X, y = data()
    model = LatentLanguage(schedule=QUICK).fit(X, y)
    answer, played = model.predict_proba(X), model.episode(X[:12], y[:12], X[12:])
    del model.net_.describers
    poisoned = X.replace("t", np.full_like(X["t"], 1e6)).replace("v", np.full_like(X["v"], np.nan))
    for other in (X, poisoned, X.only(["x"])):
        np.testing.assert_array_equal(model.predict_proba(other), answer)
        np.testing.assert_array_equal(model.episode(other[:12], y[:12], other[12:]), played)


@pytest.mark.parametrize("compare", ["distance", "dot"])
def test_a_query_is_compared_with_the_means_of_what_is_shown(compare: Any) -> None:
    X, y = data()
    model = LatentLanguage(compare=compare, schedule=QUICK).fit(X, y)
    h, shown = model.embed(X)["x"], y[:15]
    found = model.episode(X[:15], shown, X[15:])
    for i in range(25):
        logits = []
        for name in "abcd":
            p = h[:15][shown == name].mean(0)
            logits.append(h[15 + i] @ p if compare == "dot" else -np.square(h[15 + i] - p).sum())
        likely = np.exp(np.array(logits) - max(logits))
        np.testing.assert_allclose(found[i], likely / likely.sum(), atol=1e-4)


def test_both_trainings_learn_the_classes_and_new_ones() -> None:
    X, y = data(120)
    for training in ("classes", "episodes"):
        model = LatentLanguage(training=training, width=32, schedule=Schedule(updates=60, device="cpu")).fit(
            X[:80], y[:80]
        )  # type: ignore[arg-type]
        assert model.score(X[80:], np.array(list("abcd"))[np.arange(80, 120) % 4]) > 0.7, training
        assert model.history_["description"][-1] < model.history_["description"][0]


def few_shot_accuracy(captions: str, weight: float, seed: int) -> float:
    X, y, train = shape_world(seed, captions)
    schedule = Schedule(updates=100, learning_rate=4e-3, device="cpu")
    model = LatentLanguage(weight=weight, width=32, schedule=schedule, seed=seed).fit(X[train], y[train])
    return float(
        np.mean(
            [
                (model.episode(shown, labels, asked).argmax(1) == truth).mean()
                for shown, labels, asked, truth in episodes(X[~train], y[~train])
            ]
        )
    )


def test_true_captions_help_those_of_other_rows_hurt_and_the_order_of_words_does_not_matter() -> None:
    """As in the paper, any order of words ~ true > colour alone > none > those of other rows; and a part is enough."""
    named = ("true", "words", "colour", "no colour", "captions")
    arms = {"meta": ("true", 0.0), **{name: (name, 20.0) for name in named}}
    found = {name: np.mean([few_shot_accuracy(*arm, seed) for seed in range(3)]) for name, arm in arms.items()}
    assert found["true"] > found["meta"] + 0.06, found
    assert found["captions"] < found["meta"] - 0.01, found
    assert found["meta"] < found["colour"] < found["true"] - 0.04, found
    assert found["no colour"] > found["colour"] + 0.06, found
    assert abs(found["words"] - found["true"]) < 0.05, found


def test_what_has_no_words_describes_too_and_noise_gives_nothing() -> None:
    gains: dict[bool, list[float]] = {False: [], True: []}
    for seed in range(3):
        for noise, gain in gains.items():
            X, y, few = two_factors(seed, noise, 800, "v")
            alone, ours = (
                create(name, schedule=Schedule(updates=80, device="cpu"), width=16, seed=seed)
                .fit(X[:500], few[:500])
                .score(X[500:], y[500:])
                for name in ("unimodal", "colearning.translation.latent_language")
            )
            gain.append(ours - alone)
    assert np.mean(gains[False]) > 0.03
    assert np.mean(gains[True]) < 0.01


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [("training", "meta", "'classes', 'episodes'"), ("compare", "cosine", "'distance', 'dot'")],
)
def test_what_is_no_option_is_refused(name: str, value: str, allowed: str) -> None:
    X, y = data()
    with pytest.raises(ConfigError, match=rf"The '{name}' parameter of LatentLanguage must be one of {allowed}"):
        LatentLanguage(**{name: value}).fit(X, y)  # type: ignore[arg-type]


def test_a_batch_whose_rows_lack_a_text_costs_nothing_for_it() -> None:
    X, y = data()
    model = LatentLanguage(schedule=QUICK).fit(X, y)
    loss = model.losses(model.net_, to_batch(X.without("t").without("v"), numbers(y)))
    assert loss["description"].item() == 0.0
    assert (
        loss["task"].item()
        == supervised(model.scores(model.net_, to_batch(X)), torch.from_numpy(numbers(y)), model.spec_.task).item()
    )
