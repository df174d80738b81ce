"""Agents trained together: the rewards in closed form, games with a known outcome, PPO as a slow loop, debates."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from transference.core.batch import Batch
from transference.core.errors import ConfigError, DataError
from transference.core.registry import create
from transference.core.spec import DataSpec, ModalitySpec, Task
from transference.core.views import Views
from transference.data.loader import to_batch
from transference.induction.agent_co_training import (
    AgentCoTraining,
    Agents,
    clipped,
    incentives,
    mean_log,
    shaped_rewards,
)
from transference.train.schedule import Schedule

torch.set_num_threads(1)
METHOD = "induction.agent_co_training"
SHORT = Schedule(updates=24, batch_size=32)


def bits(n: int, seed: int, partner: str = "bit") -> tuple[Views, Any]:
    """Two modalities show a bit each; a class is both bits. Or the other one shows noise, and a class is a bit."""
    generator = np.random.default_rng(seed)
    a, b = generator.integers(0, 2, (2, n))
    x, z = (2 * np.eye(2)[bit] + 0.3 * generator.normal(size=(n, 2)) for bit in (a, b))
    return Views.of(primary="a", a=x, b=z), np.char.add("c", (2 * a + b if partner == "bit" else a).astype(str))


def test_rewards_in_closed_form() -> None:
    """Three turns, gamma 0.3: 1 / 1.39 and 0.39 / 1.39; the last turn is the agent's own."""
    assert torch.allclose(shaped_rewards(torch.ones(2, 3, 2), 0.3), torch.ones(2, 3, 2))
    values = torch.zeros(1, 3, 2)
    values[0, 0, 0] = 1
    assert shaped_rewards(values, 0.3)[0, 0, 0].item() == pytest.approx(0.7194, abs=5e-5)
    values = torch.ones(1, 3, 2)
    values[0, 0, 0] = 0
    assert shaped_rewards(values, 0.3)[0, 0, 0].item() == pytest.approx(0.2806, abs=5e-5)
    drawn = torch.rand(5, 3, 2)
    assert torch.equal(shaped_rewards(drawn, 0.3)[:, 2], drawn[:, 2])
    assert torch.allclose(shaped_rewards(drawn[:, :1], 0.3), drawn[:, :1])  # one turn: V


def test_rewards_and_incentives_as_slow_loops() -> None:
    generator = torch.Generator().manual_seed(0)
    n, turns, agents, gamma, (a0, a1, a2, a3) = 200, 4, 3, 0.6, (1.0, 0.1, 0.01, 0.001)
    right = torch.rand(n, turns, agents, generator=generator) < 0.5
    present = torch.rand(n, agents, generator=generator) < 0.8
    rewards, bonus = shaped_rewards(right.float(), gamma, present), incentives(right, (a0, a1, a2, a3), present)
    for i in range(n):
        who = [b for b in range(agents) if present[i, b]]
        for t in range(turns):
            for a in who:
                later = [gamma ** (u - t) * np.mean([float(right[i, u, b]) for b in who]) for u in range(t + 1, turns)]
                weight = sum(gamma ** (u - t) for u in range(t, turns))
                assert rewards[i, t, a].item() == pytest.approx((float(right[i, t, a]) + sum(later)) / weight, abs=1e-6)
                share = [np.mean([float(right[i, u, b]) for b in who if b != a] or [0.5]) for u in range(turns)]
                paid = 0.0
                if t and right[i, t][a] != right[i, t - 1][a]:
                    sign = 1 if right[i, t, a] else -1
                    if len(who) == 1:
                        paid += sign * a1
                    elif share[t - 1] != 0.5:
                        paid += sign * (a0 if (share[t - 1] > 0.5) == bool(right[i, t, a]) else a1)
                if t + 1 < turns and share[t] < 0.5 < share[t + 1]:
                    paid += a3 if right[i, t, a] else a2
                if t + 1 < turns and share[t] > 0.5 > share[t + 1]:
                    paid -= a2 if right[i, t, a] else a3
                assert bonus[i, t, a].item() == pytest.approx(paid, abs=1e-6)


def test_incentives_by_hand() -> None:
    """The first agent is right all along and turns the second one round; then it is persuaded of what is wrong."""
    right = torch.tensor([[[True, False], [True, True]], [[True, False], [False, False]]])
    assert incentives(right, (10.0, 1.0, 0.1, 0.01)).flatten(1).tolist() == [
        pytest.approx([0.01, 0.0, 0.0, 10.0]),
        pytest.approx([0.0, -0.01, -10.0, 0.0]),
    ]


def test_a_probability_gains_nothing_beyond_the_clip() -> None:
    """Ratios 1.5 and 0.5: a gain counts up to 1.2, a loss down to 0.8, and a step the wrong way in full."""
    log_p = torch.tensor([1.5, 1.5, 0.5, 0.5]).log().requires_grad_()
    surrogate = clipped(log_p, torch.zeros(4), torch.tensor([2.0, -2.0, 2.0, -2.0]), 0.2)
    assert surrogate.tolist() == pytest.approx([2.4, -3.0, 1.0, -1.6])
    surrogate.sum().backward()
    assert log_p.grad is not None
    assert log_p.grad.tolist() == pytest.approx([0.0, -3.0, 1.0, 0.0])


def played(policies: Tensor, trained: list[int], steps: int = 80) -> Tensor:
    """P(first action) of two tabular policies after PPO; both first pays 1, both second 0.5, and else nothing."""
    logits = policies.clone().requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=0.1)
    for _ in range(steps):
        with torch.no_grad():
            old = logits.log_softmax(1)
            actions = torch.stack([old[a].exp().multinomial(128, replacement=True) for a in (0, 1)], 1)  # (n, agents)
            paid = torch.where(actions[:, 0] == actions[:, 1], torch.where(actions[:, 0] == 0, 1.0, 0.5), 0.0)
            rewards = shaped_rewards(paid[:, None, None].expand(-1, 1, 2), 0.3)[:, 0]
            advantage = rewards - rewards.mean(0)
        for _ in range(4):
            now = logits.log_softmax(1)
            gains = [clipped(now[a][actions[:, a]], old[a][actions[:, a]], advantage[:, a], 0.2) for a in trained]
            optimizer.zero_grad()
            (-torch.stack(gains).mean()).backward()
            optimizer.step()
    return logits.detach().softmax(1)[:, 0]


@pytest.mark.parametrize("seed", [0, 1])
def test_both_agents_find_the_joint_optimum_and_one_with_a_frozen_partner_does_not(seed: int) -> None:
    """Both start at 0.4. A frozen partner pays 0.4 for the first and 0.3 for the second action, at best; not 1."""
    torch.manual_seed(seed)
    start = torch.tensor([[math.log(0.4), math.log(0.6)]]).repeat(2, 1)

    def worth(p: Tensor) -> float:
        return float(p[0] * p[1] + 0.5 * (1 - p[0]) * (1 - p[1]))

    assert worth(played(start, [0, 1])) > 0.95
    assert worth(played(start, [0])) == pytest.approx(0.4, abs=0.02)
    stubborn = torch.tensor([[0.0, 0.0], [-3.0, 3.0]])  # a partner who always takes the second action
    assert worth(played(stubborn, [0])) == pytest.approx(0.5, abs=0.02)
    assert worth(played(stubborn, [0, 1])) == pytest.approx(0.5, abs=0.02)  # an equilibrium: nobody leaves it alone


def changed_mind(other_right: float, amounts: tuple[float, ...], *, agree: bool = False, kl: float = 0.5) -> float:
    """P(an agent changes its answer) after PPO with a KL penalty to 1/2, in a game of two answers and two turns.

    They disagree, and the other is right with this probability; or they agree, and are both wrong with it. The other
    stays with its answer.
    """
    torch.manual_seed(0)
    logit = torch.zeros((), requires_grad=True)
    optimizer = torch.optim.Adam([logit], lr=0.1)
    for step in range(150):
        with torch.no_grad():
            p = logit.sigmoid()
            change = torch.rand(512) < p
            own = torch.rand(512) >= other_right
            other = own if agree else ~own
            right = torch.stack([torch.stack([own, other], 1), torch.stack([own ^ change, other], 1)], 1)
            rewards = (shaped_rewards(right.float(), 0.3) + incentives(right, amounts))[:, 1, 0]
            old = torch.where(change, p, 1 - p).log()
            optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / 150)
        for _ in range(4):
            q = logit.sigmoid()
            now = torch.where(change, q, 1 - q).log()
            stay = q * (2 * q).log() + (1 - q) * (2 * (1 - q)).log()
            optimizer.zero_grad()
            (kl * stay - clipped(now, old, rewards - rewards.mean(), 0.2).mean()).backward()
            optimizer.step()
    return float(logit.detach().sigmoid())


def test_incentives_change_who_is_persuaded_as_predicted() -> None:
    """E[R] - kl KL(pi, 1/2) is largest at logit p = (E[R | change] - E[R | keep]) / kl.

    Where they disagree that is (1 + a0) (2 r - 1) / kl, where they agree (1 + a1) (2 w - 1) / kl.
    """
    for share in (0.7, 0.3):
        plain, paid = (changed_mind(share, (a0, 0, 0, 0)) for a0 in (0.0, 1.0))
        assert plain == pytest.approx(1 / (1 + math.exp(-(2 * share - 1) / 0.5)), abs=0.05)
        assert paid == pytest.approx(1 / (1 + math.exp(-2 * (2 * share - 1) / 0.5)), abs=0.05)
        assert (paid - plain) * (share - 0.5) > 0
        assert changed_mind(share, (0, 5, 0, 0)) == pytest.approx(plain, abs=0.03)  # a1 does not pay for persuasion
    agreed, doubting = (changed_mind(0.3, (0, a1, 0, 0), agree=True) for a1 in (0.0, 1.0))
    assert doubting < agreed - 0.05


def test_influence_pays_who_makes_others_right() -> None:
    """A speaker whose answer the other, wrong so far, will take: being right is worth a3 more, being wrong nothing."""
    for amounts, gain in (((0, 0, 0, 0.0), 0.0), ((0, 0, 0, 0.7), 0.7), ((0, 0, 0.7, 0), 0.0)):
        paid = [
            incentives(torch.tensor([[[mine, False], [mine, mine]]]), amounts)[0, 0, 0].item() for mine in (True, False)
        ]
        assert paid[0] - paid[1] == pytest.approx(gain)


def test_one_agent_and_one_turn_are_ppo_with_the_verifier_as_reward() -> None:
    X, y = bits(40, 0)
    method: Any = create(METHOD, turns=1, clip=0.1, value_weight=0.3, kl=0.2, schedule=SHORT).fit(X.only(["a"]), y)
    batch = to_batch(X.only(["a"]), np.where(np.arange(40) % 4 == 0, -1, np.unique(y, return_inverse=True)[1]))
    start = torch.rand(40, 4).softmax(1)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        debate, rewards = method.play(method.net_, batch, start)
    said = debate.answers[:, 0, 0]
    assert len(said.unique()) > 1
    target = batch.target
    assert target is not None
    for i in range(40):
        expected = start[i, said[i]] if target[i] < 0 else float(said[i] == target[i])
        assert float(rewards[i, 0, 0]) == pytest.approx(float(expected), abs=1e-6)
    with torch.no_grad():
        for parameter in method.net_.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    losses = method.improve(method.net_, batch, debate, rewards, start[:, None].log())
    with torch.no_grad():
        z = method.net_.encode(batch, "a")
        log_p, value = method.net_.head(z).log_softmax(1), method.net_.values["a"](z)[:, 0]
    gain, error, stay = 0.0, 0.0, 0.0
    for i in range(40):
        advantage = float(rewards[i, 0, 0] - debate.values[i, 0, 0])
        ratio = math.exp(float(log_p[i, said[i]] - debate.log_p[i, 0, 0, said[i]]))
        gain += min(ratio * advantage, min(max(ratio, 0.9), 1.1) * advantage) / 40
        error += float(value[i] - rewards[i, 0, 0]) ** 2 / 40
        stay += sum(math.exp(float(log_p[i, c])) * float(log_p[i, c] - start[i, c].log()) for c in range(4)) / 40
    assert {name: value.item() for name, value in losses.items()} == {
        "policy a": pytest.approx(-gain, abs=1e-5),
        "value a": pytest.approx(0.3 * error, rel=1e-4),
        "stay a": pytest.approx(0.2 * stay, rel=1e-4),
    }


def copiers(names: str) -> tuple[Agents, Any]:
    """Agents who say what the next one in the circle said before, and the first class where they hear nothing."""
    spec = DataSpec(
        {name: ModalitySpec(name, "vector", (2,)) for name in names}, "a", Task("classification", (0, 1), 2)
    )
    net = Agents(spec, 4)
    for k, name in enumerate(names):
        others = [other for other in names if other != name]
        place = others.index(names[(k + 1) % len(names)])
        reply: Any = net.replies[name]
        own: Any = net.head if name == "a" else net.heads[name]
        for layer in (reply.hidden, reply.out, own):
            torch.nn.init.zeros_(layer.weight)
            torch.nn.init.zeros_(layer.bias)
        with torch.no_grad():
            own.bias[0] = 1  # who hears nothing says the first class
            for c in (0, 1):
                reply.hidden.weight[c, 4 + 2 * place + c] = 1
                reply.out.weight[c, c] = 100
    return net, spec


def test_all_hear_the_turn_before_and_copiers_in_a_circle_never_agree() -> None:
    net, _ = copiers("abc")
    X = Views.of(primary="a", a=[[0.0, 1.0]] * 2, b=[[1.0, 0.0]] * 2, c=[[1.0, 1.0]] * 2)
    X = X.replace("b", X["b"], present=np.array([True, False]))
    first = torch.tensor([[0, 1, 1], [0, 1, 1]])
    debate = net.debate(to_batch(X), 5, lambda policy, turn: policy.argmax(2) if turn else first)
    assert debate.names == ("a", "b", "c")
    assert debate.answers[0].tolist() == [[0, 1, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1], [1, 1, 0]]
    own = torch.stack([net.logits(name, net.encode(to_batch(X), name)) for name in "abc"], 1).log_softmax(2)
    assert torch.allclose(debate.log_p[1, 1, 0], own[1, 0])  # b is absent there: a hears nothing of it
    assert not torch.allclose(debate.log_p[0, 1, 0], own[0, 0])


def test_the_answer_is_the_mean_over_the_agents_that_are_there() -> None:
    p = torch.tensor([[[0.9, 0.1], [0.5, 0.5]]]).repeat(3, 1, 1)
    present = torch.tensor([[True, True], [True, False], [False, False]])
    assert mean_log(p.log(), present).softmax(1)[:, 0].tolist() == pytest.approx([0.7, 0.9, 0.5], abs=1e-6)
    X, y = bits(60, 0)
    method: Any = create(METHOD, schedule=SHORT).fit(X, y)
    debate = method.net_.debate(to_batch(X), 3, lambda policy, turn: policy.argmax(2))
    assert np.allclose(method.predict_proba(X), debate.log_p[:, 2].exp().mean(1).detach().numpy(), atol=1e-6)
    alone = to_batch(X.only(["a"]))
    own = method.net_.debate(alone, 1, lambda policy, turn: policy.argmax(2)).log_p[:, 0, 0].exp().detach().numpy()
    assert np.allclose(method.predict_proba(X.only(["a"])), own, atol=1e-6)  # nobody speaks in any turn


def test_the_start_is_each_modality_alone_and_no_reply_is_learned_there() -> None:
    X, y = bits(60, 0)
    method: Any = create(METHOD, start=1.0, schedule=SHORT).fit(X, y)
    alone = create("unimodal", schedule=SHORT).fit(X, y)
    assert np.allclose(method.predict_proba(X.only(["a"])), alone.predict_proba(X), atol=1e-6)
    assert not method.net_.replies["a"].out.weight.any()
    assert "policy a" not in method.history_
    assert method.history_["update"][-1] == 24


def test_a_strong_pull_keeps_the_agents_as_they_were_at_the_start() -> None:
    X, y = bits(80, 0)
    half = create(METHOD, start=1.0, schedule=Schedule(updates=12, batch_size=32)).fit(X, y).predict_proba(X)
    moved = {
        kl: np.abs(create(METHOD, kl=kl, epochs=8, schedule=SHORT).fit(X, y).predict_proba(X) - half).mean()
        for kl in (0.0, 100.0)
    }
    assert moved[100.0] < 0.5 * moved[0.0]


def test_debates_are_about_all_rows_or_the_labelled_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = bits(80, 0)
    played, seen = AgentCoTraining.play, list[float]()

    def play(self: Any, net: Any, batch: Batch, start: Tensor) -> Any:
        seen.append(batch.is_labelled.float().mean().item())
        assert torch.allclose(start.sum(1), torch.ones(len(batch)), atol=1e-5)
        return played(self, net, batch, start)

    monkeypatch.setattr(AgentCoTraining, "play", play)
    for rows, share in (("all", 0.5), ("labelled", 1.0)):
        seen.clear()
        create(METHOD, rows=rows, schedule=SHORT).fit(X, np.where(np.arange(80) % 2 == 0, y, None))
        assert seen == [share] * 12


PATIENT = Schedule(updates=320, batch_size=128)


def ends(method: Any, X: Views, y: Any) -> list[list[float]]:
    """Accuracy of each agent in the first and the last turn."""
    said = method.net_.debate(to_batch(X), method.turns, lambda policy, turn: policy.argmax(2)).answers.numpy()
    return [[float(np.mean(method.classes_[said[:, turn, k]] == y)) for turn in (0, -1)] for k in (0, 1)]


def test_agents_that_know_a_half_each_learn_to_put_them_together() -> None:
    X, y = bits(300, 0)
    T, truth = bits(300, 1)
    before = ends(create(METHOD, start=1.0, turns=2, schedule=PATIENT, width=16).fit(X, y), T, truth)
    after = ends(create(METHOD, start=0.2, turns=2, schedule=PATIENT, width=16).fit(X, y), T, truth)
    assert all(last < 0.65 for _, last in before)
    assert all(first < 0.65 for first, _ in after)
    assert max(last for _, last in after) > 0.9
    assert min(last for _, last in after) > 0.7


def test_a_partner_that_shows_noise_is_not_listened_to() -> None:
    X, y = bits(200, 0, partner="noise")
    T, truth = bits(300, 1, partner="noise")
    short = Schedule(updates=80, batch_size=64)
    method = create(METHOD, schedule=short, width=16).fit(X, y)
    alone = create("unimodal", schedule=short, width=16).fit(X, y).score(T, truth)
    assert alone > 0.97
    assert ends(method, T, truth)[0][1] > alone - 0.03


@pytest.mark.parametrize("given", [(1.0, 0.0), "none", (0, 0, 0, float("nan"))])
def test_wrong_incentives_are_told_in_words(given: Any) -> None:
    with pytest.raises(ConfigError, match="The 'incentives' parameter of AgentCoTraining must be four numbers"):
        create(METHOD, incentives=given).check_parameters()


def test_a_modality_without_a_labelled_row_is_refused() -> None:
    X, y = bits(20, 0)
    lacking = X.replace("b", X["b"], present=np.arange(20) >= 10)
    with pytest.raises(DataError, match="No labelled row has 'b', so its agent cannot learn"):
        create(METHOD).fit(lacking, np.where(np.arange(20) < 10, y, None))
