"""The planted truth is there: the known best rule reaches what `truth` says, and no more is to be found."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from transference.core.errors import ConfigError
from transference.data.dataset import Dataset
from transference.data.planted import PROBLEMS, Problem, planted, truth

N = 20000


def side(data: Dataset, name: str) -> np.ndarray:
    """(n,) the sum over the entries: the sufficient statistic of the bit."""
    return data.views[name].sum(1)


def agreement(data: Dataset, name: str, rows: np.ndarray) -> float:
    label = np.array([int(value[-1]) for value in data.y])
    return float(((side(data, name) > 0) == label)[rows].mean())


@pytest.mark.parametrize("kind", ["redundant", "spurious", "misaligned", "missing", "noise"])
def test_reading_one_modality_reaches_its_truth(kind: Problem) -> None:
    data = planted(kind, N, 3)
    rows = np.ones(N, bool) if data.split is None else data.split == "test"
    known = truth(kind)
    assert agreement(data, "x", rows) == pytest.approx(known.primary, abs=0.015)
    if kind == "missing":
        has = data.views.present["z"]
        assert agreement(data, "z", has) == pytest.approx(truth("redundant").secondary, abs=0.01)
    else:
        assert agreement(data, "z", rows) == pytest.approx(known.secondary, abs=0.015)


@pytest.mark.parametrize("kind", ["redundant", "noise"])
def test_both_modalities_reach_their_truth(kind: Problem) -> None:
    train, test = planted(kind, 4000, 0), planted(kind, N, 1)  # two seeds, one distribution
    stack = [np.hstack([data.views["x"], data.views["z"]]) for data in (train, test)]
    score = LogisticRegression().fit(stack[0], train.y.astype(str)).score(stack[1], test.y.astype(str))
    assert score == pytest.approx(truth(kind).both, abs=0.015)


def test_the_spurious_secondary_is_right_in_training_alone() -> None:
    data = planted("spurious", N, 0)
    assert data.split is not None
    assert agreement(data, "z", data.split == "train") == pytest.approx(truth("redundant").secondary, abs=0.01)


def test_xor_is_in_neither_modality_alone() -> None:
    data = planted("xor", N, 0)
    label = np.array([int(value[-1]) for value in data.y])
    bits = {name: side(data, name) > 0 for name in "xz"}
    for name, bit in bits.items():
        # within both values of the bit the classes are even, so that no rule on this modality beats chance
        assert label[bit].mean() == pytest.approx(0.5, abs=0.015), name
        assert label[~bit].mean() == pytest.approx(0.5, abs=0.015), name
    assert ((bits["x"] ^ bits["z"]) == label).mean() == pytest.approx(truth("xor").both, abs=0.01)


def test_unique_holds_one_bit_in_each_modality() -> None:
    data = planted("unique", N, 0)
    label = np.array([int(value[-1]) for value in data.y])
    first, second = side(data, "x") > 0, side(data, "z") > 0
    assert (first == label // 2).mean() / 2 == pytest.approx(truth("unique").primary, abs=0.015)
    assert (second == label % 2).mean() / 2 == pytest.approx(truth("unique").secondary, abs=0.015)
    assert (2 * first + second == label).mean() == pytest.approx(truth("unique").both, abs=0.015)
    assert (first == label % 2).mean() == pytest.approx(0.5, abs=0.015)


def test_shares_are_exact() -> None:
    whole, missing = planted("redundant", 400, 5), planted("missing", 400, 5, share=0.25)
    assert (~missing.views.present["z"]).sum() == 100
    assert not missing.views["z"][~missing.views.present["z"]].any()
    assert truth("misaligned", share=0) == truth("missing", share=0) == truth("redundant")
    assert whole.views.present["z"].all()


@pytest.mark.parametrize("kind", PROBLEMS)
def test_classes_are_balanced_and_seeds_repeat(kind: Problem) -> None:
    data = planted(kind, 40, 2)
    counts = np.unique(data.y.astype(str), return_counts=True)[1]
    assert counts.tolist() == ([10] * 4 if kind == "unique" else [20] * 2)
    assert planted(kind, 40, 2).views.fingerprint() == data.views.fingerprint()
    assert planted(kind, 40, 3).views.fingerprint() != data.views.fingerprint()


def test_wrong_requests_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"no planted problem 'redundent'\. Did you mean 'redundant'\?"):
        planted("redundent")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"'share' of a planted problem must be a number in \[0, 1\]\. Got 2"):
        planted("missing", share=2)
    with pytest.raises(ConfigError, match="rows of a planted problem must be at least 8"):
        planted("xor", 4)
