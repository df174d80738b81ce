"""Gaussian experts: what each modality believes of a shared latent vector, and the product of these beliefs."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEAST_VARIANCE = 1e-4


def product(means: Tensor, variances: Tensor, present: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean and variance of the product of Gaussian experts and the prior N(0, 1), number by number.

    The precision of a product is the sum of the precisions, its mean the mean weighted by them. An expert that is
    absent adds no precision; where all are, the prior remains.

    Parameters
    ----------
    means, variances
        (experts, n, d).
    present
        (experts, n) bool; None where all are there.

    Returns
    -------
    tuple
        (n, d) mean and variance.

    Examples
    --------
    N(1, 0.5) and N(3, 2) have the precisions 2 and 0.5, with the prior 3.5 in all:

    >>> mean, variance = product(torch.tensor([[[1.0]], [[3.0]]]), torch.tensor([[[0.5]], [[2.0]]]))
    >>> mean.item(), round(variance.item(), 6)
    (1.0, 0.285714)
    """
    precision, weighted = 1 / variances, means / variances
    if present is not None:
        there = present[:, :, None]
        precision, weighted = torch.where(there, precision, 0.0), torch.where(there, weighted, 0.0)
    total = 1 + precision.sum(0)  # (n, d)
    return weighted.sum(0) / total, 1 / total


def draw(mean: Tensor, variance: Tensor) -> Tensor:
    """A sample of N(mean, variance), differentiable in both; from torch's global generator."""
    return mean + variance.sqrt() * torch.randn_like(mean)


def divergence(mean: Tensor, variance: Tensor) -> Tensor:
    """(n,) KL divergence of N(mean, variance), (n, d) each, from the prior N(0, 1), in nats, summed over numbers.

    >>> divergence(torch.tensor([[0.0, 2.0]]), torch.ones(1, 2)).tolist()
    [2.0]
    """
    return 0.5 * (variance + mean.square() - 1 - variance.log()).sum(1)


class GaussianExpert(nn.Module):
    """(n, width) representation -> mean and variance of a Gaussian, (n, latent) each."""

    def __init__(self, width: int, latent: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 2 * latent)

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        mean, raw = self.linear(h).chunk(2, 1)
        return mean, F.softplus(raw) + LEAST_VARIANCE
