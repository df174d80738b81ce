"""Contrastive: closed forms of InfoNCE, its symmetries, and what the weight 0 means."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from transference.colearning.alignment.contrastive import Contrastive, Memory, info_nce
from transference.core.errors import ConfigError
from transference.core.seeding import fence
from transference.core.views import Views
from transference.data.corrupt import mispair
from transference.data.loader import to_batch
from transference.train.schedule import Schedule
from transference.unimodal import Unimodal

FAST = Schedule(updates=40, batch_size=16, device="cpu")


def unit(n: int, d: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=1)


def planted(n: int = 60, seed: int = 0) -> tuple[Views, np.ndarray]:
    """Five shared numbers, each view a rotation of them plus noise; the label is the sign of the first."""
    generator = np.random.default_rng(seed)
    shared = generator.normal(size=(n, 5))
    turn = np.linalg.qr(np.random.default_rng(9).normal(size=(5, 5)))[0]
    one, two = shared + 0.1 * generator.normal(size=(n, 5)), shared @ turn + 0.1 * generator.normal(size=(n, 5))
    return Views.of(primary="one", one=one, two=two), np.where(shared[:, 0] > 0, "up", "down").astype(object)


def test_a_single_pair_costs_nothing() -> None:
    assert info_nce(unit(1, 4, 0), unit(1, 4, 1), 14.0).item() == 0.0


@pytest.mark.parametrize("n", [2, 7])
def test_equal_embeddings_cost_ln_n(n: int) -> None:
    same = unit(1, 4, 0).expand(n, 4)
    assert info_nce(same, same, 20.0).item() == pytest.approx(math.log(n), abs=1e-12)


@pytest.mark.parametrize(("n", "scale"), [(2, 1.0), (5, 1 / 0.07), (8, 3.0)])
def test_perfect_orthogonal_pairs_have_a_closed_form(n: int, scale: float) -> None:
    eye = torch.eye(n, dtype=torch.float64)
    assert info_nce(eye, eye, scale).item() == pytest.approx(math.log(1 + (n - 1) * math.exp(-scale)), rel=1e-9)


def test_against_a_slow_loop_with_smoothing() -> None:
    """Both directions, pair by pair; the softened target is (1 - e) of the pair plus e spread evenly."""
    u, v, scale, e, n = unit(6, 3, 0), unit(6, 3, 1), 5.0, 0.1, 6
    total = 0.0
    for a, b in ((u, v), (v, u)):
        for i in range(n):
            weights = [math.exp(scale * float((a[i] * b[j]).sum())) for j in range(n)]
            costs = [-math.log(weight / sum(weights)) for weight in weights]
            total += ((1 - e) * costs[i] + e * sum(costs) / n) / (2 * n)
    assert info_nce(u, v, scale, e).item() == pytest.approx(total, rel=1e-10)


def test_the_loss_is_that_of_a_published_clip_model() -> None:
    """Random weights: its own loss against ours on its own embeddings and scale."""
    transformers = pytest.importorskip("transformers", reason="the extra 'pretrained' is not installed")
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    text = {**small, "vocab_size": 20, "max_position_embeddings": 8, "bos_token_id": 1, "eos_token_id": 2}
    config = transformers.CLIPConfig(
        text_config=text, vision_config={**small, "image_size": 16, "patch_size": 8}, projection_dim=6
    )
    with fence(0, "a model"):
        model = transformers.CLIPModel(config).double().eval()
        tokens, pixels = torch.randint(3, 20, (7, 8)), torch.randn(7, 3, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        answer = model(input_ids=tokens, pixel_values=pixels, return_loss=True)
        ours = info_nce(answer.image_embeds, answer.text_embeds, model.logit_scale.exp())
    assert abs(answer.loss.item() - math.log(7)) > 0.1
    assert ours.item() == pytest.approx(answer.loss.item(), rel=1e-6)


def test_swapping_the_modalities_or_the_rows_changes_nothing() -> None:
    u, v = unit(6, 3, 0), unit(6, 3, 1)
    order = torch.tensor([3, 0, 5, 1, 2, 4])
    reference = info_nce(u, v, 7.0).item()
    assert info_nce(v, u, 7.0).item() == pytest.approx(reference, rel=1e-12)
    assert info_nce(u[order], v[order], 7.0).item() == pytest.approx(reference, rel=1e-12)
    assert info_nce(u[order], v, 7.0).item() != pytest.approx(reference, rel=1e-3)


def test_weight_zero_is_the_unimodal_baseline_bit_for_bit() -> None:
    X, y = planted(90)
    y[70:] = None
    plain = Unimodal(schedule=FAST, seed=3).fit(X, y)
    zero = Contrastive(weight=0, schedule=FAST, seed=3).fit(X, y)
    assert np.array_equal(plain.decide(X), zero.decide(X))
    assert plain.history_ == zero.history_
    assert not np.array_equal(plain.decide(X), Contrastive(weight=0.1, schedule=FAST, seed=3).fit(X, y).decide(X))


def test_only_present_pairs_are_contrasted() -> None:
    X, y = planted()
    method = Contrastive(weight=2.0, schedule=FAST).fit(X, y)
    there = np.arange(60) % 3 != 0
    part = X.replace("two", np.where(there[:, None], X["two"], 1e3).astype(np.float32), present=there)
    method.net_.eval()
    loss = method.losses(method.net_, to_batch(part, np.zeros(60, np.int64)))["contrast with two"]
    shared = {name: torch.from_numpy(value) for name, value in method.embed(X[there]).items()}
    scale = method.net_.log_scale.detach().exp()
    assert loss.item() == pytest.approx(2.0 * info_nce(shared["one"], shared["two"], scale).item(), rel=1e-5)


@pytest.mark.parametrize("e", [0.0, 0.3])
def test_two_secondary_modalities_share_the_weight_and_smoothing_softens_their_pairing(e: float) -> None:
    X, y = planted()
    X = Views.of(primary="one", one=X["one"], two=X["two"], three=X["two"][:, :3] ** 2)
    method = Contrastive(weight=3.0, smoothing=e, schedule=FAST).fit(X, y)
    method.net_.eval()
    losses = method.losses(method.net_, to_batch(X, np.zeros(60, np.int64)))
    assert set(losses) == {"task", "contrast with two", "contrast with three"}
    shared = method.embed(X)
    scale = float(method.net_.log_scale.detach().exp())
    pairing = (1 - e) * np.eye(60) + e / 60
    for name in ("two", "three"):
        s = scale * shared["one"].astype(float) @ shared[name].T.astype(float)
        forth, back = (pairing * (np.log(np.exp(t).sum(1, keepdims=True)) - t) for t in (s, s.T))
        by_hand = (forth.sum() + back.sum()) / 60 / 2
        assert losses[f"contrast with {name}"].item() == pytest.approx(3.0 / 2 * by_hand, rel=1e-4)
    assert {name: line[-1] > 0 for name, line in method.history_.items() if "contrast" in name} == {
        "contrast with two": True,
        "contrast with three": True,
    }


def test_the_scale_starts_at_the_published_value_is_learned_and_stops_at_100() -> None:
    X, y = planted()
    net: Any = Contrastive(schedule=FAST).fit(X, y).net_
    assert net.log_scale.item() != pytest.approx(math.log(1 / 0.07), abs=1e-4)
    method = Contrastive(schedule=Schedule(updates=1, learning_rate=1e-12, device="cpu")).fit(X, y)
    net = method.net_.eval()
    assert net.log_scale.item() == pytest.approx(2.6593, abs=1e-4)
    batch = to_batch(X, np.zeros(60, np.int64))
    losses = []
    for value in (math.log(100.0), 9.0):
        net.log_scale.data.fill_(value)
        losses.append(method.losses(net, batch)["contrast with two"].item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_pairs_unseen_in_training_find_each_other() -> None:
    X, y = planted(300)
    test, _ = planted(50, seed=1)
    method = Contrastive(weight=1.0, schedule=Schedule(updates=200, batch_size=64, device="cpu")).fit(X, y)
    shared = method.embed(test)
    assert np.linalg.norm(shared["one"], axis=1) == pytest.approx(np.ones(50), abs=1e-5)
    found = (shared["one"] @ shared["two"].T).argmax(1) == np.arange(50)
    assert found.mean() > 0.6  # chance: 0.02


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_wrong_pairs_are_paid_for_little_by_little(smoothing: float) -> None:
    """A share of the training pairs is exchanged: fewer test rows find their own, down to chance, with no cliff."""
    shares, found = (0.0, 0.25, 0.5, 0.75, 1.0), []
    for seed in range(2):
        X, _ = planted(150, seed)
        test, _ = planted(50, seed + 50)
        asked = test.only(["two"], primary="two")
        for share in shares:
            method = Contrastive(
                smoothing=smoothing, schedule=Schedule(updates=70, batch_size=50, device="cpu"), seed=seed
            )
            answers = method.fit(mispair(X, share, seed)).match(test, asked).argmax(1)
            found.append((answers == np.arange(50)).mean())
    mean = np.reshape(found, (2, -1)).mean(0)
    falls = -np.diff(mean)
    assert mean[0] > 0.9
    assert mean[1] > 0.75
    assert mean[-1] < 0.12  # chance: 0.02
    assert falls.min() > -0.05
    assert falls.max() < 0.6


def test_smoothing_is_checked() -> None:
    X, y = planted()
    with pytest.raises(ConfigError, match=r"The 'smoothing' parameter of Contrastive must be a number in \[0, 1\)"):
        Contrastive(smoothing=1.0, schedule=FAST).fit(X, y)


def test_others_are_held_against_each_row_in_both_directions() -> None:
    u, v, more_u, more_v, scale = unit(3, 4, 0), unit(3, 4, 1), unit(5, 4, 2), unit(5, 4, 3), 6.0
    total = 0.0
    for a, b, more in ((u, v, more_v), (v, u, more_u)):
        for i in range(3):
            weights = [math.exp(scale * float((a[i] * each).sum())) for each in (*b, *more)]
            total -= math.log(weights[i] / sum(weights))
    assert info_nce(u, v, scale, 0.0, (more_u, more_v)).item() == pytest.approx(total / 6, rel=1e-9)


def test_a_memory_gives_rows_outside_the_batch_and_follows_those_inside() -> None:
    rows = torch.tensor([3, 8, 10, 40])
    memory = Memory(rows, unit(4, 2, 0).float(), unit(4, 2, 1).float())
    first = [bank.vectors.clone() for bank in memory.banks]
    new = unit(2, 2, 2).float(), unit(2, 2, 3).float()
    with fence(0, "draws"):
        found = memory.others(torch.tensor([40, 8]), *new, 9)
    for one, bank in zip(found, first, strict=True):
        assert sorted(map(tuple, one.tolist())) == sorted(map(tuple, bank[[0, 2]].tolist()))
    memory.follow()
    for bank, old, values in zip(memory.banks, first, new, strict=True):
        torch.testing.assert_close(bank.vectors[[0, 2]], old[[0, 2]])
        torch.testing.assert_close(bank.vectors[[3, 1]], F.normalize(old[[3, 1]] + values, dim=1))


def test_a_memory_gives_as_many_as_it_is_asked_for_where_it_has_them() -> None:
    memory = Memory(torch.arange(9), unit(9, 2, 0).float(), unit(9, 2, 1).float())
    with fence(0, "draws"):
        for _ in range(20):
            drawn = memory.others(torch.arange(5), unit(5, 2, 2).float(), unit(5, 2, 3).float(), 3)
            assert [len(each) for each in drawn] == [3, 3]


def test_after_every_update_the_memory_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    before: list[torch.Tensor] = []
    follow = Memory.follow

    def watched(memory: Memory) -> None:
        before.append(memory.banks[1].vectors.clone())
        follow(memory)

    monkeypatch.setattr(Memory, "follow", watched)
    X, y = planted()
    Contrastive(memory=8, schedule=FAST).fit(X, y)
    assert len(before) == 1 + FAST.updates  # once to begin with
    moved = [int((one != other).any(1).sum()) for one, other in pairwise(before)]
    assert set(moved[2:]) == {FAST.batch_size}  # first all, then a batch that was encoded by the same weights


def test_what_is_fitted_remembers_no_training_row() -> None:
    X, y = planted()
    model = Contrastive(memory=8, schedule=replace(FAST, updates=2)).fit(X, y)
    again = Contrastive(memory=8).restore(model.spec_, model.net_.state_dict())
    batch = to_batch(X[:16], np.zeros(16, np.int64))
    ours, theirs = (each.losses(each.net_.eval(), batch)["contrast with two"].item() for each in (model, again))
    assert ours == theirs


def test_a_row_has_its_own_place_in_whatever_order_rows_come(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[tuple[list[int], torch.Tensor]] = []
    monkeypatch.setattr(Memory, "follow", lambda memory: found.append((memory.rows.tolist(), memory.seen[1][1])))
    X, y = planted()
    order = np.random.default_rng(3).permutation(len(X))
    schedule = replace(FAST, updates=1)
    for rows in (np.arange(len(X)), order):
        Contrastive(memory=8, schedule=schedule).fit(X.take(rows), y[rows])
    (numbers, straight), (again, shuffled) = found[0], found[2]
    assert numbers == again == sorted(again)
    torch.testing.assert_close(straight, shuffled, atol=1e-4, rtol=0)  # at the start, before the first update


def test_a_memory_of_many_pairs_helps_small_batches_to_find_the_very_pair() -> None:
    """Twelve numbers are shared: with four rows a batch there is little to be told apart by."""
    schedule = Schedule(updates=150, batch_size=4, validation=0.0, device="cpu")
    hits: dict[int, list[float]] = {0: [], 128: []}
    for seed in range(3):
        g = np.random.default_rng(seed)
        shared, turn = g.normal(size=(500, 12)), g.normal(size=(12, 12))
        one, two = shared + 0.3 * g.normal(size=(500, 12)), np.tanh(shared @ turn) + 0.1 * g.normal(size=(500, 12))
        X = Views.of(primary="one", one=one, two=two)
        for memory, found in hits.items():
            model = Contrastive(weight=1.0, memory=memory, schedule=schedule, seed=seed).fit(X[:300])
            scores = model.match(X[300:].only(["one"]), X[300:])
            found.append(float((scores.argmax(1) == np.arange(200)).mean()))
    assert np.mean(hits[128]) > np.mean(hits[0]) + 0.02, hits
