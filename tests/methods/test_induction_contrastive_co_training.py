"""Contrastive co-training: who is mined and by whom, what the loss is, and what each turn moves."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from two_factors import two_factors

from transference.core.errors import ConfigError
from transference.core.registry import create
from transference.core.spec import ModalitySpec
from transference.core.views import Views
from transference.data.loader import to_batch
from transference.induction import contrastive_co_training as module
from transference.induction.contrastive_co_training import (
    ContrastiveCoTraining,
    changed,
    contrast,
    mine,
    positives,
    similarity,
)
from transference.nn.encoders import VectorEncoder
from transference.train.schedule import Schedule

torch.set_num_threads(1)
QUICK = Schedule(updates=20, batch_size=16, device="cpu")


class Noisy(VectorEncoder):
    """With batch statistics and dropout."""

    def __init__(self, modality: ModalitySpec, width: int) -> None:
        super().__init__(modality, width)
        self.norm, self.drop = nn.BatchNorm1d(width), nn.Dropout(0.5)

    def body(self, x: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
        return self.drop(self.norm(super().body(x, lengths)))


def data(seed: int = 0, n: int = 40) -> tuple[Views, Any]:
    """Vectors in three modalities, of which `b` lacks some rows and `c` others; the last quarter has no label."""
    g = np.random.default_rng(seed)
    y = g.integers(0, 2, n)
    X = Views.of(primary="a", a=g.normal(size=(n, 4)) + y[:, None], b=g.normal(size=(n, 3)), c=g.normal(size=(n, 5)))
    for name, k in (("b", 4), ("c", 5)):
        there = np.arange(n) % k != 1
        X = X.replace(name, X[name] * there[:, None], present=there)
    return X, np.where(np.arange(n) < 3 * n // 4, y, -1)


def confounded(seed: int, n: int = 300) -> tuple[Views, Any]:
    """In x a background of twelve numbers is louder than the class; z holds the class and a little noise."""
    g = np.random.default_rng(seed)
    y = np.arange(n) % 5
    background = g.normal(size=(n, 12)) @ g.normal(size=(12, 20))
    x = background + 1.5 * g.normal(size=(5, 20))[y] + 0.5 * g.normal(size=(n, 20))
    z = g.normal(size=(5, 10))[y] + 0.4 * g.normal(size=(n, 10))
    return Views.of(primary="x", x=x, z=z), y


def unit(n: int, seed: int, *shape: int) -> torch.Tensor:
    return F.normalize(torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed)).double(), dim=-1)


def neighbour(found: np.ndarray, y: Any) -> float:
    """Share of the rows whose nearest other row is of their class."""
    found = found / np.linalg.norm(found, axis=1, keepdims=True)
    close = found @ found.T
    np.fill_diagonal(close, -np.inf)
    return float(np.mean(y[close.argmax(1)] == y))


def test_the_loss_by_hand() -> None:
    """Cosines 1, 0 and -1 with the own key and the queue, T = 1/2: the shares of e^2, 1 and e^-2."""
    query, queue = torch.tensor([[1.0, 0.0]]).double(), torch.tensor([[0.0, 1.0], [-1.0, 0.0]]).double()
    total = math.exp(2) + 1 + math.exp(-2)
    for positive, share in (([1, 0, 0], math.exp(2)), ([1, 0, 1], math.exp(2) + math.exp(-2)), ([0, 1, 0], 1.0)):
        found = contrast(query, query, queue, torch.tensor([positive]).bool(), 0.5)
        assert found.item() == pytest.approx(-math.log(share / total), rel=1e-6)


def test_with_nothing_mined_it_is_info_nce() -> None:
    query, key, queue = unit(6, 0, 4), unit(6, 1, 4), unit(9, 2, 4)
    similar, own = unit(6, 3, 9), torch.zeros(6, 9, dtype=torch.bool)  # no row is in the queue
    positive = positives(own, mine(similar, own, 0), True)
    logits = torch.cat([(query * key).sum(1, keepdim=True), query @ queue.T], 1) / 0.07
    expected = F.cross_entropy(logits, torch.zeros(6, dtype=torch.long))
    torch.testing.assert_close(contrast(query, key, queue, positive, 0.07), expected, rtol=1e-12, atol=1e-12)


def test_oracle_neighbours_make_it_the_supervised_contrast_and_the_order_of_the_queue_means_nothing() -> None:
    """Where the other view shows the class itself, the positives are all keys of the row's class."""
    query, key, queue = unit(6, 0, 4), unit(6, 1, 4), unit(12, 2, 4)
    label, kept = torch.arange(6) % 3, torch.arange(12) % 3
    own = torch.arange(12) == torch.arange(6)[:, None]
    shown = torch.eye(3).double()
    mined = mine(similarity(shown[label][:, None], shown[kept][:, None]), own, 3)  # of four of the class one is own
    found = contrast(query, key, queue, positives(own, mined, False), 0.2)
    lost = []
    for i in range(6):
        right, all_ = [math.exp(float(query[i] @ key[i]) / 0.2)], [math.exp(float(query[i] @ key[i]) / 0.2)]
        for j in range(12):
            all_.append(math.exp(float(query[i] @ queue[j]) / 0.2))
            right += all_[-1:] if kept[j] == label[i] else []
        lost.append(-math.log(sum(right) / sum(all_)))
    assert found.item() == pytest.approx(np.mean(lost), rel=1e-12)
    turned = torch.randperm(12, generator=torch.Generator().manual_seed(4))
    again = mine(similarity(shown[label][:, None], shown[kept[turned]][:, None]), own[:, turned], 3)
    assert torch.equal(again, mined[:, turned])
    other = contrast(query, key, queue[turned], positives(own[:, turned], again, False), 0.2)
    torch.testing.assert_close(other, found, rtol=1e-12, atol=1e-12)


def test_similar_is_the_mean_over_shared_views_and_mined_are_the_most_similar_others() -> None:
    one, other = unit(5, 0, 3, 4), unit(8, 1, 3, 4)
    here, there = torch.rand(5, 3) < 0.6, torch.rand(8, 3) < 0.6
    here[0], there[0] = torch.tensor([True, False, False]), torch.tensor([False, True, True])
    found = similarity(one * here[:, :, None], other * there[:, :, None])
    own = torch.zeros(5, 8, dtype=torch.bool)
    own[1, 2] = own[3, :] = True
    for i in range(5):
        for j in range(8):
            cosines = [float(one[i, v] @ other[j, v]) for v in range(3) if here[i, v] and there[j, v]]
            assert found[i, j].item() == (pytest.approx(np.mean(cosines)) if cosines else -math.inf)
    mined = mine(found, own, 3)
    for i in range(5):
        open_ = [j for j in range(8) if not own[i, j] and found[i, j] > -math.inf]
        best = sorted(open_, key=lambda j: -found[i, j].item())[:3]
        assert mined[i].nonzero()[:, 0].tolist() == sorted(best)
    assert mine(found, own, 99).sum() == ((found > -math.inf) & ~own).sum()
    assert not similarity(one[:, :0], other[:, :0]).isfinite().any()  # no other view


def test_which_keys_are_positive_by_hand() -> None:
    own = torch.tensor([[True, False, False], [False, False, False], [True, False, False]])
    mined = torch.tensor([[False, True, False], [False, False, True], [False, False, False]])
    kept = [[True, True, True, False], [True, False, False, True], [True, True, False, False]]
    dropped = [[False, False, True, False], [False, False, False, True], [True, True, False, False]]
    assert positives(own, mined, False).tolist() == kept
    assert positives(own, mined, True).tolist() == dropped  # the last row has no mined key, so it keeps its own ones


def test_the_random_change() -> None:
    x = torch.randn(200, 50) * torch.linspace(0.1, 3, 50)
    torch.manual_seed(0)
    state = torch.random.get_rng_state()
    assert changed(x, 0.0, 0.0) is x
    assert torch.equal(torch.random.get_rng_state(), state)
    added = changed(x, 0.5, 0.0) - x
    assert added.std().item() == pytest.approx(0.5 * x.square().mean().sqrt().item(), rel=0.03)
    lost = changed(x, 0.0, 0.3)
    assert (lost == 0).float().mean().item() == pytest.approx(0.3, abs=0.02)
    assert torch.equal(lost[lost != 0], x[lost != 0])


@pytest.mark.parametrize("own_dropped", [0.0, 1.0])
def test_the_whole_loss_of_a_turn_against_the_pseudo_code(own_dropped: float) -> None:
    """The second turn of `a`, row by row: its positives are told by `b` and `c`, who see the rows unchanged."""
    X, _ = data()
    X = X.take(np.arange(40)[::-1])  # row numbers are no positions
    model = ContrastiveCoTraining(width=8, memory=25, mined=3, own_dropped=own_dropped, temperature=0.5, schedule=QUICK)
    net: Any = model.fit(X).net_
    rows = to_batch(X)
    stage = model.stages(net)[4]
    torch.manual_seed(3)
    stage.begin(net, rows)  # type: ignore[misc]
    (turn,) = model._turns
    held, numbers = turn.queue.vectors[:, 0].clone(), turn.queue.rows.tolist()
    assert len(set(numbers)) == int(turn.queue.count) == 25
    batch = rows.take(torch.arange(5, 29))
    torch.manual_seed(7)
    found = stage.steps[0].losses(net, batch)
    torch.manual_seed(7)
    with torch.no_grad():
        view, x = net.views["a"], net.views["a"].encoder.standard(batch.views["a"], None)
        sides = []
        for _ in range(2):  # query and key; the slow copy is still equal
            noisy = x + 0.3 * x.square().mean().sqrt() * torch.randn(x.shape)
            noisy = noisy * (torch.rand(x.shape) >= 0.2)
            sides.append(F.normalize(view.projection(view.encoder.body(noisy, None)), dim=1))
        seen = {name: dict(zip(X.rows.tolist(), net.views[name](rows.views[name], None), strict=True)) for name in "bc"}
    there = {name: dict(zip(X.rows.tolist(), X.present[name], strict=True)) for name in "bc"}
    lost = []
    for i, row in enumerate(batch.rows.tolist()):
        close = []
        for j, other in enumerate(numbers):
            shared = [name for name in "bc" if there[name][row] and there[name][other]]
            if shared and other != row:
                close.append((np.mean([float(seen[name][row] @ seen[name][other]) for name in shared]), j))
        mined = [j for _, j in sorted(close)[-3:]]
        fits = [math.exp(float(sides[0][i] @ each) / 0.5) for each in held]
        own = [math.exp(float(sides[0][i] @ sides[1][i]) / 0.5)]
        whole = sum(own) + sum(fits)
        own += [fits[j] for j, other in enumerate(numbers) if other == row]
        counted = [fits[j] for j in mined] + ([] if own_dropped and mined else own)
        lost.append(-math.log(sum(counted) / whole))
    assert list(found) == ["a"]
    assert found["a"].item() == pytest.approx(np.mean(lost), rel=1e-5)
    net.zero_grad()
    found["a"].backward()
    assert all((p.grad is not None) == name.startswith("views.a") for name, p in net.named_parameters())
    before = turn.queue.vectors.clone()
    stage.after(net, 1)  # type: ignore[misc]
    place = turn.queue.rows.tolist().index(batch.rows[4].item())
    torch.testing.assert_close(turn.queue.vectors[place, 0], sides[1][4])
    assert len(set(turn.queue.rows.tolist())) == 25
    assert not torch.equal(before, turn.queue.vectors)
    del model._turns


def test_who_moves_in_which_turn_and_that_the_others_stand_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoders with batch statistics and dropout: a view that mines keeps its weights, its statistics and its mode."""

    monkeypatch.setattr(module, "encoder", Noisy)
    X, y = data()
    model = ContrastiveCoTraining(width=8, momentum=0.7, schedule=QUICK)
    moved: list[tuple[str, set[str]]] = []
    slow: list[tuple[Any, Any]] = []
    make = model.stages

    def watched(net: Any) -> Any:
        def state() -> dict[str, torch.Tensor]:
            return {name: value.clone() for name, value in net.state_dict().items()}

        def wrapped(stage: Any) -> Any:
            def begin(net: Any, rows: Any) -> None:
                stage.begin(net, rows)
                last.append(state())
                moved.append((stage.name, set()))

            def after(net: Any, done: int) -> None:
                before = [{k: v.clone() for k, v in t.slow.average.named_parameters()} for t in model._turns]
                stage.after(net, done)
                for turn, old in zip(model._turns, before, strict=True):
                    for name, new in turn.slow.average.named_parameters():
                        fast = dict(net.views[turn.name].named_parameters())[name]
                        slow.append((new.clone(), (0.7 * old[name] + 0.3 * fast).detach()))
                    for miner in turn.others.values():
                        assert not any(part.training for part in miner.modules() if part is not miner)
                        assert all(p.grad is None and not p.requires_grad for p in miner.parameters())
                now = state()
                moved[-1][1].update(name.split(".")[1] for name in now if not torch.equal(now[name], last[-1][name]))

            return type(stage)(stage.name, stage.steps, stage.share, begin, after, stage.answers)

        return [wrapped(stage) for stage in make(net)[:-1]] + list(make(net)[-1:])

    last: list[dict[str, torch.Tensor]] = []
    model.stages = watched  # type: ignore[method-assign]
    model.fit(X, y)
    turns = [("cycle 1", {"a"}), ("cycle 1", {"b"}), ("cycle 1", {"c"}), ("cycle 2", {"a"})]
    assert moved == [("alone", {"a", "b", "c"}), *turns]
    for new, expected in slow:
        torch.testing.assert_close(new, expected)
    assert sum(stage.share for stage in make(model.net_)[:-1]) == pytest.approx(1.0)
    assert [len(ContrastiveCoTraining.stages(_like(model, k), model.net_)) for k in (0, 1, 3)] == [2, 3, 9]


def _like(model: ContrastiveCoTraining, cycles: int) -> ContrastiveCoTraining:
    other = ContrastiveCoTraining(cycles=cycles)
    other.spec_ = model.spec_
    return other


def test_how_often_own_keys_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[bool] = []
    monkeypatch.setattr(module, "positives", lambda own, mined, drop: told.append(drop) or positives(own, mined, drop))
    X, _ = data()
    ContrastiveCoTraining(width=4, own_dropped=0.7, schedule=Schedule(updates=300, batch_size=4)).fit(X)
    assert np.mean(told) == pytest.approx(0.7, abs=0.08)


def test_a_batch_in_which_nobody_has_the_view_costs_nothing() -> None:
    X, _ = data()
    model = ContrastiveCoTraining(width=8, schedule=QUICK)
    net: Any = model.fit(X).net_
    stage = model.stages(net)[0]
    stage.begin(net, to_batch(X))  # type: ignore[misc]
    losses = stage.steps[0].losses(net, to_batch(X[[1, 21]]))  # neither has b
    assert losses["b"].item() == 0.0
    assert losses["a"].item() > 0.0
    sum(losses.values()).backward()  # type: ignore[union-attr]
    stage.after(net, 1)  # type: ignore[misc]
    del model._turns


def test_what_answers_by_hand_and_from_the_primary_alone() -> None:
    X, y = data()
    model = ContrastiveCoTraining(weight=0.7, width=8, schedule=QUICK).fit(X, y)
    net: Any = model.net_
    batch = to_batch(X)
    with torch.no_grad():
        r = net.views["a"].encoder(batch.views["a"], None)
        expected = net.head(net.encoders["a"](batch.views["a"], None) + 0.7 * net.mixed(r)).softmax(1)
    answer = model.predict_proba(X)
    np.testing.assert_allclose(answer, expected.numpy(), rtol=1e-5)
    poisoned = X.replace("b", np.full_like(X["b"], np.nan)).replace("c", np.full_like(X["c"], 1e6))
    for rows in (poisoned, X.only(["a"])):
        np.testing.assert_array_equal(model.predict_proba(rows), answer)
    blind = ContrastiveCoTraining(width=8, schedule=QUICK).fit(X)
    batch = to_batch(X)
    with torch.no_grad():
        r = blind.net_.views["a"].encoder(batch.views["a"], None)  # type: ignore[union-attr,index,operator]
    np.testing.assert_allclose(blind.embed(X)["a"], r.numpy(), rtol=1e-5)


def test_labels_teach_what_stands_beside_the_frozen_encoders() -> None:
    X, y = data()
    one, other = (ContrastiveCoTraining(width=8, schedule=QUICK).fit(X, t) for t in (y, np.where(y < 0, y, 1 - y)))
    state = other.net_.state_dict()
    for name, parameter in one.net_.named_parameters():
        taught = name.startswith(("encoders.", "head.", "mixed."))
        assert parameter.requires_grad == taught, name
        assert torch.equal(parameter, state[name]) != taught, name
        assert (parameter.grad is None) != taught, name


def test_what_is_remembered_of_a_row_is_what_would_be_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "encoder", Noisy)
    X, y = data()
    seen: dict[int, torch.Tensor] = {}

    class Watched(ContrastiveCoTraining):
        def _features(self, net: Any, batch: Any, represented: Any = None) -> torch.Tensor:
            if represented is not None:
                seen.update(zip(batch.rows.tolist(), represented, strict=True))
            return super()._features(net, batch, represented)

    model = Watched(width=8, schedule=QUICK).fit(X[::-1], y[::-1])
    net: Any = model.net_
    batch = to_batch(X)
    with torch.no_grad():
        r = net.represent(batch, "a")  # in evaluation mode
    assert len(seen) == 30
    for row, value in seen.items():
        torch.testing.assert_close(value, r[row])


def test_weight_0_is_unimodal_and_with_nothing_mined_the_others_are_not_read() -> None:
    X, y = data()
    same = ContrastiveCoTraining(weight=0, schedule=QUICK, seed=4).fit(X, y)
    alone = create("unimodal", schedule=QUICK, seed=4).fit(X, y)
    np.testing.assert_array_equal(same.predict_proba(X), alone.predict_proba(X))
    assert set(same.net_.state_dict()) == set(alone.net_.state_dict())
    moved = X.replace("b", X["b"][::-1].copy(), present=X.present["b"])
    for k, equal in ((0, True), (3, False)):
        fits = [ContrastiveCoTraining(mined=k, width=8, schedule=QUICK).fit(rows, y) for rows in (X, moved)]
        assert np.array_equal(fits[0].predict_proba(X), fits[1].predict_proba(X)) == equal


def test_the_clean_view_mines_the_class_and_the_confounded_one_learns_it() -> None:
    """Before the turns x mines its backgrounds; after them a row's nearest neighbour in x is of its class."""
    for seed in range(2):
        X, y = confounded(seed)
        schedule = Schedule(updates=150, batch_size=100, learning_rate=5e-3)
        before, idle, after = (
            ContrastiveCoTraining(width=32, schedule=schedule, seed=seed, **each).fit(X)
            for each in ({"cycles": 0}, {"mined": 0}, {})
        )
        net: Any = before.net_
        own, precision = torch.eye(len(X), dtype=torch.bool), {}
        for name in X.names:
            with torch.no_grad():
                seen = net.views[name](torch.from_numpy(X[name]), None)[:, None]
            row, key = mine(similarity(seen, seen), own, 5).nonzero().T.numpy()
            precision[name] = np.mean(y[row] == y[key])
        assert precision["z"] > precision["x"] + 0.2
        found = [neighbour(model.embed(X)["x"], y) for model in (before, idle, after)]
        assert found[2] > max(found[:2]) + 0.1


def test_the_secondary_teaches_what_is_shared_and_noise_gives_nothing() -> None:
    gains: dict[bool, list[float]] = {False: [], True: []}
    schedule = Schedule(updates=100, learning_rate=1e-2)
    for seed in range(4):
        for noise, gain in gains.items():
            X, y, few = two_factors(seed, noise, 700)
            models = (create("unimodal", width=32, schedule=schedule, seed=seed),)
            models += (ContrastiveCoTraining(weight=3.0, width=32, schedule=schedule, seed=seed),)
            alone, ours = (model.fit(X[:400], few[:400]).score(X[400:], y[400:]) for model in models)
            gain.append(ours - alone)
    assert np.mean(gains[False]) > 0.05
    assert np.mean(gains[True]) < 0.02


def test_what_it_is_given_is_checked() -> None:
    X, y = data(8)
    with pytest.raises(ConfigError, match=r"The 'dropped' parameter of .* must be a number in \[0, 1\)"):
        ContrastiveCoTraining(dropped=1.0).fit(X, y)
    with pytest.raises(ConfigError, match="The 'mined' parameter of .* must be an integer of at least 0"):
        ContrastiveCoTraining(mined=-1).fit(X, y)
