"""Spoken and handwritten digits paired by class. Default: a 4×4 image (primary) ← a spoken digit (secondary).

3000 recordings, each used once, each with another handwritten digit of the same class, drawn with a fixed seed. Given
the class the two sides are independent: they share the label, and there is no row-by-row content to transfer.

``image`` is (1, 4, 4), the mean of 7×7 pixels; as secondary modality, where nothing has to be hard, (1, 28, 28).
``audio`` is (frames, 32) log mel power, 100 frames a second, at most one second.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transference.core.seeding import numpy_generator
from transference.core.spec import ModalitySpec
from transference.core.views import Views
from transference.data.dataset import Dataset
from transference.data.modality import ModalityConfig
from transference.data.readers import VERSION, read_column
from transference.data.sets._source import Part, Source, cached

SOURCE = Source(
    title="AV-MNIST: 3000 spoken and handwritten digits paired by class",
    licence="audio CC BY-SA 4.0; images none stated",
    citation="vielzeuf2018",
    modalities=("image", "audio"),
    parts=(
        Part(
            "https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz",
            "mnist/mnist.npz",
            "af99de04c70e93291564df84b9a19e552c11034f5d97a2f7298516e52a5a61f8",
            of="arrays",
        ),
        Part(
            "https://codeload.github.com/Jakobovski/free-spoken-digit-dataset/tar.gz/26eb9aaf76e8",
            "fsdd/recordings",
            "99aa5e3a7c822ab55b2a3b47e0b05aeb9f011c54837a12e3831ad24108330829",
            of="folder",
            inside="recordings",
        ),
    ),
    notes="Pairs are made by label, with a fixed seed. Variant 'speakers' tests on two speakers that are not heard in "
    "training; it is the default where audio is primary. Variant 'random' leaves the split to the study.",
    variants=("random", "speakers"),
)
SOUND = ModalityConfig(kind="audio", rate=8000, mels=32, length=100)
TEST_SPEAKERS = ("theo", "yweweler")


def build(root: Path, primary: str, secondary: tuple[str, ...], variant: str | None) -> Dataset:
    """One row a recording, in the order of the file names ``digit_speaker_index.wav``."""
    files = sorted((root / SOURCE.parts[1].path).glob("*.wav"))
    digits, speakers, _ = zip(*(file.stem.split("_") for file in files), strict=True)
    arrays, specs, lengths = {}, {}, {}
    for name in (primary, *secondary):
        if name == "image":
            arrays[name] = _images(root / SOURCE.parts[0].path, np.array(digits, int))
            if primary == "image":
                arrays[name] = arrays[name].reshape(-1, 1, 4, 7, 4, 7).mean((3, 5))
            specs[name] = ModalitySpec(name, "image", arrays[name].shape[1:])
        else:
            kept = cached(f"fsdd {SOUND} {VERSION}", files, lambda: _sound(files))
            arrays[name], lengths[name] = kept["array"], kept["lengths"]
            reading = json.loads(str(kept["reading"]))
            specs[name] = ModalitySpec(name, "audio", arrays[name].shape[1:], lengths=True, reading=reading)
    by_speaker = (variant or ("speakers" if primary == "audio" else "random")) == "speakers"
    return Dataset(
        name="avmnist",
        views=Views(arrays, specs, primary, lengths=lengths),
        y=np.array(digits, object),
        task="classification",
        ids=np.array([file.stem for file in files], object),
        split=np.where(np.isin(speakers, TEST_SPEAKERS), "test", "train").astype(object) if by_speaker else None,
        group=np.array(speakers, object) if by_speaker else None,
        source=SOURCE.as_text(),
    )


def _images(file: Path, digits: NDArray[Any]) -> NDArray[Any]:
    """(n, 1, 28, 28) in [0, 1]: for every row an image of its digit, none of them twice."""
    with np.load(file, allow_pickle=False) as kept:
        images, labels = kept["x_train"], kept["y_train"]
    chosen = np.zeros(len(digits), np.int64)
    for digit in range(10):
        rows = np.flatnonzero(digits == digit)
        chosen[rows] = numpy_generator(0, "avmnist", str(digit)).permutation(np.flatnonzero(labels == digit))[
            : len(rows)
        ]
    return images[chosen][:, None].astype(np.float32) / 255


def _sound(files: list[Path]) -> dict[str, NDArray[Any]]:
    column = read_column([file.name for file in files], SOUND, files[0].parent, name="audio")
    lengths = np.zeros(len(files), np.int64) if column.lengths is None else column.lengths
    return {"array": column.array, "lengths": lengths, "reading": np.array(json.dumps(dict(column.spec.reading)))}
