"""What is answered when two modalities disagree: the table by hand, how rows are put together, and the control."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from transference.assessment.mcgurk import averaged, mcgurk, pairs, recombined, table
from transference.core.errors import DataError
from transference.core.records import Finding
from transference.core.registry import create
from transference.core.views import Views
from transference.train.schedule import Schedule

NAMES = np.array(["ba", "da", "ga"])


def shares(found: list[Finding]) -> dict[tuple[str, str, str], float]:
    return {(f.of["seen"], f.of["heard"], f.of["answered"]): f.value for f in found if f.name == "share"}


def third(found: list[Finding]) -> float:
    return next(each.value for each in found if each.name == "third")


def test_the_table_by_hand() -> None:
    seen = np.array(["ba", "ga", "ga", "ga", "ga", "ga"])
    heard = np.array(["ba", "ga", "ba", "ba", "ba", "ba"])
    answered = np.array(["ba", "da", "da", "da", "da", "ga"])
    found = table(seen, heard, answered)
    assert {cell: value for cell, value in shares(found).items() if value} == {
        ("ba", "ba", "ba"): 1.0, ("ga", "ga", "da"): 1.0, ("ga", "ba", "da"): 0.75, ("ga", "ba", "ga"): 0.25,
    }  # fmt: skip
    assert len(found) == 3 * 3 + 1  # ba was never shown beside ga
    assert third(found) == 0.75  # of the incongruent rows alone
    cell = next(each for each in found if each.value == 0.75 and each.name == "share")
    assert (cell.n, cell.bounds) == (4, (0, 1))
    assert (cell.low, cell.high) == pytest.approx((0.3006, 0.9544), abs=1e-4)  # Wilson, 3 of 4


def test_every_class_meets_every_class_and_no_row_itself() -> None:
    labels = np.array([0, 2, 0, 1, 2, 2, 0, 1, 0])
    one, other = pairs(labels, seed=3)
    counts = np.bincount(labels)
    for v in range(3):
        for a in range(3):
            cell = (labels[one] == v) & (labels[other] == a)
            assert np.sort(one[cell]).tolist() == np.flatnonzero(labels == v).tolist()
            used = np.bincount(other[cell], minlength=9)[labels == a]
            assert used.max() - used.min() <= 1, "all rows come before one comes again"
            assert used.sum() == counts[v]
    assert (one != other).all()
    assert not np.array_equal(other, pairs(labels, seed=4)[1])
    assert np.array_equal(other, pairs(labels, seed=3)[1])


def test_what_is_put_together_comes_from_the_right_rows() -> None:
    length = np.array([1, 2, 3])
    X = Views.of(primary="z", look=[[1.0], [2.0], [3.0]], hear=np.arange(18.0).reshape(3, 3, 2), z=np.zeros((3, 1)))
    X = X.replace("hear", X["hear"], lengths=length)
    made = recombined(X, np.array([0, 0, 2]), np.array([1, 2, 0]), "look", "hear")
    assert made.names == ("hear", "look")
    assert made["look"][:, 0].tolist() == [1, 1, 3]
    assert made["hear"][:, 0, 0].tolist() == [6, 12, 0]
    assert made.lengths["hear"].tolist() == [2, 3, 1]


def syllables(n: int, seed: int, look: Any, hear: Any) -> tuple[Views, NDArray[Any]]:
    """Rows around the points of their class in either modality."""
    g = np.random.default_rng(seed)
    k = np.arange(n) % 3
    arrays = [np.asarray(points, float)[k] + 0.3 * g.normal(size=(n, len(points[0]))) for points in (look, hear)]
    return Views.of(primary="look", look=arrays[0], hear=arrays[1]), NAMES[k]


APART = 3 * np.eye(3)  # da has a direction of its own, in both
LOOK = np.array([[3.0, 0.0], [-3.0, 0.0], [-3.0, 0.0]])  # da looks like ga
HEAR = np.array([[3.0, 0.0], [3.0, 0.0], [-3.0, 0.0]])  # and sounds like ba


@pytest.mark.parametrize("model", ["fusion.late", "averaged"])
def test_separate_beliefs_name_no_third_class_that_shares_nothing(model: str) -> None:
    schedule = Schedule(updates=60, learning_rate=1e-2)
    for seed in range(2):
        found = {}
        for name, points in (("apart", (APART, APART)), ("alike", (LOOK, HEAR))):
            X, y = syllables(150, seed, *points)
            if model == "averaged":
                alone = [
                    create("unimodal", schedule=schedule, seed=seed).fit(X.only([each], primary=each), y)
                    for each in X.names
                ]
                answer = averaged([each.predict_proba for each in alone], alone[0].classes_)
            else:
                answer = create(model, schedule=schedule, seed=seed).fit(X, y).predict
            test, truth = syllables(90, seed + 9, *points)
            found[name] = mcgurk(answer, test, truth, seen="look", heard="hear", seed=seed)
        apart = shares(found["apart"])
        assert third(found["apart"]) == 0
        assert min(apart[name, name, name] for name in NAMES) > 0.95
        assert apart["ga", "ba", "da"] == 0
        assert apart["ga", "ba", "ga"] + apart["ga", "ba", "ba"] == pytest.approx(1)
        assert shares(found["alike"])["ga", "ba", "da"] > 0.5, "and no proof of fusion where it is like both"


def test_the_mean_of_beliefs_by_hand() -> None:
    """In the third row both are sure, of different classes; the product of their beliefs would name da."""
    X, _ = syllables(3, 0, APART, APART)
    first = np.array([[0.5, 0.1, 0.4], [0.6, 0.4, 0.0], [1e-6, 0.01, 0.99]])
    second = np.array([[0.0, 0.4, 0.6], [0.1, 0.5, 0.4], [0.98, 0.02, 1e-6]])
    answer = averaged([lambda X: first, lambda X: second], NAMES)
    assert answer(X).tolist() == ["ga", "da", "ga"]
    assert NAMES[(first * second)[2].argmax()] == "da"


def test_a_joint_representation_of_what_shares_nothing_gives_no_third_class_either() -> None:
    (X, y), (test, truth) = syllables(150, 0, APART, APART), syllables(60, 1, APART, APART)
    method: Any = create("colearning.fusion.autoencoder", width=16, schedule=Schedule(updates=80)).fit(X)
    joint = LogisticRegression(max_iter=1000).fit(method.embed_together(X), y)
    found = mcgurk(lambda X: joint.predict(method.embed_together(X)), test, truth, seen="look", heard="hear")
    assert len(found) == 27 + 1
    assert min(shares(found)[name, name, name] for name in NAMES) == 1
    assert third(found) < 0.05


def test_a_model_that_fuses_is_found_out_and_the_rest_is_left_alone() -> None:
    X, y = syllables(60, 1, APART, APART)

    def answer(X: Views) -> NDArray[Any]:
        v, a = (X[name].argmax(1) for name in ("look", "hear"))
        return NAMES[np.where((v == 2) & (a == 0), 1, v)]

    partly: NDArray[Any] = y.astype(object)
    partly[-6:] = None
    X = X.replace("hear", X["hear"], present=np.arange(60) >= 12)
    found = mcgurk(answer, X, partly, seen="look", heard="hear")
    assert shares(found)["ga", "ba", "da"] == 1
    assert third(found) == pytest.approx(1 / 6)  # one of the six incongruent pairs
    assert {each.n for each in found} == {14, 84}  # 42 rows have a label and both modalities
    assert len(found) == 27 + 1


def test_what_makes_no_sense_is_refused() -> None:
    X, y = syllables(9, 0, APART, APART)
    with pytest.raises(DataError, match="The classes of rows to put together must be 2 or more. Got '1' instead"):
        mcgurk(lambda X: y[: len(X)], X[y == "ba"], y[y == "ba"], seen="look", heard="hear")
    with pytest.raises(DataError, match=r"must be of shape \(27,\). Got \(2,\) instead"):
        mcgurk(lambda X: np.array(["ba", "da"]), X, y, seen="look", heard="hear")
    with pytest.raises(DataError, match="must be two. Got 'look' twice instead"):
        mcgurk(lambda X: y, X, y, seen="look", heard="look")
