"""Gains, intervals and corrections against values worked out by hand and slow references."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from small_studies import answers, values
from statsmodels.stats.multitest import multipletests

from transference.core.metrics import METRICS, Metric, metric
from transference.core.records import Predictions
from transference.report.compare import Key, Score, best, compare, derivative, difference, estimate, holm, score

ACCURACY = metric("accuracy")


def _scored(correct, rows=None):
    return score(ACCURACY, answers(correct, rows))


def test_one_seed_is_the_paired_t_test_over_rows():
    arm, base = [1, 1, 1, 0, 1, 1], [1, 0, 0, 0, 1, 1]
    found = estimate(difference({0: _scored(arm)}, {0: _scored(base)}))
    assert found.value == pytest.approx(2 / 6)
    # differences 0 1 1 0 0 0: mean 1/3, variance 4/15, error sqrt(4/15/6) = 0.2108; t(0.975, 5) = 2.5706
    assert found.low == pytest.approx(1 / 3 - 2.5706 * 0.21082, abs=1e-4)
    assert found.high == pytest.approx(1 / 3 + 2.5706 * 0.21082, abs=1e-4)
    assert found.p == pytest.approx(stats.ttest_rel(arm, base).pvalue)


def test_seeds_with_test_rows_of_their_own_are_the_t_test_over_seeds():
    gains = {0: 1, 1: 6, 2: 11}  # of 20 rows each
    arm = {s: _scored([1] * 20, range(100 * s, 100 * s + 20)) for s in gains}
    base = {s: _scored([0] * k + [1] * (20 - k), range(100 * s, 100 * s + 20)) for s, k in gains.items()}
    found = estimate(difference(arm, base))
    shares = [k / 20 for k in gains.values()]
    assert found.value == pytest.approx(0.3)
    # variance over seeds 0.0625, error sqrt(0.0625 / 3) = 0.14434, t(0.975, 2) = 4.3027
    assert found.high - found.value == pytest.approx(4.3027 * 0.14434, abs=1e-4)
    assert found.p == pytest.approx(stats.ttest_1samp(shares, 0).pvalue)
    assert found.n_seeds == 3


def test_a_seed_counted_again_adds_no_certainty():
    arm, base = _scored([1, 1, 1, 0, 1, 1]), _scored([1, 0, 0, 0, 1, 1])
    once = estimate(difference({0: arm}, {0: base}))
    often = estimate(difference(dict.fromkeys(range(5), arm), dict.fromkeys(range(5), base)))
    assert (often.value, often.low, often.high) == pytest.approx((once.value, once.low, once.high))


def test_partly_shared_rows_against_a_slow_reference():
    rng = np.random.default_rng(3)
    series = {}
    for seed in range(4):
        rows = np.sort(rng.choice(60, 40, replace=False))
        series[seed] = Score(float(rng.normal()), rows, rng.normal(size=40) * 0.3)
    covariances = []
    for s in range(4):
        for t in range(4):
            if s != t:
                total = 0.0
                for row, one in zip(series[s].rows, series[s].influence, strict=True):
                    for other_row, other in zip(series[t].rows, series[t].influence, strict=True):
                        total += one * other if row == other_row else 0.0
                covariances.append(total)
    found = np.array([one.value for one in series.values()])
    between, covariance = found.var(ddof=1) / 4, np.mean(covariances)
    rows_alone = sum(float((one.influence**2).sum()) for one in series.values()) / 16 + covariance * 12 / 16
    variance = max(between + covariance, rows_alone)
    n = len(set(np.concatenate([one.rows for one in series.values()])))
    freedom = variance**2 / (between**2 / 3 + (variance - between) ** 2 / (n - 1))
    half = stats.t.ppf(0.975, freedom) * math.sqrt(variance)
    got = estimate(series)
    assert (got.low, got.high) == pytest.approx((found.mean() - half, found.mean() + half))


def test_what_does_not_vary_has_no_interval():
    one_row_each = estimate(difference({0: _scored([1, 1])}, {0: _scored([0, 0])}))
    assert (one_row_each.value, one_row_each.low, one_row_each.high, one_row_each.p) == (1.0, None, None, 1.0)
    perfect = estimate({seed: _scored([1] * 20) for seed in range(3)})
    assert (perfect.value, perfect.low, perfect.high, perfect.p) == (1.0, None, None, 1.0)
    by_seed = estimate({0: _scored([1] * 20), 1: _scored([0] * 20), 2: _scored([1] * 20)})  # seeds vary, rows do not
    assert by_seed.low < by_seed.value < by_seed.high


def test_identical_arms_gain_exactly_nothing():
    rng = np.random.default_rng(0)
    arm = {seed: _scored(rng.random(30) < 0.7) for seed in range(3)}
    found = estimate(difference(arm, arm))
    assert (found.value, found.low, found.high, found.p) == (0.0, None, None, 1.0)


def test_rows_pair_by_their_number_in_the_manifest():
    arm = _scored([1, 1, 0, 1], [7, 3, 5, 1])
    base = _scored([1, 0, 1, 1], [1, 5, 3, 7])
    found = arm.minus(base)
    assert found.value == 0.0
    assert found.rows.tolist() == [1, 3, 5, 7]
    np.testing.assert_allclose(found.influence, 0, atol=1e-15)  # the same rows are right in both


def test_no_seed_in_common_gives_no_estimate():
    assert estimate(difference({0: _scored([1, 0])}, {1: _scored([1, 0])})) is None


@pytest.mark.parametrize("name", sorted(METRICS))
@pytest.mark.parametrize("classes", [2, 4])
def test_derivative_is_the_change_of_the_metric_by_a_weight(name, classes):
    rng = np.random.default_rng(classes)
    target = rng.integers(0, classes, 40)
    scores = rng.dirichlet(np.ones(classes), 40).round(1) + 0.01  # ties
    if name == "mae":
        target, scores = rng.normal(size=40), rng.normal(size=(40, 1))
    found = derivative(METRICS[name], target, scores)
    for row in range(0, 40, 3):
        weight = np.ones(40)
        weight[row] += 1e-6
        slope = (METRICS[name](target, scores, weight) - METRICS[name](target, scores)) / 1e-6
        assert found[row] == pytest.approx(slope, abs=1e-5)
    assert found.sum() == pytest.approx(0, abs=1e-9)


def test_a_metric_without_a_formula_is_derived_numerically():
    f1 = METRICS["macro_f1"]
    other = Metric("new", "higher", (0, 1), f1.tasks, f1.compute)
    rng = np.random.default_rng(1)
    target, scores = rng.integers(0, 3, 30), rng.random((30, 3))
    np.testing.assert_allclose(derivative(other, target, scores), derivative(f1, target, scores), atol=1e-6)


def test_auroc_error_agrees_with_a_bootstrap_over_rows():
    rng = np.random.default_rng(0)
    target = rng.integers(0, 2, 300)
    place = 1 / (1 + np.exp(-rng.normal(target, 1.0)))
    scores = np.stack([1 - place, place], 1)
    error = math.sqrt((score(metric("auroc"), Predictions(np.arange(300), target, scores)).influence ** 2).sum())
    draws = [metric("auroc")(target[i], scores[i]) for i in rng.integers(0, 300, (400, 300))]
    assert error == pytest.approx(np.std(draws), rel=0.12)


def test_holm():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])  # 3 x 0.01; 2 x 0.03; never below the last
    assert holm([]) == []
    p = np.random.default_rng(0).random(20) ** 3
    np.testing.assert_allclose(holm(p.tolist()), multipletests(p, method="holm")[1])


def test_candidates_are_compared_on_the_seeds_that_both_have():
    hard, easy = _scored([1, 0, 0, 0]), _scored([1, 1, 1, 0])
    whole = {0: hard, 1: easy, 2: easy}
    assert best({"whole": whole, "a_lost_hard": {1: easy, 2: easy}}) == "whole"  # its mean is higher, its seeds easier
    assert best({"whole": whole, "lost_easy": {0: _scored([1, 1, 0, 0])}}) == "lost_easy"
    assert best({"whole": whole, "elsewhere": {9: _scored([1] * 4)}}) == "whole"
    assert best({"b": whole, "a": whole}) == "a"
    assert best({"none": {}}) is best({}) is None


def test_transferred_is_arm_less_best_control_and_semi_is_over_the_strongest_primary_only():
    def cell(right):
        return {seed: _scored([1] * right + [0] * (10 - right)) for seed in range(2)}

    cells = {
        Key("2", "unimodal", ""): cell(4),
        Key("2", "induction.self_training", ""): cell(5),
        Key("2", "arm", ""): cell(9),
        Key("2", "arm", "noise"): cell(5),
        Key("2", "arm", "shuffle"): cell(6),
    }
    found = compare(cells, frozenset({"unimodal", "induction.self_training"}), "unimodal")[Key("2", "arm", "")]
    assert found["gain"].value == pytest.approx(0.5)
    assert found["gain_semi"].value == pytest.approx(0.4)
    assert found["transferred"].value == pytest.approx(0.3)
    assert (found["reference"], found["best_control"]) == ("induction.self_training", "shuffle")


def _draw(rng, seeds, n, gain, common):
    """Arm and baseline whose accuracies differ by seed, row, and chance; the true gain is that of many draws."""
    pool = n if common else 4 * n
    hard, liking = rng.normal(0, 1, pool), rng.normal(0, 0.5, pool)
    arm, base = {}, {}
    for seed in range(seeds):
        rows = np.arange(n) if common else rng.choice(pool, n, replace=False)
        odds = 0.5 + hard[rows]
        shift = gain + liking[rows] + rng.normal(0, 0.3)
        arm[seed] = _scored(rng.logistic(size=n) < odds + shift, rows)
        base[seed] = _scored(rng.logistic(size=n) < odds + rng.normal(0, 0.3), rows)
    return difference(arm, base)


@pytest.mark.parametrize("common", [True, False])
def test_intervals_hold_the_truth_about_as_often_as_they_say(common):
    rng = np.random.default_rng(5)
    truth = np.mean([one.value for one in _draw(rng, 300, 400, 0.5, False).values()])
    found = [estimate(_draw(rng, 5, 200, 0.5, common)) for _ in range(300)]
    covered = np.mean([one.low <= truth <= one.high for one in found])
    assert 0.91 <= covered <= 0.985


def test_a_known_shift_is_recovered():
    rng = np.random.default_rng(2)
    errors = [rng.random(200) + 1 for _ in range(5)]
    base = {s: score(metric("mae"), values(off)) for s, off in enumerate(errors)}
    arm = {s: score(metric("mae"), values(off - 0.25)) for s, off in enumerate(errors)}
    found = estimate(difference(base, arm))
    assert found.value == pytest.approx(0.25)
    assert (found.low, found.high) == (None, None)  # the same shift in every row and seed: nothing says how sure it is
