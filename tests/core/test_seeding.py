"""Named generators are independent and repeatable; the global ones stay as they were."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from transference.core.seeding import derive, exact, fence, numpy_generator, torch_generator


def test_a_seed_depends_on_number_and_names_alone() -> None:
    assert derive(0, "a") == derive(0, "a")
    assert len({derive(0), derive(1), derive(0, "a"), derive(0, "b"), derive(0, "a", "b"), derive(0, "b", "a")}) == 6
    assert numpy_generator(3, "x").integers(1 << 60) == numpy_generator(3, "x").integers(1 << 60)
    assert torch.equal(torch.rand(3, generator=torch_generator(3)), torch.rand(3, generator=torch_generator(3)))


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.random()), float(torch.rand(()))


def test_the_fence_seeds_inside_and_restores_outside_even_after_an_error() -> None:
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    expected = draw()
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    with pytest.raises(ValueError, match="inside"), fence(1, "x"):
        first = draw()
        raise ValueError("inside")
    assert draw() == expected
    with fence(1, "x"):
        assert draw() == first


def test_convolutions_on_a_gpu_are_exact_inside_and_as_before_outside() -> None:
    def flags() -> tuple[bool, bool, bool]:
        return torch.backends.cudnn.enabled, torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32

    before = flags()
    with pytest.raises(ValueError, match="inside"), exact():
        assert flags() == (True, True, False)
        raise ValueError("inside")
    assert flags() == before
