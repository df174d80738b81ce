"""Co-training: the pseudo-code as a loop, and what never changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline

from transference.core.errors import ConfigError, DataError
from transference.core.registry import create
from transference.core.seeding import numpy_generator
from transference.core.views import Views
from transference.train.schedule import Schedule

SHORT = Schedule(updates=40, batch_size=16)
RAW = make_pipeline(GaussianNB())  # a pipeline is given the numbers as they are


def gaussians(n: int = 120, labelled: int = 8, seed: int = 0) -> tuple[Views, Any]:
    generator = np.random.default_rng(seed)
    truth = np.arange(n) % 4 > 0  # one of four is False
    views = {name: generator.normal(size=(n, 2)) + truth[:, None] * 1.5 for name in ("a", "b")}
    y = np.where(truth, "big", "rare").astype(object)
    y[labelled:] = None
    return Views.of(primary="a", **views), y


def test_a_slow_reference_loop_adds_the_same_rows() -> None:
    X, y = gaussians()
    method = create("induction.co_training", models=RAW, rounds=6, growth=1, pool=20, seed=4).fit(X, y)
    labels = {i: int(v == "rare") for i, v in enumerate(y) if v is not None}
    growth = {0: 3, 1: 1}
    order = numpy_generator(4, "pool").permutation(np.arange(8, 120)).tolist()
    pool, rest = order[:20], order[20:]
    for turn in range(6):
        offers: dict[int, list[tuple[float, int]]] = {}
        for name in ("a", "b"):
            known = sorted(labels)
            model = GaussianNB().fit(X[name][known], [labels[i] for i in known])
            p = {i: model.predict_proba(X[name][i : i + 1])[0] for i in pool}
            left, free = dict(growth), set(pool)
            while sum(left.values()) and free:
                _, _, row, c = max((p[i][c], -pool.index(i), i, c) for i in free for c in (0, 1) if left[c])
                left[c] -= 1
                free.remove(row)
                offers.setdefault(row, []).append((p[row][c], c))
        added = {}
        for row, given in offers.items():
            best = [c for probability, c in given if probability == max(given)[0]]
            if len(set(best)) == 1:
                added[row] = best[0]
        line = method.rounds_[turn]
        assert dict(zip(line["rows"].tolist(), line["labels"].tolist(), strict=True)) == added
        assert line["pool"] == len(pool)
        labels.update(added)
        pool = [i for i in pool if i not in added]
        pool, rest = pool + rest[: len(added)], rest[len(added) :]
    assert {i: v for i, v in enumerate(method.transduction_.tolist()) if v >= 0} == labels


def test_identical_views_choose_the_same_rows() -> None:
    """Two views that are one are self-training: a round adds what one of them would."""
    X, y = gaussians()
    twin = Views.of(primary="a", a=X["a"], b=X["a"])
    method = create("induction.co_training", models=RAW, rounds=8, growth=2).fit(twin, y)
    assert [len(line["rows"]) for line in method.rounds_] == [8] * 8  # 2 rare and 6 big ones
    assert all(line["conflicts"] == 0 for line in method.rounds_)
    assert np.array_equal(
        method.models_["a"].decide(twin.only(["a"])), method.models_["b"].decide(twin.only(["b"], "b"))
    )


def test_originals_stay_additions_are_bounded_and_rounds_are_told() -> None:
    X, y = gaussians()
    method = create("induction.co_training", models=RAW, rounds=9, growth=1, pool=30).fit(X, y)
    assert method.transduction_[:8].tolist() == [int(v == "rare") for v in y[:8]]
    assert all(len(line["rows"]) <= 2 * (1 + 3) for line in method.rounds_)
    assert len(method.rounds_) == 9
    everything = np.concatenate([line["rows"] for line in method.rounds_])
    assert len(set(everything.tolist())) == len(everything)
    assert set(np.flatnonzero(method.labeled_iter_ > 0)) == set(everything.tolist())
    assert [method.labeled_iter_[row] for row in method.rounds_[4]["rows"]] == [5] * len(method.rounds_[4]["rows"])


@pytest.mark.parametrize("unlabelled", [1, 5, 70])
def test_a_pool_larger_than_what_there_is_holds_it_all(unlabelled: int) -> None:
    X, y = gaussians(n=8 + unlabelled)
    method = create("induction.co_training", models=RAW, rounds=50, growth=1).fit(X, y)
    assert method.rounds_[0]["pool"] == unlabelled
    assert (method.transduction_ >= 0).all()
    assert create("induction.co_training", models=RAW).fit(X[:8], y[:8]).rounds_ == []


def test_growth_and_pool_follow_the_data() -> None:
    """32 unlabelled rows, two views, two rounds, a rarest class of 1/4: 32 / 4 / 4 = 2 rows, and 6 of the other."""
    X, y = gaussians(n=40)
    method = create("induction.co_training", models=RAW, rounds=2).fit(X, y)
    assert method.rounds_[0]["pool"] == 32
    by_a = [c for c, view in zip(method.rounds_[0]["labels"], method.rounds_[0]["views"], strict=True) if view == "a"]
    assert len(by_a) <= 8
    assert by_a.count(1) <= 2
    large = create("induction.co_training", models=RAW, rounds=1, growth=3).fit(*gaussians(n=400))
    assert large.rounds_[0]["pool"] == 120  # ten times 3 + 9


def test_names_of_classes_mean_nothing() -> None:
    X, y = gaussians(labelled=12)
    renamed = np.array([{"rare": "a first", "big": "b then", None: None}[v] for v in y], object)
    fits = [create("induction.co_training", models=RAW, rounds=5).fit(X, labels) for labels in (y, renamed)]
    for one, other in zip(fits[0].rounds_, fits[1].rounds_, strict=True):
        assert sorted(one["rows"].tolist()) == sorted(other["rows"].tolist())
    assert np.allclose(fits[0].predict_proba(X), fits[1].predict_proba(X)[:, ::-1])


def test_many_classes_many_views_and_gaps() -> None:
    generator = np.random.default_rng(0)
    truth = np.arange(90) % 3
    views = {name: generator.normal(size=(90, 2)) + np.eye(3)[truth][:, :2] * 4 for name in "abc"}
    y = np.array(["x", "y", "z"], object)[truth]
    labelled = y.copy()
    labelled[9:] = None
    X = Views.of(primary="b", **views)
    absent = np.arange(90) % 4 == 1
    absent[:9] = False
    gap = X.replace("c", X["c"] * ~absent[:, None], present=~absent)
    method = create("induction.co_training", models={"a": RAW, "c": "sklearn.naive_bayes.GaussianNB"}, schedule=SHORT)
    method.fit(gap, labelled)
    assert type(method.models_["b"]).__name__ == "Unimodal"
    assert method.score(X, y) > 0.95
    assert (
        np.mean(y[method.transduction_ >= 0] == method.classes_[method.transduction_[method.transduction_ >= 0]]) > 0.95
    )
    for line in method.rounds_:
        assert not absent[[row for row, view in zip(line["rows"], line["views"], strict=True) if view == "c"]].any()


@pytest.mark.parametrize("models", [None, RAW])
def test_predictions_do_not_read_the_secondary(models: Any) -> None:
    X, y = gaussians()
    method = create("induction.co_training", models=models, rounds=3, schedule=SHORT).fit(X, y)
    poisoned = X.replace("b", np.full_like(X["b"], np.nan))
    assert np.array_equal(method.predict_proba(X), method.predict_proba(poisoned))
    assert np.array_equal(method.predict_proba(X), method.predict_proba(X.only(["a"])))
    assert method.deployed().spec_.primary == "a"


@pytest.mark.parametrize(
    ("parameters", "wording"),
    [
        ({"pool": 0}, "The 'pool' parameter of CoTraining must be an integer of at least 1 or None. Got 0"),
        ({"models": {"a": "unimodel"}}, "Write the module too"),
    ],
)
def test_wrong_parameters_are_told_in_words(parameters: Any, wording: str) -> None:
    with pytest.raises(ConfigError, match=wording):
        create("induction.co_training", **parameters).check_parameters()


def test_wrong_data_are_told_in_words() -> None:
    X, y = gaussians()
    with pytest.raises(ConfigError, match="'models' names 'c', which is no modality"):
        create("induction.co_training", models={"c": None}).fit(X, y)
    lonely = X.replace("b", X["b"], present=np.arange(120) >= 8)
    with pytest.raises(DataError, match="No labelled row has 'b', so it cannot teach"):
        create("induction.co_training").fit(lonely, y)
