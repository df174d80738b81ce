"""The demo's study with one and two workers: how much of the wall time is not spent in fit and predict.

    python benchmarks/study.py             # examples/studies/demo.toml
    python benchmarks/study.py FILE.toml   # another study

Outside = 1 - (seconds of fit and predict, summed over the cells) / (wall seconds x workers). It holds reading data,
planning, starting workers (cold) or finding them ready (warm), sending cells, and writing records.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from transference.experiment.config import Config, load
from transference.experiment.runner import run
from transference.experiment.store import Store

DEMO = Path(__file__).resolve().parent.parent / "examples" / "studies" / "demo.toml"
CASES = (("1 worker", 1), ("2 workers, cold", 2), ("2 workers, warm", 2))


def measure(config: Config, workers: int) -> tuple[int, float, float]:
    """Cells, wall seconds, and seconds of fit and predict."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        study = run(config, folder=folder, workers=workers)
        wall = time.perf_counter() - start
        records = Store(study).records()
    return len(records), wall, sum(record.seconds for record in records)


def main() -> None:
    config = load(sys.argv[1] if len(sys.argv) > 1 else DEMO)
    sys.stdout.write(f"{config.name}\n{'':18}{'cells':>6}{'wall s':>9}{'model s':>9}{'outside':>9}\n")
    for name, workers in CASES:
        cells, wall, model = measure(config, workers)
        sys.stdout.write(f"{name:18}{cells:6}{wall:9.1f}{model:9.1f}{1 - model / (wall * workers):9.1%}\n")


if __name__ == "__main__":
    main()
