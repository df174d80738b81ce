"""A fitted method's deployed path as ONNX, checked against the method itself before the file is kept."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from transference.core.batch import Batch
from transference.core.errors import ConfigError, DataError, must_be
from transference.core.method import Method
from transference.core.spec import DataSpec
from transference.core.views import Views
from transference.deploy.predictor import Deployed, Predictor, inputs_of
from transference.train.estimator import EstimatorMethod
from transference.train.neural import NeuralMethod

TOLERANCE = 1e-4


def export(method: Method, X: Views, path: str | Path, *, about: Mapping[str, str] | None = None) -> float:
    """Write the path of `method` that is used at test time, with its preprocessing described in the file's metadata.

    Parameters
    ----------
    method
        Fitted. What is written reads the primary modality alone, unless the card says ``at_test = "all"``.
    X
        Rows to check the file with: the test rows of a study. One is enough to write it.
    path
        The ``.onnx`` file; it appears only when the check has passed.
    about
        More to keep in the metadata: the study, the arm, the seed.

    Returns
    -------
    float
        The largest absolute difference between ONNX and in-memory answers over X; where an answer is above 1, as a
        share of the largest.

    Raises
    ------
    ConfigError
        When the difference is above 1e-4, or when what is needed to write ONNX is not installed.
    """
    target = Path(path)
    inner = method.deployed()
    spec = inner.spec_
    names = tuple(spec.modalities) if method.card.at_test == "all" else (spec.primary,)
    rows = X.only(names, primary=names[0] if spec.primary not in names else spec.primary)
    deployed = Deployed(
        method=type(method).__module__.removeprefix("transference."),
        form="features" if isinstance(inner, EstimatorMethod) else "views",
        spec=DataSpec({name: replace(spec.modalities[name], folder="") for name in names}, spec.primary, spec.task),
        about=dict(about or {}),
        columns=_columns(inner),
    )
    if not len(rows):
        raise DataError(must_be("The number of rows to check the file with", "1 or more", 0))
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        if isinstance(inner, EstimatorMethod):
            _write_estimator(inner, rows, temporary)
        elif isinstance(inner, NeuralMethod):
            _write_network(inner, rows, temporary)
        else:
            raise ConfigError(
                f"{type(inner).__name__} cannot be exported: it is neither a network nor a scikit-learn estimator."
            )
        _describe(temporary, deployed)
        answers = inner.decide(rows)
        difference = float(np.abs(Predictor(temporary).scores(rows) - answers).max() / max(1.0, np.abs(answers).max()))
        if not difference <= TOLERANCE:
            raise ConfigError(
                must_be(
                    f"The largest difference between the ONNX file and {type(inner).__name__} in memory",
                    f"at most {TOLERANCE:g}",
                    difference,
                    "Nothing was written.",
                )
            )
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    return difference


def _columns(method: Method) -> tuple[int, ...]:
    """The class numbers that an estimator knows, where no training row had some class of the task."""
    if not isinstance(method, EstimatorMethod) or method.spec_.task.kind != "classification":
        return ()
    return tuple(int(number) for number in method.estimator_.classes_)


class _Answers(nn.Module):
    """Plain tensors in, answers out: what is traced."""

    def __init__(self, method: NeuralMethod, spec: DataSpec, inputs: list[str]) -> None:
        super().__init__()
        self.net = method.net_
        self.method = method
        self.inputs = inputs

    def forward(self, *tensors: Tensor) -> Tensor:
        given = dict(zip(self.inputs, tensors, strict=True))
        views = {key.removeprefix("values."): value for key, value in given.items() if key.startswith("values.")}
        lengths = {key.removeprefix("lengths."): value for key, value in given.items() if key.startswith("lengths.")}
        n = tensors[0].shape[0]
        present = {name: torch.ones(n, dtype=torch.bool) for name in views}
        return self.method.answers(self.net, Batch(views, present, lengths, None, torch.arange(n)))


def _write_network(method: NeuralMethod, rows: Views, path: Path) -> None:
    _require("onnx", "onnxscript")
    example = inputs_of(rows[np.arange(min(2, len(rows))).repeat(2)[:2]])
    names = list(example)
    n = torch.export.Dim("n", min=1)
    device = next(method.net_.parameters()).device
    method.net_.cpu().eval()
    try:
        with warnings.catch_warnings(), _quiet(), torch.inference_mode(False), torch.no_grad():
            warnings.simplefilter("ignore")  # the exporter warns of its own internals
            torch.onnx.export(
                _Answers(method, method.spec_, names).eval(),
                tuple(torch.from_numpy(value) for value in example.values()),
                str(path),
                input_names=names,
                output_names=["answers"],
                dynamic_shapes={"tensors": tuple({0: n} for _ in names)},
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    finally:
        method.net_.to(device)


def _write_estimator(method: EstimatorMethod, rows: Views, path: Path) -> None:
    _require("onnx", "skl2onnx")
    from skl2onnx import to_onnx
    from sklearn.base import is_classifier

    options = {"zipmap": False} if is_classifier(method.estimator_) else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the converter warns of its own internals
        model = to_onnx(method.estimator_, method.features(rows)[:1].astype(np.float32), options=options)
    path.write_bytes(model.SerializeToString())


def _describe(path: Path, deployed: Deployed) -> None:
    import onnx

    model = onnx.load(str(path))
    entry = model.metadata_props.add()
    entry.key, entry.value = "transference", deployed.to_json()
    onnx.save(model, str(path))


def _require(*packages: str) -> None:
    import importlib.util

    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise ConfigError(
            f"Export needs {' and '.join(missing)}, not installed here. Run: pip install 'transference[export]'"
        )


class _quiet:
    """The exporter and its optimiser log what they skip at every call."""

    def __enter__(self) -> None:
        self.levels = {name: logging.getLogger(name).level for name in ("torch.onnx", "onnxscript")}
        for name in self.levels:
            logging.getLogger(name).setLevel(logging.ERROR)

    def __exit__(self, *_: Any) -> None:
        for name, level in self.levels.items():
            logging.getLogger(name).setLevel(level)
