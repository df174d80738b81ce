"""Scores against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from transference.assessment.scores import (
    calibration_error,
    fisher,
    hanley,
    is_labelled,
    of_classes,
    of_values,
    scores,
    wilson,
)
from transference.core.errors import DataError
from transference.core.views import Views
from transference.train.schedule import Schedule
from transference.unimodal import Unimodal

P = np.array([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7], [0.8, 0.2]])
Y = np.array([0, 0, 1, 1])


def test_findings_of_four_rows_by_hand() -> None:
    found = {each.name: each for each in of_classes(Y, P)}
    assert found["accuracy"].value == 0.5
    assert found["macro_f1"].value == 0.5  # each class: 1 hit, 2 true, 2 predicted
    assert found["auroc"].value == 0.75  # of the pairs .1<.7 .1<.2 .6<.7 .6>.2 three are in order
    assert found["log_loss"].value == pytest.approx(
        -(math.log(0.9) + math.log(0.4) + math.log(0.7) + math.log(0.2)) / 4
    )
    assert found["calibration_error"].value == pytest.approx((0.1 + 0.6 + 0.3 + 0.8) / 4)
    losses = -np.log([0.9, 0.4, 0.7, 0.2])
    half = 1.959964 * math.sqrt(((losses - losses.mean()) ** 2).sum() / 3 / 4)  # of a mean of four: a root of n
    assert (found["log_loss"].low, found["log_loss"].high) == pytest.approx(
        (losses.mean() - half, losses.mean() + half)
    )
    assert {each.n for each in found.values()} == {4}
    assert {name: each.better for name, each in found.items()} == {
        "accuracy": "higher", "macro_f1": "higher", "auroc": "higher",
        "log_loss": "lower", "calibration_error": "lower",
    }  # fmt: skip


def test_a_label_is_missing_where_it_is_none_nan_or_minus_1_among_integers() -> None:
    assert is_labelled(np.array(["a", None, "-1", float("nan"), -1, 0], object)).tolist() == [1, 0, 1, 0, 0, 1]
    assert is_labelled(np.array([0, -1, 3])).tolist() == [1, 0, 1]
    assert is_labelled(np.array([0.0, -1.0, np.nan])).tolist() == [1, 1, 0]


def test_confidence_equal_to_accuracy_is_calibrated() -> None:
    p = np.tile([[0.75, 0.25]], (8, 1))
    assert calibration_error(np.array([0, 0, 0, 1] * 2), p) == pytest.approx(0)
    assert calibration_error(np.zeros(8, int), p) == pytest.approx(0.25)
    assert calibration_error(np.array([0]), np.array([[1.0, 0.0]])) == 0


def test_bins_do_not_cancel_one_another() -> None:
    p = np.array([[0.55, 0.45]] * 2 + [[0.95, 0.05]] * 2)
    y = np.array([0, 0, 1, 1])  # too timid by .45 in one bin, too bold by .95 in the other
    assert calibration_error(y, p) == pytest.approx((0.45 + 0.95) / 2)
    assert calibration_error(y, p, bins=1) == pytest.approx(0.25)
    sure = np.array([[1.0, 0.0], [0.95, 0.05]])  # certainty is in the last bin, not in one of its own
    assert calibration_error(np.array([1, 0]), sure) == pytest.approx((1.95 - 1) / 2)


def test_wilson_is_the_set_of_shares_that_the_score_test_keeps() -> None:
    for share, n in ((0.5, 10), (0.9, 50), (0.0, 20), (1.0, 7)):
        for end in wilson(share, n):
            if 0 < end < 1:
                assert abs(share - end) / math.sqrt(end * (1 - end) / n) == pytest.approx(1.959964, rel=1e-5)
    assert wilson(0.0, 20)[0] == 0
    assert wilson(1.0, 7)[1] == 1


def test_hanley_and_fisher_against_printed_values() -> None:
    low, high = hanley(0.893, 51, 58)  # Hanley and McNeil 1982, the example of rated images: SE 0.032
    assert (high - low) / (2 * 1.959964) == pytest.approx(0.032, abs=6e-4)
    # two rows of each class: Q1 .6, Q2 .642857; variance (.1875 + .0375 + .080357) / 4, its root .276299
    assert hanley(0.75, 2, 2) == pytest.approx((0.75 - 1.959964 * 0.276299, 1.0), abs=1e-5)
    assert fisher(0.5, 28) == pytest.approx((0.156, 0.736), abs=1e-3)  # atanh(.5) = .5493, 1.96 / 5 = .392
    assert fisher(0.5, 3) == (None, None)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    hits = rng.binomial(60, 0.8, 2000) / 60
    inside = np.mean([low <= 0.8 <= high for low, high in (wilson(share, 60) for share in hits)])
    assert 0.93 < inside < 0.97


def test_several_classes_have_no_interval_of_the_area() -> None:
    p = np.full((6, 3), 1 / 3)
    area = next(each for each in of_classes(np.array([0, 0, 1, 1, 2, 2]), p) if each.name == "auroc")
    assert (area.value, area.low, area.high) == (0.5, None, None)
    assert "auroc" not in [each.name for each in of_classes(np.zeros(3, int), np.tile([[0.6, 0.4]], (3, 1)))]


def test_values_by_hand() -> None:
    found = {each.name: each for each in of_values(np.array([1.0, 2, 3, 4]), np.array([2.0, 2, 5, 3]))}
    assert found["mae"].value == 1.0
    assert found["correlation"].value == pytest.approx(3 / math.sqrt(5 * 6))
    assert next(iter(of_values(np.ones(4), np.arange(4.0)))).value == pytest.approx(1.0)
    assert len(of_values(np.ones(4), np.arange(4.0))) == 1


def test_the_probe_reads_labelled_rows_of_a_fitted_method() -> None:
    x = np.repeat([[0.0, 1.0], [1.0, 0.0]], 20, axis=0)
    X = Views.of(primary="x", x=x)
    y = np.repeat(["a", "b"], 20).astype(object)
    method = Unimodal(schedule=Schedule(updates=50)).fit(X, y)
    partly = y.copy()
    partly[:10] = None
    partly[39] = "a"
    found = {each.name: each for each in scores(method, X, partly)}
    assert (found["accuracy"].value, found["accuracy"].n) == (pytest.approx(29 / 30), 30)
    with pytest.raises(
        DataError, match=r"A label of the test rows must be one of the classes \['a', 'b'\]. Got 'z' instead"
    ):
        scores(method, X, np.full(40, "z", object))
    with pytest.raises(DataError, match="The number of labelled test rows must be at least 1"):
        scores(method, X, np.full(40, None, object))
    values = Unimodal(schedule=Schedule(updates=200)).fit(X, x[:, 0])
    truth = x[:, 0].copy()
    truth[:3] = np.nan
    regression = {each.name: each for each in scores(values, X, truth)}
    assert regression["mae"].n == 37
    assert regression["mae"].value < 0.1
