"""Small photographs of ten kinds of things (primary), and the GloVe vector of the word for each (secondary).

7000 of CIFAR-10's images: 500 training and 200 test images of each class. The word of a row is that of its class, so it
tells no more than the label does, but it puts the classes into a space where words of other classes have a place too:
what a study of classes that were never seen is made of. The word for ``automobile`` is "car".
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from transference.core.errors import DataError, must_be
from transference.core.spec import ModalitySpec
from transference.core.views import Views
from transference.data.dataset import Dataset
from transference.data.sets._source import Part, Source

SOURCE = Source(
    title="CIFAR-10, 7000 images of 10 classes, with GloVe vectors of the class names",
    licence="images none stated; word vectors PDDL 1.0",
    citation="krizhevsky2009",
    modalities=("image", "word"),
    parts=(
        Part(
            "https://www.cs.toronto.edu/~kriz/cifar.html",
            "cifar10_subset/cifar10_5k_2k.npz",
            "a84328b7fe8030338343d5681d7df1ef8e0985f5f1e6573a47846996dac81fda",
            of="arrays",
            by_hand="an npz of x_train, y_train, x_test, y_test and classes, of 5000 and 2000 images",
        ),
        Part(
            "https://nlp.stanford.edu/projects/glove/",
            "word_vectors/glove300_class_words.npz",
            "b88ec9f33b6ce3c8414759fb7abe8989c9b0a498a2771c11244c46a4f64c92fa",
            of="arrays",
            by_hand="an npz of cifar10_words and cifar10_vectors, the vectors of 300 numbers of the class names",
        ),
    ),
    notes="The published test images test. Word vectors are of pennington2014. Neither of the two is published in "
    "the form that is read here: an npz of x_train, y_train, x_test, y_test (bytes) and classes, and one of "
    "cifar10_words and cifar10_vectors.",
)
WORDS = {"automobile": "car"}  # for classes that are not called by their word


def build(root: Path, primary: str, secondary: tuple[str, ...], variant: str | None) -> Dataset:
    """``image`` (3, 32, 32) in [0, 1]; ``word`` (300,)."""
    images, vectors = (root / part.path for part in SOURCE.parts)
    with np.load(images, allow_pickle=False) as kept:
        x = np.concatenate([kept["x_train"], kept["x_test"]])  # (n, 32, 32, 3)
        number = np.concatenate([kept["y_train"], kept["y_test"]]).astype(int)
        train, classes = len(kept["x_train"]), kept["classes"].astype(str)
    with np.load(vectors, allow_pickle=False) as kept:
        known = dict(zip(kept["cifar10_words"].astype(str).tolist(), kept["cifar10_vectors"], strict=True))
    words = [WORDS.get(name, name) for name in classes.tolist()]
    missing = sorted(set(words) - set(known))
    if missing:
        raise DataError(
            must_be(f"The words of {vectors.name}", "those of all classes", sorted(known), f"Add {missing}.")
        )
    arrays, specs = {}, {}
    for name in (primary, *secondary):
        if name == "image":
            arrays[name] = np.ascontiguousarray(x.transpose(0, 3, 1, 2), np.float32) / 255
            specs[name] = ModalitySpec(name, "image", arrays[name].shape[1:])
        else:
            arrays[name] = np.stack([known[word] for word in words]).astype(np.float32)[number]
            specs[name] = ModalitySpec(name, "vector", arrays[name].shape[1:])
    ids = [f"train{row}" for row in range(train)] + [f"test{row}" for row in range(len(x) - train)]
    return Dataset(
        name="cifar10",
        views=Views(arrays, specs, primary),
        y=classes[number].astype(object),
        task="classification",
        ids=np.array(ids, object),
        split=np.where(np.arange(len(x)) < train, "train", "test").astype(object),
        source=SOURCE.as_text(),
    )
