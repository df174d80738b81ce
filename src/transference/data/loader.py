"""Views as tensors in memory, and batches as indexed tensors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from transference.core.batch import Batch
from transference.core.seeding import torch_generator
from transference.core.views import Views


def to_batch(X: Views, target: NDArray[Any] | None = None, device: str | torch.device = "cpu") -> Batch:
    """All rows of X as one Batch, zeros where a row lacks a modality, whatever is held there.

    No copy where the arrays are float32 in ordinary memory and no row lacks anything.
    """

    def held(name: str) -> NDArray[Any]:
        array, present = np.asarray(X[name], np.float32), X.present[name]
        return array if present.all() else np.where(present.reshape(-1, *[1] * (array.ndim - 1)), array, np.float32(0))

    def tensor(array: NDArray[Any]) -> Tensor:
        array = np.ascontiguousarray(array)  # rows may have been taken in reverse
        return torch.from_numpy(array if array.flags.writeable else array.copy()).to(device)

    return Batch(
        {name: tensor(held(name)) for name in X.names},
        {name: tensor(mask) for name, mask in X.present.items()},
        {name: tensor(sizes) for name, sizes in X.lengths.items()},
        None if target is None else tensor(np.asarray(target)),
        tensor(X.rows),
    )


def chunks(batch: Batch, size: int = 512) -> Iterator[Batch]:
    """The rows in order, `size` at a time."""
    for start in range(0, len(batch), size):
        yield batch.take(slice(start, start + size))


def batches(rows: Batch, size: int, updates: int, seed: int, unlabelled: bool) -> Iterator[Batch]:
    """`updates` batches, drawn without replacement within an epoch.

    A batch holds `size` labelled rows (all of them, where there are fewer), then, if `unlabelled`, as many unlabelled
    rows (or all). The two orders come from separate generators, so that the labelled rows of every step are the same
    whether unlabelled ones are used or not.
    """
    known = rows.is_labelled
    parts = [_draw(known.nonzero()[:, 0], size, updates, torch_generator(seed, "order"))]
    if unlabelled:
        parts.append(_draw((~known).nonzero()[:, 0], size, updates, torch_generator(seed, "unlabelled order")))
    for step in range(updates):
        index = [part[step] for part in parts if part is not None]
        yield rows.take(torch.cat(index) if len(index) > 1 else index[0])


def _draw(index: Tensor, size: int, updates: int, generator: torch.Generator) -> Tensor | None:
    """(updates, min(size, n)) row numbers; None where there is no row."""
    if not len(index):
        return None
    size = min(size, len(index))
    per_epoch = len(index) // size
    epochs = -(-updates // per_epoch)
    order = torch.stack([torch.randperm(len(index), generator=generator)[: per_epoch * size] for _ in range(epochs)])
    return index.cpu()[order.view(-1, size)[:updates]].to(index.device)
