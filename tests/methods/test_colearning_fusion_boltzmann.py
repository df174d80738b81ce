"""The multimodal Boltzmann machine: its gradient, what it infers against enumeration, when it helps, what it reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from small_machines import bits, log_sum
from torch import Tensor

from transference.colearning.fusion import boltzmann
from transference.colearning.fusion.boltzmann import Boltzmann, Visible
from transference.core.errors import ConfigError, DataError
from transference.core.metrics import class_map
from transference.core.registry import create
from transference.core.spec import ModalitySpec
from transference.core.views import Views
from transference.data.loader import to_batch
from transference.nn.boltzmann import State
from transference.train.schedule import Schedule

ID = "colearning.fusion.boltzmann"
QUICK = Schedule(updates=20, batch_size=16)


def test_the_gradient_of_the_whole_machine_is_data_minus_exact_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boltzmann, "CHAINS", 3000)
    g = np.random.default_rng(0)
    z = g.integers(0, 2, (30, 1))
    X = Views.of(primary="a", a=(g.random((30, 2)) < 0.2 + 0.6 * z) * 1.0, b=(g.random((30, 2)) < 0.8 - 0.6 * z) * 1.0)
    method = Boltzmann(units=2, binary=["a", "b"], steps=20, gibbs=10, schedule=Schedule(updates=2)).fit(X)
    net, batch = method.net_, to_batch(X)
    with torch.no_grad():
        for value in net.machine.parameters():
            value.copy_(0.8 * torch.randn(value.shape, generator=torch.Generator().manual_seed(len(value))))
    torch.manual_seed(0)
    method._begin_chains(net, batch)
    given = list(net.machine.parameters())
    method._machine_losses(net, batch)  # the samples leave the data behind
    draws = [torch.autograd.grad(method._machine_losses(net, batch)["machine"], given) for _ in range(8)]
    data = net.machine.mean_field({name: batch.views[name] for name in "ab"}, {"a": None, "b": None}, 20)
    log_z = torch.stack([log_sum(net.machine, {"a": row[:2], "b": row[2:]}) for row in bits(4)]).logsumexp(0)
    frozen = State({name: tuple(x.detach() for x in tower) for name, tower in data.towers.items()}, data.joint.detach())
    expected = torch.autograd.grad(net.machine.energy(frozen).mean() + log_z, given)
    for k, value in enumerate(expected):
        torch.testing.assert_close(torch.stack([draw[k] for draw in draws]).mean(0), value, atol=0.015, rtol=0)


def test_what_is_inferred_of_the_text_agrees_with_the_exact_conditional() -> None:
    g = np.random.default_rng(0)
    z, a, b = g.integers(0, 2, (800, 1)), np.array([0.9, 0.85, 0.1, 0.9, 0.15]), np.array([0.9, 0.15])
    image, text = ((g.random((800, len(p))) < np.where(z, p, 1 - p)) * 1.0 for p in (a, b))
    X = Views.of(primary="image", image=image, text=text)
    method = Boltzmann(units=2, binary=("image", "text"), schedule=Schedule(updates=400)).fit(X)
    machine: Any = method.net_.machine  # type: ignore[union-attr]
    every, texts = bits(5), bits(2)
    one, other = (np.prod(np.where(every > 0, p, 1 - p), 1) for p in (a, 1 - a))  # p(image | z)
    of_z, weight = one / (one + other), torch.from_numpy((one + other) / 2).float()[:, None]
    planted = torch.from_numpy(np.outer(of_z, b) + np.outer(1 - of_z, 1 - b)).float()
    with torch.no_grad():
        joint = torch.stack([torch.stack([log_sum(machine, {"image": v, "text": t}) for t in texts]) for v in every])
        exact = joint.softmax(1) @ texts  # (32, 2) p(text = 1 | image), by the machine
        inferred = machine.mean_field({"image": every}, {"image": None}, 10).towers["text"][0]
        torch.manual_seed(0)
        many, fixed = every.repeat_interleave(1500, 0), {"image": None}
        state = machine.gibbs(machine.begin({"image": many}, fixed), fixed, 25)
    assert torch.equal(state.towers["image"][0], many)
    torch.testing.assert_close(state.towers["text"][0].view(32, 1500, 2).mean(1), exact, atol=0.05, rtol=0)

    def apart(p: Tensor) -> float:
        return float((weight * (p - exact).abs()).sum() / 2)

    assert apart((weight * exact).sum(0)) > 0.25  # of one answer for all images
    assert apart(inferred) < 0.12
    assert apart(planted) < 0.1


def two_views(seed: int) -> tuple[Views, NDArray[Any], NDArray[Any]]:
    """Four classes in zeros and ones: the image shows them and a louder nuisance, the text little else. 500 train."""
    g = np.random.default_rng(seed)
    z = g.integers(0, 4, 1000)
    image = 1.2 * g.normal(size=(4, 24))[z] + g.normal(size=(1000, 3)) @ g.normal(size=(3, 24))
    text = 4 * g.normal(size=(4, 12))[z]
    drawn = [(g.random(logits.shape) < 1 / (1 + np.exp(-logits))) * 1.0 for logits in (image, text)]
    return Views.of(primary="image", image=drawn[0], text=drawn[1]), z[:500], z[500:]


def units_of(method: Any, X: Views, text: float | None = None, given: bool = False) -> NDArray[Any]:
    """Hidden units given the image, the text being inferred, or the same number everywhere, or given."""
    net, batch = method.net_, to_batch(X)
    visible = {name: net.given(batch, name) for name in X.names}
    if text is not None:
        visible["text"] = torch.full_like(visible["text"], text)
    with torch.no_grad():
        fixed = {"image": None} | ({"text": None} if given or text is not None else {})
        return np.asarray(net.machine.mean_field(visible, fixed, method.steps).hidden())


def ranked(train: NDArray[Any], y: NDArray[Any], test: NDArray[Any], truth: NDArray[Any]) -> float:
    """Mean average precision of a logistic regression on 24 rows."""
    readable = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500)).fit(train[:24], y[:24])
    return class_map(truth, readable.predict_proba(test), np.ones(len(truth)))


def test_an_inferred_text_ranks_better_than_the_image_alone_and_than_an_empty_text() -> None:
    found = []
    for seed in range(4):
        X, y, truth = two_views(seed)
        blank = X.replace("text", np.ones_like(X["text"]))  # a machine that knows images alone
        ours, images = (
            Boltzmann(units=32, binary=("image", "text"), schedule=Schedule(updates=200), seed=seed).fit(views[:500])
            for views in (X, blank)
        )
        inferred, alone = units_of(ours, X), units_of(images, blank)
        pairs, empty = units_of(ours, X, given=True), units_of(ours, X, text=0.0)
        found.append(
            [
                ranked(inferred[:500], y, inferred[500:], truth) - ranked(alone[:500], y, alone[500:], truth),
                ranked(pairs[:500], y, inferred[500:], truth) - ranked(pairs[:500], y, empty[500:], truth),
            ]
        )
    over_images, over_empty = np.mean(found, 0)
    assert over_images > 0.015
    assert over_empty > 0.015


def topics(seed: int, shuffled: bool) -> tuple[Views, NDArray[Any], NDArray[Any]]:
    """Six topics: the vector shows them dimly, the words clearly. 30 of 500 training rows have a label."""
    g = np.random.default_rng(seed)
    z = g.integers(0, 6, 900)
    x = 0.5 * g.normal(size=(6, 30))[z] + g.normal(size=(900, 30))
    rate = np.exp(1.2 * g.normal(size=(6, 60)))
    words = np.stack([1 + g.choice(60, 15, p=rate[k] / rate[k].sum()) for k in z])
    words[:500] = words[:500][g.permutation(500) if shuffled else np.arange(500)]
    return Views.of(primary="x", kinds={"t": "text"}, x=x, t=words), np.where(np.arange(500) < 30, z[:500], -1), z[500:]


def test_pairs_help_and_shuffled_pairs_help_less() -> None:
    schedule, scores = Schedule(updates=150), []
    for seed in range(2):
        line = []
        for name, shuffled in ((ID, False), (ID, True), ("unimodal", False)):
            X, y, truth = topics(seed, shuffled)
            more = {} if name == "unimodal" else {"units": 32}
            method = create(name, schedule=schedule, seed=seed, **more).fit(X[:500], y)
            line.append(method.score(X[500:], truth))
        scores.append(line)
    real, shuffled, baseline = np.mean(scores, 0)
    assert real > baseline + 0.03
    assert real > shuffled + 0.01  # what is left there comes from rows without a label


def mixture(primary: str = "x") -> tuple[Views, NDArray[Any]]:
    """A modality of every kind; some rows lack x's companion, some texts are empty, the last quarter has no label."""
    g = np.random.default_rng(0)
    y = g.integers(0, 2, 40)
    X = Views.of(
        primary=primary,
        kinds={"words": "text", "points": "set"},
        x=g.normal(size=(40, 4)) + y[:, None],
        motion=g.normal(size=(40, 11, 3)) + y[:, None, None],
        picture=g.uniform(size=(40, 2, 8, 9)),
        film=g.uniform(size=(40, 9, 1, 40, 9)),
        words=g.integers(1, 30, (40, 5)) * (np.arange(40) % 5 > 0)[:, None],
        points=g.normal(size=(40, 6, 2)),
    )
    absent = np.arange(40) % 4 == 1
    for name in set(X.names) - {primary, "words"}:
        X = X.replace(name, X[name], present=~absent)
    return X.replace("motion", X["motion"], lengths=g.integers(2, 12, 40)), np.where(np.arange(40) < 30, y, -1)


@pytest.mark.parametrize("primary", ["x", "motion", "picture", "film", "words", "points"])
def test_every_kind_is_learned_from_and_generated(primary: str) -> None:
    X, y = mixture(primary)
    method = Boltzmann(units=6, width=8, layers=2, binary=["picture"], schedule=Schedule(updates=4)).fit(X, y)
    answer, others = method.predict_proba(X), [name for name in X.names if name != primary]
    made = {name: method.generate(X, name) for name in others}
    poisoned = X
    for name in others:
        assert made[name].shape == X[name].shape
        assert np.isfinite(made[name]).all()
        poisoned = poisoned.replace(name, np.full_like(X[name], np.nan))
    for other in (X.only([primary]), poisoned):
        np.testing.assert_array_equal(method.predict_proba(other), answer)
        np.testing.assert_array_equal(method.generate(other, others[0]), made[others[0]])
    if primary != "picture":
        assert made["picture"].min() > 0
        assert made["picture"].max() < 1
    if primary != "words":
        assert set(np.unique(made["words"])) <= set(range(30))
        assert all(len(set(row[row > 0])) == 4 for row in made["words"])  # the mean number of words


def test_visible_units_go_back_to_the_modality() -> None:
    g = torch.Generator().manual_seed(0)
    for kind, shape in (("vector", (5,)), ("image", (2, 4, 6))):
        part, values = (
            Visible(ModalitySpec("m", kind, shape), binary=False),
            3 * torch.randn(9, *shape, generator=g) + 2,
        )
        part.fit_statistics(values, None)
        torch.testing.assert_close(part.back(part(values, None)), values)
    part = Visible(ModalitySpec("m", "image", (1, 64, 32)), binary=True)
    coarse = torch.rand(3, 1, 32, 32, generator=g)  # pairs of pixels, one above the other
    back = part.back(coarse.flatten(1))
    assert back.min() >= 0
    assert back.max() <= 1
    even = torch.full((3, 1, 32, 32), 0.3)
    torch.testing.assert_close(part.back(even.flatten(1)), even.repeat_interleave(2, 2), atol=1e-4, rtol=0)
    part = Visible(ModalitySpec("m", "series", (12, 1), lengths=True), binary=False)
    part.duration.fill_(8.0)  # rows are 8 steps long on average: one for each stretch
    found = part.back(torch.arange(8.0)[None])[0, :, 0]
    torch.testing.assert_close(found, torch.arange(12.0).clamp_max(7), atol=1e-3, rtol=0)
    part = Visible(ModalitySpec("m", "set", (3, 2), lengths=True), binary=False)
    assert part.back(torch.tensor([[1.0, 2.0, 8.0, 9.0]])).tolist() == [[[1, 2], [1, 2], [1, 2]]]
    part = Visible(ModalitySpec("m", "text", (4,), lengths=True, vocabulary=5), binary=False)
    part.fit_statistics(torch.tensor([[1, 1, 3, 0], [4, 0, 0, 0]]), None)
    assert part(torch.tensor([[1, 1, 3, 0]]), None).tolist() == [[0, 2, 0, 1, 0]]
    assert part.back(torch.tensor([[9.0, 2.0, 0.1, 3.0, 0.0]])).tolist() == [[3, 1, 0, 0]]


def test_with_weight_0_it_is_unimodal_and_with_1_the_machine_alone() -> None:
    X, y = mixture()
    ours, alone = (
        create(name, **more, schedule=QUICK, seed=4).fit(X, y) for name, more in ((ID, {"weight": 0}), ("unimodal", {}))
    )
    np.testing.assert_array_equal(ours.predict_proba(X), alone.predict_proba(X))
    assert ours.history_ == alone.history_
    assert set(ours.net_.state_dict()) == set(alone.net_.state_dict())
    with pytest.raises(ConfigError, match="'weight' of a Boltzmann that generates must be above 0"):
        ours.generate(X, "words")
    machine = Boltzmann(weight=1, units=6, schedule=QUICK).fit(X, y)
    assert not any(name.startswith(("encoders", "head")) for name, _ in machine.net_.named_parameters())


def test_answers_are_the_two_heads_mixed() -> None:
    X, y = mixture()
    method = Boltzmann(weight=0.3, units=6, schedule=QUICK).fit(X, y)
    net: Any = method.net_
    with torch.no_grad():
        batch = to_batch(X.only(["x"]))
        units = net.machine.mean_field({"x": net.given(batch, "x")}, {"x": None}, 3).hidden()
        mixed = 0.7 * net.head(net.encode(batch, "x")) + 0.3 * net.machine_head(
            (units - net.unit_mean) * net.unit_scale
        )
        everything = net.machine.mean_field({"x": net.given(to_batch(X), "x")}, {"x": None}, 3).hidden()
    np.testing.assert_allclose(method.predict_proba(X), mixed.softmax(1), atol=1e-5)
    torch.testing.assert_close(net.unit_mean, everything.mean(0), atol=1e-5, rtol=0)
    joint = net.machine.mean_field({"x": net.given(batch, "x")}, {"x": None}, 3).joint
    np.testing.assert_allclose(method.embed(X)["x"], joint.detach(), atol=1e-6)


def test_rows_teach_what_they_have() -> None:
    X, y = mixture()
    X = X.only(["x", "motion", "words"])
    method = Boltzmann(units=6, schedule=QUICK).fit(X, y)
    net: Any = method.net_
    batch, alone = to_batch(X, y), X.without("motion").without("words")
    assert method._pairs(to_batch(alone)).rows.tolist() == []
    assert method._machine_losses(net, to_batch(alone))["machine"].item() == 0
    visible, fixed = method._known(net, batch)
    assert fixed["x"] is None
    assert fixed["motion"].tolist() == X.present["motion"].tolist()  # type: ignore[union-attr]
    assert fixed["words"].tolist() == (np.arange(40) % 5 > 0).tolist()  # type: ignore[union-attr]
    garbage = {"motion": visible["motion"].where(fixed["motion"][:, None], torch.tensor(99.0))}  # type: ignore[index]
    one, other = (net.machine.mean_field({**visible, **more}, fixed, 2) for more in ({}, garbage))
    assert torch.equal(one.joint, other.joint)
    here = X.present["motion"]
    assert torch.equal(one.towers["motion"][0][here], visible["motion"][here])
    assert not torch.equal(one.towers["motion"][0][~here], visible["motion"][~here])
    torch.manual_seed(0)
    first = method._layer_losses(net, batch, 1)["joint layer"]
    torch.manual_seed(0)
    second = method._layer_losses(net, batch.complete(X.names), 1)["joint layer"]
    assert torch.equal(first, second)
    torch.manual_seed(0)
    third = method._layer_losses(net, batch.take(fixed["words"]), 1)["joint layer"]  # a text without words is absent
    assert torch.equal(first, third)


def test_what_can_not_be_is_refused() -> None:
    X, y = mixture()
    for binary, error, words in (
        ("x", ConfigError, "must be a list of modalities"),
        (["pictures"], ConfigError, "Did you mean 'picture'"),
        (["words"], ConfigError, "binary modality 'words' must be numbers"),
        (["x"], DataError, r"binary modality 'x' must be in \[0, 1\]"),
    ):
        with pytest.raises(error, match=words):
            Boltzmann(binary=binary, schedule=QUICK).fit(X, y)
    with pytest.raises(DataError, match="no modality 'sound' to generate"):
        Boltzmann(units=4, schedule=Schedule(updates=1)).fit(X, y).generate(X, "sound")
