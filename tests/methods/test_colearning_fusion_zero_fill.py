"""Zero filling: what each fill is, that nothing absent is read, and when it helps."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import ttest_1samp

from transference.colearning.fusion.zero_fill import ZeroFill
from transference.core.errors import ConfigError
from transference.core.registry import create
from transference.core.views import Views
from transference.data.loader import to_batch
from transference.train.schedule import Schedule

QUICK = Schedule(updates=12, batch_size=16, validation=0.0)
CHOICES = list(product(["zeros", "mean", "learned"], ["representation", "input"]))


def data(n: int = 48, seed: int = 0) -> tuple[Views, NDArray[Any]]:
    g = np.random.default_rng(seed)
    y = g.integers(0, 2, n)
    X = Views.of(
        primary="x",
        x=g.normal(size=(n, 4)) + y[:, None],
        t=g.normal(size=(n, 3)) - y[:, None] + 5,
        s=g.normal(size=(n, 6, 2)) + y[:, None, None],
    )
    return X.replace("s", X["s"], lengths=g.integers(2, 5, n)), y


@pytest.mark.parametrize(("fill", "space"), CHOICES)
def test_nothing_of_the_secondary_modalities_is_read(fill: Any, space: Any) -> None:
    X, y = data()
    model = ZeroFill(fill=fill, space=space, schedule=QUICK).fit(X, y)
    answer = model.predict_proba(X)
    for other in (
        X.only(["x"]),
        X.without("t"),
        X.replace("t", np.full_like(X["t"], np.nan)).replace("s", X["s"] * 1e6),
    ):
        np.testing.assert_array_equal(model.predict_proba(other), answer)
    batch = to_batch(X)
    with torch.no_grad():
        joint = model.joint_scores(model.net_, batch).softmax(1).numpy()
        held_out = model.scores(model.net_, batch).softmax(1).numpy()
    assert np.abs(joint - answer).max() > 1e-3  # they are read where they are asked for
    np.testing.assert_array_equal(held_out, answer)  # and not where checkpoints are chosen


def test_zeros_in_the_representation_leave_the_primary_modality_alone() -> None:
    X, y = data()
    model = ZeroFill(schedule=QUICK).fit(X, y)
    with torch.no_grad():
        h = model.net_.encode(to_batch(X), "x")
        expected = model.net_.head(model.net_.joint(h)).softmax(1)
    np.testing.assert_array_equal(model.predict_proba(X), expected)


def test_the_mean_of_the_input_is_zero_after_standardisation() -> None:
    X, y = data()
    model = ZeroFill(fill="mean", space="input", schedule=QUICK).fit(X, y)
    torch.testing.assert_close(model.net_.fill("t").value, torch.from_numpy(X["t"].mean(0)))
    encoder = model.net_.encoders["t"]
    torch.testing.assert_close(model.net_.absent("t"), encoder.body(torch.zeros(1, 3), None), atol=1e-5, rtol=0)


@pytest.mark.parametrize("fill", ["mean", "learned"])
def test_an_input_fill_of_ragged_series_begins_at_the_mean_of_what_is_real(fill: Any) -> None:
    """Step by step over the rows that reach it, 4 of 6 steps at most; beyond, the mean of all real steps."""
    X, y = data()
    X = X.replace("s", X["s"] + 10)
    model = ZeroFill(fill=fill, space="input", schedule=Schedule(updates=1, validation=0.0, warmup=0.0)).fit(X, y)
    real = [[X["s"][i, k] for i in range(len(X)) if X.lengths["s"][i] > k] for k in range(6)]
    assert [len(rows) for rows in real[3:]] == [np.count_nonzero(X.lengths["s"] == 4), 0, 0]
    every = np.mean([step for rows in real for step in rows], axis=0)
    expected = np.array([np.mean(rows, axis=0) if rows else every for rows in real])
    value = model.net_.fill("s").value.detach().numpy()
    np.testing.assert_allclose(value, expected, rtol=0, atol=1e-5 if fill == "mean" else 0.1)  # one step away


def test_the_mean_of_an_image_is_that_of_each_pixel() -> None:
    g = np.random.default_rng(0)
    X = Views.of(primary="x", x=g.normal(size=(8, 4)), image=g.normal(size=(8, 3, 9, 10)))
    model = ZeroFill(fill="mean", space="input", schedule=QUICK).fit(X, np.arange(8) % 2)
    np.testing.assert_allclose(model.net_.fill("image").value, X["image"].mean(0), atol=1e-6)


@pytest.mark.parametrize("fill", ["zeros", "mean", "learned"])
def test_what_lies_beyond_the_lengths_of_training_rows_does_not_matter(fill: Any) -> None:
    X, y = data()
    beyond = np.arange(6) >= X.lengths["s"][:, None]
    other = X.replace("s", np.where(beyond[:, :, None], 50, X["s"]).astype(np.float32))
    one, two = (ZeroFill(fill=fill, space="input", schedule=QUICK).fit(each, y).predict_proba(X) for each in (X, other))
    np.testing.assert_array_equal(one, two)


def test_raw_zeros_are_the_encoding_of_zeros_at_the_mean_length() -> None:
    X, y = data()
    model = ZeroFill(space="input", schedule=QUICK).fit(X, y)
    length = torch.tensor([round(float(X.lengths["s"].mean()))])
    torch.testing.assert_close(model.net_.absent("s"), model.net_.encoders["s"](torch.zeros(1, 6, 2), length))


def test_the_mean_of_the_representation_follows_the_training_rows() -> None:
    X, y = data(200)
    model = ZeroFill(fill="mean", schedule=Schedule(updates=100, validation=0.0)).fit(X, y)
    with torch.no_grad():
        mean = model.net_.encode(to_batch(X), "t").mean(0)
        value = model.net_.fill("t").value
    assert (value - mean).norm() < 0.25 * mean.norm()


def test_only_the_fill_moves_to_suit_absence() -> None:
    """The learned fill lowers the loss of (primary, fill), and the rest is trained as if there were no fill."""
    X, y = data(200)
    schedule = Schedule(updates=100, validation=0.0, batch_size=200)
    learned, zeros = (ZeroFill(fill=fill, layers=0, schedule=schedule).fit(X, y) for fill in ("learned", "zeros"))
    for name, value in zeros.net_.state_dict().items():  # without layers no dropout is drawn: bit for bit
        assert name.startswith("fills") or torch.equal(learned.net_.state_dict()[name], value), name
    history = learned.history_
    assert set(history) == {"update", "task", "fill"}
    value = learned.net_.fill("t").value
    assert value.abs().max() > 0
    loss = {}
    for name, scale in (("fitted", 1.0), ("zeros", 0.0)):
        with torch.no_grad():
            value.mul_(scale)
            learned.net_.fill("s").value.mul_(scale)
        loss[name] = torch.nn.functional.cross_entropy(
            learned.scores(learned.net_, to_batch(X)), torch.from_numpy(y)
        ).item()
    assert loss["fitted"] < loss["zeros"]


def test_rows_that_lack_a_secondary_modality_get_the_fill() -> None:
    X, y = data()
    half = np.arange(len(X)) % 2 == 0
    X = X.replace("t", X["t"] * half[:, None], present=half)
    model = ZeroFill(schedule=QUICK).fit(X, y)
    found = model.net_.represent(to_batch(X))["t"]
    assert (found[~torch.from_numpy(half)] == 0).all()
    assert (found[torch.from_numpy(half)] != 0).any(1).all()


@pytest.mark.parametrize(("fill", "space"), CHOICES)
def test_every_parameter_is_trained_also_in_batches_of_one(fill: Any, space: Any) -> None:
    X, y = data(8)
    before, after = (
        ZeroFill(
            fill=fill, space=space, width=8, schedule=Schedule(updates=k, batch_size=1, warmup=0.0, weight_decay=0.0)
        ).fit(X, y)
        for k in (1, 9)
    )
    state = after.net_.state_dict()
    for name, parameter in before.net_.named_parameters():
        assert not torch.equal(parameter, state[name]), name


def test_the_order_of_modalities_does_not_matter() -> None:
    X, y = data()
    turned = Views(dict(reversed(X.arrays.items())), X.specs, "x", lengths=X.lengths)
    first, second = (ZeroFill(schedule=QUICK).fit(views, y).predict_proba(X) for views in (X, turned))
    np.testing.assert_array_equal(first, second)


def test_a_text_has_no_mean_input() -> None:
    words = np.random.default_rng(0).integers(1, 9, (8, 4))
    X = Views.of(primary="x", kinds={"words": "text"}, x=np.ones((8, 2)), words=words)
    ZeroFill(space="input", schedule=QUICK).fit(X, np.arange(8) % 2).predict(X)
    with pytest.raises(ConfigError, match=r"'fill' .* for the text 'words' in the input space must be 'zeros'.*'mean'"):
        ZeroFill(fill="mean", space="input", schedule=QUICK).fit(X, np.arange(8) % 2)


def test_four_arms() -> None:
    """With a clean secondary modality the joint model reads it, and without it falls below the unimodal one: nothing
    in training said what absent means. Dropping modalities mends a part of it. Paired over seeds, 95 % intervals."""
    arms: dict[str, list[float]] = {"uni": [], "zeros": [], "dropout": [], "multi": []}
    schedule = Schedule(updates=100)
    for seed in range(8):
        g = np.random.default_rng(seed)
        s, mix, direction = g.normal(size=(700, 4)), g.normal(size=(4, 16)), g.normal(size=4)
        y = (s @ direction > 0).astype(int)
        X = Views.of(primary="x", x=s @ mix / 2 + g.normal(size=(700, 16)), t=s)
        train, test = X[:200], X[200:]
        zeros = ZeroFill(schedule=schedule, seed=seed).fit(train, y[:200])
        dropout = create("colearning.fusion.modality_dropout", schedule=schedule, seed=seed).fit(train, y[:200])
        uni = create("unimodal", schedule=schedule, seed=seed).fit(train, y[:200])
        with torch.no_grad():
            multi = zeros.joint_scores(zeros.net_, to_batch(test)).argmax(1).numpy()
        arms["multi"].append(float(np.mean(multi == y[200:])))
        for name, model in (("uni", uni), ("zeros", zeros), ("dropout", dropout)):
            arms[name].append(model.score(test, y[200:]))

    def least(more: str, less: str) -> float:
        return float(ttest_1samp(np.subtract(arms[more], arms[less]), 0).confidence_interval().low)

    assert least("multi", "uni") > 0.05
    assert least("uni", "zeros") > 0
    assert least("dropout", "zeros") > 0


@pytest.mark.slow
def test_an_encoder_that_is_shared_learns_from_the_clearer_modality_what_both_show() -> None:
    """x = s mixed + much noise, t = the same s mixed + little: few labels teach the encoder more with t."""
    schedule = Schedule(updates=150)
    gains: dict[bool, list[float]] = {False: [], True: []}
    for seed in range(12):
        for noise, found in gains.items():
            g = np.random.default_rng(seed)
            s, mix = g.normal(size=(1030, 2)), g.normal(size=(2, 24))
            y = (s[:, 0] > 0).astype(int)
            x, t = (s @ mix + size * g.normal(size=(1030, 24)) for size in (2.5, 0.3))
            X = Views.of(primary="x", x=x, t=g.normal(size=t.shape) * t.std() if noise else t)
            ours = ZeroFill(shared=True, layers=0, schedule=schedule, seed=seed).fit(X[:30], y[:30])
            alone = create("unimodal", schedule=schedule, seed=seed).fit(X[:30], y[:30])
            found.append(ours.score(X[30:], y[30:]) - alone.score(X[30:], y[30:]))
    low = [np.mean(found) - 2.2 * np.std(found, ddof=1) / np.sqrt(len(found)) for found in gains.values()]
    assert low[0] > 0
    assert low[1] < 0


def test_one_encoder_asks_for_one_kind_and_shape() -> None:
    X, y = data()
    like = Views.of(primary="x", x=X["x"], t=X["x"] + 1)
    model = ZeroFill(shared=True, schedule=QUICK).fit(like, y)
    batch = to_batch(like)
    torch.testing.assert_close(model.net_.encode(batch, "t"), model.net_.encoders["x"](batch.views["t"], None))
    restored = ZeroFill(shared=True).restore(model.spec_, model.net_.state_dict())
    np.testing.assert_array_equal(restored.predict_proba(like), model.predict_proba(like))
    with pytest.raises(ConfigError, match="'shared' parameter of ZeroFill must be False where 's' is not of the kind"):
        ZeroFill(shared=True, schedule=QUICK).fit(X, y)
