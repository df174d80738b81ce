"""Named sets: what they say of themselves, how they are fetched, and, where the real files are, what is in them."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import threading
import zipfile
from collections.abc import Iterator, Mapping
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from transference.core.errors import ConfigError, DataError
from transference.data import sets
from transference.data.dataset import Dataset
from transference.data.sets import _download, _source
from transference.data.sets._source import Part, Source
from transference.data.split import check_leaks, split_rows

real = pytest.mark.real
needs_files = pytest.mark.skipif(not os.environ.get("TRANSFERENCE_DATA"), reason="TRANSFERENCE_DATA is not set")
CONTENT = np.random.default_rng(0).bytes(300_000)


class Server:
    """Serves `content`. `cut`: bytes after which an answer breaks off; `ranges`: whether it goes on inside a file."""

    def __init__(self) -> None:
        self.content, self.ranges, self.status = CONTENT, True, 200
        self.cut: int | None = None
        self.asked: list[str | None] = []
        handler = partial(_Handler, self)
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/file.bin"


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, server_state: Server, *args: Any) -> None:
        self.state = server_state
        super().__init__(*args)

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.state.asked.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.state.ranges else 0
        if self.state.status != 200:
            return self.send_error(self.state.status)
        if start >= len(self.state.content):
            return self.send_error(416)
        body = self.state.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.state.cut])
        return None

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(_download, "PAUSE", 0)
    monkeypatch.setattr(_download, "CHUNK", 1000)
    state = Server()
    thread = threading.Thread(target=state.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    state.http.shutdown()
    thread.join()
    state.http.server_close()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No sets anywhere; the user's data and cache folders are temporary."""
    monkeypatch.delenv("TRANSFERENCE_DATA", raising=False)
    monkeypatch.setattr(_source, "user_data_dir", lambda name: str(tmp_path / "data"))
    monkeypatch.setattr(_source, "user_cache_dir", lambda name: str(tmp_path / "cache"))
    return tmp_path


def source(*parts: Part) -> Source:
    return Source("title", "licence", "key2000", ("a", "b"), parts)


def part(server: Server, content: bytes, path: str = "set/file.bin") -> Part:
    return Part(server.url, path, hashlib.sha256(content).hexdigest())


def tarball(members: Mapping[str, bytes | str], path: Path) -> Path:
    """Bytes make a file, a text makes a link to it."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return path


# what the sets say


def test_every_set_says_what_it_is() -> None:
    assert {"digits", "webkb", "utd_mhad", "avmnist", "wikipedia", "mfeat", "mosi"} <= set(sets.names())
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


# download


def test_an_interrupted_download_goes_on(server: Server, tmp_path: Path) -> None:
    server.cut = 100_000
    _download.download(server.url, tmp_path / "file.bin", progress=False)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert server.asked == [None, "bytes=100000-", "bytes=200000-"]
    assert not (tmp_path / "file.bin.part").exists()


def test_the_next_call_goes_on_where_the_last_one_gave_up(server: Server, tmp_path: Path) -> None:
    server.cut = 10_000
    with pytest.raises(DataError, match="could not be downloaded.*continues where it stopped"):
        _download.download(server.url, tmp_path / "file.bin", progress=False)
    assert not (tmp_path / "file.bin").exists()
    assert (tmp_path / "file.bin.part").stat().st_size == 40_000
    server.cut = None
    _download.download(server.url, tmp_path / "file.bin", progress=False)
    assert server.asked[-1] == "bytes=40000-"
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_a_server_that_can_not_continue_starts_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(b"old")
    server.ranges = False
    _download.download(server.url, tmp_path / "file.bin", progress=False)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_a_whole_part_is_only_renamed(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(CONTENT)
    _download.download(server.url, tmp_path / "file.bin", progress=False)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_an_address_that_is_gone_is_not_asked_again(server: Server, tmp_path: Path) -> None:
    server.status = 404
    with pytest.raises(DataError, match="could not be downloaded: 404"):
        _download.download(server.url, tmp_path / "file.bin", progress=False)
    assert len(server.asked) == 1


def test_a_full_disk_is_told(server: Server, tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    (tmp_path / "file.bin.part").symlink_to("/dev/full")
    with pytest.raises(DataError, match=r"file\.bin\.part can not be written: .*No space left"):
        _download.download(server.url, tmp_path / "file.bin", progress=False)


def test_fetch_checks_and_keeps(server: Server, home: Path) -> None:
    made = source(part(server, CONTENT))
    root = _source.fetch(made, progress=False)
    assert (root / "set/file.bin").read_bytes() == CONTENT
    assert _source.fetch(made, progress=False) == root
    assert len(server.asked) == 1


def test_a_wrong_checksum_is_refused_and_nothing_is_left(server: Server, home: Path) -> None:
    with pytest.raises(DataError, match=r"The checksum of http.* must be .* The download was removed"):
        _source.fetch(source(part(server, b"something else")), progress=False)
    assert [path for path in home.rglob("*") if path.is_file()] == []


def test_the_folder_named_in_the_environment_comes_first(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = source(Part("https://example.org/x", "set/file.bin", "0" * 64))
    for root in ("named", "data/sets"):
        (home / root / "set").mkdir(parents=True)
        (home / root / "set/file.bin").touch()
    assert _source.find(made) == home / "data" / "sets"
    monkeypatch.setenv("TRANSFERENCE_DATA", str(home / "named"))
    assert _source.find(made) == home / "named"
    (home / "named/set/file.bin").unlink()
    assert _source.find(made) == home / "data" / "sets"


# archives


def test_a_folder_of_an_archive_is_fetched(server: Server, home: Path) -> None:
    members: dict[str, bytes | str] = {
        "repo-1/data/A/x.txt": b"x",
        "repo-1/data/A/b/y.txt": b"y",
        "repo-1/no.txt": b"n",
    }
    server.content = tarball(members, home / "a.tar.gz").read_bytes()
    (home / "same/b").mkdir(parents=True)
    (home / "same/x.txt").write_bytes(b"x")
    (home / "same/b/y.txt").write_bytes(b"y")
    digest = _download.sha256_of_folder(home / "same")
    part_a = Part(server.url, "set/A", digest, of="folder", inside="data/A")
    part_b = Part(server.url, "set/B", digest, of="folder", inside="data/A")
    root = _source.fetch(source(part_a, part_b), progress=False)
    assert sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()) == [
        "set/A/b/y.txt",
        "set/A/x.txt",
        "set/B/b/y.txt",
        "set/B/x.txt",
    ]
    assert len(server.asked) == 1  # one archive, two parts
    (home / "same/x.txt").write_bytes(b"z")
    assert _download.sha256_of_folder(home / "same") != digest


def test_a_broken_archive_is_removed(server: Server, home: Path) -> None:
    with pytest.raises(DataError, match="can not be read, and was removed"):
        _source.fetch(source(Part(server.url, "set/A", "0" * 64, of="folder", inside="data")), progress=False)
    assert [path for path in home.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("name", ["repo/../../evil.txt", "/evil.txt", "repo\\..\\..\\evil.txt", "C:/evil.txt"])
@pytest.mark.parametrize("form", ["tar", "zip"])
def test_a_member_that_leaves_the_folder_is_refused(tmp_path: Path, name: str, form: str) -> None:
    archive = tmp_path / f"bad.{form}"
    if form == "tar":
        tarball({"repo/data/fine.txt": b"fine", name: b"evil"}, archive)
    else:
        with zipfile.ZipFile(archive, "w") as packed:
            packed.writestr("repo/data/fine.txt", "fine")
            packed.writestr(name, "evil")
    with pytest.raises(DataError, match=r"was refused: its member .*evil\.txt' leaves the folder"):
        _download.unpack(archive, "data", tmp_path / "out" / "data")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [archive.name]


def test_a_link_is_refused(tmp_path: Path) -> None:
    archive = tarball({"repo/data/fine.txt": b"fine", "repo/data/link": "/etc/passwd"}, tmp_path / "bad.tar.gz")
    with pytest.raises(DataError, match="its member 'repo/data/link' is a link or a device"):
        _download.unpack(archive, "data", tmp_path / "data")
    assert not (tmp_path / "data").exists()
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as packed:
        entry = zipfile.ZipInfo("repo/data/link")
        entry.external_attr = 0o120777 << 16
        packed.writestr(entry, "/etc/passwd")
    with pytest.raises(DataError, match="its member 'repo/data/link' is a link or a device"):
        _download.unpack(tmp_path / "bad.zip", "data", tmp_path / "data")


def test_an_archive_without_the_folder_is_refused(tmp_path: Path) -> None:
    archive = tarball({"repo/other/x": b""}, tmp_path / "a.tar.gz")
    with pytest.raises(DataError, match="holds no folder 'data'"):
        _download.unpack(archive, "data", tmp_path / "data")


def test_the_sum_of_arrays_does_not_depend_on_compression(tmp_path: Path) -> None:
    arrays = {"x": np.arange(1000), "y": np.zeros(5)}
    np.savez(tmp_path / "a.npz", **arrays)
    np.savez_compressed(tmp_path / "b.npz", **dict(reversed(arrays.items())))
    np.savez(tmp_path / "c.npz", **{**arrays, "y": np.ones(5)})
    sums = [_download.sha256_of_arrays(tmp_path / f"{name}.npz") for name in "abc"]
    assert sums[0] == sums[1] != sums[2]


# decoded arrays are kept


def test_decoded_arrays_are_kept_by_content(home: Path) -> None:
    file, calls = home / "raw.txt", []

    def build() -> dict[str, np.ndarray]:
        calls.append(file.read_text())
        return {"value": np.array([float(file.read_text())])}

    def value(recipe: str = "one") -> float:
        return float(_source.cached(recipe, [file], build)["value"][0])

    file.write_text("1")
    assert [value(), value()] == [1, 1]
    assert calls == ["1"]
    file.write_text("2")
    assert value() == 2
    assert value("two") == 2
    assert calls == ["1", "2", "2"]
    for kept in (home / "cache/sets").iterdir():
        kept.write_bytes(kept.read_bytes()[:-40])
    assert value() == 2
    assert len(calls) == 4


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
    for name in ("wikipedia", "utd_mhad", "mosi"):
        data = sets.load(name)
        assert data.split is not None
        counts[name] = (int((data.split == "train").sum()), int((data.split == "test").sum()))
        if data.group is not None:
            assert not set(data.group[data.split == "train"]) & set(data.group[data.split == "test"])
    assert counts == {"wikipedia": (2173, 693), "utd_mhad": (431, 430), "mosi": (1447, 752)}


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
    for name in ("wikipedia", "mfeat", "mosi", "avmnist", "utd_mhad"):
        for each in sets._module(name).SOURCE.parts:
            assert each.digest(root) == each.sha256, each.path
