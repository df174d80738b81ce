"""Handwritten digits seen twice: a noisy 4×4 scan (primary) and the full 8×8 scan (secondary). Needs no download.

The coarse scan is the mean of 2×2 pixels of the full one plus normal noise of a fixed seed, so that it is clearly
harder to read: logistic regression reaches about 0.80 on it and 0.96 on the full scan.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from transference.core.seeding import numpy_generator
from transference.core.spec import ModalitySpec
from transference.core.views import Views
from transference.data.dataset import Dataset
from transference.data.sets._source import Source

SOURCE = Source(
    title="Optical recognition of handwritten digits, 1797 rows of 10 classes, embedded in scikit-learn",
    licence="CC BY 4.0",
    citation="alpaydin1998",
    modalities=("coarse", "full"),
    notes="'coarse' is made from 'full' by 2x2 mean pooling and normal noise of a fixed seed.",
)
NOISE = 0.1  # standard deviation, where a pixel is in [0, 1]


def build(root: Path, primary: str, secondary: tuple[str, ...], variant: str | None) -> Dataset:
    """Both scans, (1, 4, 4) and (1, 8, 8), in [0, 1]."""
    raw = load_digits()
    full = (raw.images / 16)[:, None]  # (n, 1, 8, 8)
    pooled = full.reshape(-1, 1, 4, 2, 4, 2).mean((3, 5))
    noisy = pooled + NOISE * numpy_generator(0, "digits").standard_normal(pooled.shape)
    arrays = {"coarse": noisy.clip(0, 1).astype(np.float32), "full": full.astype(np.float32)}
    kept = {name: arrays[name] for name in (primary, *secondary)}
    specs = {name: ModalitySpec(name, "image", array.shape[1:]) for name, array in kept.items()}
    return Dataset(
        name="digits",
        views=Views(kept, specs, primary),
        y=raw.target.astype(str).astype(object),
        task="classification",
        ids=np.array([f"digit{k}" for k in range(len(full))], object),
        source=SOURCE.as_text(),
    )
