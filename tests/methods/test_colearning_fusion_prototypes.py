"""Prototypes: the blend by hand and as a slow loop, its two limits, its best weight, and what the generator learns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from transference.assessment.few_shot import few_shot
from transference.colearning.fusion.prototypes import Generator, Prototypes
from transference.core.errors import ConfigError, DataError
from transference.core.views import Views
from transference.data.loader import to_batch
from transference.nn.prototypes import blend, class_means, nearness
from transference.train.schedule import Schedule
from transference.unimodal import Unimodal

FAST = Schedule(updates=30, batch_size=16, device="cpu")


def planted(seed: int = 0, classes: int = 8, rows: int = 6, text: str = "clear") -> tuple[Views, NDArray[Any]]:
    """Classes are points in four dimensions; `look` shows them bent and with much noise, `text` with little.

    With text="noise" the secondary is independent of everything. All seeds share the maps from points to modalities.
    """
    g, maps = np.random.default_rng(seed), np.random.default_rng(9).normal(size=(2, 4, 10))
    number = np.repeat(np.arange(classes), rows)
    points = g.normal(size=(classes, 4))[number]
    look = 2 * np.tanh(points @ maps[0] / 2) + 1.5 * g.normal(size=(len(number), 10))
    said = 2 * np.tanh(points @ maps[1] / 2) * (text == "clear") + 0.4 * g.normal(size=(len(number), 10))
    return Views.of(primary="look", look=look, text=said), np.array([f"class{k:02d}" for k in number], object)


def halves(X: Views, y: NDArray[Any]) -> tuple[Views, NDArray[Any], Views, NDArray[Any]]:
    """The first rows of each class to show, the others to ask."""
    shown = np.arange(len(y)) % 6 < 2
    return X[shown], y[shown], X[~shown], y[~shown]


def fitted(weight: float = 1.0, seed: int = 0) -> Prototypes:
    X, y = planted()
    return Prototypes(weight=weight, schedule=FAST, seed=seed).fit(X, y)


def test_prototypes_by_hand() -> None:
    """Class 0: real features 0 and 4, generated 6; class 1: real 10, generated 10; with weight 2."""
    own, found = class_means(torch.tensor([[0.0], [10.0], [4.0]]), torch.tensor([0, 1, 0]), 2)
    prototypes = blend(own, torch.tensor([[6.0], [10.0]]), 2.0)
    assert found.tolist() == [True, True]
    assert prototypes.flatten().tolist() == pytest.approx([(2 + 2 * 6) / 3, 10.0])
    assert nearness(torch.tensor([[7.0]]), prototypes)[0].tolist() == pytest.approx([-((7 - 14 / 3) ** 2), -9.0])


@pytest.mark.parametrize("weight", [0.5, 3.0])
def test_an_episode_against_a_slow_loop_with_two_descriptions_and_holes(weight: float) -> None:
    X, y = planted()
    more = {"look": X["look"], "text": X["text"], "tags": X["text"][:, ::2] ** 2}
    method = Prototypes(weight=weight, schedule=FAST).fit(Views.of(primary="look", **more), y)
    new, labels = planted(1, classes=3)
    X = Views.of(primary="look", look=new["look"], text=new["text"], tags=new["text"][:, ::2] ** 2)
    X = X.replace("text", X["text"], present=np.arange(18) % 6 != 1)
    support, y, query, _ = halves(X, labels)
    with torch.no_grad():
        net: Any = method.net_
        batch = to_batch(support)
        real = net.encode(batch, "look")
        made = {name: net.generators[name](net.encode(batch, name)) for name in ("text", "tags")}
        asked = net.encode(to_batch(query), "look")
    expected = []
    for q in asked:
        likely = []
        for name in ("class00", "class01", "class02"):
            rows = [i for i in range(len(y)) if y[i] == name]
            image = sum(real[i] for i in rows) / len(rows)
            said = [made[m][i] for m in made for i in rows if support.present[m][i]]
            prototype = (image + weight * sum(said) / len(said)) / (1 + weight)
            likely.append(-float(((q - prototype) ** 2).sum()))
        top = np.exp(np.array(likely) - max(likely))
        expected.append(top / top.sum())
    assert method.episode(support, y, query) == pytest.approx(np.array(expected), abs=1e-4)


def test_weight_zero_is_unimodal_bit_for_bit() -> None:
    X, y = planted()
    y[40:] = None
    zero, plain = (m.fit(X, y) for m in (Prototypes(weight=0, schedule=FAST, seed=3), Unimodal(schedule=FAST, seed=3)))
    assert np.array_equal(zero.decide(X), plain.decide(X))
    assert zero.history_ == plain.history_
    episode = halves(*planted(1))[:3]
    assert np.array_equal(zero.episode(*episode), plain.episode(*episode))


def test_small_weights_lead_to_weight_zero() -> None:
    support, y, query, _ = halves(*planted(1))
    plain = fitted(0.0).episode(support, y, query)
    method = fitted(1.0)
    assert not np.allclose(method.episode(support, y, query), plain, atol=0.05)
    method.weight = 1e-7
    assert np.allclose(method.episode(support, y, query), plain, atol=1e-4)


def test_the_encoder_stays_that_of_unimodal_while_head_and_generator_learn() -> None:
    X, y = planted()
    y[::5] = None
    plain, method = (m.fit(X, y) for m in (Unimodal(schedule=FAST, seed=2), Prototypes(schedule=FAST, seed=2)))
    assert np.array_equal(plain.embed(X)["look"], method.embed(X)["look"])
    net: Any = method.net_
    assert all(each.grad is None and not each.requires_grad for each in net.encoders["look"].parameters())
    ours, theirs = method.predict_proba(X), plain.predict_proba(X)
    assert 1e-4 < abs(ours - theirs).max() < 0.3
    with torch.no_grad():
        assert np.array_equal(ours, net.head(net.encode(to_batch(X), "look")).softmax(1).numpy())


def test_large_weights_are_zero_shot_from_the_description_alone() -> None:
    support, y, query, _ = halves(*planted(1))
    method = fitted(1e12)
    made = torch.from_numpy(method.embed(support)["text"])
    asked = torch.from_numpy(method.embed(query)["look"])
    means = torch.stack([made[torch.from_numpy(y == name)].mean(0) for name in np.unique(y)])
    expected = (-((asked[:, None] - means) ** 2).sum(2)).softmax(1).numpy()
    assert np.allclose(method.episode(support, y, query), expected, atol=1e-4)
    other = support.replace("look", support["look"][::-1].copy())
    assert np.allclose(method.episode(other, y, query), expected, atol=1e-4)
    method.weight = 1.0  # the same, whatever the weight, where nobody has seen the class
    assert np.allclose(method.episode(support.without("look"), y, query), expected, atol=1e-4)


def test_without_descriptions_the_prototypes_are_real() -> None:
    support, y, query, _ = halves(*planted(1))
    plain = fitted(0.0).episode(support, y, query)
    method = fitted(1.0)
    assert np.allclose(method.episode(support.only(["look"]), y, query), plain, atol=1e-5)
    assert np.allclose(method.episode(support.without("text"), y, query), plain, atol=1e-5)
    with pytest.raises(DataError, match=r"The class 'class03' is shown by no row that has 'look' or 'text'"):
        gone = y != "class03"
        holes = support.replace("look", support["look"], present=gone).replace("text", support["text"], present=gone)
        method.episode(holes, y, query)


@pytest.mark.parametrize(("s2", "n", "t2", "m"), [(1.0, 1, 1.0, 1), (1.0, 5, 1.0, 1), (4.0, 1, 2.0, 2)])
def test_the_best_weight_is_the_ratio_of_the_variances(s2: float, n: int, t2: float, m: int) -> None:
    """Gaussian classes and an unbiased generator: of seven weights the one at (s2 / n) / (t2 / m) errs least."""
    g, classes = torch.Generator().manual_seed(0), 20000
    centre = torch.randn(classes, 4, generator=g)

    def mean_of(rows: int, variance: float) -> torch.Tensor:
        number = torch.arange(classes).repeat(rows)
        return class_means(centre[number] + variance**0.5 * torch.randn(len(number), 4, generator=g), number, classes)[
            0
        ]

    own, made, best = mean_of(n, s2), mean_of(m, t2), (s2 / n) / (t2 / m)
    factors = [0.0, 0.3, 0.6, 1.0, 1.6, 3.0, 1e9]
    errors = [(blend(own, made, best * factor) - centre).square().mean().item() for factor in factors]
    assert int(np.argmin(errors)) == 3
    assert errors[3] == pytest.approx((s2 / n) * (t2 / m) / (s2 / n + t2 / m), rel=0.02)
    group = slice(0, 5)  # and the rule that it is for is right more often than either side alone
    query = centre[group] + 0.5 * torch.randn(2000, 5, 4, generator=g)
    right = []
    for weight in (0.0, best, 1e9):
        spots = blend(own, made, weight).view(-1, 5, 4)[:2000]
        mine = centre.view(-1, 5, 4)[:2000] + (query - centre[group])
        scores = torch.stack([nearness(q, p) for q, p in zip(mine, spots, strict=True)])
        right.append((scores.argmax(2) == torch.arange(5)).float().mean().item())
    assert right[1] > max(right[0], right[2])


def test_the_error_of_the_mean_is_one() -> None:
    features = torch.tensor([[0.0, 1.0], [4.0, 1.0], [0.0, 7.0], [4.0, 7.0]])
    generator = Generator(2)
    generator.fit_statistics(features)
    assert generator.mean.tolist() == [2.0, 4.0]
    assert generator.deviation.item() == pytest.approx(6.5**0.5)  # variances 4 and 9
    assert generator.unexplained(generator.mean.expand(4, 2), features).item() == pytest.approx(1.0)
    assert generator.unexplained(features + torch.tensor([2.0, 3.0]), features).item() == pytest.approx(1.0)
    assert generator.unexplained(features[:0], features[:0]).item() == 0.0
    torch.nn.init.zeros_(generator.deep[2].weight)
    torch.nn.init.zeros_(generator.deep[2].bias)
    assert torch.equal(generator(features), generator.mean.expand(4, 2))


def test_the_generator_learns_what_the_description_says_of_new_rows() -> None:
    """A description that is the row itself leaves nearly nothing unexplained; noise explains nothing."""
    (X, y), (new, _) = planted(rows=20), planted(1, rows=20)
    patient = Schedule(updates=150, batch_size=64, device="cpu")
    missed = {}
    for kind in ("itself", "noise"):
        train, test = (
            views.replace(
                "text", views["look"] if kind == "itself" else np.random.default_rng(k).normal(size=(160, 10))
            )
            for k, views in enumerate((X, new))
        )
        method = Prototypes(schedule=patient).fit(train, y)
        net: Any = method.net_
        shown = {name: torch.from_numpy(value) for name, value in method.embed(test).items()}
        missed[kind] = net.generators["text"].unexplained(shown["text"], shown["look"]).item()
        assert method.history_["generator: features from text"][-1] < 1.0
    assert missed["itself"] < 0.35
    assert missed["noise"] > 0.9


def test_clear_descriptions_help_with_one_row_a_class_and_noise_does_not() -> None:
    gains: dict[str, list[float]] = {"clear": [], "noise": []}
    brief = Schedule(updates=100, device="cpu")
    for text, found in gains.items():
        for seed in range(3):
            X, y = planted(seed, classes=30, rows=16, text=text)
            met = np.arange(len(y)) < 20 * 16
            both = [
                m.fit(X[met], y[met])
                for m in (Prototypes(schedule=brief, seed=seed), Unimodal(schedule=brief, seed=seed))
            ]
            ours, plain = (few_shot(m, X[~met], y[~met], episodes=50, seed=seed)[0].value for m in both)
            found.append(ours - plain)
    assert np.mean(gains["clear"]) > 0.07
    assert np.mean(gains["noise"]) < 0.03  # to lie half-way to the common mean is worth a point by itself


def test_a_query_is_read_through_the_primary_modality_alone() -> None:
    method = fitted()
    support, y, query, _ = halves(*planted(1))
    answer = method.episode(support, y, query)
    for other in (
        query.only(["look"]),
        query.without("text"),
        query.replace("text", np.full_like(query["text"], np.nan)),
    ):
        assert np.array_equal(method.episode(support, y, other), answer)
        assert np.array_equal(method.predict_proba(other), method.predict_proba(query))
    assert not np.array_equal(method.episode(support.replace("text", support["text"][::-1].copy()), y, query), answer)


def test_the_weight_is_checked() -> None:
    with pytest.raises(ConfigError, match=r"The 'weight' parameter of Prototypes must be a number of at least 0"):
        fitted(-1.0)
