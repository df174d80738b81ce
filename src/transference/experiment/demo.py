"""The study of ``transference demo``: embedded data, no network, a minute or two on two cores."""

from __future__ import annotations

from pathlib import Path

from transference.experiment.config import Config, load

FILE = Path(__file__).with_suffix(".toml")


def demo_config() -> Config:
    """The study file that lies beside this module, the same as ``examples/studies/demo.toml``."""
    return load(FILE)
