"""Metrics on values worked out by hand, and against scikit-learn with weights."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as reference

from transference.core.errors import ConfigError
from transference.core.metrics import METRICS, metric

TARGET = np.array([0, 0, 1, 1, 1])
SCORES = np.array([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7], [0.6, 0.4], [0.2, 0.8]])


def test_by_hand() -> None:
    assert metric("accuracy")(TARGET, SCORES) == pytest.approx(3 / 5)
    # positives .7 .4 .8 against negatives .1 .6: five of six pairs in order
    assert metric("auroc")(TARGET, SCORES) == pytest.approx(5 / 6)
    # class 0: one hit of two true, two predicted; class 1: two hits of three true, three predicted
    assert metric("macro_f1")(TARGET, SCORES) == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert metric("mae")(np.array([1.0, 2.0]), np.array([[0.0], [4.0]])) == pytest.approx(1.5)


def test_ties_count_half() -> None:
    assert metric("auroc")(np.array([0, 1]), np.full((2, 2), 0.5)) == 0.5


def test_against_scikit_learn_with_weights() -> None:
    rng = np.random.default_rng(1)
    scores = rng.dirichlet(np.ones(3), 80).round(1) + 1e-3
    target, weight = rng.integers(0, 3, 80), rng.integers(0, 4, 80).astype(float)
    areas = [reference.roc_auc_score(target == c, scores[:, c], sample_weight=weight) for c in range(3)]
    assert metric("auroc")(target, scores, weight) == pytest.approx(np.mean(areas))
    expected = reference.f1_score(target, scores.argmax(1), average="macro", sample_weight=weight)
    assert metric("macro_f1")(target, scores, weight) == pytest.approx(expected)


def test_a_weight_of_two_is_a_row_twice() -> None:
    twice = np.array([0, 1, 2, 3, 4, 4])
    for each in METRICS.values():
        target = TARGET.astype(float) if "regression" in each.tasks else TARGET
        weighted = each(target, SCORES, np.array([1.0, 1, 1, 1, 2]))
        assert weighted == pytest.approx(each(target[twice], SCORES[twice]))


def test_unknown_metric_suggests() -> None:
    with pytest.raises(ConfigError, match=r"no metric 'acuracy'\. Did you mean 'accuracy'\?"):
        metric("acuracy")
