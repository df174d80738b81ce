"""Boltzmann machines against enumeration of all that they can be."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from small_machines import bits, log_sum, states

from transference.nn.boltzmann import DeepMachine, Kind, Rbm, State, contrastive_divergence, free_energy


def rbm(size: int, units: int, kind: Kind = "binary", seed: int = 0, spread: float = 1.0) -> Rbm:
    """A machine whose every number is drawn."""
    part, g = Rbm(size, units, kind, deviation=0.6), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in (*part.parameters(), part.centre):
            value.copy_(spread * torch.randn(value.shape, generator=g))
    return part


def deep(layers: int, kinds: dict[str, tuple[int, Kind]], seed: int = 0, spread: float = 0.8) -> DeepMachine:
    """Two units a hidden layer, every number drawn."""
    machine, g = DeepMachine(kinds, 2, layers, 0.6), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in machine.parameters():
            value.copy_(spread * torch.randn(value.shape, generator=g))
    return machine


@pytest.mark.parametrize(
    ("kind", "v", "expected"),
    [
        ("binary", [1.0, 0.0], -0.5 - (0.5 * (2 * 0.75 + 1 * -0.5)) - 0.3),
        ("gaussian", [1.0, 0.0], ((1 - 0.5) ** 2 + 1) / (2 * 0.36) - 0.5 * (2 * 0.75 + 1 * -0.5) / 0.6 - 0.3),
        ("counts", [3.0, 2.0], -(3 * 0.5 + 2 * -1) - 0.5 * (2 * (3 - 5 * 0.25) + 1 * (2 - 5 * 0.5)) - 5 * 0.3),
    ],
)
def test_the_energy_by_hand(kind: Kind, v: list[float], expected: float) -> None:
    part = Rbm(2, 1, kind, deviation=0.6)
    values = (part.weight, [[2.0, 1.0]]), (part.below, [0.5, -1.0]), (part.above, [0.3]), (part.centre, [0.25, 0.5])
    with torch.no_grad():
        for parameter, value in values:
            parameter.copy_(torch.tensor(value))
    assert part.energy(torch.tensor([v]), torch.ones(1, 1)).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", ["binary", "gaussian", "counts"])
def test_what_each_layer_is_told_follows_from_the_energy(kind: Kind) -> None:
    part, h = rbm(3, 2, kind), torch.tensor([[1.0, 0.0]])
    v = {"binary": bits(3), "gaussian": torch.randn(5, 3), "counts": torch.tensor([[2.0, 0, 1], [0, 4, 0]])}[kind]
    for unit in range(2):  # p(h = 1 | v) is the sigmoid of what the energy falls by
        off, on = torch.zeros(len(v), 2), torch.zeros(len(v), 2)
        on[:, unit] = 1.0
        torch.testing.assert_close(part.up(v)[:, unit], part.energy(v, off) - part.energy(v, on))
    field = part.down(h)
    if kind == "gaussian":  # a parabola of curvature 1 / s^2 around the mean
        step = torch.tensor([[0.3, -0.2, 0.5]])
        rise = part.energy(field + step, h) - part.energy(field, h)
        torch.testing.assert_close(rise, step.square().sum(1) / (2 * 0.36))
        return
    if kind == "counts":  # three words in order
        every = torch.stack([torch.eye(3)[list(words)].sum(0) for words in itertools.product(range(3), repeat=3)])
    else:
        every = bits(3)
    p = (-part.energy(every, h.expand(len(every), -1))).softmax(0)
    torch.testing.assert_close(part.mean(field, torch.tensor([[3.0]])), (p[:, None] * every).sum(0, keepdim=True))


def test_twice_the_words_are_twice_the_field_bias_included() -> None:
    part, counts = rbm(5, 4, "counts"), torch.tensor([[3.0, 0, 1, 2, 0], [0, 0, 0, 0, 1]])
    torch.testing.assert_close(part.up(2 * counts), 2 * part.up(counts))
    assert part.above.abs().min() > 0.01
    torch.testing.assert_close(part.up(torch.zeros(1, 5)), torch.zeros(1, 4))
    machine = deep(1, {"w": (5, "counts"), "x": (3, "gaussian")})
    state = machine.begin({"w": counts, "x": torch.randn(2, 3)}, {"w": None, "x": None})
    above = machine.tower("w")[1].down(state.joint)
    twice = State({**state.towers, "w": (2 * counts, *state.towers["w"][1:])}, state.joint)
    torch.testing.assert_close(machine.field(twice, "w", 1) - above, 2 * (machine.field(state, "w", 1) - above))


@pytest.mark.parametrize("kind", ["binary", "gaussian", "counts"])
def test_samples_have_the_means_that_they_should(kind: Kind) -> None:
    part = rbm(3, 2, kind)
    torch.manual_seed(0)
    field = torch.tensor([[0.5, -1.0, 1.5], [0.0, 0.0, -2.0]]).repeat_interleave(20000, 0)
    total = torch.tensor([[2.0], [7.0]]).repeat_interleave(20000, 0)
    drawn = part.draw(field, total)
    torch.testing.assert_close(drawn[:20000].mean(0), part.mean(field, total)[0], atol=0.03, rtol=0)
    torch.testing.assert_close(drawn[20000:].mean(0), part.mean(field, total)[-1], atol=0.05, rtol=0)
    if kind == "counts":
        assert torch.equal(drawn.sum(1, keepdim=True), total)
    if kind == "gaussian":
        torch.testing.assert_close(drawn[:20000].std(0), torch.full((3,), 0.6), atol=0.02, rtol=0)


@pytest.mark.parametrize("copies", [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_the_free_energy_sums_over_the_units_above_of_every_copy(copies: tuple[int, int]) -> None:
    parts, g = [rbm(3, 2, seed=1), rbm(2, 2, seed=2)], torch.Generator().manual_seed(3)
    below = [(torch.rand(copies[0], 6, part.weight.shape[1], generator=g) < 0.5).float() for part in parts]
    total = torch.full((6,), -math.inf)
    for rows in itertools.product(bits(2), repeat=copies[1]):
        energy = torch.zeros(6)
        for part, v in zip(parts, below, strict=True):
            for copy, h in itertools.product(v, rows):
                energy = energy + part.energy(copy, h.expand(6, -1))
        total = torch.logaddexp(total, -energy)
    torch.testing.assert_close(free_energy(parts, below, copies[1]), -total)


@pytest.mark.parametrize("steps", [1, 25])
def test_the_gradient_of_cd_is_data_minus_chain_and_in_the_end_data_minus_model(steps: int) -> None:
    part, every = rbm(3, 2, spread=1.6), bits(3)
    data = torch.tensor([[1.0, 1, 0], [1, 1, 1], [0, 0, 1], [1, 0, 0]])
    h = bits(2)
    joint = torch.stack([-part.energy(every, row.expand(8, -1)) for row in h], 1)  # (8, 4) log p(v, h), but for Z
    kernel = joint.softmax(1) @ joint.softmax(0).T  # p(h | v) p(v' | h)
    start = torch.stack([(every == row).all(1).float() for row in data]).mean(0)
    after = (start @ torch.linalg.matrix_power(kernel, steps)).detach()
    free = free_energy([part], [every[None]])
    expected = torch.autograd.grad((start * free).sum() - (after * free).sum(), list(part.parameters()))
    torch.manual_seed(0)
    draws = [
        torch.autograd.grad(contrastive_divergence([part], [data.repeat(500, 1)], steps=steps), list(part.parameters()))
        for _ in range(20)
    ]
    free = free_energy([part], [every[None]])
    likelihood = torch.autograd.grad((start * free).sum() + (-free).logsumexp(0), list(part.parameters()))
    apart = 0.0
    for k, value in enumerate(expected):
        found = torch.stack([draw[k] for draw in draws])
        assert ((found.mean(0) - value).abs() < 4 * found.std(0) / 20**0.5 + 1e-6).all()
        apart = max(apart, float((value - likelihood[k]).abs().max()))
    assert apart > 0.05 if steps == 1 else apart < 0.001  # CD-1 is biased, and CD-k less and less


@pytest.mark.parametrize("copies", [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_with_copies_cd_is_the_exact_step_of_all_of_them(copies: tuple[int, int]) -> None:
    part, data = rbm(3, 2), torch.tensor([[1.0, 1, 0], [1, 1, 1], [0, 0, 1], [1, 0, 0]])
    below, above = (
        torch.stack([torch.stack(rows) for rows in itertools.product(bits(size), repeat=k)], 1)
        for size, k in zip((3, 2), copies, strict=True)
    )  # (copies, states, size)
    each = [part.energy(v[:, None].expand(-1, above.shape[1], -1), h[None]) for v in below for h in above]
    joint = -torch.stack(each).sum(0)  # (states below, states above) log p, but for Z
    start = torch.stack([(below == row).all(2).all(0).float() for row in data]).mean(0)
    after = (start @ joint.softmax(1) @ joint.softmax(0).T).detach()
    parameters = list(part.parameters())
    exact = torch.autograd.grad(((start - after) * free_energy([part], [below], copies[1])).sum(), parameters)
    torch.manual_seed(0)
    draws = [
        torch.autograd.grad(contrastive_divergence([part], [data.repeat(500, 1)], copies), parameters)
        for _ in range(10)
    ]
    for expected, found in zip(exact, map(torch.stack, zip(*draws, strict=True)), strict=True):
        assert ((found.mean(0) - expected).abs() < 5 * found.std(0) / 10**0.5 + 1e-6).all()


@pytest.mark.parametrize("layers", [1, 2])
def test_log_z_by_annealing_is_within_its_interval(layers: int) -> None:
    machine = deep(layers, {"a": (2, "binary"), "w": (2, "counts")})
    rows = [torch.tensor(words).float() for words in ([2, 0], [1, 1], [1, 1], [0, 2])]  # two words in order
    exact = torch.stack([log_sum(machine, {"a": a, "w": w}) for a in bits(2) for w in rows]).logsumexp(0).item()
    for seed in range(3):
        torch.manual_seed(seed)
        middle, low, high = machine.log_partition(300, 100, {"w": 2})
        assert low < exact < high
        assert low < middle < high < low + 0.2


def test_log_z_of_normal_units_too() -> None:
    machine = deep(1, {"x": (2, "gaussian")}, spread=0.6)
    part = machine.tower("x")[0]
    everything = states(machine, {"x": torch.zeros(1, 2)})
    best = State({"x": (part.down(everything.towers["x"][1]), everything.towers["x"][1])}, everything.joint)
    exact = (-machine.energy(best)).logsumexp(0).item() + math.log(2 * math.pi * 0.36)
    torch.manual_seed(0)
    middle, low, high = machine.log_partition(400, 100)
    assert low < exact < high < low + 0.2
    assert middle == pytest.approx(exact, abs=0.1)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("spread", [0.3, 1.0, 3.0])
def test_mean_field_bounds_the_likelihood_and_every_step_raises_the_bound(layers: int, spread: float) -> None:
    machine = deep(layers, {"a": (2, "binary"), "b": (2, "binary")}, spread=spread)
    v = bits(4)
    visible = {"a": v[:, :2], "b": v[:, 2:]}
    exact = torch.stack([log_sum(machine, {"a": row[:2], "b": row[2:]}) for row in v])
    before = torch.full((16,), -math.inf)
    for steps in range(6):
        bound = machine.bound(machine.mean_field(visible, {"a": None, "b": None}, steps))
        assert (bound <= exact + 1e-4).all()
        assert (bound >= before - 1e-4).all()
        before = bound
    if spread < 1:
        torch.testing.assert_close(bound, exact, atol=0.1, rtol=0)


def test_a_text_of_two_and_a_bit_words_is_drawn_with_two() -> None:
    part = Rbm(6, 2, "counts")
    assert part.draw(torch.zeros(3, 6), torch.tensor([[2.4], [5.0], [0.0]])).sum(1).tolist() == [2, 5, 0]


def test_inference_begins_with_each_layer_told_twice_by_the_one_below() -> None:
    machine = DeepMachine({"a": (4, "binary"), "b": (3, "gaussian")}, units=5, layers=2, deviation=1.0)
    torch.manual_seed(0)
    for parameter in machine.parameters():
        torch.nn.init.normal_(parameter)
    v = torch.rand(7, 4)
    state = machine.begin({"a": v}, {"a": None})
    first, second, _ = machine.tower("a")
    torch.testing.assert_close(state.towers["a"][1], torch.sigmoid(2 * first.up(v)))
    torch.testing.assert_close(state.towers["a"][2], torch.sigmoid(2 * second.up(state.towers["a"][1])))
