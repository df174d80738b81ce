"""Losses that several methods share."""

from __future__ import annotations

import math

import pytest
import torch

from transference.nn.losses import unexplained


def test_the_unexplained_share_counts_the_rows_that_are_there_and_no_gradient_comes_from_others() -> None:
    target = torch.tensor([[2.0, 0.0], [0.0, 4.0], [math.nan, 9.0]])
    answer = torch.zeros(3, 2, requires_grad=True)
    share = unexplained(answer, target, torch.tensor(5.0), torch.tensor([True, True, False]))
    assert share.item() == pytest.approx((4 / 5 + 16 / 5) / 2)
    share.backward()
    assert answer.grad is not None
    assert answer.grad.tolist() == [[pytest.approx(-0.4), 0.0], [0.0, pytest.approx(-0.8)], [0.0, 0.0]]
