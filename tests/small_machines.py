"""Boltzmann machines small enough to go through all that their hidden units can be."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from transference.nn.boltzmann import DeepMachine, State


def bits(k: int) -> Tensor:
    """(2^k, k) all rows of zeros and ones."""
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=k)))


def states(machine: DeepMachine, visible: dict[str, Tensor]) -> State:
    """Every combination of hidden units beside one row of visible ones."""
    hidden, towers, k = bits(2 * (len(visible) * machine.layers + 1)), {}, 0
    for name, v in sorted(visible.items()):
        layers = [hidden[:, k + 2 * depth : k + 2 * depth + 2] for depth in range(machine.layers)]
        towers[name] = (v.expand(len(hidden), -1), *layers)
        k += 2 * machine.layers
    return State(towers, hidden[:, k:])


def log_sum(machine: DeepMachine, visible: dict[str, Tensor]) -> Tensor:
    """log of the sum of exp(-E) over the hidden units, of one row, term by term."""
    return (-machine.energy(states(machine, visible))).logsumexp(0)
