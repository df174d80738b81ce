"""Retrieval, zero-shot classes, episodes and generation, on values worked out by hand and against slow loops."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from transference.assessment import few_shot, generation, retrieval, zero_shot
from transference.assessment.hierarchy import hops, precision
from transference.core.errors import ConfigError, DataError
from transference.core.method import Card, Method
from transference.core.views import Views

RNG = np.random.default_rng(0)


class Plain(Method):
    """Knows nothing but what it is shown: representations are the arrays, and generation copies the primary one."""

    card: ClassVar[Card] = Card(
        summary="A test's method.",
        reference="none",
        modalities=(2, 2),
        needs=frozenset({"labels"}),
        at_test="primary",
        tasks=frozenset({"classification", "retrieval", "zero_shot", "few_shot", "generation"}),
    )

    def learn(self, X: Views, target: Any) -> None:
        pass

    def decide(self, X: Views) -> Any:
        raise NotImplementedError

    def embed(self, X: Views) -> Any:
        return {name: X[name].astype(float) for name in X.names}

    def generate(self, X: Views, name: str) -> Any:
        return X[self.spec_.primary] + 0.5


def views(x: Any, z: Any, **more: Any) -> Views:
    made = Views.of(primary="x", x=x, z=z)
    return Views(made.arrays, made.specs, "x", **more)


def fitted(X: Views) -> Plain:
    method = Plain()
    method.fit(X, np.arange(len(X)) % 2)
    return method


def test_rows_are_asked_through_a_modality_that_they_have_in_the_form_it_was_learned() -> None:
    X = views(RNG.normal(size=(6, 2)), RNG.normal(size=(6, 3)))
    method, y = fitted(X), np.arange(6) % 2
    lacking = X.replace("z", X["z"], present=np.arange(6) > 0).replace("x", X["x"], present=np.arange(6) < 5)
    wide = views(np.zeros((6, 4)), np.zeros((6, 5)))
    broken = X.replace("x", np.full((6, 2), np.nan)).replace("z", np.full((6, 3), np.inf))
    for given, fault in (
        (lacking, "1 rows lack {0!r}"),
        (wide, "A row of {0!r} must be of shape"),
        (broken, "array of {0!r} must be finite"),
    ):
        with pytest.raises(DataError, match=fault.format("x")):
            method.match(given, X.only(["z"], primary="z"))
        with pytest.raises(DataError, match=fault.format("z")):
            method.match(X, given.only(["z"], primary="z"))
        with pytest.raises(DataError, match=fault.format("x")):
            method.episode(X, y, given)
        with pytest.raises(DataError, match=fault.format("x")):
            method.episode(given, y, X)


def test_ranks_are_those_of_a_slow_loop() -> None:
    similarity, labels = RNG.normal(size=(12, 12)).round(1), RNG.integers(0, 3, 12)
    similarity[3] = 0.0
    found = retrieval.ranked(similarity, labels)
    for i in range(12):
        better = [j for j in range(12) if similarity[i, j] > similarity[i, i]]
        equal = [j for j in range(12) if j != i and similarity[i, j] == similarity[i, i]]
        assert found[i, 0] == 1 + len(better) + len(equal) / 2
        if len(set(similarity[i])) == 12:
            assert found[i, 1] == pytest.approx(average_precision_score(labels == labels[i], similarity[i]))


def test_equal_scores_are_chance_whatever_the_order_of_the_rows() -> None:
    labels = np.repeat([0, 1], 200)
    found = retrieval.ranked(np.zeros((400, 400)), labels)
    assert (found[:, 0] == 200.5).all()
    assert found[:, 1].mean() == pytest.approx(0.5, abs=0.02)


def test_a_row_without_a_label_is_like_no_other_row() -> None:
    similarity = np.array([[0.0, 3.0, 2.0, 1.0], [0.0, 3.0, 2.0, 1.0], [1.0, 0.0, 3.0, 2.0], [1.0, 0.0, 3.0, 2.0]])
    a = ["a", "a"]
    for labels in (
        np.array([None, None, *a], object),
        np.array([np.nan, np.nan, *a], object),
        np.array([-1, -1, 7, 7]),
    ):
        assert retrieval.ranked(similarity, labels)[:, 1].tolist() == [1 / 4, 1, 1, 1]
    values = np.array([np.nan, np.nan, -1.0, -1.0])  # of which -1 is one like others
    assert retrieval.ranked(similarity, values)[:, 1].tolist() == [1 / 4, 1, 1, 1]


def test_the_probe_of_retrieval_goes_both_ways_over_rows_with_both() -> None:
    x = RNG.normal(size=(30, 4))
    present = {"z": np.arange(30) != 7}
    X = views(x, x.copy(), present=present)
    found = retrieval.retrieval(fitted(X), X, np.arange(30) % 3, "z")
    one = {(f.name, f.of["from"]): f for f in found}
    assert one["recall_at_1", "x"].value == one["recall_at_1", "z"].value == 1.0
    assert one["median_rank", "x"].value == 1
    assert one["recall_at_1", "x"].n == 29
    assert one["recall_at_1", "x"].high == 1.0 > one["recall_at_1", "x"].low
    with pytest.raises(DataError, match="test rows with 'x' and 'z' must be 1 or more"):
        retrieval.retrieval(fitted(X), X.without("z"), np.arange(30) % 3, "z")


def test_seen_against_unseen_by_a_slow_loop() -> None:
    scores, target = RNG.integers(-9, 10, (60, 5)).astype(float), RNG.integers(0, 5, 60)
    unseen = np.array([False, True, False, True, False])
    expected = []
    gaps = np.unique(scores[:, ~unseen].max(1) - scores[:, unseen].max(1))
    for bonus in [gaps[0] - 1, *((gaps[:-1] + gaps[1:]) / 2), gaps[-1] + 1]:
        right = (scores + bonus * unseen).argmax(1) == target
        new = unseen[target]
        expected.append((right[~new].mean(), right[new].mean()))
    np.testing.assert_allclose(zero_shot.trade_off(target, scores, unseen), expected)
    ends = zero_shot.trade_off(target, scores, unseen)
    assert ends[0, 1] == ends[-1, 0] == 0
    assert (np.diff(ends[:, 0]) <= 0).all()
    assert (np.diff(ends[:, 1]) >= 0).all()


def test_zero_shot_accuracies_by_hand() -> None:
    unseen = np.array([False, False, True, True])
    target = np.array([0, 1, 2, 3, 3])
    scores = np.array(
        [[3, 0, 1, 0], [0, 1, 2, 0], [0, 9, 2, 1], [0, 0, 0, 5], [0, 0, 4, 3]], float
    )  # right; lost to a new class; right among the new ones alone; right; wrong
    found = {f.name: f.value for f in zero_shot.of_scores(target, scores, unseen) if f.name != "trade_off"}
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["open_seen"] == pytest.approx(1 / 2)
    assert found["open_unseen"] == pytest.approx(1 / 3)
    assert found["harmonic"] == pytest.approx(2 * (1 / 2) * (1 / 3) / (1 / 2 + 1 / 3))
    with pytest.raises(DataError, match="The number of rows of unseen classes must be 1 or more. Got 0 instead"):
        zero_shot.of_scores(target[:2], scores[:2], unseen)
    # the constant at which a row turns to the new classes: 2, -1, 7, -5, -4; both seen rows are right while they stay
    assert found["open_area"] == pytest.approx(0.5 * (1 / 3 + 1 / 3) / 2 * 2)
    curve = {f.of["open_seen"]: f.value for f in zero_shot.of_scores(target, scores, unseen) if f.name == "trade_off"}
    assert curve == pytest.approx({"0.0": 2 / 3} | {f"{k / 10:.1f}": 1 / 3 for k in range(1, 11)})
    scores[0] = [0, 2, 1, 0]  # lost, whatever the constant
    curve = {f.of["open_seen"]: f.value for f in zero_shot.of_scores(target, scores, unseen) if f.name == "trade_off"}
    assert curve["0.5"] == pytest.approx(1 / 3)
    assert curve["0.6"] == 0


SEVEN = {"cat": "animal", "dog": "animal", "car": "vehicle", "van": "vehicle"}  # and one root above: seven nodes


def test_near_misses_in_a_tree_of_seven_nodes() -> None:
    distance = hops(["cat", "dog", "car", "van"], SEVEN)
    np.testing.assert_array_equal(distance, [[0, 2, 4, 4], [2, 0, 4, 4], [4, 4, 0, 2], [4, 4, 2, 0]])
    target = np.array([0, 0, 0, 3])
    scores = np.array([[4, 3, 2, 1], [3, 4, 2, 1], [1, 2, 4, 3], [3, 1, 2, 4]], float)
    assert precision(target, scores, distance, 1).tolist() == [1, 0, 0, 1]  # the class itself
    assert precision(target, scores, distance, 2).tolist() == [1, 1, 0, 0.5]  # both of one kind are right
    assert precision(target, scores, distance, 3).tolist() == [1, 1, 1, 1]  # the third is as far as the fourth
    found = zero_shot.of_tree(target, scores, np.array([True, False, False, True]), distance)
    told = [(f.name, f.value, f.n, f.of["among"], f.of["k"]) for f in found]
    assert told == [("hierarchical", 0.625, 4, "all", "2")]
    unseen = np.array([True, False, True, True])
    scores[:, 1] = 9  # the best answer to every row, where it may be one
    found = zero_shot.of_tree(target, scores, unseen, distance)
    assert {f.of["among"]: f.value for f in found} == {"all": 0.75, "unseen": 0.875}


def test_a_class_deep_in_a_tree_is_near_to_what_is_above_it() -> None:
    names = ["poodle", "dog", "cat", "truck"]
    distance = hops(names, {"poodle": "dog", "dog": "animal", "cat": "animal"})
    np.testing.assert_array_equal(distance, [[0, 1, 3, 4], [1, 0, 2, 3], [3, 2, 0, 3], [4, 3, 3, 0]])
    scores = np.array([[3, 2, 1, 4], [1, 3, 4, 2]], float)
    assert precision(np.array([1, 3]), scores, distance, 2).tolist() == [0.5, 1]  # a truck's nearest are dog and cat
    with pytest.raises(ConfigError, match="The parents of 'a' in the tree lead back to 'a'"):
        hops(["a"], {"a": "b", "b": "a"})


def test_descriptions_are_different_rows_without_the_primary_modality() -> None:
    z = np.repeat([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], 30, axis=0)
    X = views(RNG.normal(size=(90, 2)), z)
    y = np.repeat(["a", "b", "c"], 30)
    described = zero_shot.describe(X, y, ["a", "b", "c"])
    assert [rows["z"].tolist() for rows in described.values()] == [[[1.0, 0.0]], [[0.0, 1.0]], [[1.0, 1.0]]]
    assert all(rows.names == ("z",) for rows in described.values())
    many = zero_shot.describe(views(z, RNG.normal(size=(90, 2))), y, ["a"])
    assert len(many["a"]) == zero_shot.MOST
    with pytest.raises(DataError, match="describe the class 'd' must be 1 or more"):
        zero_shot.describe(X, y, ["d"])


def test_all_classes_are_described_in_one_modality() -> None:
    z, w = RNG.normal(size=(8, 3)), RNG.normal(size=(8, 4))
    y = np.array(list("aabbccdd"))
    made = Views.of(primary="x", x=RNG.normal(size=(8, 2)), z=z, w=w)
    X = made.replace("w", made["w"], present=np.isin(y, ["a", "b"])).replace("z", made["z"], present=y != "a")
    assert {rows.names for rows in zero_shot.describe(X, y, ["b", "c"], "z").values()} == {("z",)}
    assert {rows.names for rows in zero_shot.describe(X, y, ["a", "b"]).values()} == {("w",)}  # the first one
    with pytest.raises(DataError) as raised:
        zero_shot.describe(X, y, ["a", "b", "c", "d"])
    assert [fault.partition(" must be 1 or more")[0] for fault in raised.value.faults] == [
        "The rows with 'w' that describe the class 'c'",
        "The rows with 'w' that describe the class 'd'",
    ]
    with pytest.raises(DataError, match="Rows that describe classes must be of two modalities or more"):
        zero_shot.describe(X.only(["x"]), y, ["a"])


def test_the_probe_of_zero_shot_takes_the_nearest_description() -> None:
    centre = np.eye(4)[np.arange(80) % 4]
    X, y = views(centre + 0.05 * RNG.normal(size=(80, 4)), centre), np.array(list("abcd"))[np.arange(80) % 4]
    found = zero_shot.zero_shot(fitted(X), X, y, zero_shot.describe(X, y, list("abcd")), ["b", "d"])
    tree = {"a": "low", "b": "low", "c": "high", "d": "high"}
    more = zero_shot.zero_shot(fitted(X), X, y, zero_shot.describe(X, y, list("abcd")), ["b", "d"], tree)
    assert [f.name for f in more[len(found) :]] == ["hierarchical"]
    assert {f.name: f.value for f in found if f.name != "trade_off"} == {
        "accuracy": 1.0,
        "open_seen": 1.0,
        "open_unseen": 1.0,
        "harmonic": 1.0,
        "open_area": 1.0,
    }


def test_episodes_are_drawn_whole_and_apart() -> None:
    x = RNG.normal(size=(100, 3))
    present = {"z": np.arange(100) % 4 != 0}
    X, y = views(x, x, present=present), np.array([f"c{k % 7}" for k in range(100)])
    drawn = few_shot.draw(X, y, way=3, shot=2, queries=4, episodes=30, seed=1)
    assert len(drawn) == 30
    for each in drawn:
        assert not set(each.support) & set(each.query)
        assert len(set(each.support)) == 6
        assert len(set(each.query)) == 12
        assert present["z"][each.support].all()
        assert sorted(set(y[each.support])) == sorted(set(y[each.query]))
        assert (np.unique(y[each.query], return_counts=True)[1] == 4).all()
    again = few_shot.draw(X, y, way=3, shot=2, queries=4, episodes=30, seed=1)
    assert all((a.query == b.query).all() for a, b in zip(drawn, again, strict=True))
    assert any((a.query != b.query).any() for a, b in zip(drawn, few_shot.draw(X, y, 3, 2, 4, 30, 2), strict=True))
    with pytest.raises(DataError, match="classes with 2 whole rows and 40 more must be 3 or more. Got 0"):
        few_shot.draw(X, y, way=3, shot=2, queries=40, episodes=1, seed=0)


@pytest.mark.parametrize("missing", [-1, None, np.nan])
def test_rows_without_a_label_are_in_no_episode(missing: Any) -> None:
    labels = np.where(np.arange(60) % 3 == 0, -1, np.arange(60) % 3)
    y = labels if missing == -1 else np.array([missing if k == -1 else f"c{k}" for k in labels], object)
    X = views(RNG.normal(size=(60, 2)), RNG.normal(size=(60, 2)))
    for each in few_shot.draw(X, y, way=2, shot=1, queries=3, episodes=20, seed=0):
        assert (labels[each.support] > 0).all()
        assert (labels[each.query] > 0).all()
    with pytest.raises(DataError, match="must be 3 or more. Got 2 instead"):
        few_shot.draw(X, y, way=3, shot=1, queries=3, episodes=1, seed=0)


def test_classes_that_are_numbers_keep_their_order() -> None:
    """The order of 8, 9, 10, 11 is another one as texts."""
    centre = np.eye(4)[np.arange(80) % 4]
    X = views(5 * centre + 0.1 * RNG.normal(size=(80, 4)), centre)
    (found,) = few_shot.few_shot(fitted(X), X, 8 + np.arange(80) % 4, way=4, queries=5, episodes=20)
    assert found.value == 1.0


def test_the_probe_of_episodes() -> None:
    centre = np.eye(6)[np.arange(120) % 6]
    X, y = views(5 * centre + 0.1 * RNG.normal(size=(120, 6)), centre), np.array([f"c{k % 6}" for k in range(120)])
    (found,) = few_shot.few_shot(fitted(X), X, y, way=4, queries=5, episodes=20)
    assert (found.value, found.n) == (1.0, 400)
    noise = views(RNG.normal(size=(120, 6)), centre)
    (guess,) = few_shot.few_shot(fitted(noise), noise, y, way=4, queries=5, episodes=200)
    assert guess.low < 0.25 < guess.high


def test_the_interval_of_episodes_is_over_episodes() -> None:
    target = np.zeros(40, int)
    scores = np.repeat(np.eye(2)[[0, 0, 1, 1]], 10, axis=0)  # two episodes all right, two all wrong
    (found,) = few_shot.of_answers(target, scores, 4)
    half = 3.182446 * np.sqrt(1 / 3) / 2  # Student's, 3 degrees of freedom
    assert (found.value, found.low, found.high) == pytest.approx((0.5, max(0, 0.5 - half), min(1, 0.5 + half)))


def test_the_share_left_unexplained() -> None:
    x = RNG.normal(size=(50, 3)).astype(np.float32)
    X = views(x, x)
    (found,) = generation.generation(fitted(X), X, "z")
    spread = np.square(X["z"] - X["z"].mean(0)).sum(1).mean()
    assert found.value == pytest.approx(0.75 / spread, rel=1e-5)
    assert found.better == "lower"
    mean = np.broadcast_to(X["z"].mean(0), X["z"].shape)
    assert generation.unexplained(mean, X, "z").mean() == pytest.approx(1, rel=1e-5)


def test_steps_beyond_a_row_count_for_nothing() -> None:
    z = RNG.normal(size=(20, 6, 2)).astype(np.float32)
    lengths = 2 + np.arange(20) % 5
    real = np.arange(6)[None, :, None] < lengths[:, None, None]
    X = views(RNG.normal(size=(20, 2)), np.where(real, z, 0), lengths={"z": lengths})
    made = X["z"] + np.where(real, 0.1, 100.0)
    one = generation.unexplained(made, X, "z")
    assert one.max() < 1
    np.testing.assert_allclose(one, generation.unexplained(X["z"] + 0.1, X, "z"), rtol=1e-5)
    assert (one * 20 / one.sum()).round(5).tolist() == (lengths * 20 / lengths.sum()).round(5).tolist()


def test_what_can_not_be_compared_is_refused() -> None:
    X = views(RNG.normal(size=(9, 2)), np.ones((9, 2)))
    with pytest.raises(DataError, match="The rows of 'z' to compare with must be different"):
        generation.unexplained(np.zeros((9, 2)), X, "z")
    with pytest.raises(DataError, match="The number of test rows with 'z' must be 1 or more. Got 0 instead"):
        generation.unexplained(X["z"][:0], X[:0], "z")
    with pytest.raises(DataError, match=r"generated of 'z' must be of shape \(9, 2\)"):
        generation.unexplained(np.zeros((9, 3)), X, "z")
