"""Trained on one modality, tested on another, and the McGurk table: the autoencoder on spoken and written digits.

    transference data get avmnist
    python examples/studies/shared_representation.py

The autoencoder sees pairs without labels. A logistic regression then learns digits from one modality's representation
and is tested on the other's, of unseen speakers; canonical correlation of principal components is the baseline, an
autoencoder of shuffled pairs the control. Then sound and image of different digits are put together. Five seeds.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.cross_decomposition import CCA
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from transference.assessment.mcgurk import averaged, mcgurk
from transference.colearning.fusion.autoencoder import Autoencoder
from transference.core.views import Views
from transference.data.corrupt import control
from transference.experiment.config import parse
from transference.experiment.protocol import rows_of
from transference.experiment.runner import prepare
from transference.train.schedule import Schedule

Array = NDArray[Any]
DATA = {"set": "avmnist", "variant": "speakers", "primary": "audio"}
WAYS = (("audio", "image"), ("image", "audio"), ("audio", "audio"), ("image", "image"))
COMPONENTS = 50


def crossed(train: dict[str, Array], test: dict[str, Array], y: Array, asked: Array) -> dict[tuple[str, str], float]:
    """Accuracy of a classifier of one modality's representation on another's."""
    found = {}
    for learned, tested in WAYS:
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(train[learned], y)
        found[learned, tested] = float(model.score(test[tested], asked))
    return found


def correlated(X: Views, test: Views) -> tuple[dict[str, Array], dict[str, Array]]:
    """Canonical variates of principal components, fitted to pairs."""
    flat = {name: make_pipeline(StandardScaler(), PCA(COMPONENTS, random_state=0)) for name in X.names}
    one, other = (flat[name].fit_transform(X[name].reshape(len(X), -1)) for name in ("audio", "image"))
    model = CCA(10, max_iter=2000).fit(one, other)

    def variates(rows: Views) -> dict[str, Array]:
        a, b = (flat[name].transform(rows[name].reshape(len(rows), -1)) for name in ("audio", "image"))
        return dict(zip(("audio", "image"), model.transform(a, b), strict=True))

    return variates(X), variates(test)


def main() -> None:
    """Print both tables in Markdown."""
    config = parse({"name": "digits", "data": DATA, "arms": {"unimodal": {}}})
    data, _ = prepare(config)
    found: dict[str, dict[Any, list[float]]] = defaultdict(lambda: defaultdict(list))
    for seed in range(5):
        split = rows_of(config, data, seed)
        X, y, test, asked = data.views[split.train], data.y[split.train], data.views[split.test], data.y[split.test]
        schedule = Schedule(updates=300)
        ours = Autoencoder(schedule=schedule, seed=seed).fit(X)
        shuffled = Autoencoder(schedule=schedule, seed=seed).fit(control(X, "shuffle", seed, ["image"]))
        represented = {
            "autoencoder": (ours.embed(X), ours.embed(test)),
            "shuffled pairs": (shuffled.embed(X), shuffled.embed(test)),
            "canonical correlation": correlated(X, test),
        }
        for name, (train, shown) in represented.items():
            for way, value in crossed(train, shown, y, asked).items():
                found[name][way].append(value)
        both = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(ours.embed_together(X), y)
        alone = {
            each: make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(ours.embed(X)[each], y)
            for each in ("audio", "image")
        }
        answers = {
            "autoencoder": lambda rows, both=both, ours=ours: both.predict(ours.embed_together(rows)),
            "mean of two beliefs": averaged(
                [
                    lambda rows, model=model, name=name, ours=ours: model.predict_proba(ours.embed(rows)[name])
                    for name, model in alone.items()
                ],
                both.classes_,
            ),
        }
        for name, answer in answers.items():
            told = mcgurk(answer, test, asked, seen="image", heard="audio", seed=seed)
            shares: dict[str, list[float]] = defaultdict(list)
            for each in told:
                if each.name == "third":
                    shares["a third digit"].append(each.value)
                elif each.of["answered"] in (each.of["seen"], each.of["heard"]):
                    same = each.of["seen"] == each.of["heard"]
                    what = "seen" if each.of["answered"] == each.of["seen"] else "heard"
                    shares["both agree: right" if same else f"the digit {what}"].append(each.value)
            for what, values in shares.items():
                found[f"McGurk, {name}"][what].append(float(np.mean(values)))
    lines = ["| representation | " + " | ".join(f"{a} → {b}" for a, b in WAYS) + " |", "|---|" + "---:|" * len(WAYS)]
    tables = {False: lines, True: []}
    columns = ("both agree: right", "the digit seen", "the digit heard", "a third digit")
    tables[True] = ["| answered | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]
    for name, values in found.items():
        of_pairs = name.startswith("McGurk")
        shown = [
            f"{100 * np.mean(values[key]):.1f} ± {100 * np.std(values[key], ddof=1):.1f}"
            for key in (columns if of_pairs else WAYS)
        ]
        tables[of_pairs].append(f"| {name.removeprefix('McGurk, ')} | {' | '.join(shown)} |")
    sys.stdout.write("\n".join(tables[False]) + "\n\n" + "\n".join(tables[True]) + "\n")


if __name__ == "__main__":
    main()
