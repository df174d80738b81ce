"""Answers for new rows from an exported file: onnxruntime, numpy and the readers; no torch, no scikit-learn."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from transference.core.errors import DataError, must_be
from transference.core.spec import DataSpec, spec_from_json, spec_to_json
from transference.core.views import Views

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Deployed:
    """What an exported file says of itself, in its metadata.

    Attributes
    ----------
    method
        The id of the method.
    form
        "views" where the graph takes ``values.NAME`` (and ``lengths.NAME``), "features" where it takes one matrix.
    spec
        Task, classes, and the modalities that are read, with how each is read.
    about
        The study, the arm and the seed it comes from.
    columns
        The class number of each column that the graph answers; all classes in their order where empty.
    """

    method: str
    form: Literal["views", "features"]
    spec: DataSpec
    about: Mapping[str, str]
    columns: tuple[int, ...] = ()

    def to_json(self) -> str:
        return json.dumps({"format": 1, **asdict(self), "spec": spec_to_json(self.spec)}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        raw = json.loads(text)
        return cls(raw["method"], raw["form"], spec_from_json(raw["spec"]), raw["about"], tuple(raw.get("columns", ())))


class Predictor:
    """An exported model.

    Parameters
    ----------
    path
        A file written by `transference.deploy.export.export`.

    Attributes
    ----------
    deployed
        Method, task, classes and the modalities it reads, with how each is read.
    """

    def __init__(self, path: str | Path) -> None:
        import onnxruntime

        if not Path(path).is_file():
            raise DataError(
                f"There is no file {str(path)!r}. Write one with: transference export RUN --arm ARM -o FILE"
            )
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            metadata = self._session.get_modelmeta().custom_metadata_map
            self.deployed = Deployed.from_json(metadata["transference"])
        except Exception as error:  # onnxruntime raises classes of its own for a file it cannot read
            raise DataError(
                must_be(f"The file {str(path)!r}", "a model written by 'transference export'", f"{error}"[:300])
            ) from error

    def scores(self, X: Views) -> NDArray[Any]:
        """(n, classes) probabilities or (n, outputs) values; every row must have what the model reads."""
        if not len(X):
            raise DataError(must_be("The number of rows to answer", "1 or more", 0, "Ask only where there are rows."))
        for name, spec in self.deployed.spec.modalities.items():
            if X[name].shape[1:] != spec.shape:
                raise DataError(must_be(f"A row of {name!r}", f"of shape {spec.shape}", X[name].shape[1:]))
            lacking = X.rows[~X.present[name]]
            if len(lacking):
                raise DataError(
                    f"The model needs {name!r} in every row. {len(lacking)} rows lack it: {lacking[:5].tolist()}"
                    f"{' ...' if len(lacking) > 5 else ''}. Leave these rows out."
                )
        if self.deployed.form == "features":
            from transference.data.tabular import features

            feed = {self._session.get_inputs()[0].name: features(X, tuple(self.deployed.spec.modalities))}
        else:
            feed = inputs_of(X.only(self.deployed.spec.modalities, primary=self.deployed.spec.primary))
        wanted = {given.name for given in self._session.get_inputs()}
        answers = self._session.run(None, {name: value for name, value in feed.items() if name in wanted})[-1]
        scores = np.asarray(answers, np.float32).reshape(len(X), -1)
        if not self.deployed.columns:
            return scores
        whole = np.zeros((len(X), self.deployed.spec.task.outputs), np.float32)
        whole[:, self.deployed.columns] = scores
        return whole

    def predict(self, X: Views) -> NDArray[Any]:
        """(n,) labels or values; (n, k) zeros and ones for several labels."""
        scores = self.scores(X)
        if self.deployed.spec.task.kind == "regression":
            return scores[:, 0]
        if self.deployed.spec.task.kind == "multilabel":
            return (scores > 0.5).astype(np.int64)
        return np.asarray(self.deployed.spec.task.classes)[scores.argmax(1)]


def predict_table(model: str | Path, path: str | Path) -> pl.DataFrame:
    """Answers for the rows of a CSV or Parquet file that has the columns of the modalities the model reads.

    Returns
    -------
    polars.DataFrame
        ``row`` (counted as in the file, from 0), ``prediction``, and for classes ``probability of CLASS`` each.

    Raises
    ------
    DataError
        With every fault of the file at once; nothing is answered then.
    """
    import polars as pl

    from transference.data.manifest import read_rows

    predictor = Predictor(model)
    task = predictor.deployed.spec.task
    X = read_rows(path, predictor.deployed.spec.modalities, primary=predictor.deployed.spec.primary)
    scores = predictor.scores(X)
    columns: dict[str, Any] = {"row": X.rows}
    if task.kind == "multilabel":
        columns |= {f"prediction of {name}": predictor.predict(X)[:, k] for k, name in enumerate(task.classes)}
    else:
        columns["prediction"] = predictor.predict(X)
    if task.kind != "regression":
        columns |= {f"probability of {name}": scores[:, k] for k, name in enumerate(task.classes)}
    return pl.DataFrame(columns)


def inputs_of(X: Views) -> dict[str, NDArray[Any]]:
    """The graph's inputs: ``values.NAME`` float32 (n, *shape), and ``lengths.NAME`` int64 (n,) for sequences."""
    feed: dict[str, NDArray[Any]] = {}
    for name in X.names:
        feed[f"values.{name}"] = np.ascontiguousarray(X[name], np.float32)
        if name in X.lengths:
            feed[f"lengths.{name}"] = X.lengths[name]
    return feed
