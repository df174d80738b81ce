"""Planted rows on which the second modality is what an answer is easy to tell from."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from transference.core.views import Views


def two_factors(
    seed: int, noise: bool, n: int, secondary: str = "t", labelled: int = 16
) -> tuple[Views, NDArray[Any], NDArray[Any]]:
    """y depends on two factors; the secondary holds them, x mixes them with twenty louder ones. Few labels, many pairs.

    Rows, all labels, and labels that are -1 beyond the first ones.
    """
    g = np.random.default_rng(seed)
    factors, loud = g.normal(size=(n, 2)), g.normal(size=(n, 20))
    y = (factors @ g.normal(size=2) > 0).astype(int)
    x = factors @ g.normal(size=(2, 40)) + 0.67 * loud @ g.normal(size=(20, 40)) + 0.3 * g.normal(size=(n, 40))
    few = y.copy()
    few[labelled:] = -1
    return Views.of(primary="x", **{"x": x, secondary: g.normal(size=(n, 2)) if noise else factors}), y, few
