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


def test_classes_as_queries_against_scikit_learn() -> None:
    rng = np.random.default_rng(2)
    scores = rng.dirichlet(np.ones(3), 200).round(1) + 1e-3  # ties
    target, weight = rng.integers(0, 3, 200), rng.integers(0, 4, 200).astype(float)
    of_class = [reference.average_precision_score(target == c, scores[:, c], sample_weight=weight) for c in range(3)]
    assert metric("class_map")(target, scores, weight) == pytest.approx(np.mean(of_class))
    order = np.arange(200)[:, None] * np.array([1, -1])  # 30 of the first 50 rows are of class 1, 40 of the last of 0
    target = np.zeros(200, int)
    target[:30], target[150:160] = 1, 1
    assert metric("precision_at_50")(target, -order[:, ::-1] / 200.0) == pytest.approx((40 / 50 + 30 / 50) / 2)
    alike = np.zeros((200, 2))  # all tie, so the first 50 hold every class in its share
    assert metric("precision_at_50")(target, alike) == pytest.approx(0.5)


def test_searches_by_hand() -> None:
    ranks = np.array([[1.0, 0.5], [6.0, 0.25], [10.0, 1.0], [11.0, 0.0]])
    expected = {"recall_at_1": 1 / 4, "recall_at_5": 1 / 4, "recall_at_10": 3 / 4, "map": 1.75 / 4}
    for name, value in expected.items():
        assert metric(name)(np.zeros(4, int), ranks) == pytest.approx(value)
    assert metric("reciprocal_rank")(np.zeros(4, int), ranks) == pytest.approx((1 + 1 / 6 + 1 / 10 + 1 / 11) / 4)


def test_unknown_metric_suggests() -> None:
    with pytest.raises(ConfigError, match=r"no metric 'acuracy'\. Did you mean 'accuracy'\?"):
        metric("acuracy")
