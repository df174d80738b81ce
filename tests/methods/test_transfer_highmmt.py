"""HighMMT: one perceiver for all modalities, pairs and heads by hand, rows that lack modalities, and how far apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

from transference.core.errors import ConfigError, DataError
from transference.core.spec import Task
from transference.core.views import Views
from transference.data.dataset import Dataset
from transference.data.loader import to_batch
from transference.nn.heterogeneity import usable_information
from transference.nn.perceiver import thinned
from transference.train.schedule import Schedule
from transference.transfer.highmmt import HighMMT, _Subject

torch.set_num_threads(1)

QUICK = Schedule(updates=4, batch_size=16, device="cpu")
NAMES = ("a", "b", "c")


def rows(n: int = 24, modalities: int = 3, seed: int = 0) -> tuple[Views, NDArray[Any]]:
    """A vector, a series and a text that show the label."""
    g = np.random.default_rng(seed)
    y = np.arange(n) % 2
    sign = 2.0 * y[:, None] - 1
    arrays: dict[str, Any] = {
        "a": sign + g.normal(size=(n, 3)),
        "b": sign[:, :, None] + g.normal(size=(n, 5, 2)),
        "c": 1 + y[:, None] + 2 * g.integers(0, 2, (n, 4)),
    }
    return Views.of(primary="a", kinds={"c": "text"}, **{name: arrays[name] for name in NAMES[:modalities]}), y


def with_holes(X: Views) -> Views:
    """Every subset of the modalities but the empty one, in turn."""
    number = 1 + np.arange(len(X)) % 7
    for k, name in enumerate(NAMES):
        here = number >> k & 1 == 1
        X = X.replace(name, X[name] * here.reshape(-1, *[1] * (X[name].ndim - 1)), present=here)
    return X


def test_one_perceiver_unless_groups_say_otherwise() -> None:
    X, y = rows()
    net: Any = HighMMT(width=8, schedule=QUICK).fit(X, y).net_
    assert net.encoder_of("a") is net.encoder_of("b") is net.encoder_of("c")
    model = HighMMT(width=8, groups={"b": 3, "c": 3}, schedule=QUICK).fit(X, y)
    net = model.net_
    assert net.encoder_of("b") is net.encoder_of("c") is not net.encoder_of("a")
    assert len(net.encoders) == 2
    assert model.groups_ == {"a": 0, "b": 3, "c": 3}
    again: Any = HighMMT(width=8).restore(model.spec_, net.state_dict())
    assert again.groups_ == model.groups_
    assert again.net_.encoder_of("b") is again.net_.encoder_of("c") is not again.net_.encoder_of("a")
    np.testing.assert_array_equal(again.decide(X), model.decide(X))


def reference(net: Any, batch: Any, i: int) -> tuple[dict[str, Tensor], Tensor | None]:
    """What each modality of a row says alone, and what all say together, from this row alone."""
    row = batch.take(torch.tensor([i]))
    there = [name for name in net.names if bool(row.present[name])]
    latents = {name: net.encode(row, name)[0] for name in there}
    alone = {name: net.alone[name](latents[name][-1]) for name in there}
    if len(there) < 2:
        return alone, None
    pairs = []
    for one in net.names:
        for other in net.names:
            if one != other and one in there and other in there:
                pairs.append(net.crossing(latents[one][None], latents[other][None])[0, -1])
            elif one != other:
                pairs.append(torch.zeros(net.width))
    return alone, net.together(torch.cat(pairs))


def test_answers_row_by_row_of_every_subset() -> None:
    X, y = rows()
    X = with_holes(X)
    model = HighMMT(width=8, schedule=QUICK).fit(X, y)
    net: Any = model.net_
    batch = to_batch(X)
    with torch.no_grad():
        found = model.scores(net, batch)
        for i in range(len(X)):
            alone, together = reference(net, batch, i)
            expected = next(iter(alone.values())) if together is None else together
            torch.testing.assert_close(found[i], expected, rtol=1e-4, atol=1e-5)
    for names in (["b"], ["a", "c"]):
        whole = rows()[0]
        lacking = whole
        for name in set(NAMES) - set(names):
            lacking = lacking.without(name)
        answers = model.predict_proba(whole.only(names, primary=names[0]))
        np.testing.assert_allclose(answers, model.predict_proba(lacking), rtol=1e-5, atol=1e-6)


def test_losses_row_by_row() -> None:
    X, y = rows(21, seed=2)
    X = with_holes(X)
    target = np.where(np.arange(21) % 5 == 4, -1, y)
    model = HighMMT(width=8, schedule=QUICK).fit(X, target)
    batch = to_batch(X, target)
    torch.manual_seed(0)
    net: Any = model.net_
    found = model.losses(net, batch)
    torch.manual_seed(0)
    seen = to_batch(X).replace({}, thinned({name: batch.present[name] for name in NAMES}))
    costs: dict[str, list[float]] = {"task": [], "task b": [], "task c": [], "task together": []}
    with torch.no_grad():
        for i in np.flatnonzero(target >= 0):
            for name, scores in reference(net, batch, int(i))[0].items():
                costs["task" if name == "a" else f"task {name}"].append(-scores.log_softmax(0)[target[i]].item())
            together = reference(net, seen, int(i))[1]
            if together is not None:
                costs["task together"].append(-together.log_softmax(0)[target[i]].item())
    assert {name: value.item() for name, value in found.items()} == {
        name: pytest.approx(np.mean(values), rel=1e-4) for name, values in costs.items()
    }


def test_information_is_one_bit_for_a_label_that_is_shown_and_none_for_noise() -> None:
    g, y, null = np.random.default_rng(0), np.arange(400) % 2, np.array([[0.5, 0.5]])
    schedule = Schedule(updates=60, batch_size=64, learning_rate=1e-2)
    shown, noise = 2.0 * y[:, None] - 1 + np.zeros((400, 3)), g.normal(size=(400, 3))
    for x, low, high in ((shown, 0.98, 1.0), (noise, -0.3, 0.05)):
        X = Views.of(primary="x", x=x)
        model = HighMMT(width=8, schedule=schedule).fit(X[:200], y[:200])
        assert low < usable_information(null, model.predict_proba(X[200:]), y[200:]) < high


def dataset(X: Views, y: NDArray[Any]) -> Dataset:
    return Dataset("made", X, y.astype(str).astype(object), "classification", np.arange(len(X)).astype(str))


def planted(seed: int, ways: dict[str, int], n: int = 160) -> tuple[Views, NDArray[Any]]:
    """Four classes, written in one of two ways in each modality, with noise of its own."""
    g = np.random.default_rng(seed)
    y = np.arange(n) % 4
    codes = [3 * g.normal(size=(4, 12)) / 12**0.5 for _ in range(2)]
    arrays: Any = {name: codes[way][y] + 0.3 * g.normal(size=(n, 12)) for name, way in ways.items()}
    return Views.of(primary=next(iter(ways)), **arrays), y


MEASURED = Schedule(updates=40, batch_size=32, learning_rate=4e-3)


def test_planted_groups_are_found() -> None:
    for seed in range(2):
        X, y = planted(seed, {"a": 0, "b": 1, "c": 0, "d": 1})
        model = HighMMT(groups="auto", apart=0.1, width=16, schedule=MEASURED, seed=seed).fit(X, y)
        names, bits = model.heterogeneity_["names"], model.heterogeneity_["bits"]
        assert names == ["a", "b", "c", "d"]
        assert adjusted_rand_score([0, 1, 0, 1], [model.groups_[name] for name in names]) == 1.0
        np.testing.assert_array_equal(bits, bits.T)
        assert not np.diagonal(bits).any()
        apart = np.array([[one != other for other in "0101"] for one in "0101"])
        assert bits[~apart].max() < 0.5 * bits[apart].min()
        again: Any = HighMMT(width=16).restore(model.spec_, model.net_.state_dict())
        assert len(again.net_.encoders) == 2
        np.testing.assert_array_equal(again.decide(X), model.decide(X))


def test_what_is_lost_is_measured_on_rows_that_trained_nothing() -> None:
    X, y = rows(24)
    target = np.where(np.arange(24) % 6 == 5, -1, y)
    X = X.replace("b", X["b"], present=np.arange(24) % 8 != 2)
    subject = _Subject(X, target, Task("classification", ("p", "q"), 2), "b", 0)
    assert sorted([*subject.train, *subject.test]) == [k for k in range(24) if k % 6 != 5 and k % 8 != 2]
    for half in (subject.train, subject.test):
        assert abs(np.bincount(target[half])[0] - np.bincount(target[half])[1]) <= 1
        assert len(half) in (8, 9)


def test_distances_are_measured_across_sets_and_tasks_too() -> None:
    X, y = planted(0, {"a": 0})
    other = dataset(planted(0, {"a": 1, "b": 0})[0], np.array([0, 2, 1, 1])[y])
    model = HighMMT(others={"o": other}, groups="auto", width=16, schedule=MEASURED).fit(X, y)
    assert model.heterogeneity_["names"] == ["a", "o/a", "o/b"]
    assert set(model.groups_) == {"a", "o/a", "o/b"}
    bits = model.heterogeneity_["bits"]
    assert bits[0, 2] < 0.6 * min(bits[0, 1], bits[1, 2])  # written in the same way


def scarce(seed: int, n: int = 800) -> tuple[Views, NDArray[Any], NDArray[Any]]:
    """Two factors among twenty louder ones: rows, a label of one direction, four classes of both."""
    world, g = np.random.default_rng(99), np.random.default_rng(seed)
    mixing, loud = world.normal(size=(2, 40)), world.normal(size=(20, 40))
    factors = g.normal(size=(n, 2))
    x = factors @ mixing + 0.67 * g.normal(size=(n, 20)) @ loud + 0.3 * g.normal(size=(n, 40))
    y = (factors @ g.normal(size=2) > 0).astype(int)
    return Views.of(primary="x", x=x), y, 2 * (factors[:, 0] > 0) + (factors[:, 1] > 0)


def test_other_tasks_help_where_labels_are_few_and_their_labels_shuffled_do_not() -> None:
    gains: dict[str, list[float]] = {"joint": [], "shuffled": []}
    schedule = Schedule(updates=100, batch_size=64, learning_rate=5e-3)
    for seed in range(2):
        X, y, _ = scarce(seed)
        more, _, four = scarce(seed + 50)
        shuffled = np.random.default_rng(seed).permutation(four)
        few = X[:16], y[:16]
        alone = HighMMT(width=16, schedule=schedule, seed=seed).fit(*few).score(X[100:], y[100:])
        for name, labels in (("joint", four), ("shuffled", shuffled)):
            model = HighMMT(others={"o": dataset(more, labels)}, width=16, schedule=schedule, seed=seed).fit(*few)
            gains[name].append(model.score(X[100:], y[100:]) - alone)
    assert np.mean(gains["joint"]) > 0.1
    assert np.mean(gains["shuffled"]) < 0.05


def test_another_set_of_weight_0_changes_no_bit_and_has_its_own_names() -> None:
    X, y = rows(modalities=2)
    other = Views.of(primary="b", b=np.random.default_rng(1).normal(size=(12, 3)), a=np.ones((12, 7, 2)))
    others = {"o": dataset(other, np.arange(12) % 3)}
    alone = HighMMT(width=16, schedule=QUICK).fit(X, y)
    joint, same = (
        HighMMT(others=others, weights={"o": weight}, width=16, schedule=QUICK).fit(X, y) for weight in (1.0, 0.0)
    )
    np.testing.assert_array_equal(same.predict_proba(X), alone.predict_proba(X))
    assert not np.array_equal(joint.predict_proba(X), alone.predict_proba(X))
    assert set(joint.others_["o"].predict(other)) <= {"0", "1", "2"}
    names = ["task", "task a", "task together"]
    assert set(joint.history_) == {"update", "task", "task b", "task together", *[f"o: {name}" for name in names]}
    assert joint.groups_ == dict.fromkeys(["a", "b", "o/a", "o/b"], 0)


def test_all_sets_share_perceivers_by_group() -> None:
    X, y = rows(modalities=1)
    others = {"o": dataset(rows(modalities=2, seed=4)[0], y), "p": dataset(rows(modalities=2, seed=5)[0], y)}
    seen: list[bool] = []

    class Watched(HighMMT):
        def losses(self, net: Any, batch: Any) -> dict[str, Tensor]:
            o, p = net.others["o"], net.others["p"]
            seen.append(o.encoder_of("a") is net.encoder_of("a") is p.encoder_of("b"))
            seen.append(o.encoder_of("b") is p.encoder_of("a") is not net.encoder_of("a"))
            seen.append(o.crossing is p.crossing and o.tokens["a"] is not net.tokens["a"])
            return super().losses(net, batch)

    model = Watched(others=others, groups={"o/b": 1, "p/a": 1}, width=8, schedule=QUICK).fit(X, y)
    assert len(seen) == 12
    assert all(seen)
    net: Any = model.net_
    assert list(net.encoders) == ["0"]
    assert not hasattr(net, "crossing")
    assert model.others_["p"].groups_ == {"a": 1, "b": 0}
    assert model.others_["p"].groups == {"a": 1}


def test_what_it_is_given_is_checked() -> None:
    X, y = rows()
    for parameters, words in (
        ({"groups": "all"}, "The 'groups' parameter of HighMMT must be None, 'auto', or a mapping"),
        ({"groups": {"a": 0.5}}, "The 'groups' parameter of HighMMT must be None, 'auto', or a mapping"),
        ({"groups": {"bb": 1}}, "'groups' names 'bb', which is no modality. Did you mean 'b'?"),
        ({"weights": {"o": 1.0}}, "'weights' names 'o', no other set."),
        (
            {"others": {"o": {"set": "digits"}}, "weights": {"o": -1}},
            "The weight of 'o' must be a number of at least 0",
        ),
        ({"others": ["mfeat"]}, "The 'others' parameter of HighMMT must be a mapping"),
    ):
        with pytest.raises(ConfigError) as raised:
            HighMMT(**parameters).fit(X, y)
        assert words in str(raised.value)
    lacking = np.where(np.arange(24) < 20, y, -1)
    with pytest.raises(DataError, match="No labelled row has 'b', so its head cannot learn"):
        HighMMT().fit(X.replace("b", X["b"], present=np.arange(24) >= 20), lacking)
