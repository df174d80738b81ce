"""Named sets: what they say of themselves, how they are fetched, and, where the real files are, what is in them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from transference.core.errors import ConfigError, DataError
from transference.data import sets
from transference.data.dataset import Dataset
from transference.data.sets import _source
from transference.data.split import check_leaks, split_rows

real = pytest.mark.real
needs_files = pytest.mark.skipif(not os.environ.get("TRANSFERENCE_DATA"), reason="TRANSFERENCE_DATA is not set")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No sets anywhere; the user's data and cache folders are temporary."""
    monkeypatch.delenv("TRANSFERENCE_DATA", raising=False)
    monkeypatch.setattr(_source, "user_data_dir", lambda name: str(tmp_path / "data"))
    monkeypatch.setattr(_source, "user_cache_dir", lambda name: str(tmp_path / "cache"))
    return tmp_path


# what the sets say


def test_every_set_says_what_it_is() -> None:
    assert {"cifar10", "digits", "webkb", "utd_mhad", "avmnist", "wikipedia", "mfeat", "mosi"} <= set(sets.names())
    for name in sets.names():
        told = sets.describe(name)
        assert told["title"], name
        assert told["licence"], name
        assert told["citation"], name
        assert len(told["modalities"]) >= 2, name
        assert all(url.startswith("https://") for url in told["urls"]), name
        assert all(len(digest) == 64 for digest in told["sha256"].values()), name


def test_unknown_names_are_answered_with_a_suggestion() -> None:
    with pytest.raises(ConfigError, match=r"no set 'digts'\. Did you mean 'digits'\?"):
        sets.load("digts")
    with pytest.raises(ConfigError, match=r"no modality 'ful'\. Did you mean 'full'\?"):
        sets.load("digits", secondary="ful")
    with pytest.raises(ConfigError, match="can not be primary and secondary at once"):
        sets.load("digits", primary="full", secondary=["full"])
    with pytest.raises(ConfigError, match=r"no variant 'speaker'\. Did you mean 'speakers'\?"):
        sets.load("avmnist", variant="speaker")


def test_a_set_that_is_not_here_says_how_to_get_it(home: Path) -> None:
    with pytest.raises(DataError, match=r"'webkb' is not on this machine.*'transference data get webkb'"):
        sets.load("webkb")
    assert not sets.describe("webkb")["here"]


def test_digits_need_no_file(home: Path) -> None:
    data = sets.load("digits")
    assert data.views.primary == "coarse"
    assert {name: spec.shape for name, spec in data.views.specs.items()} == {"coarse": (1, 4, 4), "full": (1, 8, 8)}
    assert data.split is None
    assert 0 <= data.views["coarse"].min() <= data.views["coarse"].max() <= 1
    # pooling and noise leave the mean of four pixels on average
    pooled = data.views["full"].reshape(-1, 4, 2, 4, 2).mean((2, 4))
    inner = (pooled > 0.3) & (pooled < 0.7)
    difference = (data.views["coarse"][:, 0] - pooled)[inner]
    assert difference.mean() == pytest.approx(0, abs=0.01)
    assert difference.std() == pytest.approx(0.1, abs=0.01)
    assert 0.70 < accuracy(data, "coarse") < 0.85
    assert accuracy(data, "full") > 0.95
    assert sets.load("digits").views.fingerprint() == data.views.fingerprint()


# small files in the published form


def test_utd_mhad_is_read_from_published_files(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSFERENCE_DATA", str(home / "named"))
    folder = home / "named/utd_mhad"
    for kind in ("Inertial", "Skeleton", "Depth"):
        (folder / kind).mkdir(parents=True)
    skeleton = np.zeros((20, 3, 5))
    skeleton[3] = np.arange(5)[None] + 10  # the hip goes 10, 11, 12, 13, 14 along every axis
    skeleton[0] = skeleton[3] + 2  # the head stays 2 above it
    depth = np.full((240, 320, 31), 2000.0)
    depth[:, :, 15:] = 4000
    for stem in ("a10_s1_t1", "a2_s1_t1", "a2_s2_t1"):
        savemat(folder / f"Inertial/{stem}_inertial.mat", {"d_iner": np.arange(42.0).reshape(7, 6)})
        savemat(folder / f"Skeleton/{stem}_skeleton.mat", {"d_skel": skeleton})
        savemat(folder / f"Depth/{stem}_depth.mat", {"d_depth": depth})
    savemat(folder / "Skeleton/a3_s1_t1_skeleton.mat", {"d_skel": skeleton})  # no inertial file beside it
    data = sets.load("utd_mhad", secondary=["inertial", "depth"])
    assert data.ids.tolist() == ["a2_s1_t1", "a2_s2_t1", "a10_s1_t1"]
    assert data.y.tolist() == ["a02", "a02", "a10"]
    assert data.split is not None
    assert data.split.tolist() == ["train", "test", "train"]
    assert data.views["skeleton"].shape == (3, 2, 60)
    assert data.views["skeleton"][0, :, 0:3].tolist() == [[2, 2, 2]] * 2  # above the hip
    assert data.views["skeleton"][0, :, 9:12].tolist() == [
        [0.5] * 3,
        [2.5] * 3,
    ]  # the way of the hip, two frames a step
    assert data.views["inertial"][0].tolist() == [[6, 7, 8, 9, 10, 11], [24, 25, 26, 27, 28, 29]]
    assert data.views.lengths["inertial"].tolist() == [2, 2, 2]
    assert data.views["depth"].shape == (3, 16, 1, 30, 40)
    assert np.unique(data.views["depth"][0] * 255).round().tolist() == [100, 200]  # 20 mm a unit
    for file in (folder / "Depth").iterdir():
        file.unlink()
    with pytest.raises(DataError, match=r"depth videos of utd_mhad are not on this machine: 3 files are missing"):
        sets.load("utd_mhad", secondary="depth")


def test_mfeat_does_not_take_the_digit_for_a_feature(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSFERENCE_DATA", str(home))
    (home / "mfeat").mkdir()
    for key in ("fac", "fou", "kar", "mor", "pix", "zer"):
        (home / f"mfeat/mfeat-{key}.csv").write_text("0,1,0\n0.5,1.5,7\n2.5,3.5,8\n")
    data = sets.load("mfeat")
    assert data.views["fourier"].tolist() == [[0.5, 1.5], [2.5, 3.5]]
    assert data.y.tolist() == ["7", "8"]
    (home / "mfeat/mfeat-fac.csv").write_text("0,1,0\n0.5,1.5,8\n2.5,3.5,7\n")
    with pytest.raises(DataError, match=r"rows of mfeat-fac\.csv must be those of the other files"):
        sets.load("mfeat")


def test_cifar10_gives_every_image_the_vector_of_its_word(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSFERENCE_DATA", str(home))
    for folder in ("cifar10_subset", "word_vectors"):
        (home / folder).mkdir()
    x = np.zeros((3, 32, 32, 3), np.uint8)
    x[0, 4, 7, 2] = 255  # blue, in line 4
    classes = np.array(["automobile", "frog"])
    given = {"x_train": x[:2], "y_train": np.uint8([1, 0]), "x_test": x[2:], "y_test": np.uint8([1])}
    np.savez(home / "cifar10_subset/cifar10_5k_2k.npz", classes=classes, **given)
    vectors = np.array([[1.0, 2], [3, 4]], np.float32)
    file = home / "word_vectors/glove300_class_words.npz"
    np.savez(file, cifar10_words=np.array(["car", "frog"]), cifar10_vectors=vectors)
    data = sets.load("cifar10")
    assert data.views["image"].shape == (3, 3, 32, 32)
    assert data.views["image"].max() == data.views["image"][0, 2, 4, 7] == 1
    assert data.views["word"].tolist() == [[3, 4], [1, 2], [3, 4]]
    assert data.y.tolist() == ["frog", "automobile", "frog"]
    assert data.split is not None
    assert data.split.tolist() == ["train", "train", "test"]
    assert data.ids.tolist() == ["train0", "train1", "test0"]
    np.savez(file, cifar10_words=np.array(["cat", "frog"]), cifar10_vectors=vectors)
    with pytest.raises(DataError, match=r"words of glove300_class_words\.npz must be .*Got .*cat.* Add \['car'\]"):
        sets.load("cifar10")


# the real files


def accuracy(data: Dataset, name: str, seed: int = 0) -> float:
    """Of logistic regression on standardised numbers, on the set's split; sequences are summed up by their moments."""
    split, X = split_rows(data, seed), data.views[name]
    spec = data.views.specs[name]
    if spec.vocabulary:
        table = np.zeros((len(X), spec.vocabulary), np.float32)
        np.add.at(table, (np.arange(len(X))[:, None], X.astype(int)), 1)
        table = np.log1p(table[:, 1:])
    elif spec.lengths:
        parts = [np.array_split(row[:size], 4) for row, size in zip(X, data.views.lengths[name], strict=True)]
        table = np.array([[f(part, axis=0) for part in row for f in (np.mean, np.std)] for row in parts])
        table = table.reshape(len(X), -1)
    else:
        table = X.reshape(len(X), -1)
    y = data.y.astype(str)
    scaler = StandardScaler(with_mean=not spec.vocabulary, with_std=not spec.vocabulary)
    model = make_pipeline(scaler, LogisticRegression(C=0.3, max_iter=40, tol=1e-2))
    return float(model.fit(table[split.train], y[split.train]).score(table[split.test], y[split.test]))


REAL = [  # set, arguments, rows, classes, lower bounds of accuracy by modality
    ("webkb", {}, 1047, 2, {"inlinks": 0.90, "page": 0.92}),
    ("utd_mhad", {}, 861, 27, {"skeleton": 0.75, "inertial": 0.80}),
    ("avmnist", {}, 3000, 10, {"image": 0.70, "audio": 0.88}),
    ("wikipedia", {}, 2866, 10, {"image": 0.25, "text": 0.65}),
    ("mfeat", {}, 2000, 10, {"fourier": 0.78, "profile": 0.94}),
    ("mosi", {}, 2199, 2, {"audio": 0.52, "transcript": 0.66}),
    ("cifar10", {}, 7000, 10, {"image": 0.28, "word": 0.95}),
]


@real
@needs_files
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(("name", "given", "rows", "classes", "bounds"), REAL, ids=[row[0] for row in REAL])
def test_real_sets_hold_what_they_should(
    name: str, given: dict[str, str], rows: int, classes: int, bounds: dict[str, float]
) -> None:
    data = sets.load(name, **given)  # type: ignore[arg-type]
    assert len(data) == rows
    assert len(set(data.ids)) == rows
    assert len(set(data.y)) == classes
    assert data.views.present[data.views.primary].all()
    assert all(array.dtype == np.float32 and np.isfinite(array).all() for array in data.views.arrays.values())
    split = split_rows(data, 0)
    assert not [message for message in check_leaks(data, split) if " id" in message or "group" in message]
    found = {modality: accuracy(data, modality) for modality in bounds}
    assert all(bounds[modality] <= found[modality] <= bounds[modality] + 0.12 for modality in bounds), found


@real
@needs_files
def test_the_official_splits() -> None:
    counts = {}
    for name in ("cifar10", "wikipedia", "utd_mhad", "mosi"):
        data = sets.load(name)
        assert data.split is not None
        counts[name] = (int((data.split == "train").sum()), int((data.split == "test").sum()))
        if data.group is not None:
            assert not set(data.group[data.split == "train"]) & set(data.group[data.split == "test"])
    assert counts == {
        "cifar10": (5000, 2000),
        "wikipedia": (2173, 693),
        "utd_mhad": (431, 430),
        "mosi": (1447, 752),
    }


@real
@needs_files
def test_avmnist_pairs_each_recording_with_its_own_image() -> None:
    data = sets.load("avmnist", primary="audio")
    assert data.views.specs["image"].shape == (1, 28, 28)
    assert len({image.tobytes() for image in data.views["image"]}) > 2990  # no image twice, bar true copies
    assert data.split is not None
    assert set(data.group[data.split == "test"]) == {"theo", "yweweler"}  # type: ignore[index]
    assert sets.load("avmnist", primary="audio", variant="random").split is None
    assert sets.load("avmnist").views.specs["image"].shape == (1, 4, 4)


@real
@needs_files
def test_the_vectors_of_mosi_are_contaminated() -> None:
    data = sets.load("mosi", secondary=["text_vector", "video_vector"])
    assert "contaminated" in data.source["notes"]
    y, train = data.y.astype(str), data.split == "train"
    for name, gap in (("text_vector", 0.15), ("video_vector", 0.3)):
        x = StandardScaler().fit_transform(data.views[name])
        model = LogisticRegression(max_iter=50, tol=1e-2).fit(x[train], y[train])
        assert model.score(x[train], y[train]) - model.score(x[~train], y[~train]) > gap


@real
@needs_files
def test_the_real_files_have_the_checksums_of_the_sources() -> None:
    root = sets.path("wikipedia")
    for name in ("cifar10", "wikipedia", "mfeat", "mosi", "avmnist", "utd_mhad"):
        for each in sets._module(name).SOURCE.parts:
            assert each.digest(root) == each.sha256, each.path


def test_every_citation_is_listed() -> None:
    listed = Path(__file__).parents[2].joinpath("docs", "references.bib").read_text(encoding="utf-8")
    for name in sets.names():
        assert f"{{{sets.describe(name)['citation']}," in listed


def test_what_can_not_be_fetched_says_how_it_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSFERENCE_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"cifar10_5k_2k\.npz: an npz of x_train, .* \(https://.*glove300.*: an npz of"):
        sets.fetch("cifar10", progress=False)
