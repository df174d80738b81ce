"""Heterogeneity: bits of surprise and of information, distances and groups by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from transference.nn.heterogeneity import (
    distances,
    groups,
    surprise,
    surprise_of_labels,
    surprise_of_values,
    usable_information,
)


def test_information_is_one_bit_for_a_label_that_is_told_and_none_for_a_guess() -> None:
    y = np.arange(400) % 2
    null = np.array([[0.5, 0.5]])
    assert usable_information(null, np.eye(2)[y], y) == 1.0
    assert usable_information(null, np.full((400, 2), 0.5), y) == 0.0
    wrong = usable_information(null, np.eye(2)[1 - y], y)  # sure and wrong, as sure as is counted
    assert wrong == pytest.approx(1 + math.log2(1e-12))


def test_surprise_by_hand() -> None:
    assert surprise(np.array([[0.25, 0.75], [0.5, 0.5]]), np.array([0, 0])) == pytest.approx(1.5)
    found = surprise_of_labels(np.array([[0.25, 0.5], [0.5, 0.125]]), np.array([[1.0, 0.0], [0.0, 0.0]]))
    assert found == pytest.approx((2 + 1 + 1 - math.log2(0.875)) / 2)
    one, two = (surprise_of_values(np.array([0.0, 0.0]), np.array([d, -d])) for d in (3.0, 12.0))
    assert two - one == pytest.approx(2.0)  # an error four times as large
    assert one == pytest.approx(0.5 * math.log2(2 * math.pi * math.e * 9))


def test_distances_by_hand() -> None:
    moved = np.array([[1.0, 3.0, 0.5], [1.5, 2.0, 4.0], [0.0, 2.5, 1.0]])
    expected = np.array([[0, 1 + 0.5, 0], [1.5, 0, 3 + 0.5], [0, 3.5, 0]])
    np.testing.assert_allclose(distances(moved), expected)
    assert groups(expected, count=2) == [0, 1, 0]
    assert groups(expected, apart=0.1) == [0, 1, 0]
    assert groups(expected, apart=9.0) == [0, 0, 0]
    assert groups(np.zeros((1, 1)), apart=1.0) == [0]
