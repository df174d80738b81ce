"""Co-training in its authors' setting, simulated: naive Bayes of two bags of words, twelve labels, views that differ.

Documents of 20 words out of 400 in each view; a quarter is of the rare class. 3 + 9 are labelled; 30 rounds, in each of
which each view adds 1 + 3 out of a pool of 75. Errors are those of the documents that came without a label.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB, MultinomialNB
from sklearn.pipeline import make_pipeline

from transference.core.errors import DataError
from transference.core.registry import create
from transference.core.views import Views
from transference.train.schedule import Schedule

Sort = Literal["independent", "identical", "insufficient"]
RAW = make_pipeline(GaussianNB())  # a pipeline is given the numbers as they are
LINEAR = LogisticRegression()  # no two rows are equally probable
SEEDS = 10


def documents(seed: int, sort: Sort, n: int = 800, words: int = 400, length: int = 20) -> tuple[Views, NDArray[Any]]:
    """Word counts of two views: independent given the class, twice the same, or the second one without the class."""
    generator = np.random.default_rng(seed)
    truth = (generator.random(n) < 0.25).astype(int)
    truth[:12] = [1] * 3 + [0] * 9
    counts = []
    for _ in range(2):
        rate = generator.dirichlet(np.full(words, 0.5), size=2)
        rate[1] = 0.3 * rate[0] + 0.7 * rate[1]
        counts.append(np.stack([generator.multinomial(length, rate[c]) for c in truth]))
    if sort == "identical":
        counts[1] = counts[0]
    if sort == "insufficient":
        counts[1] = generator.multinomial(length, generator.dirichlet(np.full(words, 0.5)), size=n)
    return Views.of(primary="links", links=counts[0], page=counts[1]), truth


@cache
def errors(sort: Sort, big: str = "big", rare: str = "rare", seeds: int = SEEDS) -> NDArray[np.float64]:
    """(seeds, supervised and co-trained, links and page and combined)."""
    found, names = [], np.array([big, rare], object)
    for seed in range(seeds):
        X, truth = documents(seed, sort)
        known = names[truth]
        known[12:] = None
        line = []
        for rows in (slice(12), slice(None)):
            method = create("induction.co_training", models=MultinomialNB(), rounds=30, growth=1, pool=75, seed=seed)
            method.fit(X[rows], known[rows])
            told = [method.models_[name].decide(X.only([name], primary=name)) for name in ("links", "page")]
            told.append(method.combined(X))
            line.append([np.mean(method.classes_[each.argmax(1)][12:] != names[truth][12:]) for each in told])
        found.append(line)
    return np.array(found)


def test_views_that_are_independent_bring_the_combined_error_down_to_almost_nothing() -> None:
    found = errors("independent")
    before, after = found.mean(0)
    assert ((before > 0.1) & (before < 0.16)).all()  # 13.0, 12.6 and 11.9 %
    assert before[2] < before[:2].min()  # the product is better than each
    assert (after[:2] < 0.03).all()
    assert np.mean(found[:, 1, 2] < 0.015) >= 0.9
    renamed = errors("independent", "z", "a", 3)  # the other way round in the alphabet
    np.testing.assert_array_equal(renamed, found[:3])


def test_views_that_are_the_same_help_less_and_beside_one_that_knows_nothing_both_together_stay_poor() -> None:
    copied, helpless, independent = errors("identical"), errors("insufficient"), errors("independent")
    np.testing.assert_array_equal(copied[:, :, 0], copied[:, :, 1])
    np.testing.assert_array_equal(copied[:, :, 0], copied[:, :, 2])
    assert 0.01 < copied[:, 1, 2].mean() < 0.04  # of 13.0 %, as much as self-training leaves; both independent 0.1 %
    assert copied[:, 1, 2].mean() > 5 * independent[:, 1, 2].mean()
    assert np.mean(copied[:, 1, 2] > independent[:, 1, 2]) >= 0.9
    assert helpless[:, 1, 1].mean() > 0.25  # the view without the class has not learned it
    assert helpless[:, 1, 0].mean() > 2 * independent[:, 1, 0].mean()
    assert helpless[:, 1, 2].mean() > 0.08


def gaussians(n: int = 120, labelled: int = 8, seed: int = 0) -> tuple[Views, Any]:
    generator = np.random.default_rng(seed)
    truth = np.arange(n) % 4 > 0  # one of four is False
    views = {name: generator.normal(size=(n, 2)) + truth[:, None] * 1.5 for name in ("a", "b")}
    y = np.where(truth, "big", "rare").astype(object)
    y[labelled:] = None
    return Views.of(primary="a", **views), y


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_with_identical_views_it_is_self_training(seed: int) -> None:
    """Out of all unlabelled rows, 2 + 6 a round for seven rounds: the same rows, labels, rounds and answers."""
    X, y = gaussians(seed=seed)
    twin = Views.of(primary="a", a=X["a"], b=X["a"])
    both = create("induction.co_training", models=LINEAR, rounds=7, growth=2, pool=112, seed=seed).fit(twin, y)
    alone = create("induction.self_training", model=LINEAR, rounds=7, share=0.5, seed=seed).fit(X.only(["a"]), y)
    assert both.labeled_iter_.tolist() == alone.labeled_iter_.tolist()
    assert both.transduction_.tolist() == alone.transduction_.tolist()
    assert (both.labeled_iter_ == 7).sum() == 8
    assert np.array_equal(both.predict_proba(X), alone.predict_proba(X))


def test_a_pool_larger_than_the_unlabelled_rows_is_a_pool_of_all() -> None:
    X, y = gaussians(n=50)
    fits = [create("induction.co_training", models=RAW, rounds=4, growth=1, pool=k).fit(X, y) for k in (42, 43, 5000)]
    for other in fits[1:]:
        assert other.labeled_iter_.tolist() == fits[0].labeled_iter_.tolist()
    assert [fit.rounds_[0]["pool"] for fit in fits] == [42] * 3


def test_combined_by_hand() -> None:
    """Proportional to the product: of (0.8, 0.2) and (0.3, 0.7), that is 0.24 and 0.14."""
    X, y = gaussians()
    method = create("induction.co_training", models=RAW, rounds=3).fit(X, y)

    class Says:
        def __init__(self, *p: float) -> None:
            self.p = p

        def predict_proba(self, X: Views) -> NDArray[Any]:
            return np.tile(np.array(self.p, np.float32), (len(X), 1))

    product = np.prod([method.models_[name].predict_proba(X.only([name], primary=name)) for name in "ab"], 0)
    np.testing.assert_allclose(method.combined(X), product / product.sum(1, keepdims=True), rtol=1e-9)
    method.models_ = {"a": Says(0.8, 0.2), "b": Says(0.3, 0.7)}
    np.testing.assert_allclose(method.combined(X), np.tile([0.24 / 0.38, 0.14 / 0.38], (120, 1)), rtol=1e-6)
    method.models_ = {"a": Says(1.0, 0.0), "b": Says(0.0, 1.0)}  # both are sure, and one is wrong
    np.testing.assert_allclose(method.combined(X), 0.5)


def test_combined_needs_every_view() -> None:
    X, y = gaussians()
    method = create("induction.co_training", models=RAW, rounds=3).fit(X, y)
    with pytest.raises(DataError, match="needs 'b' in every row. 1 rows lack one"):
        method.combined(X.replace("b", X["b"], present=np.arange(120) != 5))
    with pytest.raises(DataError, match="There is no modality 'b'"):
        method.combined(X.only(["a"]))
    network = create("induction.co_training", rounds=1, schedule=Schedule(updates=4)).fit(X, y)
    assert network.combined(X).sum(1) == pytest.approx(1.0)
