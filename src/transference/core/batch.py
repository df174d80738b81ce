"""Batch: the rows of a training step, as tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

UNLABELLED = -1


@dataclass(frozen=True, slots=True)
class Batch:
    """What every training step sees.

    Attributes
    ----------
    views
        Name -> (n, *shape) float32; rows that lack the modality hold zeros.
    present
        Name -> (n,) bool.
    lengths
        Name -> (n,) int64, for modalities whose rows differ in length.
    target
        (n,) int64 with UNLABELLED = -1; or (n,) float32, (n, k) float32 with nan where unlabelled; None in prediction.
    rows
        (n,) int64, row in the manifest.
    """

    views: Mapping[str, Tensor]
    present: Mapping[str, Tensor]
    lengths: Mapping[str, Tensor]
    target: Tensor | None
    rows: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, index: Tensor | slice) -> Batch:
        """These rows of the batch: a slice, a mask, or row numbers."""

        def rows(value: Tensor) -> Tensor:
            return value.index_select(0, index) if numbers else value[index]  # type: ignore[arg-type]

        numbers = isinstance(index, Tensor) and index.dtype == torch.int64  # index_select takes half the time
        return Batch(
            {name: rows(value) for name, value in self.views.items()},
            {name: rows(value) for name, value in self.present.items()},
            {name: rows(value) for name, value in self.lengths.items()},
            None if self.target is None else rows(self.target),
            rows(self.rows),
        )

    def only(self, names: Iterable[str]) -> Batch:
        """These modalities alone."""
        kept = set(names)
        return Batch(
            {name: value for name, value in self.views.items() if name in kept},
            {name: value for name, value in self.present.items() if name in kept},
            {name: value for name, value in self.lengths.items() if name in kept},
            self.target,
            self.rows,
        )

    def replace(self, views: Mapping[str, Tensor], present: Mapping[str, Tensor] | None = None) -> Batch:
        """The same rows with other content in the named modalities, and presence where given."""
        return Batch({**self.views, **views}, {**self.present, **(present or {})}, self.lengths, self.target, self.rows)

    @property
    def is_labelled(self) -> Tensor:
        """(n,) bool."""
        if self.target is None:
            return torch.zeros(len(self), dtype=torch.bool, device=self.rows.device)
        return labelled(self.target)

    @property
    def labelled(self) -> Batch:
        """The labelled rows; the batch itself where all are."""
        mask = self.is_labelled
        return self if bool(mask.all()) else self.take(mask)

    def complete(self, names: Iterable[str]) -> Batch:
        """The rows in which every one of these modalities is present; the batch itself where all are."""
        mask = torch.ones(len(self), dtype=torch.bool, device=self.rows.device)
        for name in names:
            mask = mask & self.present[name]
        return self if bool(mask.all()) else self.take(mask)


def labelled(target: Tensor) -> Tensor:
    """(n,) bool: which rows of a target carry a label."""
    if target.dtype == torch.int64:
        return target != UNLABELLED
    missing = target.isnan()
    return ~(missing.any(1) if missing.ndim == 2 else missing)
