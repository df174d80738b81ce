"""Classes as points of a representation, and how near rows are to them."""

from __future__ import annotations

import torch
from torch import Tensor


def class_means(features: Tensor, number: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """The mean of each class (classes, d), zeros where it has no row; and whether it has one, (classes,) bool.

    Parameters
    ----------
    features
        (n, d).
    number
        (n,) int64, the class of each row.

    Examples
    --------
    >>> means, found = class_means(torch.tensor([[1.0], [3.0], [8.0]]), torch.tensor([0, 0, 2]), 3)
    >>> means.flatten().tolist(), found.tolist()
    ([2.0, 0.0, 8.0], [True, False, True])
    """
    count = torch.bincount(number, minlength=classes)
    total = features.new_zeros(classes, features.shape[1]).index_add(0, number, features)
    return total / count.clamp_min(1)[:, None], count > 0


def blend(own: Tensor, other: Tensor, weight: float) -> Tensor:
    """(own + weight * other) / (1 + weight): `own` itself at weight 0, and `other` as the weight grows.

    >>> blend(torch.tensor([0.0, 4.0]), torch.tensor([2.0, 4.0]), 3.0).tolist()
    [1.5, 4.0]
    """
    return own + weight / (1 + weight) * (other - own)


def nearness(features: Tensor, prototypes: Tensor) -> Tensor:
    """(n, classes) logits of rows (n, d): minus the squared distance to each prototype (classes, d).

    >>> nearness(torch.tensor([[0.0, 3.0]]), torch.tensor([[0.0, 0.0], [4.0, 3.0]])).tolist()
    [[-9.0, -16.0]]
    """
    return -(features[:, None] - prototypes).square().sum(2)
