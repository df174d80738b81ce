"""A vector is shifted by what other modalities say, and never by more than a share of its own length."""

from __future__ import annotations

import torch
from torch import Tensor

LEAST = 1e-6  # of a length that something is divided by


def shifted(z: Tensor, by: Tensor, share: float) -> Tensor:
    """z + a * by with a = min(share |z| / |by|, 1), for vectors along the last axis.

    Parameters
    ----------
    z, by
        (..., d).
    share
        The longest shift, as a share of the length of z.

    Examples
    --------
    >>> z = torch.tensor([[3.0, 4.0], [3.0, 4.0]])
    >>> shifted(z, torch.tensor([[0.0, 1.0], [10.0, 0.0]]), 0.4)
    tensor([[3., 5.],
            [5., 4.]])
    """
    longest = share * torch.linalg.vector_norm(z, dim=-1, keepdim=True)
    length = torch.linalg.vector_norm(by, dim=-1, keepdim=True)
    return z + by * (longest / length.clamp_min(LEAST)).clamp_max(1.0)
