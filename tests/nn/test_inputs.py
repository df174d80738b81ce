"""Inputs: standardised numbers, whatever their unit."""

from __future__ import annotations

import pytest
import torch

from transference.core.spec import Kind, ModalitySpec
from transference.nn.inputs import Inputs


@pytest.mark.parametrize("unit", [1e-7, 1.0, 1e6])
def test_every_number_but_a_constant_one_is_standardised(unit: float) -> None:
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)) + 2
    x[:, 1] = 0.1
    part = Inputs(ModalitySpec("m", "vector", (3,)))
    part.fit_statistics(x * unit, None)
    by_hand = (x - x.mean(0)) / x.std(0, correction=0)
    by_hand[:, 1] = 0.0
    torch.testing.assert_close(part(x * unit, None), by_hand, atol=1e-4, rtol=1e-4)
    assert part.variance.item() == pytest.approx(2.0, rel=1e-4)


@pytest.mark.parametrize("kind", ["series", "set"])
@pytest.mark.parametrize("value", [0.1, 3.14159, 12345.678])
def test_a_constant_stays_one_whatever_the_lengths(kind: Kind, value: float) -> None:
    """Averages over rows of different lengths are rounded in different ways, which tells of the lengths alone."""
    part = Inputs(ModalitySpec("m", kind, (501, 2), lengths=True))
    lengths = torch.randint(1, 502, (100,), generator=torch.Generator().manual_seed(0))
    values = torch.full((100, 501, 2), value)
    part.fit_statistics(values, lengths)
    assert (part(values, lengths) == 0).all()
    assert part.variance == part.size
