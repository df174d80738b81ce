"""Wikipedia's featured articles: 128 numbers of an image (primary) and 10 of the text around it (secondary).

The file calls its views the other way round: view 0 holds the image (a bag of 128 SIFT words), view 1 the text (10
topics).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.io import loadmat

from transference.core.spec import ModalitySpec
from transference.core.views import Views
from transference.data.dataset import Dataset
from transference.data.sets._source import Part, Source

SOURCE = Source(
    title="Wikipedia articles with an image, 2866 rows of 10 classes",
    licence="none stated; for research",
    citation="rasiwasia2010",
    modalities=("image", "text"),
    parts=(
        Part(
            "https://raw.githubusercontent.com/UeharaSetsuYu/Multi-view-Datasets/03e5a826bd06/Wiki_fea.mat",
            "wikipedia_rasiwasia/Wiki_fea.mat",
            "a2c7ef0392f14be20c74ce2e809830d13288009172da8caea26e10e96db0b5e1",
        ),
    ),
    notes="Official split: the first 2173 rows train, the last 693 test.",
)
TRAIN = 2173
VIEWS = {"image": 0, "text": 1}


def build(root: Path, primary: str, secondary: tuple[str, ...], variant: str | None) -> Dataset:
    """Vectors of 128 and 10 numbers."""
    raw = loadmat(root / SOURCE.parts[0].path)
    arrays = {name: raw["X"][VIEWS[name], 0].astype(np.float32) for name in (primary, *secondary)}
    specs = {name: ModalitySpec(name, "vector", array.shape[1:]) for name, array in arrays.items()}
    classes = [str(meaning[0]).strip() for meaning in raw["class_meaning"][:, 0]]
    numbers = raw["Y"][:, 0].astype(int)
    n = len(numbers)
    return Dataset(
        name="wikipedia",
        views=Views(arrays, specs, primary),
        y=np.array([classes[number - numbers.min()] for number in numbers], object),
        task="classification",
        ids=np.array([f"article{row}" for row in range(n)], object),
        split=np.where(np.arange(n) < TRAIN, "train", "test").astype(object),
        source=SOURCE.as_text(),
    )
