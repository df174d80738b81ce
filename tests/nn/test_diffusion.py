"""Guided fields with exact scores: identities, laws of Gaussians, samplers that agree, what guidance does."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from scipy.stats import ks_2samp
from torch import Tensor

from transference.nn.diffusion import (
    Field,
    Judge,
    Perceptron,
    by_classifier,
    classifier_free,
    kept,
    noise_in,
    noised,
    sample,
    step,
    velocity,
)

torch.set_num_threads(1)
DOUBLE = torch.float64
GAMMAS = (0.0, 1.0, 3.0, 7.0)
MEANS = torch.tensor([[1.6, 0.0], [-0.8, 1.2], [-0.8, -1.2]], dtype=DOUBLE)
VARIANCES = torch.tensor([0.8, 1.2, 1.0], dtype=DOUBLE)
SHARES = torch.tensor([0.5, 0.3, 0.2], dtype=DOUBLE)


def normal(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def log_joint(x: Tensor, a: Tensor) -> Tensor:
    """(n, 3) log of the share and the density of each component at x_t (n, 2)."""
    variance = a * VARIANCES + 1 - a
    squares = (x[:, None] - a.sqrt() * MEANS).square().sum(2)
    return SHARES.log() - variance.log() - squares / (2 * variance)


def gradient(value: Tensor, x: Tensor) -> Tensor:
    return torch.autograd.grad(value.sum(), x)[0]


def fields(x: Tensor, a: Tensor, y: int) -> tuple[Tensor, Tensor, Tensor]:
    """The conditional and the unconditional field of the mixture, and the gradient of log p(y | x_t)."""
    x = x.detach().requires_grad_()
    joint = log_joint(x, a)
    score_all = gradient(joint.logsumexp(1), x)
    score_y = -(x.detach() - a.sqrt() * MEANS[y]) / (a * VARIANCES[y] + 1 - a)  # written out, without autograd
    told = gradient(log_joint(x, a).log_softmax(1)[:, y], x)
    return -(1 - a).sqrt() * score_y, -(1 - a).sqrt() * score_all, told


def guided(x: Tensor, t: Tensor, y: int, gamma: float, way: str) -> Tensor:
    conditional, unconditional, told = fields(x, kept(t), y)
    if way == "classifier":
        return by_classifier(unconditional, told, kept(t), gamma)
    return classifier_free(conditional, unconditional, gamma)


def gaussian(mean: float, variance: float) -> Field:
    """The field of N(mean, variance)."""

    def field(x: Tensor, t: Tensor) -> Tensor:
        a = kept(t)
        return (1 - a).sqrt() * (x - a.sqrt() * mean) / (a * variance + 1 - a)

    return field


def law(field: Field, steps: int) -> tuple[float, float]:
    """Mean and variance of what a sampler that is affine in its start makes of N(0, 1); without chance."""
    start = torch.tensor([[-1.0], [1.0], [2.5]], dtype=DOUBLE)
    low, high, far = sample(field, start, steps)[:, 0].tolist()
    mean, deviation = (low + high) / 2, (high - low) / 2
    assert far == pytest.approx(mean + 2.5 * deviation, rel=1e-9)
    return mean, deviation**2


def test_values_by_hand() -> None:
    a = torch.tensor(0.64, dtype=DOUBLE)
    x, e = torch.tensor([[2.0]], dtype=DOUBLE), torch.tensor([[-1.0]], dtype=DOUBLE)
    noisy = noised(x, e, a)
    assert noisy.item() == pytest.approx(0.8 * 2 - 0.6)
    assert velocity(x, e, a).item() == pytest.approx(-0.8 - 0.6 * 2)
    assert noise_in(noisy, velocity(x, e, a), a).item() == pytest.approx(-1)
    then = torch.tensor(0.81, dtype=DOUBLE)
    assert step(noisy, e, a, then).item() == pytest.approx(0.9 * 2 - 0.19**0.5)
    assert step(noisy, e, a, torch.tensor(1.0, dtype=DOUBLE)).item() == pytest.approx(2)
    bounds = torch.tensor([-1.0]), torch.tensor([1.5])  # of 2 is left 1.5, and of x_t = 1 then -0.2 / 0.6 of noise
    assert step(noisy, e, a, then, bounds=bounds).item() == pytest.approx(0.9 * 1.5 - 0.19**0.5 / 3)
    assert step(-noisy, -e, a, then, bounds=bounds).item() == pytest.approx(-0.9 - 0.19**0.5 / 3)
    told = torch.tensor([[5.0]], dtype=DOUBLE)
    assert by_classifier(e, told, a, 2.0).item() == pytest.approx(-1 - 2 * 0.6 * 5)
    assert classifier_free(x, e, 3.0).item() == pytest.approx(3 * 2 + 2 * 1)


def test_the_signal_falls_from_1_to_almost_0() -> None:
    a = kept(torch.linspace(0, 1, 101, dtype=DOUBLE))
    assert a[0] == 1
    assert a[-1].sqrt().item() == pytest.approx(1e-3)
    assert (a.diff() < 0).all()


def test_a_step_with_fresh_noise_has_the_moments_of_the_posterior_of_ddpm() -> None:
    """Given x and x_t: mean (sqrt(a') b x + sqrt(1 - b) (1 - a') x_t) / (1 - a), variance (1 - a') b / (1 - a)."""
    now, then = torch.tensor(0.3, dtype=DOUBLE), torch.tensor(0.45, dtype=DOUBLE)
    b = 1 - now / then
    x, e, fresh = normal((6, 2)), normal((6, 2), 1), normal((6, 2), 2)
    noisy = noised(x, e, now)
    mean = (then.sqrt() * b * x + (1 - b).sqrt() * (1 - then) * noisy) / (1 - now)
    expected = mean + ((1 - then) * b / (1 - now)).sqrt() * fresh
    torch.testing.assert_close(step(noisy, e, now, then, 1.0, fresh), expected)
    half = step(noisy, e, now, then, 0.5, fresh) - step(noisy, e, now, then, 0.5, torch.zeros(6, 2, dtype=DOUBLE))
    torch.testing.assert_close(half, 0.5 * ((1 - then) * b / (1 - now)).sqrt() * fresh)


def test_a_classifier_moves_the_mean_of_ddpm_by_the_variance_of_a_step_times_its_gradient() -> None:
    """b / sqrt(1 - b) gamma grad log p(y | x_t): to first order in b the published rule, variance times gradient."""
    now, then = torch.tensor(0.3, dtype=DOUBLE), torch.tensor(0.303, dtype=DOUBLE)
    b = 1 - now / then
    x, e, told, none = normal((4, 2)), normal((4, 2), 1), normal((4, 2), 2), torch.zeros(4, 2, dtype=DOUBLE)
    plain, moved = (step(x, by_classifier(e, told, now, g), now, then, 1.0, none) for g in (0.0, 3.0))
    torch.testing.assert_close((moved - plain) / told, (3 * b / (1 - b).sqrt()).expand(4, 2), rtol=1e-6, atol=0)
    posterior = (1 - then) * b / (1 - now)
    torch.testing.assert_close((moved - plain) / told, (3 * posterior).expand(4, 2), rtol=0.02, atol=0)


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("t", [0.02, 0.3, 0.7, 0.98])
def test_with_the_true_classifier_both_fields_are_one(gamma: float, t: float) -> None:
    x, time = 2 * normal((50, 2)), torch.tensor(t, dtype=DOUBLE)
    for y in range(3):
        one, other = (guided(x, time, y, gamma, way) for way in ("classifier", "free"))
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_gamma_1_is_the_conditional_field_and_gamma_0_the_unconditional_one_bit_for_bit(dtype: torch.dtype) -> None:
    conditional, unconditional, told = (1e3 * normal((200, 3), seed).to(dtype) for seed in range(3))
    assert torch.equal(classifier_free(conditional, unconditional, 1.0), conditional)
    assert torch.equal(classifier_free(conditional, unconditional, 0.0), unconditional)
    assert torch.equal(by_classifier(unconditional, told, torch.tensor(0.3, dtype=dtype), 0.0), unconditional)


def test_so_are_the_samplers() -> None:
    start = normal((20, 2))
    conditional = sample(lambda x, t: fields(x, kept(t), 1)[0], start, 30)
    unconditional = sample(lambda x, t: fields(x, kept(t), 1)[1], start, 30)
    assert torch.equal(sample(partial(guided, y=1, gamma=1.0, way="free"), start, 30), conditional)
    for way in ("free", "classifier"):
        assert torch.equal(sample(partial(guided, y=1, gamma=0.0, way=way), start, 30), unconditional)
    assert (conditional - unconditional).abs().max() > 0.1


@pytest.mark.parametrize("w", [-1.0, 0.0, 0.5, 4.0])
def test_other_conventions(w: float) -> None:
    """(1 + w) e_y - w e and e + s (e_y - e) are gamma = 1 + w = s."""
    conditional, unconditional = normal((50, 2)), normal((50, 2), 1)
    ours = classifier_free(conditional, unconditional, 1 + w)
    torch.testing.assert_close(ours, (1 + w) * conditional - w * unconditional)
    torch.testing.assert_close(ours, unconditional + (1 + w) * (conditional - unconditional))


def test_the_law_of_gaussians_that_are_guided() -> None:
    """All N(0, 2), those of y N(1, 0.5): gamma 3 gives not the tilted N(1.2, 0.2) but N(1.5, 0.5^3 / 2^2 = 0.03125)."""
    everyone, of_y = gaussian(0.0, 2.0), gaussian(1.0, 0.5)
    expected = {0.0: (0.0, 2.0), 1.0: (1.0, 0.5), 3.0: (1.5, 0.03125)}
    for gamma, (mean, variance) in expected.items():

        def field(x: Tensor, t: Tensor, gamma: float = gamma) -> Tensor:
            return classifier_free(of_y(x, t), everyone(x, t), gamma)

        found = law(field, 1200)
        assert found[0] == pytest.approx(mean, abs=0.01)
        assert found[1] == pytest.approx(variance, rel=0.05 if gamma > 1 else 0.01)


def test_a_gaussian_comes_back_with_fresh_noise_too() -> None:
    start, fresh = normal((4000, 1)), normal((200, 4000, 1), 1)
    found = sample(gaussian(1.0, 0.5), start, 200, 1.0, fresh)
    assert found.mean().item() == pytest.approx(1, abs=0.04)
    assert found.var().item() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("gamma", [1.0, 3.0])
def test_both_samplers_draw_from_one_law(gamma: float) -> None:
    """From separate noise; one more of gamma is another law."""
    draws = [
        sample(partial(guided, y=1, gamma=g, way=way), normal((600, 2), seed), 60)
        for seed, (way, g) in enumerate((("classifier", gamma), ("free", gamma), ("free", gamma + 1)))
    ]
    for axis in range(2):
        assert ks_2samp(draws[0][:, axis], draws[1][:, axis]).pvalue > 0.01
    assert min(ks_2samp(draws[0][:, axis], draws[2][:, axis]).pvalue for axis in range(2)) < 1e-4
    same = [sample(partial(guided, y=1, gamma=gamma, way=way), normal((50, 2)), 60) for way in ("classifier", "free")]
    torch.testing.assert_close(same[0], same[1], rtol=0, atol=1e-6)


def test_in_gamma_samples_are_told_apart_better_and_differ_less() -> None:
    shown = []
    for gamma in (0.0, 0.5, 1.0, 1.5, 4.0):
        right, spread = [], []
        for y in range(3):
            x = sample(partial(guided, y=y, gamma=gamma, way="free"), normal((500, 2), y), 50)
            right.append((log_joint(x, torch.ones((), dtype=DOUBLE)).argmax(1) == y).double().mean().item())
            spread.append(x.var(0).sum().item())
        shown.append((sum(right) / 3, sum(spread) / 3))
    rights, spreads = (torch.tensor(values) for values in zip(*shown, strict=True))
    assert rights[0].item() == pytest.approx(1 / 3, abs=0.04)
    assert (rights.diff() > 0.005).all(), rights
    assert rights[-1] > 0.99
    assert (spreads.diff() < 0).all(), spreads


def test_the_null_token_stands_for_what_is_not_known_and_rows_do_not_touch() -> None:
    part = Perceptron(3, 2, 8, given=4, null=True)
    torch.nn.init.normal_(part.null)  # type: ignore[arg-type]
    x, c, t = torch.randn(6, 3), torch.randn(6, 4), torch.rand(6)
    known = torch.arange(6) % 2 == 0
    with torch.no_grad():
        mixed = part(x, t, c, known)
        torch.testing.assert_close(mixed[known], part(x[known], t[known], c[known]))
        torch.testing.assert_close(mixed[~known], part(x[~known], t[~known], 9 - c[~known], known[~known]))
        assert (mixed - part(x, t, c)).abs().amax(1)[~known].min() > 1e-3
        torch.testing.assert_close(part(x, t[2], c), part(x, t[2].expand(6), c))
        assert (part(x, t[2], c) - part(x, t[3], c)).abs().amax(1).min() > 1e-5


def test_scores_of_a_judge_depend_on_noised_rows_by_the_share_of_signal() -> None:
    part, plain = Judge(3, 2, 8).double(), Perceptron(3, 2, 8).double()
    plain.load_state_dict({name: value for name, value in part.state_dict().items() if name != "prior"})
    torch.nn.init.constant_(part.prior, 0.5)
    x, t = normal((4, 3)), torch.tensor([0.0, 0.3, 0.6, 1.0], dtype=DOUBLE)
    with torch.no_grad():
        torch.testing.assert_close(part(x, t), plain(x, t) * kept(t).sqrt()[:, None] + 0.5)
        assert (part(x, t)[3] - 0.5).abs().max() < 0.01
