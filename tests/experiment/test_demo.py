"""The study files that are kept: they load, and the demo plans on its embedded data."""

from __future__ import annotations

from pathlib import Path

import pytest

from transference.experiment.config import load
from transference.experiment.demo import FILE, demo_config
from transference.experiment.runner import prepare

STUDIES = Path(__file__).parents[2] / "examples" / "studies"
ARMS = {
    "unimodal", "fusion.early", "fusion.late", "colearning.fusion.zero_fill", "colearning.fusion.modality_dropout",
    "colearning.alignment.latent", "colearning.alignment.contrastive", "colearning.translation.cyclic",
    "transfer.distillation", "induction.self_training", "induction.co_training",
}  # fmt: skip


@pytest.mark.parametrize("name", ["utd_mhad_skeleton", "utd_mhad_inertial", "webkb", "avmnist"])
def test_the_studies_on_real_data_have_all_arms_five_seeds_and_two_controls(name: str) -> None:
    config = load(STUDIES / f"{name}.toml")
    assert config.name == name
    assert set(config.arms) == ARMS | {"logistic"}  # the strongest primary-only arm may be a linear model
    assert len(config.study.seeds) == 5
    assert config.study.controls == ("shuffle", "noise")


def test_the_demo_is_the_same_file_in_both_places_and_plans() -> None:
    assert FILE.read_text() == (STUDIES / "demo.toml").read_text()
    data, cells = prepare(demo_config())
    assert data.views.primary == "coarse"
    assert len(cells) == 5 * 2 * (len(demo_config().arms) + 3)  # three arms have a control
