"""K-means, of as many clusters as there are different points to make them of."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor


def k_means(points: Tensor, most: int, seed: int, starts: int = 1) -> tuple[Tensor, Tensor]:
    """(at most `most`, d) centres in double precision, and (n,) the number of each point's, of (n, d) points.

    >>> centres, number = k_means(torch.tensor([[0.0], [4.0], [4.0]]), 5, seed=0)
    >>> centres[number].tolist()
    [[0.0], [4.0], [4.0]]
    """
    values = points.double().cpu().numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer clusters than asked for, since points coincide
        model = KMeans(min(most, len(np.unique(values, axis=0))), n_init=starts, random_state=seed).fit(values)
    centres, number = (torch.from_numpy(found).to(points.device) for found in (model.cluster_centers_, model.labels_))
    return centres, number.long()
