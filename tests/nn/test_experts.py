"""Products of Gaussian experts: the anchor, densities multiplied on a grid, and what a missing expert does."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from transference.nn.experts import GaussianExpert, divergence, draw, product

MEANS = torch.tensor([1.0, 3.0, -0.5], dtype=torch.float64)
VARIANCES = torch.tensor([0.5, 2.0, 0.3], dtype=torch.float64)


def test_two_experts_and_the_prior() -> None:
    mean, variance = product(torch.tensor([[[1.0]], [[3.0]]]), torch.tensor([[[0.5]], [[2.0]]]))
    assert mean.item() == 1.0
    assert variance.item() == pytest.approx(0.285714, abs=1e-6)


@pytest.mark.parametrize("there", [(1, 1, 1), (1, 0, 1), (0, 1, 0), (0, 0, 0)])
def test_the_densities_multiplied_on_a_grid_have_this_mean_and_variance(there: tuple[int, ...]) -> None:
    grid = torch.linspace(-12, 12, 20001, dtype=torch.float64)
    density = Normal(0.0, 1.0).log_prob(grid).exp()
    for mean, variance, is_there in zip(MEANS, VARIANCES, there, strict=True):
        if is_there:
            density = density * Normal(mean, variance.sqrt()).log_prob(grid).exp()
    density = density / density.sum()
    expected = (density * grid).sum()
    spread = (density * (grid - expected).square()).sum()
    present = torch.tensor(there, dtype=torch.bool)[:, None]
    found = product(MEANS.view(3, 1, 1), VARIANCES.view(3, 1, 1), present)
    assert found[0].item() == pytest.approx(expected.item(), abs=1e-6)
    assert found[1].item() == pytest.approx(spread.item(), rel=1e-5)


def test_a_missing_expert_is_one_left_out_whatever_it_says_and_gets_no_gradient() -> None:
    g = torch.Generator().manual_seed(0)
    means, variances = torch.randn(3, 4, 2, generator=g), torch.rand(3, 4, 2, generator=g) + 0.1
    means[1, 2], means[1, 3] = 1e30, -1e30
    means.requires_grad_()
    present = torch.tensor([[True] * 4, [True, True, False, False], [True] * 4])
    mean, variance = product(means, variances, present)
    for row in range(4):
        kept = present[:, row]
        alone = product(means[kept, row : row + 1], variances[kept, row : row + 1])
        torch.testing.assert_close((mean[row], variance[row]), (alone[0][0], alone[1][0]))
    mean.sum().backward()
    assert means.grad is not None
    assert torch.equal(means.grad.abs().sum(2) > 0, present)


def test_the_divergence_is_that_of_torch_and_0_at_the_prior() -> None:
    g = torch.Generator().manual_seed(1)
    mean, variance = torch.randn(5, 3, generator=g), torch.rand(5, 3, generator=g) + 0.05
    prior = Normal(torch.zeros(5, 3), torch.ones(5, 3))
    torch.testing.assert_close(divergence(mean, variance), kl_divergence(Normal(mean, variance.sqrt()), prior).sum(1))
    assert divergence(torch.zeros(1, 3), torch.ones(1, 3)).item() == 0.0


def test_draws_have_the_mean_and_the_variance() -> None:
    torch.manual_seed(0)
    found = draw(torch.full((40000, 1), 3.0), torch.full((40000, 1), 0.25))
    assert found.mean().item() == pytest.approx(3.0, abs=0.01)
    assert found.var().item() == pytest.approx(0.25, rel=0.03)


def test_an_expert_is_a_linear_map_and_its_variance_is_positive() -> None:
    part = GaussianExpert(2, 3)
    torch.nn.init.ones_(part.linear.weight)
    torch.nn.init.zeros_(part.linear.bias)
    mean, variance = part(torch.tensor([[1.0, 2.0], [-300.0, 0.0]]))
    assert mean.tolist() == [[3.0] * 3, [-300.0] * 3]
    assert variance[0].tolist() == pytest.approx([3.04859 + 1e-4] * 3, rel=1e-4)  # ln(1 + e^3)
    assert (variance > 0).all()
