"""The same study on a local cluster of two workers gives the same bits."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from small_study import small_config, small_data

from transference.core.errors import ConfigError
from transference.experiment import clusters
from transference.experiment.runner import run

HERE = Path(__file__).parent


def script(lines: str) -> None:
    """Run in a process of its own: clusters leave threads, sockets and warnings behind."""
    environment = {**os.environ, "PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([sys.executable, "-c", lines], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def same_bits(one: Path, other: Path) -> bool:
    first, second = (
        {path.relative_to(study): path.read_bytes() for path in study.glob("*/*.safetensors")} for study in (one, other)
    )
    return len(first) == 16 and first == second


RUN = "run(small_config(), folder={folder!r}, data=small_data(), backend={backend!r}, {more})"
IMPORTS = "from small_study import small_config, small_data\nfrom transference.experiment.runner import run\n"


@pytest.mark.slow
def test_dask_with_the_address_of_a_cluster_of_two(tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="the extra 'dask' is not installed")
    alone = run(small_config(), folder=tmp_path / "alone", data=small_data())
    call = RUN.format(folder=str(tmp_path / "dask"), backend="dask", more="address=cluster.scheduler_address")
    script(
        "from distributed import LocalCluster\n"
        "if __name__ == '__main__':\n"
        "    with LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=None) as cluster:\n"
        + "".join(f"        {line}\n" for line in (IMPORTS + call).splitlines())
    )
    assert same_bits(alone, tmp_path / "dask" / "small")


@pytest.mark.slow
def test_ray_on_a_local_cluster_of_two(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    alone = run(small_config(), folder=tmp_path / "alone", data=small_data())
    script(IMPORTS + RUN.format(folder=str(tmp_path / "ray"), backend="ray", more="workers=2"))
    assert same_bits(alone, tmp_path / "ray" / "small")


NAP = """
import os, time
from pathlib import Path
from transference.experiment.clusters import workers

def nap(folder, number):
    Path(folder, str(os.getpid())).touch()
    time.sleep(600)

with workers("loky", 2, None, {folder!r}) as imap:
    list(imap(nap, [(0,), (1,)]))
"""


def test_workers_end_when_the_process_that_started_them_is_killed(tmp_path: Path) -> None:
    owner = subprocess.Popen([sys.executable, "-c", NAP.format(folder=str(tmp_path))])
    try:
        wait_until(lambda: len(list(tmp_path.iterdir())) == 2)
    finally:
        owner.kill()
        owner.wait()
    wait_until(lambda: not any(alive(int(path.name)) for path in tmp_path.iterdir()))


def wait_until(holds: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.2)


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{process}/stat")  # one that ended and was not collected yet still has a number
    return not (state.exists() and state.read_text().rsplit(")", 1)[1].split()[0] == "Z")


@pytest.mark.parametrize(("backend", "package"), [("dask", "distributed"), ("ray", "ray")])
def test_a_missing_extra_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: clusters.Backend, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"The backend '{backend}' needs .* pip install 'transference\[{backend}\]'"):
        run(small_config(), folder=tmp_path, data=small_data(), backend=backend)


def test_an_address_needs_a_cluster(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="The backend must be 'dask' or 'ray' where an address is given. Got 'loky'"):
        run(small_config(), folder=tmp_path, data=small_data(), address="tcp://here:1")
