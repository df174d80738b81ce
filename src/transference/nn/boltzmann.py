"""Restricted Boltzmann machines, and a deep one with a tower a modality under a joint layer.

A restricted machine ties a layer v to a binary layer h above it:

    E(v, h) = A(v) - (h - 1/2) . W (v - M m) / s - M a . h        p(v, h) = exp(-E(v, h)) / Z

    v is        A(v)                    p(v | h), with g(h) = b + s W^T (h - 1/2)      s    M
    binary      -b . v                  sigmoid(g)                                     1    1
    gaussian    |v - b|^2 / (2 s^2)     N(g, s^2)                                      s    1
    counts      -b . v                  M words, each by softmax(g)                    1    sum of v

p(h = 1 | v) = sigmoid(f(v)), f(v) = W (v - M m) / s + M a: twice the words, twice the field (replicated softmax). The
learned b and a are the biases `below` and `above`. m is the mean of v over the training rows, or a half for a hidden
layer; s is fixed. Subtracting m and a half changes no distribution that can be learned, only the biases by which it is
written; without that a machine learns several layers at once very slowly.

The deep machine's energy is the sum of those of its restricted machines, so a layer between two of them is the sigmoid
of what comes from below plus what comes from above. Its layers fall into two blocks by depth; given one block, the
layers of the other one are independent: blocks are sampled, or set to their means (mean field), one after the other.

Pre-training: a layer that will hear from both sides hears from one, twice. That is a restricted machine with two copies
of the layer at the other side, of the same weights: its energy is the sum of the energies over all pairs of copies.

Shapes: v (n, d), h (n, units); with copies (copies, n, d). Energies and bounds are in nats.
Sources: srivastava2012 and the work it builds on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from transference.nn.named import ByModality

Kind = Literal["binary", "gaussian", "counts"]
Fixed = Mapping[str, Tensor | None]
"""Name -> (n,) bool, the rows whose visible units are given and stay as they are; None = all; no name, no row."""


class Rbm(nn.Module):
    """A layer of `size` units of one kind, and a layer of `units` binary ones above it.

    Attributes
    ----------
    centre
        m.
    norm, total
        Root of the mean of |v|^2 and mean of M over the training rows: what a step of the weights, and of the bias
        above, is divided by.
    """

    centre: Tensor
    norm: Tensor
    total: Tensor

    def __init__(self, size: int, units: int, kind: Kind = "binary", deviation: float = 1.0) -> None:
        super().__init__()
        self.kind = kind
        self.deviation = deviation if kind == "gaussian" else 1.0
        self.weight = nn.Parameter(torch.zeros(units, size))
        self.below = nn.Parameter(torch.zeros(size))
        self.above = nn.Parameter(torch.zeros(units))
        self.register_buffer("centre", torch.full((size,), 0.5 if kind == "binary" else 0.0))
        self.register_buffer("norm", torch.tensor(float(size)).sqrt())
        self.register_buffer("total", torch.ones(()))

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=0.3 / math.sqrt(max(1, self.weight.shape[1])))
        nn.init.zeros_(self.below)
        nn.init.zeros_(self.above)

    def fit_statistics(self, v: Tensor) -> None:
        """The bias below becomes that of rows drawn by the mean of v (n, d) alone."""
        with torch.no_grad():
            self.norm.copy_(v.square().sum(1).mean().sqrt().clamp_min(1.0) / self.deviation)
            self.centre.copy_(v.mean(0))
            if self.kind == "counts":
                self.total.copy_(v.sum(1).mean().clamp_min(1.0))
                self.centre.copy_((v.sum(0) + 0.1) / (v.sum() + 0.1 * v.shape[1]))
                self.below.copy_(((v.sum(0) + 0.1) / (v.sum() + 0.1 * v.shape[1])).log())
            elif self.kind == "binary":
                self.below.copy_(((v.sum(0) + 0.5) / (len(v) + 1)).logit())
            else:
                self.below.copy_(v.mean(0))

    def up(self, v: Tensor) -> Tensor:
        """f(v), (..., units)."""
        bias = self.above * v.sum(-1, keepdim=True) if self.kind == "counts" else self.above
        return self._heard(v) + bias

    def down(self, h: Tensor) -> Tensor:
        """g(h), (..., d)."""
        heard = (h - 0.5) @ self.weight
        return self.below + (self.deviation * heard if self.kind == "gaussian" else heard)

    def rest(self, v: Tensor) -> Tensor:
        """(...,) E(v, 0): the energy without the layer above."""
        return self.alone(v) + 0.5 * self._heard(v).sum(-1)

    def alone(self, v: Tensor) -> Tensor:
        """A(v), (...,): the energy of v where no unit above is heard."""
        if self.kind == "gaussian":
            return (v - self.below).square().sum(-1) / (2 * self.deviation**2)
        return -(v * self.below).sum(-1)

    def _heard(self, v: Tensor) -> Tensor:
        """(..., units) W (v - M m) / s."""
        shifted = v - (self.centre * v.sum(-1, keepdim=True) if self.kind == "counts" else self.centre)
        return F.linear(shifted / self.deviation if self.kind == "gaussian" else shifted, self.weight)

    def energy(self, v: Tensor, h: Tensor) -> Tensor:
        """E(v, h), (...,)."""
        return self.rest(v) - (h * self.up(v)).sum(-1)

    def mean(self, field: Tensor, total: Tensor) -> Tensor:
        """(..., d) means of v given g (..., d); `total` (..., 1) is M."""
        if self.kind == "gaussian":
            return field
        return field.sigmoid() if self.kind == "binary" else total * field.softmax(-1)

    def draw(self, field: Tensor, total: Tensor) -> Tensor:
        """(..., d) a sample of v given g (..., d); `total` (..., 1) is M, rounded to whole words."""
        if self.kind == "gaussian":
            return field + self.deviation * torch.randn_like(field)
        if self.kind == "binary":
            return flip(field)
        most = int(total.max().round()) if total.numel() else 0
        p = field.softmax(-1).reshape(-1, field.shape[-1])
        if not most or not len(p):
            return torch.zeros_like(field)
        words = torch.multinomial(p, most, replacement=True)  # (rows, most)
        real = torch.arange(most, device=p.device) < total.round().reshape(-1, 1)
        return torch.zeros_like(p).scatter_add(1, words, real.to(p.dtype)).view_as(field)

    def log_partition_alone(self, total: float) -> Tensor:
        """The log of the sum (integral) of exp(-alone(v)) over v; over rows of `total` words in order."""
        if self.kind == "gaussian":
            return self.below.new_tensor(len(self.below) * math.log(math.sqrt(2 * math.pi) * self.deviation))
        return F.softplus(self.below).sum() if self.kind == "binary" else total * self.below.logsumexp(0)


def flip(field: Tensor) -> Tensor:
    """Zeros and ones, 1 with probability sigmoid(field)."""
    return (torch.rand_like(field) < field.sigmoid()).to(field.dtype)


def free_energy(machines: Sequence[Rbm], below: Sequence[Tensor], copies: int = 1) -> Tensor:
    """(n,) -log of the sum over h of exp(-E): of machines that share the layer above, of which there are `copies`.

    Parameters
    ----------
    below
        (copies below, n, d) of each machine.
    """
    rest = torch.stack([part.rest(v).sum(0) for part, v in zip(machines, below, strict=True)]).sum(0)
    return copies * (rest - F.softplus(_up(machines, below)).sum(1))


def contrastive_divergence(
    machines: Sequence[Rbm], data: Sequence[Tensor], copies: tuple[int, int] = (1, 1), steps: int = 1
) -> Tensor:
    """A scalar whose gradient is that of CD: free energy of the data minus that of samples `steps` away, held fixed.

    Parameters
    ----------
    machines, data
        Machines that share the layer above, and (n, d) of each.
    copies
        Of the layers below, and of the layer above.
    """
    given = [v.expand(copies[0], *v.shape) for v in data]
    samples = given
    with torch.no_grad():
        for _ in range(steps):
            field = _up(machines, samples)
            above = torch.stack([flip(field) for _ in range(copies[1])])
            samples = [
                part.draw(part.down(above).sum(0).expand_as(v), v.sum(-1, keepdim=True))
                for part, v in zip(machines, samples, strict=True)
            ]
    return free_energy(machines, given, copies[1]).mean() - free_energy(machines, samples, copies[1]).mean()


def _up(machines: Sequence[Rbm], below: Sequence[Tensor]) -> Tensor:
    return torch.stack([part.up(v).sum(0) for part, v in zip(machines, below, strict=True)]).sum(0)


@dataclass(frozen=True)
class State:
    """Values, or means, of all units: the layers of every tower from the visible one up, (n, d) each, and the joint."""

    towers: Mapping[str, tuple[Tensor, ...]]
    joint: Tensor

    def hidden(self) -> Tensor:
        """(n, hidden units of all layers)."""
        return torch.cat([*(h for tower in self.towers.values() for h in tower[1:]), self.joint], 1)


class DeepMachine(nn.Module):
    """A tower of `layers` hidden layers over each modality's units, and a joint layer over all towers.

    Parameters
    ----------
    visible
        Name -> number and kind of the visible units.
    units, layers
        Of every hidden layer; hidden layers of a tower.
    deviation
        s of gaussian units.
    """

    def __init__(self, visible: Mapping[str, tuple[int, Kind]], units: int, layers: int, deviation: float) -> None:
        super().__init__()
        self.layers = layers
        self.towers = ByModality()
        for name, (size, kind) in sorted(visible.items()):
            parts = [Rbm(size, units, kind, deviation), *(Rbm(units, units) for _ in range(layers))]
            self.towers[name] = nn.ModuleList(parts)

    def tower(self, name: str) -> list[Rbm]:
        """From the visible units up; the last machine's upper layer is the joint one."""
        return [*self.towers[name]]  # type: ignore[misc]

    def energy(self, state: State) -> Tensor:
        """(n,) energy; of means, the expected energy, up to a constant for gaussian units."""
        total = torch.zeros_like(state.joint[:, 0])
        for name, layers in state.towers.items():
            for part, below, above in zip(self.tower(name), layers, (*layers[1:], state.joint), strict=True):
                total = total + part.energy(below, above)
        return total

    def field(self, state: State, name: str, depth: int) -> Tensor:
        """(n, d) what the neighbours of a layer of a tower tell it."""
        parts, layers = self.tower(name), (*state.towers[name], state.joint)
        field = parts[depth].down(layers[depth + 1])
        return field + parts[depth - 1].up(layers[depth - 1]) if depth else field

    def joint_field(self, state: State) -> Tensor:
        """(n, units)."""
        return torch.stack([self.tower(name)[-1].up(layers[-1]) for name, layers in state.towers.items()]).sum(0)

    def update(self, state: State, block: int, fixed: Fixed, draw: bool, share: float = 1.0) -> State:
        """The layers whose depth is `block` modulo 2, sampled or at their means given the others.

        With a `share`, samples are those of units that hear this share of their field, drawn as near to a half.
        """
        choose = (lambda field: 0.5 + share * (flip(share * field) - 0.5)) if draw else torch.sigmoid
        towers = {}
        for name, old in state.towers.items():
            new = list(old)
            for depth in range(block, self.layers + 1, 2):
                if depth:
                    new[depth] = choose(self.field(state, name, depth))
                elif name not in fixed or fixed[name] is not None:
                    new[0] = self._visible(state, name, fixed.get(name), draw)
            towers[name] = tuple(new)
        turn = (self.layers + 1) % 2 == block
        return State(towers, choose(self.joint_field(state)) if turn else state.joint)

    def _visible(self, state: State, name: str, known: Tensor | None, draw: bool) -> Tensor:
        """(n, d) the visible units given the layer above, but for the rows that are `known`."""
        first, old = self.tower(name)[0], state.towers[name][0]
        v = (first.draw if draw else first.mean)(self.field(state, name, 0), old.sum(1, keepdim=True))
        return v if known is None else torch.where(known[:, None], old, v)

    def begin(self, visible: Mapping[str, Tensor], fixed: Fixed) -> State:
        """Visible units as given, elsewhere as their biases have them; each layer from the one below, heard twice."""
        n = next(iter(visible.values())).shape[0]
        towers, tops = {}, []
        for name in self.towers:
            parts = self.tower(name)
            v = parts[0].mean(parts[0].below, parts[0].total).expand(n, -1)
            if name in fixed:
                known = fixed[name]
                v = visible[name] if known is None else torch.where(known[:, None], visible[name], v)
            layers = [v]
            for part in parts[:-1]:
                layers.append((2 * part.up(layers[-1])).sigmoid())
            towers[name] = tuple(layers)
            tops.append(parts[-1].up(layers[-1]))
        return State(towers, torch.stack(tops).sum(0).sigmoid())

    def mean_field(self, visible: Mapping[str, Tensor], fixed: Fixed, steps: int) -> State:
        """The means of all that is not fixed, after `steps` times both blocks. Each step raises `bound`."""
        state = self.begin(visible, fixed)
        for _ in range(steps):
            state = self.update(self.update(state, 1, fixed, False), 0, fixed, False)
        return state

    def gibbs(self, state: State, fixed: Fixed, steps: int) -> State:
        """Samples of all that is not fixed, after `steps` times both blocks; a text keeps its number of words."""
        for _ in range(steps):
            state = self.update(self.update(state, 0, fixed, True), 1, fixed, True)
        return state

    def resized(self, state: State, other: State) -> State:
        """The same hidden units; texts of as many words, of no meaning, as those of the rows of another state."""
        row = torch.arange(state.joint.shape[0], device=state.joint.device) % other.joint.shape[0]
        towers = {}
        for name, layers in state.towers.items():
            v = layers[0]
            if self.tower(name)[0].kind == "counts":
                v = F.pad(other.towers[name][0].sum(1)[row, None], (0, v.shape[1] - 1))
            towers[name] = (v, *layers[1:])
        return State(towers, state.joint)

    def bound(self, state: State) -> Tensor:
        """(n,) at most the log of the sum of exp(-E) over all hidden units, of visible units that are all fixed."""
        h = state.hidden()
        return -self.energy(state) - (torch.xlogy(h, h) + torch.xlogy(1 - h, 1 - h)).sum(1)

    @torch.no_grad()
    def log_partition(
        self, chains: int = 200, rungs: int = 500, totals: Mapping[str, int] | None = None
    ) -> tuple[float, float, float]:
        """log Z by annealed importance sampling, and the ends of three standard errors to both sides.

        From blocks that do not hear one another to the whole machine, in equal steps; block 1 is summed over.

        Parameters
        ----------
        chains, rungs
            Independent samples, and steps of each.
        totals
            Number of words of each modality that is counts: Z is over rows of as many words, in order.
        """
        state, log_z = self._apart(chains, totals or {})
        weight = torch.zeros(chains, dtype=torch.float64, device=log_z.device)
        before = 0.0
        for share in torch.linspace(0, 1, rungs + 1)[1:].tolist():
            field = self._fields(state, 1)
            rise = F.softplus(share * field) - F.softplus(before * field) - (share - before) * field / 2
            weight, before = weight + rise.sum(1).double(), share
            state = self.update(self.update(state, 1, {}, True, share), 0, {}, True)
        top = weight.max()
        ratio = (weight - top).exp()
        mean, error = float(ratio.mean()), float(ratio.std()) / math.sqrt(chains)
        ends = (mean, max(mean - 3 * error, 1e-300), mean + 3 * error)
        middle, low, high = (float(log_z + top) + math.log(value) for value in ends)
        return middle, low, high

    def _apart(self, chains: int, totals: Mapping[str, int]) -> tuple[State, Tensor]:
        """Samples of block 0 where every unit of block 1 is a half, and log Z where it is not heard."""
        towers = {}
        for name in self.towers:
            parts = self.tower(name)
            v = parts[0].below.new_zeros(chains, len(parts[0].below))
            v[:, 0] = totals.get(name, 0)  # as many words, whichever
            layers = [v, *(v.new_full((chains, len(part.above)), 0.5 * (k % 2 == 0)) for k, part in enumerate(parts))]
            towers[name], joint = tuple(layers[:-1]), layers[-1]
        silent = State(towers, joint)
        log_z = self._fields(silent, 1)[0].numel() * math.log(2) - self.energy(silent)[0]
        log_z = log_z + F.softplus(self._fields(silent, 0)[0]).sum()
        for name, (v, *_) in towers.items():
            first = self.tower(name)[0]
            log_z = log_z + first.alone(v[0]) + first.log_partition_alone(totals.get(name, 0))
        return self.update(silent, 0, {}, True), log_z

    def _fields(self, state: State, block: int) -> Tensor:
        """(n, units) of the hidden layers of a block."""
        depths = [depth for depth in range(1, self.layers + 1) if depth % 2 == block]
        fields = [self.field(state, name, depth) for name in state.towers for depth in depths]
        return torch.cat([*fields, self.joint_field(state)] if (self.layers + 1) % 2 == block else fields, 1)
