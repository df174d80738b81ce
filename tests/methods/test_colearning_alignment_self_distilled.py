"""Self-distillation: targets and losses by hand, what is hidden, who moves the teacher, and when it helps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional as F
from two_factors import two_factors

from transference.colearning.alignment.self_distilled import (
    SelfDistilled,
    distillation,
    hide,
    targets,
    variance_over_rows,
)
from transference.core.errors import ConfigError
from transference.core.registry import create
from transference.core.spec import Kind
from transference.core.views import Views
from transference.data.loader import to_batch
from transference.train.schedule import Schedule

QUICK = Schedule(updates=12, batch_size=16, device="cpu")
KINDS: dict[str, Kind] = {"words": "text", "points": "set"}


def data(n: int = 40, seed: int = 0, primary: str = "x") -> tuple[Views, NDArray[Any]]:
    """A vector, a series of many lengths, a text and an image which some rows lack; the last quarter has no label."""
    g = np.random.default_rng(seed)
    y = g.integers(0, 2, n)
    X = Views.of(
        primary=primary,
        kinds=KINDS,
        x=g.normal(size=(n, 4)) + y[:, None],
        motion=g.normal(size=(n, 11, 3)) + y[:, None, None],
        words=g.integers(1, 30, (n, 5)),
        picture=g.uniform(size=(n, 1, 8, 8)),
    )
    X = X.replace("motion", X["motion"], lengths=g.integers(2, 12, n))
    there = np.arange(n) % 4 != 1
    if primary != "words":
        X = X.replace("words", X["words"] * there[:, None], present=there)
    return X, np.where(np.arange(n) < 3 * n // 4, y, -1)


def watched(model: SelfDistilled, X: Views, y: Any) -> list[dict[str, torch.Tensor]]:
    """The teacher's and the student's weights after each update before the labels, the first time at the start."""
    seen: list[dict[str, torch.Tensor]] = []
    stages = model.stages

    def told(net: Any) -> Any:
        first, *rest = stages(net)

        def note() -> None:
            parts = ("teacher.average.", "student.")
            seen.append({k: v.clone() for k, v in net.state_dict().items() if k.startswith(parts)})

        def begin(net: Any, rows: Any) -> None:
            first.begin(net, rows)
            note()

        def after(net: Any, done: int) -> None:
            first.after(net, done)
            note()

        return (type(first)(first.name, first.steps, first.share, begin, after, first.answers), *rest)

    model.stages = told  # type: ignore[method-assign]
    model.fit(X, y)
    return seen


def test_one_layer_as_target_is_that_layer_normalised_and_several_are_their_mean() -> None:
    layers = [torch.randn(4, 3, 8, generator=torch.Generator().manual_seed(k)) * (k + 1) + k for k in range(3)]
    torch.testing.assert_close(targets(layers, 1), F.layer_norm(layers[2], (8,)))
    by_hand = torch.zeros(4, 3, 8)
    for layer in layers[1:]:
        for i in range(4):
            for t in range(3):
                token = layer[i, t]
                spread = (token - token.mean()).square().mean()
                by_hand[i, t] += (token - token.mean()) / (spread + 1e-5).sqrt() / 2
    torch.testing.assert_close(targets(layers, 2), by_hand, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_the_loss_is_the_mean_over_hidden_tokens(beta: float) -> None:
    g = torch.Generator().manual_seed(0)
    predicted, target = torch.randn(5, 3, 4, generator=g), torch.randn(5, 3, 4, generator=g)
    hidden = torch.rand(5, 3, generator=g) < 0.5
    costs = []
    for i in range(5):
        for t in range(3):
            for gap in (predicted[i, t] - target[i, t]).tolist():
                straight, square = abs(gap) - beta / 2, gap**2 / (2 * beta) if beta else gap**2
                costs += [square if beta == 0 or abs(gap) < beta else straight] if hidden[i, t] else []
    assert distillation(predicted, target, hidden, beta).item() == pytest.approx(np.mean(costs), rel=1e-5)
    assert distillation(predicted, target, torch.zeros_like(hidden), beta).item() == 0.0


def test_no_gradient_comes_from_tokens_that_are_seen_nor_from_the_teacher() -> None:
    predicted, target = torch.randn(5, 3, 4, requires_grad=True), torch.randn(5, 3, 4, requires_grad=True)
    hidden = torch.tensor([[True, False, False]]).expand(5, -1)
    distillation(predicted, target, hidden, 0.0).backward()
    assert target.grad is None
    assert predicted.grad is not None
    assert torch.equal(predicted.grad.abs().sum(2) > 0, hidden)
    X, _ = data()
    model = SelfDistilled(width=8, schedule=QUICK).fit(X)
    net: Any = model.net_
    net.zero_grad()
    outputs: list[torch.Tensor] = []
    net.predictor.register_forward_hook(lambda part, given, answer: outputs.append(answer))
    torch.manual_seed(3)
    loss = model.without_labels(net, to_batch(X))["hidden tokens"]
    (gradient,) = torch.autograd.grad(loss, outputs[0], retain_graph=True)
    torch.manual_seed(3)
    real = net.see(to_batch(X))[1]
    draws, alone = torch.rand(real.shape), torch.rand(40) < 0.5
    hidden = hide(real, torch.arange(real.shape[1]) < 1, 0.5, draws, alone)
    assert torch.equal(gradient.abs().sum(2) > 0, hidden)
    loss.backward()
    assert all(parameter.grad is None for parameter in net.teacher.parameters())
    assert all(parameter.grad is not None for parameter in net.student.parameters())


def test_what_is_hidden_by_hand() -> None:
    real = torch.tensor([[True, True, True, True]] * 3 + [[True, True, False, False], [True, False, False, False]])
    draws = torch.tensor([[0.1, 0.9, 0.2, 0.8], [0.1, 0.2, 0.3, 0.4], [0.1] * 4, [0.9, 0.1, 0.0, 0.0], [0.1] * 4])
    alone = torch.tensor([False, False, True, True, True])
    hidden = hide(real, torch.tensor([True, True, False, False]), 0.5, draws, alone)
    assert hidden.tolist() == [
        [True, False, True, False],
        [True, True, True, False],  # all would be: the one with the highest draw is spared
        [False, False, True, True],  # alone: all but the primary modality
        [False, True, False, False],  # has nothing but its primary modality, of which tokens are hidden by chance
        [False, False, False, False],  # has one token
    ]


def test_shares_of_what_is_hidden() -> None:
    torch.manual_seed(0)
    n = 20000
    real, primary = torch.ones(n, 8, dtype=torch.bool), torch.arange(8) < 4
    hidden = hide(real, primary, 0.3, torch.rand(n, 8), torch.zeros(n, dtype=torch.bool))
    assert hidden.float().mean().item() == pytest.approx(0.3, abs=0.01)
    hidden = hide(real, primary, 0.9, torch.rand(n, 8), torch.zeros(n, dtype=torch.bool))
    assert not hidden.all(1).any()


def test_the_whole_loss_against_the_pseudo_code() -> None:
    X, _ = data()
    model = SelfDistilled(width=8, hidden=0.4, layers=1, schedule=QUICK).fit(X)
    net: Any = model.net_
    batch, n = to_batch(X), len(X)
    torch.manual_seed(5)
    found = model.without_labels(net, batch)
    torch.manual_seed(5)
    names = ("x", "motion", "picture", "words")
    sizes = [1, 11, 16, 5]
    draws, alone = torch.rand(n, sum(sizes)), torch.rand(n) < 0.5
    costs = []
    every: list[list[torch.Tensor]] = [[] for _ in range(sum(sizes))]
    with torch.no_grad():
        for i in range(n):
            tokens, places, real = [], [], []
            for name in names:
                length = batch.lengths[name][i : i + 1] if name in batch.lengths else None
                content, here = net.tokens[name](batch.views[name][i : i + 1], length)
                tokens.append(content[0])
                places.append(net.tokens[name].places())
                real.append(here[0] & bool(X.present[name][i]))
            row, place, there = torch.cat(tokens), torch.cat(places), torch.cat(real)
            number = torch.arange(sum(sizes))
            chance = there & (draws[i] < 0.4)
            chance[draws[i].where(there, torch.tensor(-1.0)).argmax()] = False
            hidden = there & (number > 0) if alone[i] else chance
            whole = net.teacher((row + place)[None, there], there[None, there])[-1]  # padding is left out
            shown = torch.where(hidden[:, None], net.nothing.value, row) + place
            guess = net.predictor(net.norm(net.student(shown[None, there], (~hidden)[None, there])[-1]))[0]
            for k, t in enumerate(number[there].tolist()):
                target = F.layer_norm(whole[0, k], (8,))
                every[t].append(target)
                if hidden[t]:
                    costs.append((guess[k] - target).square().mean().item())
    assert found["hidden tokens"].item() == pytest.approx(np.mean(costs), rel=1e-4)
    variance = [torch.stack(each).var(0, correction=0).mean().item() for each in every if len(each) > 1]
    assert found["target variance"].item() == pytest.approx(np.mean(variance), rel=1e-4)
    assert not found["target variance"].requires_grad


def test_the_teacher_follows_and_nothing_else_moves_it() -> None:
    X, y = data()
    model = SelfDistilled(width=8, momentum=0.6, momentum_end=0.9, schedule=QUICK)
    seen = watched(model, X, y)
    assert len(seen) == 1 + 6  # half of the updates, and the start
    for name in [name for name in seen[0] if name.startswith("student.")]:
        copy = name.replace("student.", "teacher.average.")
        assert torch.equal(seen[0][name], seen[0][copy])
        for update in range(1, 7):
            tau = 0.9 - 0.3 * (1 - update / 6)
            expected = tau * seen[update - 1][copy] + (1 - tau) * seen[update][name]
            torch.testing.assert_close(seen[update][copy], expected)
    state = model.net_.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in seen[-1].items())  # labels move neither


@pytest.mark.parametrize("tau", [0.0, 1.0])
def test_the_two_limits_of_the_momentum(tau: float) -> None:
    X, _ = data()
    seen = watched(SelfDistilled(width=8, momentum=tau, momentum_end=tau, schedule=QUICK), X, None)
    for name in [name for name in seen[0] if name.startswith("student.")]:
        copy = name.replace("student.", "teacher.average.")
        assert torch.equal(seen[-1][copy], seen[-1][name] if tau == 0 else seen[0][copy])


def test_the_variance_is_over_rows_at_the_same_place() -> None:
    target = torch.tensor([[[1.0], [9.0]], [[3.0], [9.0]], [[99.0], [9.0]]])
    real = torch.tensor([[True, True], [True, True], [False, True]])
    assert variance_over_rows(target, real).item() == pytest.approx((1.0 + 0.0) / 2)
    once = torch.tensor([[True, True], [False, True], [False, True]])  # a place seen once tells nothing
    assert variance_over_rows(target, once).item() == 0.0


def test_collapse_is_noticed() -> None:
    X, y = data()
    X = X.only(["x", "motion"])
    healthy = SelfDistilled(width=8, schedule=QUICK).fit(X, y)
    assert not healthy.collapsed_
    assert healthy.history_["distillation: target variance"][0] > 0.05
    same = Views.of(primary="x", x=np.ones((40, 4)), motion=np.ones((40, 11, 3)))
    dead = SelfDistilled(width=8, schedule=QUICK).fit(same, y)
    assert dead.collapsed_
    assert dead.history_["distillation: target variance"][0] < 1e-6  # though targets differ from place to place
    assert not SelfDistilled(weight=0.0, schedule=QUICK).fit(X, y).collapsed_


@pytest.mark.parametrize("primary", ["x", "motion", "words"])
def test_what_answers_by_hand_and_from_the_primary_alone(primary: str) -> None:
    X, y = data(primary=primary)
    model = SelfDistilled(weight=0.7, width=8, schedule=QUICK).fit(X, y)
    net: Any = model.net_
    batch = to_batch(X)
    parts = []
    with torch.no_grad():
        part = net.tokens[primary]
        tokens, real = part(batch.views[primary], batch.lengths.get(primary))
        seen = tokens + part.places()
        for name in X.secondary:  # each modality's places ask by themselves, since none of them is read
            asks = (net.nothing.value + net.tokens[name].places()).expand(40, -1, -1)
            read = torch.cat([real, torch.zeros(asks.shape[:2], dtype=torch.bool)], 1)
            last = net.norm(net.student(torch.cat([seen, asks], 1), read)[-1])
            own, other = last[:, : part.length], last[:, part.length :]
            parts.append(net.predictor(other).mean(1))
        rows = [own[i, real[i]].mean(0) for i in range(40)]
        r = torch.cat([torch.stack(rows), *parts], 1)
        expected = net.head(net.encode(batch, primary) + 0.7 * net.mixed(r)).softmax(1)
    answer = model.predict_proba(X)
    np.testing.assert_allclose(answer, expected.numpy(), rtol=1e-3, atol=1e-5)
    blind = SelfDistilled(width=8, schedule=QUICK).fit(X)
    assert blind.embed(X)[primary].shape == (40, 8 * 4)
    poisoned = X
    for name in X.secondary:
        poisoned = poisoned.replace(name, np.full_like(X[name], np.nan))
    for other_rows in (X.only([primary]), poisoned):
        np.testing.assert_array_equal(model.predict_proba(other_rows), answer)


def test_labels_teach_what_stands_beside_the_student() -> None:
    X, y = data()
    one = SelfDistilled(width=8, schedule=QUICK).fit(X, y)
    other = SelfDistilled(width=8, schedule=QUICK).fit(X, np.where(y < 0, y, 1 - y))
    state = other.net_.state_dict()
    open_to_labels = ("encoders.", "head.", "mixed.")
    for name, parameter in one.net_.named_parameters():
        assert parameter.requires_grad == name.startswith(open_to_labels), name
        assert torch.equal(parameter, state[name]) != name.startswith(open_to_labels), name
        assert (parameter.grad is None) != name.startswith(open_to_labels), name
    batch = to_batch(X, y)
    with torch.no_grad():
        log_p = one.scores(one.net_, batch).log_softmax(1)[np.arange(30), y[:30]]
    assert one.losses(one.net_, batch)["task"].item() == pytest.approx(-log_p.mean().item(), rel=1e-4)


def test_what_is_remembered_of_a_row_is_what_would_be_computed() -> None:
    X, y = data()
    compared = []

    class Watched(SelfDistilled):
        def _features(self, net: Any, batch: Any, represented: Any = None) -> torch.Tensor:
            if represented is not None:
                compared.append((represented - net.represent(batch)).abs().max().item())
            return super()._features(net, batch, represented)

    order = np.random.default_rng(0).permutation(40)
    Watched(width=8, schedule=QUICK).fit(X[order], y[order])
    assert len(compared) == 12
    assert max(compared) < 1e-5


def test_with_weight_0_it_is_unimodal_bit_for_bit() -> None:
    X, y = data(primary="motion")
    same = SelfDistilled(weight=0, schedule=QUICK, seed=4).fit(X, y)
    alone = create("unimodal", schedule=QUICK, seed=4).fit(X, y)
    np.testing.assert_array_equal(same.predict_proba(X), alone.predict_proba(X))
    assert same.history_ == alone.history_
    assert set(same.net_.state_dict()) == set(alone.net_.state_dict())


def test_the_others_tokens_teach_what_is_shared_and_noise_gives_nothing() -> None:
    gains: dict[bool, list[float]] = {False: [], True: []}
    schedule = Schedule(updates=100, learning_rate=1e-2)
    for seed in range(4):
        for noise, gain in gains.items():
            X, y, few = two_factors(seed, noise, 1000)
            models = (create("unimodal", width=32, schedule=schedule, seed=seed),)
            models += (SelfDistilled(width=32, schedule=schedule, seed=seed),)
            alone, ours = (model.fit(X[:600], few[:600]).score(X[600:], y[600:]) for model in models)
            gain.append(ours - alone)
    assert np.mean(gains[False]) > 0.04
    assert np.mean(gains[True]) < 0.02


def test_what_it_is_given_is_checked() -> None:
    X, y = data(8)
    with pytest.raises(ConfigError, match=r"The 'hidden' parameter of SelfDistilled must be a number in \(0, 1\)"):
        SelfDistilled(hidden=0.0).fit(X, y)
    with pytest.raises(ConfigError, match=r"The 'layers' parameter of SelfDistilled must be an integer in \[1, 2\]"):
        SelfDistilled(layers=3).fit(X, y)
