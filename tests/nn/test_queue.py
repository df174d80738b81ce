"""The memory of unit vectors: a ring, exact moving averages, no randomness."""

from __future__ import annotations

import math

import pytest
import torch

from transference.nn.queue import UnitQueue


def some(n: int, seed: int, width: int = 3) -> torch.Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("sizes", [(2, 2), (5,), (3, 4), (1, 1, 1, 1, 1, 1, 1), (12,), (4, 11)])
def test_it_holds_the_latest_vectors_as_a_slow_loop_does(sizes: tuple[int, ...]) -> None:
    queue, ring, place = UnitQueue(5, 3), [[0.0] * 3 for _ in range(5)], 0
    for seed, n in enumerate(sizes):
        values = some(n, seed)
        queue.enqueue(values)
        for value in values.tolist():
            length = math.sqrt(sum(each * each for each in value))
            ring[place] = [each / length for each in value]
            place = (place + 1) % 5
    torch.testing.assert_close(queue.vectors, torch.tensor(ring))
    assert (int(queue.place), int(queue.count)) == (place, min(5, sum(sizes)))
    torch.testing.assert_close(queue.held(), torch.tensor(ring[: min(5, sum(sizes))]))
    assert queue.held().norm(dim=1).tolist() == pytest.approx([1.0] * min(5, sum(sizes)))


def test_a_row_of_the_bank_is_a_moving_average_of_unit_length() -> None:
    queue = UnitQueue(4, 2)
    queue.follow(torch.tensor([3, 1]), torch.tensor([[0.0, 7.0], [2.0, 0.0]]), momentum=0.9)
    assert queue.vectors.tolist() == [[0.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 1.0]]
    queue.follow(torch.tensor([3]), torch.tensor([[5.0, 0.0]]), momentum=0.75)  # 3/4 (0, 1) + 1/4 (1, 0)
    torch.testing.assert_close(queue.vectors[3], torch.tensor([1.0, 3.0]) / math.sqrt(10))
    assert queue.vectors[1].tolist() == [1.0, 0.0]


def test_it_keeps_no_gradient_and_lives_in_the_state() -> None:
    queue, other = UnitQueue(4, 3), UnitQueue(4, 3)
    queue.enqueue(some(6, 0).requires_grad_())
    queue.follow(torch.tensor([0]), some(1, 1).requires_grad_())
    assert not queue.vectors.requires_grad
    assert not list(queue.parameters())
    other.load_state_dict(queue.state_dict())
    for each in (queue, other):
        each.enqueue(some(3, 2))
    assert torch.equal(queue.vectors, other.vectors)
    assert torch.equal(queue.place, other.place)
