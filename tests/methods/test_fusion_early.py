"""Early fusion: it learns interactions, and lets every kind of modality in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from transference.core.errors import DataError
from transference.core.spec import Kind
from transference.core.views import Views
from transference.data.loader import to_batch
from transference.fusion.early import EarlyFusion
from transference.nn.inputs import Inputs, resample, shrink
from transference.train.schedule import Schedule

QUICK = Schedule(updates=8, batch_size=16)


def every_kind(n: int = 24, seed: int = 0) -> tuple[Views, NDArray[Any]]:
    g = np.random.default_rng(seed)
    arrays = {
        "picture": g.uniform(size=(n, 3, 40, 33)),
        "scan": g.uniform(size=(n, 1, 8, 8)),
        "words": g.integers(0, 30, size=(n, 12)),
        "motion": g.normal(size=(n, 17, 3)),
        "sound": g.normal(size=(n, 5, 4)),
        "film": g.uniform(size=(n, 4, 1, 9, 9)),
        "points": g.normal(size=(n, 6, 2)),
        "profile": g.normal(size=(n, 7)),
    }
    kinds: dict[str, Kind] = {"words": "text", "sound": "audio", "points": "set", "profile": "table"}
    return Views.of(primary="profile", kinds=kinds, **arrays), np.where(arrays["profile"][:, 0] > 0, "up", "down")


def xor(n: int, seed: int) -> tuple[Views, NDArray[Any]]:
    a, b = np.random.default_rng(seed).choice([-1.0, 1.0], size=(2, n, 1))
    return Views.of(primary="a", a=a, b=b), np.where(a * b > 0, "same", "other")[:, 0]


def slow_resample(row: NDArray[Any], length: int, steps: int) -> NDArray[Any]:
    """Means of a piecewise constant curve over equal stretches, by a fine grid of points."""
    fine = 840
    curve = np.repeat(row[:length], fine, axis=0)
    return curve.reshape(steps, -1, row.shape[1]).mean(1)


def test_resample_equals_the_mean_of_a_fine_curve_over_each_stretch() -> None:
    values = np.random.default_rng(0).normal(size=(4, 7, 2))
    lengths = np.array([7, 3, 1, 5])
    got = resample(torch.tensor(values), torch.tensor(lengths), 4)
    expected = np.stack([slow_resample(row, length, 4) for row, length in zip(values, lengths, strict=True)])
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_pixels_are_averaged_over_whole_blocks() -> None:
    picture = torch.arange(16.0).view(1, 1, 4, 4)
    assert shrink(picture, 2).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert shrink(picture, 4) is picture


def test_low_level_inputs_are_standardised_and_their_variance_is_known() -> None:
    X, _ = every_kind(40)
    batch = to_batch(X)
    for name, spec in X.specs.items():
        part = Inputs(spec)
        part.fit_statistics(batch.views[name], batch.lengths.get(name))
        x = part(batch.views[name], batch.lengths.get(name))
        assert x.shape == (40, part.size)
        assert x.mean(0).abs().max() < 1e-5, name
        torch.testing.assert_close(part.variance, x.square().sum(1).mean(), rtol=1e-4, atol=0)
        if spec.kind != "text":
            assert part.variance == pytest.approx(part.size, rel=1e-4)


def test_what_lies_beyond_a_rows_length_counts_for_nothing() -> None:
    X, y = every_kind()
    short = np.random.default_rng(1).integers(1, 6, len(X))
    garbage = X["motion"].copy()
    for row, length in enumerate(short):
        garbage[row, length:] = 1e3
    X = X.replace("motion", X["motion"], lengths=short)
    model = EarlyFusion(schedule=QUICK).fit(X, y)
    np.testing.assert_array_equal(model.predict_proba(X), model.predict_proba(X.replace("motion", garbage)))


def test_xor_is_solved() -> None:
    X, y = xor(200, 0)
    test, truth = xor(100, 1)
    assert EarlyFusion(schedule=Schedule(updates=100)).fit(X, y).score(test, truth) == 1.0


def test_the_linear_and_the_hidden_path_are_summed() -> None:
    """With all weights 1 and no biases: s = a + b, and every logit is 2 (s + 2 relu(s)) at a width of 2."""
    corners = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]] * 4, float)  # mean 0, deviation 1
    X = Views.of(primary="a", a=corners[:, :1], b=corners[:, 1:])
    model = EarlyFusion(width=2, schedule=Schedule(updates=1)).fit(X, np.arange(16) % 2)
    with torch.no_grad():
        for name, parameter in model.net_.named_parameters():
            parameter.fill_(0.0 if name.endswith("bias") else 1.0)
        scores = model.net_(to_batch(X[:4]))
    torch.testing.assert_close(scores, torch.tensor([[12.0], [0.0], [0.0], [-4.0]]).expand(4, 2))


def test_every_kind_goes_in_and_every_parameter_gets_a_gradient() -> None:
    X, y = every_kind()
    model = EarlyFusion(width=8, schedule=QUICK).fit(X, y)
    batch = to_batch(X, np.searchsorted(model.classes_, y))
    model.net_.zero_grad()
    model.losses(model.net_, batch)["task"].backward()
    for name, parameter in model.net_.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    one = model.predict_proba(X[3])
    np.testing.assert_allclose(one, model.predict_proba(X)[3:4], atol=1e-6)


def test_a_modality_with_few_numbers_starts_as_loud_as_one_with_many() -> None:
    g = np.random.default_rng(0)
    X = Views.of(primary="few", few=g.normal(size=(64, 2)), many=g.normal(size=(64, 2000)))
    model = EarlyFusion(schedule=Schedule(updates=1, learning_rate=1e-9)).fit(X, np.arange(64) % 2)
    batch = to_batch(X)
    loud = {name: model.net_.hidden[name](model.net_.encode(batch, name)).std().item() for name in ("few", "many")}
    assert 0.5 < loud["few"] / loud["many"] < 2


def test_a_row_that_lacks_a_modality_is_refused() -> None:
    X, y = every_kind()
    model = EarlyFusion(schedule=QUICK).fit(X, y)
    with pytest.raises(DataError, match=r"needs .*'words'.* in every row\. 24 rows lack one"):
        model.predict(X.without("words"))
