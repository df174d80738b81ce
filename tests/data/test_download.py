"""Downloads: resumed, checked, and kept inside their folder; against a server of the test."""

from __future__ import annotations

import hashlib
import io
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

from transference.core.errors import DataError
from transference.data.sets import _download, _source
from transference.data.sets._source import Part, Source

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
