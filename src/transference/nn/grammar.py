"""A grammar of segments, induced from signals: how each kind looks, how long it lasts, what follows what.

A signal is cut into segments, each of one state; a state has a normal law of its steps, a Poisson law of how many steps
there are beyond the first, and a law of what comes after it, the end among that. The best cut is found by dynamic
programming, the grammar by hard EM; some signals may say which states they hold, in which order.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from transference.nn.clusters import k_means

NO_NAME = -1
ROUNDS = 30  # of EM, at most
STARTS = 3  # of k-means
LEAST_VARIANCE = 1e-2  # of a standardised number
RATES = (0.05, 1e3)  # of steps beyond the first
PRIOR = 1.0  # times that every change of skill counts as seen


def segment(emission: Tensor, duration: Tensor, chain: Tensor) -> tuple[Tensor, Tensor]:
    """The best of all segmentations of each row: (n, length) the state of every step, (n,) the logarithm of its value.

    Parameters
    ----------
    emission
        (n, length, states) log-density of every step in every state.
    duration
        (n or 1, length, states) log-probability that a segment has 1, 2, ... steps.
    chain
        (n or 1, states + 1, states + 1) log-probability of what follows a state, -inf on the diagonal. The last row is
        the beginning, the last column the end.
    """
    n, length, states = emission.shape
    total = F.pad(emission.cumsum(1), (0, 0, 1, 0))  # (n, length + 1, states)
    enter = torch.full_like(total, -math.inf)  # the best that ends with a beginning of a state after t steps
    enter[:, 0] = chain[:, states, :states]
    begun = torch.zeros(total.shape, dtype=torch.int64, device=emission.device)  # where the segment that ends began
    before = torch.zeros_like(begun)  # the state before the one that begins
    for t in range(1, length + 1):
        found = (enter[:, :t] - total[:, :t] + duration[:, :t].flip(1)).max(1)  # over beginnings
        best, begun[:, t] = found.values + total[:, t], found.indices
        enter[:, t], before[:, t] = (best[:, :, None] + chain[:, :states, :states]).max(1)
    value, state = (best + chain[:, :states, states]).max(1)
    rows, steps = torch.arange(n, device=state.device), torch.arange(length, device=state.device)
    labels, end = state[:, None].expand(n, length), torch.full_like(state, length)
    while bool((end > 0).any()):
        start = begun[rows, end, state]
        labels = torch.where((steps >= start[:, None]) & (steps < end[:, None]), state[:, None], labels)
        end, state = start, before[rows, start, state]
    return labels, value


class Grammar(NamedTuple):
    """What skills look like, how long they last and what follows what; a skill that nothing leads to is not used."""

    mean: Tensor  # (skills, d)
    variance: Tensor  # (d,)
    rate: Tensor  # (skills,) mean number of steps beyond the first
    chain: Tensor  # (skills + 1, skills + 1) log-probabilities, see `segment`

    def emission(self, x: Tensor) -> Tensor:
        """(n, length, skills) of (n, length, d)."""
        scaled = self.mean / self.variance
        apart = (x.square() / self.variance).sum(2, keepdim=True) - 2 * x @ scaled.T + (self.mean * scaled).sum(1)
        return -0.5 * (apart + (2 * math.pi * self.variance).log().sum())

    def duration(self, length: int) -> Tensor:
        """(length, skills)."""
        more = torch.arange(length, dtype=self.rate.dtype, device=self.rate.device)[:, None]
        return more * self.rate.log() - self.rate - torch.lgamma(more + 1)

    def cut(self, x: Tensor, names: Tensor) -> tuple[Tensor, float]:
        """(n, length) skills of the best cut, and the objective; `names` (n, at most length) as for `induce`."""
        labels, value = segment(self.emission(x), self.duration(x.shape[1])[None], self.chain[None])
        told = names[:, 0] != NO_NAME
        if told.any():
            labels[told], value[told] = self._align(x[told], names[told])
        return labels, float(value.sum() + PRIOR * self.chain[self.chain > -math.inf].sum())

    def _align(self, x: Tensor, names: Tensor) -> tuple[Tensor, Tensor]:
        """As `segment`, where state j of a row is its name j, and nothing but j + 1 comes after j."""
        (n, most), there, skill = names.shape, names != NO_NAME, names.clamp_min(0)
        rows, j, last = torch.arange(n, device=x.device), torch.arange(most - 1, device=x.device), there.sum(1) - 1
        chain = torch.full((n, most + 1, most + 1), -math.inf, dtype=x.dtype, device=x.device)
        chain[:, most, 0] = self.chain[-1, skill[:, 0]]
        chain[:, j, j + 1] = self.chain[skill[:, :-1], skill[:, 1:]].where(there[:, 1:], -math.inf)
        chain[rows, last, most] = self.chain[skill[rows, last], -1]
        emission = self.emission(x).gather(2, skill[:, None].expand(-1, x.shape[1], -1))
        position, value = segment(emission, self.duration(x.shape[1])[:, skill].movedim(1, 0), chain)
        return names.gather(1, position), value

    def update(self, x: Tensor, labels: Tensor) -> Grammar:
        """The likeliest grammar of these segments; a skill without a step keeps its mean and its rate."""
        skills = len(self.mean)
        member = F.one_hot(labels, skills).to(x.dtype)  # (n, length, skills)
        steps = member.sum((0, 1))
        mean = torch.einsum("ntk,ntd->kd", member, x) / steps.clamp_min(1)[:, None]
        mean = torch.where(steps[:, None] > 0, mean, self.mean)
        variance = (x - mean[labels]).square().mean((0, 1)).clamp_min(LEAST_VARIANCE)
        before, after = F.pad(labels, (1, 0), value=skills), F.pad(labels, (0, 1), value=skills)
        changed = before != after
        seen = torch.zeros_like(self.chain)
        seen.index_put_((before[changed], after[changed]), torch.ones_like(seen[0, 0]), accumulate=True)
        segments = seen[:, :skills].sum(0)
        rate = ((steps - segments) / segments.clamp_min(1)).clamp(*RATES)
        weight = (seen + PRIOR).where(self.chain > -math.inf, 0.0)
        chain = (weight / weight.sum(1, keepdim=True).clamp_min(PRIOR)).log()
        return Grammar(mean, variance, torch.where(segments > 0, rate, self.rate), chain)

    def posterior(self, x: Tensor) -> Tensor:
        """(n, length, skills) probability of each skill at each step, given all steps."""
        emission = self.emission(x).where(self.chain[-1, :-1] > -math.inf, -math.inf)
        likely = (emission - emission.amax(2, keepdim=True)).exp()
        change = self.chain[:-1, :-1].exp()
        others = change.sum(1)
        stay = torch.where(others > 0, self.rate / (1 + self.rate), 1.0)
        move = stay.diag() + ((1 - stay) / others.clamp_min(1e-12))[:, None] * change
        begin = self.chain[-1, :-1].exp() * likely[:, 0]
        onward = move * likely[:, 1:, None]  # (n, length - 1, skills, skills)
        forth = torch.cat([begin[:, None], (begin[:, None, None] @ products(onward))[:, :, 0]], 1)
        back = F.pad(products(onward.flip(1).mT).sum(2), (0, 0, 1, 0), value=1.0).flip(1)
        both = forth * back
        return both / both.sum(2, keepdim=True)


def products(factors: Tensor) -> Tensor:
    """(n, length, k, k) the product of the first 1, 2, ... of these matrices of at least 0, up to a factor for each."""
    done = 1
    while done < factors.shape[1]:
        further = factors[:, :-done] @ factors[:, done:]
        factors = torch.cat([factors[:, :done], further / further.sum((2, 3), keepdim=True)], 1)
        done *= 2
    return factors


def induce(x: Tensor, names: Tensor, skills: int, seed: int) -> tuple[Grammar, Tensor, list[float]]:
    """Hard EM: the grammar; (n, length) the skill of every step; the objective after every cut of all rows.

    Parameters
    ----------
    x
        (n, length, d).
    names
        (n, most) the skills of a row in their order, none twice at once, then -1; a row without any is free.
    skills
        Most of them; where a row has names, the named ones are all there are.
    """
    (n, length, size), x = x.shape, x.double()
    names, told = names[:, :length], names[:, 0] != NO_NAME
    phases = [told, torch.ones_like(told)] if told.any() and not told.all() else [torch.ones_like(told)]
    labels = names.gather(1, torch.arange(length, device=x.device) * (names != NO_NAME).sum(1)[:, None] // length)
    if not told.any():
        labels = k_means(x.flatten(0, 1), skills, seed, STARTS)[1].view(n, length)
    used = F.pad(torch.bincount(labels[phases[0]].flatten(), minlength=skills) > 0, (0, 1), value=True)
    allowed = used[:, None] & used & ~torch.eye(skills + 1, dtype=torch.bool, device=x.device)
    chain = torch.zeros(allowed.shape, dtype=x.dtype, device=x.device).where(allowed, -math.inf)
    grammar = Grammar(x.new_zeros(skills, size), x.new_ones(size), x.new_ones(skills), chain)
    grammar = grammar.update(x[phases[0]], labels[phases[0]])
    for rows in phases:
        trace: list[float] = []
        for _ in range(ROUNDS):
            found, value = grammar.cut(x[rows], names[rows])
            trace.append(value)
            if len(trace) > 1 and value <= trace[-2]:
                break
            labels[rows] = found
            grammar = grammar.update(x[rows], found)
    return grammar, labels, trace


def compact(names: Tensor) -> Tensor:
    """(n, most) names moved to the front of their rows, without those that repeat at once; then -1."""
    for _ in range(2):  # what repeats is seen once all stand side by side
        keep = (names != NO_NAME) & (names != F.pad(names, (1, 0), value=NO_NAME)[:, :-1])
        order = (~keep).int().argsort(dim=1, stable=True)
        names = names.gather(1, order).where(keep.gather(1, order), NO_NAME)
    return names
