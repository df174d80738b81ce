"""Dataset: Views with their labels, ids, splits and groups; what a manifest or a named set becomes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transference.core.spec import TaskKind
from transference.core.views import Views


@dataclass(frozen=True)
class Dataset:
    """Rows, ready for a study.

    Attributes
    ----------
    name
        Of the manifest's file or of the named set.
    views
        All rows.
    y
        (n,) object array of strings with None where unlabelled; float32 with nan for regression;
        (n, k) float32 for several labels.
    task
        "classification", "regression" or "multilabel".
    ids
        (n,) strings, unique.
    split
        (n,) strings "train" or "test", or None where the study draws the split.
    group
        (n,) strings that must not be divided between splits (a person, a recording), or None.
    source
        Licence, source and anything a reader of the report should know.
    """

    name: str
    views: Views
    y: NDArray[Any]
    task: TaskKind
    ids: NDArray[Any]
    split: NDArray[Any] | None = None
    group: NDArray[Any] | None = None
    source: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.views)

    @property
    def is_labelled(self) -> NDArray[np.bool_]:
        """(n,) bool."""
        if self.y.dtype.kind == "f":
            missing = np.isnan(self.y)
            return ~(missing.any(1) if missing.ndim == 2 else missing)
        return np.array([value is not None for value in self.y], bool)
