"""The memory of unit vectors: a ring, exact moving averages, no randomness."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

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


def test_rows_are_held_once_and_the_oldest_make_room() -> None:
    """As a slow loop does it: a row that is held is renewed in its place, a new one takes the next place."""
    queue, ring, place = UnitQueue(5, 3), [[0.0] * 3 for _ in range(5)], 0
    numbers: list[int | None] = [None] * 5
    for seed, rows in enumerate([[7, -1], [2, -1, 9], [], [7, 11, 9, 0], [3, 1, 8, 11, 5, 6, 12], [6]]):
        values = F.normalize(some(len(rows), seed), dim=1)
        fresh = []
        for row, value in zip(rows, values.tolist(), strict=True):
            if row in numbers:
                ring[numbers.index(row)] = value
            else:
                fresh.append((row, value))
        for row, value in fresh:
            ring[place], numbers[place] = value, row
            place = (place + 1) % 5
        queue.enqueue(values * 3, torch.tensor(rows, dtype=torch.int64))
        assert queue.rows.tolist() == [-1 if number is None else number for number in numbers]
        torch.testing.assert_close(queue.vectors, torch.tensor(ring))
        assert len(set(numbers) - {None}) == int(queue.count)
    assert int(queue.place) == place


def test_queues_of_several_vectors_move_in_step() -> None:
    together, apart = UnitQueue(4, 2, 3), [UnitQueue(4, 3) for _ in range(2)]
    for seed, n in enumerate((3, 2, 6)):
        values = torch.randn(n, 2, 3, generator=torch.Generator().manual_seed(seed))
        together.enqueue(values)
        for k, queue in enumerate(apart):
            queue.enqueue(values[:, k])
    for k, queue in enumerate(apart):
        torch.testing.assert_close(together.vectors[:, k], queue.vectors)
    assert together.rows.tolist() == [-1] * 4
    torch.testing.assert_close(together.vectors.norm(dim=2), torch.ones(4, 2))
    together.enqueue(torch.zeros(1, 2, 3))
    assert (together.vectors.norm(dim=2) == 0).sum() == 2
