"""How far the representations of the prompts' study moved towards their targets: W2 with its null, in Markdown.

    python examples/studies/prompts_distance.py [hf:<id or folder> of the sentence encoder]

For each target: the student before training, the targets of the training rows, the student after training, all in the
space of the prompts; seed 0, all labels.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from transference.assessment.distance import triple
from transference.colearning.alignment.latent import Latent, draws
from transference.data.features import encode_frozen
from transference.data.loader import to_batch
from transference.data.modality import ModalityConfig
from transference.experiment.protocol import rows_of
from transference.experiment.runner import prepare
from transference.experiment.variants import load_all
from transference.train.schedule import Schedule

MOST = 1000  # rows that are compared
STILL = Schedule(updates=1, learning_rate=1e-12)


def projected(method: Latent, X, prompts: str) -> np.ndarray:  # type: ignore[no-untyped-def]
    """(n, d): what is matched to a target."""
    net = method.net_.eval()
    with torch.inference_mode():
        return net.projections[prompts](net.encode(to_batch(X), method.spec_.primary)).numpy()


def main(model: str | None) -> None:
    """A line a target and data set."""
    lines = ["| data | target | from → to | W2 | null: mean, 95 % | W2, exact | null: mean, 95 % |"]
    lines += ["|---|---|---|---:|---|---:|---|"]
    for config in load_all(Path(__file__).parent / "prompts.toml"):
        data, _ = prepare(config)
        train = rows_of(config, data, 0).train
        X, y = data.views[train], data.y[train]
        chosen = np.random.default_rng(0).permutation(len(X))[:MOST]
        for name, arm in config.arms.items():
            if name == "unimodal":
                continue
            given = {**arm.parameters, "language_model": model or arm.parameters["language_model"]}
            before, after = (
                Latent(**given, schedule=schedule).fit(X, y) for schedule in (STILL, replace(config.schedule))
            )
            texts = [given["prompts"].replace("{}", str(each)) for each in after.classes_]
            how = ModalityConfig(kind="text", encoder=given["language_model"])
            classes = encode_frozen(texts, how, Path(), name="prompts").array
            classes = (classes - classes.mean(1, keepdims=True)) / classes.std(1, keepdims=True)
            number = np.searchsorted(after.classes_, y[chosen])
            torch.manual_seed(0)
            targets = {
                "class": classes[number],
                "random_class": classes[draws(len(chosen), len(classes)).numpy()],
                "mean_class": np.repeat(classes.mean(0, keepdims=True), len(chosen), 0),
            }[given["target"]]
            laws = [projected(method, X[chosen], "prompts") for method in (before, after)]
            found = [triple(laws[0], targets, laws[1], estimator) for estimator in ("gaussian", "exact")]  # type: ignore[arg-type]
            for normal, exact in zip(*found, strict=True):
                cells = [config.name.rpartition("-")[2], name]
                if normal.name == "detour":
                    cells += ["detour", f"{normal.value:.2f}", "", f"{exact.value:.2f}", ""]
                else:
                    cells.append(f"{normal.of['from']} → {normal.of['to']}")
                    for each in (normal, exact):
                        cells += [f"{each.value:.2f}", f"{each.of['null mean']}, {each.of['null 95 %']}"]
                lines.append(f"| {' | '.join(cells)} |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
