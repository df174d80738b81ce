"""Invariants of the splits and budgets, over drawn data sets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transference.core.errors import ConfigError, DataError
from transference.core.views import Views
from transference.data.dataset import Dataset
from transference.data.split import Split, check_leaks, label_budget, split_rows

labels = st.lists(st.sampled_from(["a", "b", "c", None]), min_size=12, max_size=80).filter(
    lambda y: all(y.count(name) >= 2 for name in "ab")
)


def dataset(y: list[Any], **columns: Any) -> Dataset:
    n = len(y)
    x = columns.pop("x", np.arange(n, dtype=np.float32)[:, None])
    target = np.array(y, np.float32) if columns.get("task") == "regression" else np.array(y, object)
    columns = {"ids": np.array([f"r{k}" for k in range(n)], object), "task": "classification", **columns}
    return Dataset("drawn", Views.of(primary="x", x=x), target, **columns)


@settings(max_examples=60, deadline=None)
@given(labels, st.integers(0, 99), st.floats(0.1, 0.6))
def test_rows_are_divided_class_by_class(y: list[str | None], seed: int, test: float) -> None:
    split = split_rows(dataset(y), seed, test)
    assert sorted([*split.train, *split.test]) == list(range(len(y)))  # disjoint, and all rows
    tested = [y[k] for k in split.test]
    assert None not in tested
    for name in "abc":
        size = y.count(name)
        if size >= 2:
            assert abs(tested.count(name) - test * size) <= 1
            assert 1 <= tested.count(name) < size
        else:
            assert name not in tested
    again = split_rows(dataset(y), seed, test)
    assert np.array_equal(split.train, again.train)


def test_seeds_draw_different_rows() -> None:
    data = dataset(["a", "b"] * 20)
    assert not np.array_equal(split_rows(data, 0).test, split_rows(data, 1).test)


@settings(max_examples=40, deadline=None)
@given(labels, st.integers(3, 9), st.integers(0, 99))
def test_groups_stay_whole(y: list[str | None], n_groups: int, seed: int) -> None:
    group = np.array([f"g{k % n_groups}" for k in range(len(y))], object)
    split = split_rows(dataset(y, group=group), seed)
    train, test = set(group[split.train]), set(group[split.test])
    assert not train & test
    left_out = set(range(len(y))) - set(split.train) - set(split.test)
    assert all(y[k] is None and group[k] in test for k in left_out)


def test_groups_are_divided_by_class_where_possible() -> None:
    y = [name for name in "ab" for _ in range(40)]  # ten groups of one class only, four rows each
    group = np.array([f"g{k // 4}" for k in range(80)], object)
    for seed in range(5):
        split = split_rows(dataset(y, group=group), seed, test=0.2)
        assert [y[k] for k in split.test].count("a") == [y[k] for k in split.test].count("b") == 8


def test_a_single_group_is_refused() -> None:
    with pytest.raises(DataError, match=r"number of groups of 'drawn' with labelled rows must be 2 or more\. Got 1"):
        split_rows(dataset(["a", "b"] * 4, group=np.array(["g"] * 8, object)), 0)


def test_the_split_column_decides() -> None:
    column = np.array(["train", "test", "train", "test", "test"], object)
    split = split_rows(dataset(["a", "b", None, "a", None], split=column), 0)
    assert split.train.tolist() == [0, 2]
    assert split.test.tolist() == [1, 3]  # row 4 is set aside: unlabelled, and not for training


def test_a_wrong_split_column_is_refused() -> None:
    column = np.array(["train", "dev", "test"], object)
    with pytest.raises(DataError, match=r"split of row 'r1' must be 'train' or 'test'\. Got 'dev'"):
        split_rows(dataset(["a", "b", "a"], split=column), 0)
    with pytest.raises(DataError, match=r"labelled test rows of 'drawn' must be at least 1\. Got 0"):
        split_rows(dataset(["a", "b", "a"], split=np.array(["train"] * 3, object)), 0)


@pytest.mark.parametrize("share", [0, 1, -0.5])
def test_a_share_outside_the_range_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match=r"'test' share must be a number in \(0, 1\)"):
        split_rows(dataset(["a", "b"] * 4), 0, share)


def test_regression_rows_are_divided() -> None:
    split = split_rows(dataset([0.5, np.nan, 1.5, 2.5, 3.5], task="regression"), 0, test=0.5)
    assert 1 in split.train
    assert len(split.test) == 2
    assert sorted([*split.train, *split.test]) == list(range(5))


@settings(max_examples=60, deadline=None)
@given(labels, st.integers(0, 99), st.lists(st.integers(1, 20), min_size=2, max_size=2))
def test_budgets_are_nested(y: list[str | None], seed: int, sizes: list[int]) -> None:
    target = np.array(y, object)
    fewest = min(y.count(name) for name in set(y) - {None})
    low, high = sorted(min(size, fewest) for size in sizes)
    small, large = label_budget(target, low, seed), label_budget(target, high, seed)
    for name in set(y) - {None}:
        assert (small & (target == name)).sum() == low
        assert (large & (target == name)).sum() == high
    assert not (small & ~large).any()
    assert not (large & ~label_budget(target, "all", seed)).any()
    assert label_budget(target, "all", seed).tolist() == [label is not None for label in y]


def test_a_fraction_is_of_each_class_and_at_least_one_row() -> None:
    y = np.array(["a"] * 20 + ["b"] * 3 + [None] * 5, object)
    kept = label_budget(y, 0.25, 7)
    assert [int((kept & (y == name)).sum()) for name in "ab"] == [5, 1]
    assert not (kept & ~label_budget(y, 0.5, 7)).any()


def test_a_mapping_gives_rows_by_class() -> None:
    y = np.array(["course"] * 20 + ["other"] * 30, object)
    kept = label_budget(y, {"course": 3, "other": 9}, 0)
    assert [int((kept & (y == name)).sum()) for name in ("course", "other")] == [3, 9]
    with pytest.raises(ConfigError, match="given for exactly the classes course, other"):
        label_budget(y, {"course": 3}, 0)


def test_the_draw_of_one_class_does_not_depend_on_the_others() -> None:
    few, many = np.array(["a"] * 9 + ["b"] * 2, object), np.array(["a"] * 9 + ["b"] * 2 + ["c"] * 5, object)
    assert np.array_equal(label_budget(few, 2, 3), label_budget(many, 2, 3)[:11])


def test_regression_budgets_count_rows() -> None:
    y = np.array([1, 2, 3, np.nan, 5, 6], np.float32)
    assert label_budget(y, 2, 0).sum() == 2
    assert label_budget(y, 0.6, 0).sum() == 3
    assert not label_budget(y, 5, 0)[3]
    with pytest.raises(ConfigError, match="This data set has 5 labelled training rows, .* asks for 6"):
        label_budget(y, 6, 0)
    with pytest.raises(ConfigError, match="these labels have none"):
        label_budget(y, {"a": 1}, 0)


def test_a_budget_larger_than_a_class_is_refused() -> None:
    y = np.array(["a"] * 4 + ["b"] * 9, object)
    with pytest.raises(
        ConfigError, match=r"Class 'a' has 4 labelled training rows, .* asks for 5\. Use at most 4, a fraction below 1"
    ):
        label_budget(y, 5, 0)


@pytest.mark.parametrize("budget", [0, -1, True, 1.0, 1.5, "some", {"a": 0, "b": 1}])
def test_other_budgets_are_refused(budget: int | float | str | Mapping[str, int]) -> None:
    with pytest.raises(ConfigError, match="A label budget must be a positive integer, a fraction"):
        label_budget(np.array(["a", "b"] * 3, object), budget, 0)


def test_leaks_are_named() -> None:
    group = np.array(["p", "q", "q", "s"], object)
    ids = np.array(["r0", "r1", "r2", "r0"], object)
    x = np.array([[0.0], [1.0], [2.0], [0.0]], np.float32)
    data = dataset(["a", "b", "a", "b"], group=group, ids=ids, x=x)
    messages = check_leaks(data, Split(np.array([0, 1]), np.array([2, 3])))
    assert messages == [
        "1 id is in training and test: r0. Put all rows of one id into the same split.",
        "1 group is in training and test: q. Put all rows of one group into the same split.",
        "1 test row holds the same 'x' as a training row (test = train: r0 = r0). "
        "Remove the copies or put them into the same split.",
    ]
    assert check_leaks(data, Split(np.array([0, 3]), np.array([1, 2]))) == []


def test_two_rows_without_the_primary_are_no_copies() -> None:
    data = dataset(["a", "b"])
    empty = data.views.without("x")
    unseen = Dataset("empty", empty, data.y, "classification", data.ids)
    assert check_leaks(unseen, Split(np.array([0]), np.array([1]))) == []
