"""How near a wrong class is: precision among the best k answers, where what is close in a tree of classes counts.

The right answers to a row of class y are y and the classes nearest to it in the tree, all those at a distance together,
until there are k or more: with k = 1 it is y alone. The precision at k is the share of a row's k best answers that are
among them. To call a cat a dog then costs less than to call it a truck.

Source: frome2013.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transference.core.errors import ConfigError

Array = NDArray[Any]


def hops(classes: Sequence[str], tree: Mapping[str, str]) -> Array:
    """(classes, classes) int: edges between two classes.

    Parameters
    ----------
    classes
        Their names.
    tree
        Child -> parent, of classes and of what is above them. What has no parent hangs from one root.

    Raises
    ------
    ConfigError
        Where the parents of a class lead back to it.

    Examples
    --------
    >>> hops(["cat", "dog", "truck"], {"cat": "pet", "dog": "pet"}).tolist()
    [[0, 2, 3], [2, 0, 3], [3, 3, 0]]
    """
    depths = [{name: depth for depth, name in enumerate(_above(each, tree))} for each in classes]
    return np.array([[_between(one, other) for other in depths] for one in depths])


def precision(target: Array, scores: Array, distance: Array, k: int) -> Array:
    """(n,) share of the `k` best answers to each row that are right; see the module.

    Parameters
    ----------
    target
        (n,) class numbers.
    scores
        (n, classes); the higher the better.
    distance
        (classes, classes) as `hops` gives it.
    k
        1 up to the number of classes.
    """
    reach = np.sort(distance, 1)[:, k - 1]  # of the farthest class that is right
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    near: Array = np.take_along_axis(distance[target], best, 1) <= reach[target][:, None]
    return near.mean(1)


def _above(name: str, tree: Mapping[str, str]) -> list[str | None]:
    """The name, its parent, and so on up to the one root, which has no name."""
    path: list[str | None] = [name]
    while (parent := tree.get(str(path[-1]))) is not None:
        if parent in path:
            raise ConfigError(f"The parents of {name!r} in the tree lead back to {parent!r}. Name each parent once.")
        path.append(parent)
    return [*path, None]


def _between(one: Mapping[str | None, int], other: Mapping[str | None, int]) -> int:
    return min(depth + other[name] for name, depth in one.items() if name in other)
