"""Noise, the way back from it, and what guides the way: the parts of a diffusion model.

    x_t = sqrt(a) x + sqrt(1 - a) e         e ~ N(0, I); a is 1 at t = 0 and falls to about 0 at t = 1
    E[e | x_t] = - sqrt(1 - a) grad log p(x_t)

A field says which noise is expected in x_t: the score of x_t, but for a factor that does not depend on what is guided.
So whatever is linear in scores is the same sum of fields. For a condition y and a guidance gamma of at least 0

    by a classifier     E[e | x_t]  -  gamma sqrt(1 - a) grad log p(y | x_t)
    classifier-free     gamma E[e | x_t, y]  +  (1 - gamma) E[e | x_t]

which are the same field when p(y | x_t) is the true one. There is one convention: gamma = 0 is unconditional, gamma = 1
conditional, above 1 guided. Where others write (1 + w) E[e | x_t, y] - w E[e | x_t], w = gamma - 1.

Guided samples are not samples of p(x) p(y | x)^gamma. Where both densities are Gaussian, of variances v and v_y,
DDIM gives the variance v_y^gamma v^(1 - gamma): smaller, and around another mean.

Shapes: x, e and fields (n, d). Sources: ho2020 (DDPM), song2021ddim (DDIM), dhariwal2021, ho2022.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEAST = 1e-3  # of a signal, sqrt(a), at t = 1
ANGLE = math.acos(LEAST)
WAVES = (1, 2, 4)  # of the angle of signal and noise, that a perceptron is told
BLOCKS = 2

Field = Callable[[Tensor, Tensor], Tensor]
"""x_t (n, d) and t, a scalar -> (n, d) the noise that is expected in it."""

Bounds = tuple[Tensor, Tensor]
"""(d,) least and largest values."""


def kept(t: Tensor) -> Tensor:
    """a at t in [0, 1], the share of the variance of x_t that is signal: the squared cosine of an angle even in t.

    >>> [round(value, 3) for value in kept(torch.tensor([0.0, 0.5, 1.0])).tolist()]
    [1.0, 0.5, 0.0]
    """
    return (ANGLE * t).cos().square()


def noised(x: Tensor, noise: Tensor, a: Tensor) -> Tensor:
    """x_t; a (n, 1) or a scalar."""
    return a.sqrt() * x + (1 - a).sqrt() * noise


def velocity(x: Tensor, noise: Tensor, a: Tensor) -> Tensor:
    """sqrt(a) e - sqrt(1 - a) x: what a denoiser is asked for, of variance 1 at every t where x and e are.

    A denoiser that always answers 0 samples N(0, I).
    """
    return a.sqrt() * noise - (1 - a).sqrt() * x


def noise_in(noisy: Tensor, velocity: Tensor, a: Tensor) -> Tensor:
    """e, of x_t and the velocity."""
    return (1 - a).sqrt() * noisy + a.sqrt() * velocity


def by_classifier(unconditional: Tensor, gradient: Tensor, a: Tensor, gamma: float) -> Tensor:
    """The guided field, of the unconditional one and the gradient of log p(y | x_t) in x_t."""
    return unconditional - gamma * (1 - a).sqrt() * gradient


def classifier_free(conditional: Tensor, unconditional: Tensor, gamma: float) -> Tensor:
    """The guided field, of both; with gamma 1 or 0 one of them, bit for bit.

    >>> classifier_free(torch.tensor([3.0]), torch.tensor([1.0]), 2.0).item()
    5.0
    """
    return gamma * conditional + (1 - gamma) * unconditional


def step(
    noisy: Tensor,
    noise: Tensor,
    now: Tensor,
    then: Tensor,
    share: float = 0.0,
    fresh: Tensor | None = None,
    bounds: Bounds | None = None,
) -> Tensor:
    """From x_t with a = `now` to an earlier one with a = `then`, given the noise that is expected in it.

    Parameters
    ----------
    noisy, noise
        (n, d).
    share
        In [0, 1]: 0 keeps the expected noise (DDIM), 1 replaces as much of it by fresh noise as the true way from x to
        x_t allows (DDPM, with the smaller of its two variances).
    fresh
        (n, d) from N(0, I); needed where `share` is above 0.
    bounds
        Between which the x that is expected is kept; the noise is then what is left of x_t.
    """
    clean = (noisy - (1 - now).sqrt() * noise) / now.sqrt()
    if bounds is not None:
        clean = torch.minimum(torch.maximum(clean, bounds[0]), bounds[1])
        noise = (noisy - now.sqrt() * clean) / (1 - now).sqrt()
    variance = share**2 * (1 - then) / (1 - now) * (1 - now / then)
    earlier = then.sqrt() * clean + (1 - then - variance).clamp_min(0).sqrt() * noise
    return earlier if fresh is None else earlier + variance.sqrt() * fresh


def sample(
    field: Field,
    start: Tensor,
    steps: int,
    share: float = 0.0,
    fresh: Tensor | None = None,
    bounds: Bounds | None = None,
) -> Tensor:
    """(n, d) where a field leads from pure noise, in steps of equal length in t.

    Parameters
    ----------
    start
        (n, d) from N(0, I).
    share, fresh, bounds
        See `step`; `fresh` is (steps, n, d) here.
    """
    times = torch.linspace(1, 0, steps + 1, dtype=start.dtype, device=start.device)
    x = start
    for k in range(steps):
        now, then = kept(times[k]), kept(times[k + 1])
        x = step(x, field(x, times[k]), now, then, share, None if fresh is None else fresh[k], bounds)
    return x


class Block(nn.Module):
    """h + W silu(scaled and shifted by what is known of the row (V h))."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.known = nn.Linear(hidden, 2 * hidden)
        self.enter = nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, hidden)

    def forward(self, h: Tensor, known: Tensor) -> Tensor:
        scale, shift = self.known(known).chunk(2, dim=1)
        return h + self.out(F.silu(self.enter(h) * (1 + scale) + shift))


class Perceptron(nn.Module):
    """Noised numbers (n, size), t, a condition (n, given) -> (n, outputs).

    Parameters
    ----------
    given
        Numbers of a condition; 0 where there is none.
    null
        Whether rows may lack it: they get a learned token in its place.
    """

    def __init__(self, size: int, outputs: int, hidden: int, given: int = 0, null: bool = False) -> None:
        super().__init__()
        self.enter = nn.Linear(size, hidden)
        self.time = nn.Linear(2 * len(WAVES), hidden)
        self.condition = nn.Linear(given, hidden) if given else None
        self.null = nn.Parameter(torch.zeros(hidden)) if null else None
        self.blocks = nn.ModuleList(Block(hidden) for _ in range(BLOCKS))
        self.out = nn.Linear(hidden, outputs)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None, known: Tensor | None = None) -> Tensor:
        """t (n,) or a scalar; known (n,) bool, the rows that have their condition, None = all."""
        waves = ANGLE * t.view(-1, 1) * torch.tensor(WAVES, dtype=x.dtype, device=x.device)
        told = self.time(torch.cat([waves.cos(), waves.sin()], 1))  # (n or 1, hidden)
        if self.condition is not None and condition is not None:
            token = self.condition(condition)
            told = told + (token if known is None or self.null is None else token.where(known[:, None], self.null))
        h, told = self.enter(x), F.silu(told)
        for block in self.blocks:
            h = block(h, told)
        return self.out(h)


class Judge(Perceptron):
    """Noised numbers (n, size), t -> (n, outputs) scores, which depend on x_t no more than there is signal in it.

    As the true log p(y | x_t) does: without the factor, what a step divides by sqrt(a) would not be small where a is.
    """

    def __init__(self, size: int, outputs: int, hidden: int) -> None:
        super().__init__(size, outputs, hidden)
        self.prior = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None, known: Tensor | None = None) -> Tensor:
        return kept(t).sqrt().view(-1, 1) * super().forward(x, t) + self.prior
