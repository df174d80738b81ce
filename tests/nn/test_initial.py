"""Initial weights depend on the seed and a part's name alone."""

from __future__ import annotations

import copy

import torch
from torch import nn

from transference.core.spec import DataSpec, ModalitySpec, Task
from transference.nn.initial import initialise
from transference.nn.network import Network

A = ModalitySpec("a", "vector", (4,))
B = ModalitySpec("b", "series", (10, 2), lengths=True)
SPEC = DataSpec({"a": A, "b": B}, "a", Task("classification", (0, 1), 2))


def state(net: nn.Module, seed: int = 0) -> dict[str, torch.Tensor]:
    initialise(net, seed)
    return {name: value.clone() for name, value in net.state_dict().items()}


def test_the_same_names_start_alike_whatever_else_there_is() -> None:
    small, large = state(Network(SPEC, ["a"], 8)), state(Network(SPEC, ["b", "a"], 8))
    assert set(small) < set(large)
    assert all(torch.equal(small[name], large[name]) for name in small)


def test_another_seed_or_another_name_starts_otherwise() -> None:
    first, second = state(Network(SPEC, ["a"], 8)), state(Network(SPEC, ["a"], 8), seed=1)
    assert not torch.equal(first["head.weight"], second["head.weight"])
    twins = state(nn.ModuleDict({"one": nn.Linear(3, 3), "two": nn.Linear(3, 3)}))
    assert not torch.equal(twins["one.weight"], twins["two.weight"])


def test_the_global_generator_neither_matters_nor_moves() -> None:
    torch.manual_seed(1)
    first = state(Network(SPEC, ["a"], 8))
    torch.manual_seed(2)
    net = Network(SPEC, ["a"], 8)
    before = torch.get_rng_state()
    second = state(net)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_pretrained_part_is_left_alone_with_all_below_it() -> None:
    net = nn.ModuleDict({"kept": nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)), "fresh": nn.Linear(3, 3)})
    net["kept"].pretrained = True
    before = copy.deepcopy(net.state_dict())
    initialise(net, 0)
    changed = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"fresh.weight", "fresh.bias"}
