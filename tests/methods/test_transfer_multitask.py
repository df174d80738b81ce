"""Multitask: the rule of stop and go, the trunk's gradient from several tasks, and when other tasks help."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from transference.core.errors import ConfigError
from transference.core.registry import create
from transference.core.views import Views
from transference.data.dataset import Dataset
from transference.data.loader import to_batch
from transference.train.others import read_others
from transference.train.schedule import Schedule
from transference.transfer.multitask import Multitask, StopAndGo

torch.set_num_threads(1)

QUICK = Schedule(updates=8, batch_size=16, checks=4, device="cpu")


def rows(n: int = 24, seed: int = 0) -> tuple[Views, NDArray[Any]]:
    g = np.random.default_rng(seed)
    y = np.arange(n) % 2
    sign = 2.0 * y[:, None] - 1
    X = Views.of(primary="x", x=sign + g.normal(size=(n, 4)), z=sign[:, :, None] + g.normal(size=(n, 5, 2)))
    return X, y


def dataset(X: Views, y: NDArray[Any]) -> Dataset:
    labels = y if y.dtype.kind == "f" else y.astype(str).astype(object)
    kind: Any = "regression" if y.dtype.kind == "f" else "classification"
    return Dataset("made", X, labels, kind, np.arange(len(X)).astype(str))


def others() -> dict[str, Dataset]:
    """Another x, of another size, beside a text; and values."""
    g = np.random.default_rng(7)
    words = g.integers(1, 5, (20, 3))
    wide = Views.of(primary="x", kinds={"words": "text"}, x=g.normal(size=(20, 9)), words=words)
    values = Views.of(primary="v", v=g.normal(size=(15, 2)))
    return {"wide": dataset(wide, np.arange(20) % 3), "values": dataset(values, values["v"][:, 0] * 10 + 3)}


def test_the_trace_of_stop_and_go() -> None:
    scores = [50, 55, 58, 58, 58, 58, 57.9, 57.6, 57.0, 58.5, 58.5, 58.5, 58.5]
    rule = StopAndGo()
    assert "".join("T" if rule.told(score) else "F" for score in scores) == "FFFFTTTTFFFTT"


def test_the_rule_by_hand() -> None:
    def flags(scores: list[float], **parameters: Any) -> str:
        rule = StopAndGo(**parameters)
        return "".join("T" if rule.told(score) else "F" for score in scores)

    assert flags([1, 1.0005, 1.0009]) == "FFT"  # a thousandth better is not better
    assert flags([1, 1.0005, 1.002, 1.002]) == "FFFF"  # better than the best, not than the last
    assert flags([1, 1, 1, 2, 3]) == "FFTTT"  # better does not let it go
    assert flags([1, 1, 1, 0.996, 0.994]) == "FFTTF"  # half a per cent below the best does
    assert flags([1, 1, 1, 0.9]) == "FFTF"
    assert flags([1, 1, 1, 1, 1, 1], patience=3) == "FFFFTT"
    assert flags([1, 1, 1, 1, 0.9, 0.9], cooldown=0) == "FFTTTF"  # its patience ends again at the fifth


def test_identical_tasks_pull_the_trunk_as_their_sum_does() -> None:
    X, y = rows()
    model = Multitask(width=8, stop_and_go=False, schedule=Schedule(updates=2, batch_size=64, device="cpu")).fit(X, y)
    net: Any = model.net_
    batch = to_batch(X, y)

    def pull(losses: dict[str, Tensor]) -> dict[str, Tensor]:
        net.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        return {name: parameter.grad.clone() for name, parameter in net.trunk.named_parameters()}

    single = pull(model.losses(net, batch))
    model._others = read_others({"o": dataset(X, y), "p": dataset(X, y)}, model.card.tasks, 0)
    parts = {}
    for name in ("o", "p"):
        parts[name] = model.build(model.spec_)
        parts[name].load_state_dict({k: v for k, v in net.state_dict().items() if k != "target_scale"})
        model.share(net, parts[name])  # type: ignore[arg-type]
    net.others = torch.nn.ModuleDict(parts)
    losses = model.losses(net, batch)
    assert set(losses) == {*("task", "task together", "o: task", "o: task together", "p: task", "p: task together")}
    for name, gradient in pull(losses).items():
        torch.testing.assert_close(gradient, 3 * single[name], rtol=1e-3, atol=1e-5)


def attended(net: Any, tokens: Tensor) -> Tensor:
    """What the trunk makes of the first of (tokens, width), all of which are real."""
    x = tokens[None]
    for block in net.trunk.transformer.blocks:
        x = block(x, torch.ones(x.shape[:2], dtype=torch.bool))
    return net.trunk.norm(x[0, 0])


def test_both_tasks_row_by_row() -> None:
    X, y = rows()
    here = np.arange(24) % 3 != 1
    X = X.replace("z", X["z"] * here[:, None, None], present=here)
    model = Multitask(width=8, weight=0.5, depth=1, schedule=QUICK).fit(X, y)
    net: Any = model.net_
    batch = to_batch(X, y)
    costs: dict[str, list[float]] = {"task": [], "task together": []}
    with torch.no_grad():
        for i in range(24):
            row = batch.take(torch.tensor([i]))
            tokens = {
                name: net.trunk.entry(part(row.views[name], None)[0], part.place, part.row.value)[0]
                for name, part in net.tokens.items()
                if row.present[name]
            }
            alone = attended(net, torch.cat([net.asks_alone.value[None], tokens["x"]]))
            score = net.head(net.encode(row, "x")[0] + 0.5 * net.mixed(alone))
            torch.testing.assert_close(model.scores(net, row)[0], score, rtol=1e-4, atol=1e-5)
            together = net.together(attended(net, torch.cat([net.asks_together.value[None], *tokens.values()])))
            costs["task"].append(-score.log_softmax(0)[y[i]].item())
            costs["task together"].append(-0.5 * together.log_softmax(0)[y[i]].item())
    assert {name: value.item() for name, value in model.losses(net, batch).items()} == {
        name: pytest.approx(np.mean(values), rel=1e-4) for name, values in costs.items()
    }


def test_weight_0_is_unimodal_bit_for_bit_and_reads_no_other_set() -> None:
    X, y = rows()
    same = Multitask(others={"o": {"set": "no such set"}}, weight=0.0, schedule=QUICK, seed=4).fit(X, y)
    alone = create("unimodal", schedule=QUICK, seed=4).fit(X, y)
    np.testing.assert_array_equal(same.predict_proba(X), alone.predict_proba(X))
    assert same.history_ == alone.history_
    assert (same.stops_, same.others_) == ([], {})


def test_sets_of_other_names_sizes_and_labels_share_a_trunk() -> None:
    X, y = rows()
    model = Multitask(others=others(), width=8, schedule=QUICK).fit(X, y)
    wide, values = model.others_["wide"], model.others_["values"]
    assert set(wide.predict(others()["wide"].views)) <= {"0", "1", "2"}
    assert values.predict(others()["values"].views).mean() == pytest.approx(3, abs=8)
    for name, value in model.net_.trunk.state_dict().items():  # type: ignore[union-attr]
        for other in (wide, values):
            there = other.net_.trunk.state_dict()[name]  # type: ignore[union-attr]
            size = min(len(value), len(there))  # the map of numbers is as large as the set needs
            assert torch.equal(there[:size], value[:size])
    tasks = ["task together", "wide: task", "wide: task together", "values: task"]
    assert set(model.history_) == {"update", "task", *tasks, *[f"stopped: {name}" for name in tasks]}


class Scripted(Multitask):
    """Scores are told, and what is trained at each update is noted."""

    def _score(self, net: Any, key: str) -> float:
        told = {"wide: task": [1.0, 1, 1, 1, 0.9, 1, 1, 1], "values: task": [1.0, 2, 3, 4, 5, 6, 7, 8]}
        return told.get(key, [1.0] * 8)[self._done // 2 - 1]

    def losses(self, net: Any, batch: Any) -> dict[str, Tensor]:
        found = super().losses(net, batch)
        self.noted_ = [*getattr(self, "noted_", []), {name for name in found if "stopped" not in name}]
        return found


def test_a_stopped_task_trains_now_and_then_and_the_history_says_so() -> None:
    X, y = rows()
    schedule = Schedule(updates=16, batch_size=16, checks=8, device="cpu")
    model = Scripted(others=others(), width=8, gap=3, schedule=schedule).fit(X, y)
    # stopped by check 3 (after update 6), goes by check 5, stopped again by check 6
    trained = {name: [name in each for each in model.noted_] for name in ("task", "wide: task", "values: task")}
    assert all(trained["task"])
    assert all(trained["values: task"])
    stopped = {7, 8, 9, 10, 13, 14, 15, 16}
    expected = [update not in stopped or update % 3 == 0 for update in range(1, 17)]
    assert trained["wide: task"] == expected
    assert [line for line in model.stops_ if line["task"] == "wide: task"] == [
        {"update": 6, "task": "wide: task", "stopped": True},
        {"update": 10, "task": "wide: task", "stopped": False},
        {"update": 12, "task": "wide: task", "stopped": True},
    ]
    assert not [line for line in model.stops_ if line["task"] == "values: task"]
    assert model.history_["stopped: wide: task"] == [0, 0, 0, 1, 1, 0, 1, 1]
    assert model.history_["stopped: values: task"] == [0] * 8
    assert np.isnan(model.history_["wide: task"]).tolist() == [False] * 3 + [True, False, False, True, False]
    free = Scripted(others=others(), width=8, stop_and_go=False, schedule=schedule).fit(X, y)
    assert all("wide: task" in each for each in free.noted_)
    assert free.stops_ == []


def test_a_score_is_the_mean_probability_of_rows_that_do_not_train() -> None:
    X, y = rows()
    seen: list[Any] = []

    class Watched(Multitask):
        def _check(self, net: Any, done: int) -> None:
            held, trained = self._held_out["wide"], self._others["wide"].rows
            seen.append((held.rows.tolist(), trained.rows.tolist()))
            with torch.no_grad():
                scores = net.others["wide"].together(
                    net.others["wide"].read(held, ("x", "words"), net.others["wide"].asks_together.value)
                )
                mean = scores.log_softmax(1)[torch.arange(len(held)), held.target].mean().exp()
            seen.append(self._score(net, "wide: task together") == pytest.approx(mean.item(), rel=1e-4))
            super()._check(net, done)

    Watched(others=others(), width=8, schedule=QUICK).fit(X, y)
    held, trained = seen[0]
    assert (len(held), len(trained), len({*held, *trained})) == (4, 16, 20)
    assert all(seen[1::2])


def scarce(seed: int, n: int = 800) -> tuple[Views, NDArray[Any], NDArray[Any]]:
    """Two factors among twenty louder ones: rows, a label of one direction, four classes of both."""
    world, g = np.random.default_rng(99), np.random.default_rng(seed)
    mixing, loud = world.normal(size=(2, 40)), world.normal(size=(20, 40))
    factors = g.normal(size=(n, 2))
    x = factors @ mixing + g.normal(size=(n, 20)) @ loud + 0.3 * g.normal(size=(n, 40))
    y = (factors @ g.normal(size=2) > 0).astype(int)
    return Views.of(primary="x", x=x), y, 2 * (factors[:, 0] > 0) + (factors[:, 1] > 0)


def test_a_related_task_helps_where_labels_are_few_and_its_labels_shuffled_do_not() -> None:
    gains: dict[str, list[float]] = {"joint": [], "shuffled": []}
    schedule = Schedule(updates=150, batch_size=64, learning_rate=5e-3)
    for seed in range(4):
        X, y, _ = scarce(seed)
        more, _, four = scarce(seed + 50)
        shuffled = np.random.default_rng(seed).permutation(four)
        few = X[:30], y[:30]
        alone = create("unimodal", width=16, schedule=schedule, seed=seed).fit(*few).score(X[100:], y[100:])
        for name, labels in (("joint", four), ("shuffled", shuffled)):
            model = Multitask(others={"o": dataset(more, labels)}, width=16, schedule=schedule, seed=seed).fit(*few)
            gains[name].append(model.score(X[100:], y[100:]) - alone)
    assert np.mean(gains["joint"]) > 0.03
    assert np.mean(gains["shuffled"]) < 0.03
    assert np.mean(gains["joint"]) - np.mean(gains["shuffled"]) > 0.02


def test_what_it_is_given_is_checked() -> None:
    X, y = rows()
    with pytest.raises(ConfigError, match="The 'gap' parameter of Multitask must be an integer of at least 1"):
        Multitask(gap=0).fit(X, y)
    with pytest.raises(ConfigError, match="'o' in 'others' must be a Dataset or"):
        Multitask(others={"o": "mfeat"}).fit(X, y)
