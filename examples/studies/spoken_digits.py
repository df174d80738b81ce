"""Handwritten digits made from spoken ones: guided diffusion, judged by a frozen classifier and by how samples vary.

    transference data get avmnist
    python examples/studies/spoken_digits.py [seeds] [updates]

Learned from pairs of sound and image, 28 by 28 pixels or averaged to 8 by 8. The sounds of test rows are of speakers
that are not heard in training. A support vector machine that learned digits from the training images says which digit
a made image shows; *spread* is the variance of the images of a spoken digit, summed over pixels, as a share of that of
the true images. Three seeds of 3000 updates, unless other numbers are given.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.svm import SVC

from transference.core.spec import ModalitySpec
from transference.core.views import Views
from transference.data.sets import load
from transference.train.schedule import Schedule
from transference.transfer.guided_diffusion import GuidedDiffusion

Array = NDArray[Any]
GAMMAS = (0.0, 1.0, 2.0, 4.0)
ARMS: dict[str, dict[str, Any]] = {
    "primary, classifier-free": {"condition": "primary", "guidance": "classifier_free"},
    "class, classifier-free": {"condition": "class", "guidance": "classifier_free"},
    "class, classifier": {"condition": "class", "guidance": "classifier"},
}


def coarse(X: Views) -> Views:
    """The same rows with images of 8 by 8 pixels: means of 3 by 3, without the margin of 2."""
    images = X["image"][:, :, 2:26, 2:26].reshape(-1, 1, 8, 3, 8, 3).mean((3, 5))
    specs = {**X.specs, "image": ModalitySpec("image", "image", (1, 8, 8))}
    return Views({**X.arrays, "image": images}, specs, X.primary, present=X.present, lengths=X.lengths, rows=X.rows)


def spread(images: Array, digits: Array) -> float:
    """Variance of the images of a digit, summed over pixels; mean over digits."""
    return float(np.mean([images[digits == k].var(0).sum() for k in np.unique(digits)]))


def main(seeds: int = 3, updates: int = 3000) -> None:
    """Print one table in Markdown."""
    data = load("avmnist", primary="audio", secondary="image", variant="speakers")
    digits, training = np.asarray(data.y).astype(int), data.split == "train"
    y, asked = digits[training], digits[~training]
    lines = [
        "| pixels | condition, guidance | gamma | right | as the sound is heard | spread |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for side, views in ((8, coarse(data.views)), (28, data.views)):
        X, test = views[training], views[~training]
        true = test["image"].reshape(len(test), -1)
        frozen = SVC().fit(X["image"].reshape(len(X), -1), y)
        lines.append(f"| {side} | true images | | {100 * frozen.score(true, asked):.1f} | | 1.00 |")
        found: dict[tuple[str, float], list[tuple[float, float, float]]] = defaultdict(list)
        for seed in range(seeds):
            for arm, form in ARMS.items():
                model = GuidedDiffusion(**form, schedule=Schedule(updates=updates), seed=seed).fit(X, y)
                heard = model.predict(test)
                for gamma in GAMMAS:
                    made = model.set_params(scale=gamma).generate(test, "image").reshape(len(test), -1)
                    told = frozen.predict(made)
                    share = spread(made, asked) / spread(true, asked)
                    found[arm, gamma].append((100 * np.mean(told == asked), 100 * np.mean(told == heard), share))
        for (arm, gamma), values in found.items():
            right, as_heard, share = np.mean(values, 0)
            lines.append(f"| {side} | {arm} | {gamma:g} | {right:.1f} | {as_heard:.1f} | {share:.2f} |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
