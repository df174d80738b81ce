"""What leaves the house answers as the method in memory does, and reads the primary modality alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from tiny_models import save_bert, save_pictures, save_vit

import transference
from transference.core.errors import ConfigError, DataError
from transference.core.registry import names
from transference.core.spec import ModalitySpec, Task
from transference.core.views import Views
from transference.data.modality import ModalityConfig
from transference.data.readers import read_column
from transference.deploy import export as module
from transference.deploy.export import export
from transference.deploy.predictor import Predictor
from transference.train.estimator import EstimatorMethod
from transference.train.schedule import Schedule

BRIEF = Schedule(updates=15)


def rows(primary: str = "series", n: int = 24) -> Views:
    rng = np.random.default_rng(0)
    shapes = {"series": (7, 3), "vector": (5,), "image": (1, 12, 12), "text": (6,), "set": (4, 2), "audio": (9, 8)}
    arrays = {name: rng.random((n, *shape), dtype=np.float32) for name, shape in shapes.items()}
    arrays["text"] = rng.integers(0, 20, (n, 6)).astype(np.float32)
    specs = {
        name: ModalitySpec(name, name, shape, name in ("series", "text", "set", "audio"), 20 if name == "text" else 0)  # type: ignore[arg-type]
        for name, shape in shapes.items()
    }
    lengths = {name: rng.integers(1, shapes[name][0] + 1, n) for name in ("series", "text", "set", "audio")}
    return Views(arrays, specs, primary, lengths=lengths)


@pytest.mark.parametrize("primary", ["series", "vector", "image", "text", "set", "audio"])
def test_a_network_of_every_kind_survives(primary: str, tmp_path: Path) -> None:
    X = rows(primary)
    method = transference.create("unimodal", schedule=BRIEF).fit(X, np.arange(24) % 3)
    difference = export(method, X, tmp_path / "m.onnx", about={"study": "s"})
    predictor = Predictor(tmp_path / "m.onnx")
    assert difference < 1e-5
    assert predictor.deployed.about == {"study": "s"}
    assert list(predictor.deployed.spec.modalities) == [primary]
    one, all_ = predictor.scores(X.only([primary])[3:4]), method.predict_proba(X)
    np.testing.assert_allclose(one[0], all_[3], atol=1e-5)
    assert predictor.predict(X).tolist() == method.predict(X).tolist()


@pytest.mark.parametrize("kind", ["text", "image"])
def test_a_pretrained_model_that_was_fine_tuned_survives(kind: str, tmp_path: Path) -> None:
    words = ["red fox", "dog", "sea sea dog red fox", "fox"] * 6
    cells = words if kind == "text" else save_pictures(tmp_path, 24)
    model = save_bert(tmp_path / "model") if kind == "text" else save_vit(tmp_path / "model")
    how = ModalityConfig(kind=kind, column="m", encoder=f"hf:{model}", fine_tune=True)  # type: ignore[arg-type]
    column = read_column(cells, how, tmp_path, name="m")
    lengths = {} if column.lengths is None else {"m": column.lengths}
    X = Views({"m": column.array}, {"m": column.spec}, "m", lengths=lengths)
    method = transference.create("unimodal", width=8, schedule=BRIEF).fit(X, np.arange(24) % 2)
    assert np.ptp(method.predict_proba(X)[:, 0]) > 0.01  # rows are told apart
    assert export(method, X, tmp_path / "m.onnx") < 1e-5
    predictor = Predictor(tmp_path / "m.onnx")
    np.testing.assert_allclose(predictor.scores(X[2:3]), method.predict_proba(X[2:3]), atol=1e-5)
    assert str(tmp_path) not in predictor.deployed.to_json().replace(f"hf:{model}", "")


def test_regression_answers_in_the_unit_of_the_target(tmp_path: Path) -> None:
    X = rows("vector")
    y = 1e6 + 50 * X["vector"][:, 0]
    method = transference.create("unimodal", schedule=Schedule(updates=150)).fit(X, y)
    export(method, X, tmp_path / "m.onnx")
    answers = Predictor(tmp_path / "m.onnx").predict(X)
    assert np.corrcoef(answers, y)[0, 1] > 0.9
    assert answers.std() == pytest.approx(y.std(), rel=0.3)
    assert answers.mean() == pytest.approx(y.mean(), abs=5)


def test_a_class_that_no_training_row_had_has_probability_0(tmp_path: Path) -> None:
    X = rows("vector", n=60)
    task = Task("classification", ("a", "b", "c"), 3)
    method = EstimatorMethod(LogisticRegression()).fit_encoded(X.only(["vector"]), np.arange(60) % 2 * 2, task)
    export(method, X, tmp_path / "m.onnx")
    scores = Predictor(tmp_path / "m.onnx").scores(X)
    np.testing.assert_allclose(scores, method.predict_proba(X.only(["vector"])), atol=1e-6)
    assert (scores[:, 1] == 0).all()


def test_rows_that_lack_what_the_model_reads_are_refused(tmp_path: Path) -> None:
    X = rows("vector")
    method = transference.create("unimodal", schedule=BRIEF).fit(X, np.arange(24) % 3)
    export(method, X, tmp_path / "m.onnx")
    assert tmp_path.joinpath("m.onnx").stat().st_mode & 0o777 == 0o666 & ~umask()
    predictor = Predictor(tmp_path / "m.onnx")
    gaps = X.replace("vector", X["vector"], present=np.arange(24) != 7)
    with pytest.raises(DataError, match=r"needs 'vector' in every row\. 1 rows lack it: \[7\]"):
        predictor.predict(gaps)
    with pytest.raises(DataError, match="The number of rows to answer must be 1 or more"):
        predictor.predict(X[:0])


def umask() -> int:
    now = os.umask(0)
    os.umask(now)
    return now


@pytest.mark.parametrize("estimator", [LogisticRegression(), HistGradientBoostingClassifier(max_iter=5), GaussianNB()])
def test_an_estimator_goes_through_skl2onnx(estimator: object, tmp_path: Path) -> None:
    X = rows("vector", n=60)
    y = np.where(X["vector"][:, 0] > 0.5, "high", "low")
    method = transference.create("unimodal", estimator=estimator).fit(X, y)
    export(method, X, tmp_path / "m.onnx")
    assert Predictor(tmp_path / "m.onnx").predict(X).tolist() == method.predict(X).tolist()


def test_a_difference_is_refused_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    X = rows("vector")
    method = transference.create("unimodal", schedule=BRIEF).fit(X, np.arange(24) % 3)
    honest = Predictor.scores
    monkeypatch.setattr(module.Predictor, "scores", lambda self, X: honest(self, X) + 2e-4)
    with pytest.raises(ConfigError, match=r"must be at most 0\.0001\. Got .* Nothing was written"):
        export(method, X, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_export_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="There is no file"):
        Predictor(tmp_path / "none.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    with pytest.raises(DataError, match="must be a model written by 'transference export'"):
        Predictor(tmp_path / "bad.onnx")
    X = rows("vector")
    method = transference.create("unimodal", schedule=BRIEF).fit(X, np.arange(24) % 3)
    export(method, X, tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "bare.onnx")
    with pytest.raises(DataError, match="must be a model written by 'transference export'"):
        Predictor(tmp_path / "bare.onnx")


def test_prediction_needs_neither_torch_nor_scikit_learn(tmp_path: Path) -> None:
    X = rows("vector")
    method = transference.create("unimodal", schedule=BRIEF).fit(X, np.arange(24) % 3)
    export(method, X, tmp_path / "m.onnx")
    code = (
        "import sys; sys.modules['torch'] = None; sys.modules['sklearn'] = None\n"
        "import numpy as np\n"
        "from transference.core.views import Views\n"
        "from transference.deploy.predictor import Predictor\n"
        "print(len(Predictor(sys.argv[1]).predict(Views.of(primary='vector', vector=np.zeros((2, 5))))))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "m.onnx")], capture_output=True, text=True)
    assert done.stdout.strip() == "2", done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("method_id", names())
def test_a_modality_may_be_called_as_a_method_of_torch_is(method_id: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    X = Views.of(primary="type", type=rng.normal(size=(20, 3)), keys=rng.normal(size=(20, 2)))
    method = transference.create(method_id, schedule=BRIEF).fit(X, np.arange(20) % 2)
    if method_id == "induction.debate":  # several models answer, and none of them alone
        with pytest.raises(ConfigError, match="Debate cannot be exported"):
            export(method, X, tmp_path / "m.onnx")
        return
    assert export(method, X, tmp_path / "m.onnx") < 1e-5
