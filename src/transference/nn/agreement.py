"""Functions of several views that shall agree: the penalty, the closed form, and what holds its solution.

minimise   fit  +  weight · mean over pairs of views (v, u) of mean_i |f_v(x_i,v) - f_u(x_i,u)|²
                +  ridge · sum_v |f_v|²
fit        "each":  sum_v mean over labelled rows that have v of |y - f_v(x_v)|²
           "sum":   mean over labelled rows of |y - sum_v f_v(x_v)|²; where a row lacks some of the m views, the sum
                    over those that it has, times m, divided by their number
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import Ridge
from torch import Tensor, nn

Array = NDArray[np.float64]


def disagreement(f: Tensor, g: Tensor) -> Tensor:
    """Mean over rows of the squared distance of (n, k) and (n, k); 0 where there is no row.

    >>> disagreement(torch.tensor([[1.0, 0.0], [2.0, 0.0]]), torch.tensor([[0.0, 1.0], [2.0, 0.0]])).item()
    1.0
    """
    return (f - g).square().sum() / max(1, f.shape[0])


def co_regularized(
    features: Mapping[str, Array],
    present: Mapping[str, NDArray[np.bool_]],
    target: Array,
    *,
    ridge: float,
    weight: float,
    loss: str = "each",
) -> dict[str, Array]:
    """Name -> (d, k) weights of the linear functions that minimise the objective above.

    Parameters
    ----------
    features
        Name -> (n, d), d of its own for each view.
    present
        Name -> (n,) which rows have the view.
    target
        (n, k), nan in rows without a label.
    ridge, weight, loss
        As above; `loss` is "each" or "sum".

    Examples
    --------
    One labelled row, both features 1: the sum of two functions w has to be 1, the ridge of each is 1, w + w = 2/3.

    >>> one = {"a": np.ones((1, 1)), "b": np.ones((1, 1))}
    >>> here = dict.fromkeys(one, np.ones(1, bool))
    >>> found = co_regularized(one, here, np.ones((1, 1)), ridge=1.0, weight=0.0, loss="sum")
    >>> [value.round(4).tolist() for value in found.values()]
    [[[0.3333]], [[0.3333]]]
    """
    known = ~np.isnan(target).any(1)
    pairs = list(combinations(features, 2))
    design: list[Array] = []
    values: list[Array] = []

    def add(rows: NDArray[np.bool_], factors: Mapping[str, Any], wanted: Array | float, share: float) -> None:
        """Equations: the sum over views of factor times function shall be what is wanted, in these rows."""
        if not rows.any() or not share:
            return
        scale = np.sqrt(share / rows.sum())
        parts = [factors.get(name, 0.0) * np.where(present[name][:, None], z, 0.0) for name, z in features.items()]
        design.append(scale * np.hstack(parts)[rows])
        values.append(scale * np.broadcast_to(wanted, (len(target), target.shape[1]))[rows])

    if loss == "sum":
        views = np.sum([present[name] for name in features], 0)[:, None]
        add(known & (views[:, 0] > 0), dict.fromkeys(features, len(features) / np.maximum(views, 1)), target, 1.0)
    else:
        for name in features:
            add(known & present[name], {name: 1.0}, target, 1.0)
    for one, other in pairs:
        add(present[one] & present[other], {one: 1.0, other: -1.0}, 0.0, weight / len(pairs))
    fit = Ridge(alpha=ridge, fit_intercept=False, solver="cholesky").fit(np.vstack(design), np.vstack(values))
    ends = np.cumsum([z.shape[1] for z in features.values()])
    return dict(zip(features, np.split(np.atleast_2d(fit.coef_).T, ends[:-1]), strict=True))


class Function(nn.Module):
    """z w or, with centres c, sum_j exp(-gamma |z - c_j|²) w_j: (n, d) -> (n, k). w is solved for, not trained.

    Parameters
    ----------
    size, outputs
        d, k.
    centres
        How many; 0 = linear. Those that are not used have w = 0.
    """

    centres: Tensor

    def __init__(self, size: int, outputs: int, centres: int, gamma: float) -> None:
        super().__init__()
        self.gamma = gamma
        self.weights = nn.Parameter(torch.zeros(centres or size, outputs), requires_grad=False)
        if centres:
            self.register_buffer("centres", torch.zeros(centres, size))
        self.linear = not centres

    def spanned(self, centres: Array, weights: Array) -> None:
        """Take over (m, d) centres and their (m, k) weights, m at most the number of places."""
        self.centres[: len(centres)] = torch.from_numpy(centres)
        self.weights[: len(weights)] = torch.from_numpy(weights)

    def forward(self, z: Tensor) -> Tensor:
        if self.linear:
            return z @ self.weights
        c = self.centres
        apart = z.square().sum(1, keepdim=True) - 2 * z @ c.T + c.square().sum(1)  # (n, centres)
        return torch.exp(-self.gamma * apart.clamp_min(0)) @ self.weights
