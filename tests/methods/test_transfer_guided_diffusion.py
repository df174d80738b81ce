"""Guided diffusion: its losses and its sampler as slow loops, the condition, the guidance, and whose noise is whose."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.svm import SVC
from torch.nn import functional as F

from transference.core.errors import ConfigError, DataError
from transference.core.registry import create
from transference.core.seeding import numpy_generator
from transference.core.spec import Task, TaskKind
from transference.core.views import Views
from transference.data.loader import to_batch
from transference.nn.diffusion import kept
from transference.train.schedule import Schedule
from transference.transfer.guided_diffusion import (
    GuidedDiffusion,
    _gradient,
    as_numbers,
    log_likelihood,
    most_likely,
    noise_of,
)

torch.set_num_threads(1)
Array = NDArray[Any]
QUICK = Schedule(updates=8, batch_size=16, checks=2)
FORMS: tuple[dict[str, Any], ...] = (
    {"condition": "primary", "guidance": "classifier_free"},
    {"condition": "primary", "guidance": "conditional"},
    {"condition": "class", "guidance": "classifier_free"},
    {"condition": "class", "guidance": "conditional"},
    {"condition": "class", "guidance": "classifier"},
)
TASKS: dict[TaskKind, Task] = {
    "classification": Task("classification", ("a", "b", "c"), 3),
    "multilabel": Task("multilabel", (0, 1, 2), 3),
    "regression": Task("regression"),
}


def data(*names: str, n: int = 24, primary: str = "x") -> tuple[Views, Array]:
    """These modalities, or all; motion has many lengths. Half of the rows lack t, a quarter a label."""
    g = np.random.default_rng(0)
    y = np.arange(n) % 2
    X = Views.of(
        primary=primary,
        kinds={"words": "text", "points": "set"},
        x=g.normal(size=(n, 4)) + y[:, None],
        t=g.normal(size=(n, 5)) * 5 - y[:, None],
        motion=g.normal(size=(n, 11, 3)) + y[:, None, None],
        picture=g.uniform(size=(n, 2, 8, 9)),
        film=g.uniform(size=(n, 3, 1, 10, 12)),
        words=g.integers(1, 30, (n, 5)),
        points=g.normal(size=(n, 6, 2)),
    )
    X = X.replace("motion", X["motion"], lengths=2 + np.arange(n) % 10)
    there = g.permutation(n) % 2 == 0
    X = X.replace("t", X["t"] * there[:, None], present=there)
    return X.only(names or X.names), np.where(np.arange(n) < 3 * n // 4, y, -1)


def fitted(X: Views, y: Array, **more: Any) -> GuidedDiffusion:
    return GuidedDiffusion(**{"width": 8, "steps": 6, "schedule": QUICK, **more}).fit(X, y)


def standard(X: Views, name: str) -> Array:
    """(n, d) rows of a vector modality, standardised over those that have it."""
    known = X[name][X.present[name]]
    return (X[name] - known.mean(0)) / known.std(0)


def angle(t: float) -> float:
    return math.acos(1e-3) * t


@pytest.mark.parametrize("form", FORMS)
def test_the_losses_against_the_published_algorithm_row_by_row(form: dict[str, Any]) -> None:
    X, y = data("x", "t")
    model = fitted(X, y, weight=3.0, drop=0.4, **form)
    net: Any = model.net_.eval()
    torch.manual_seed(5)
    losses = {name: value.item() for name, value in model.losses(net, to_batch(X, y)).items()}
    torch.manual_seed(5)
    times, noise = torch.rand(24), torch.randn(24, 5)
    lost = torch.rand(24) < 0.4
    clean, total, judged, count, labels = standard(X, "t"), 0.0, 0.0, 0, 0
    with torch.no_grad():
        h = net.encode(to_batch(X), "x")
        for i in np.flatnonzero(X.present["t"]):
            phi, x, e = angle(times[i].item()), torch.from_numpy(clean[i]).float(), noise[i]
            noisy, v = math.cos(phi) * x + math.sin(phi) * e, math.cos(phi) * e - math.sin(phi) * x
            c = h[i] if form["condition"] == "primary" else torch.eye(2)[max(y[i], 0)]
            has_none = form["condition"] == "class" and y[i] < 0
            if form["guidance"] == "conditional" and has_none:
                continue
            known = torch.tensor([not has_none and not lost[i].item()])
            time = times[i : i + 1]
            if form["guidance"] == "classifier":
                answer = net.denoisers["t"](noisy[None], time)[0]
                if y[i] >= 0:
                    judged -= net.judges["t"](noisy[None], time).log_softmax(1)[0, y[i]].item()
                    labels += 1
            elif form["guidance"] == "conditional":
                answer = net.denoisers["t"](noisy[None], time, c[None])[0]
            else:
                answer = net.denoisers["t"](noisy[None], time, c[None], known)[0]
            total, count = total + (answer - v).square().sum().item() / 5, count + 1
        task = F.cross_entropy(net.head(h)[:18], torch.from_numpy(y[:18])).item()
    assert losses["task"] == pytest.approx(task, rel=1e-4)
    assert losses["denoising"] == pytest.approx(3 * total / count, rel=1e-4)
    assert losses.get("noised task", 0.0) == pytest.approx(3 * judged / max(labels, 1), rel=1e-4)


def test_a_denoiser_that_answers_0_has_a_loss_of_1_and_samples_standard_noise() -> None:
    """But for the steps, in each of which the cosine of its angle is lost. Numbers that never vary are not noised."""
    g = np.random.default_rng(0)
    t = np.hstack([5 * g.normal(size=(400, 2)) - 1, np.full((400, 6), 7.0)])
    X = Views.of(primary="x", x=g.normal(size=(400, 3)), t=t)
    model = fitted(X, np.arange(400) % 2, bounded=False)
    net: Any = model.net_.eval()
    torch.nn.init.zeros_(net.denoisers["t"].out.weight)
    torch.nn.init.zeros_(net.denoisers["t"].out.bias)
    assert model.losses(net, to_batch(X, np.arange(400) % 2))["denoising"].item() == pytest.approx(1, abs=0.15)
    start = noise_of(torch.from_numpy(X["x"]), None, (1, 8), 0, "t")[0].numpy()
    expected = t.mean(0) + t.std(0) * start * math.cos(angle(1 / 6)) ** 6
    np.testing.assert_allclose(model.generate(X, "t"), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("fresh", "bounded"), [(0.0, False), (0.7, False), (0.7, True)])
def test_the_sampler_against_the_published_algorithm_row_by_row(fresh: float, bounded: bool) -> None:
    """epsilon = epsilon_c + w (epsilon_c - epsilon_null), w = gamma - 1; then a step of DDIM with its sigma."""
    X, y = data("x", "t")
    model = fitted(X, y, scale=3.5, fresh=fresh, bounded=bounded, seed=4)
    net: Any = model.net_
    made, cut = model.generate(X, "t"), 0
    drawn = noise_of(torch.from_numpy(X["x"]), None, (7, 5), 4, "t").numpy()
    known, clear = X["t"][X.present["t"]], standard(X, "t")[X.present["t"]]
    with torch.no_grad():
        h = net.encode(to_batch(X), "x")
        for i in range(24):
            x = drawn[0, i].astype(float)
            for k in range(6):
                now, then = (math.cos(angle(1 - s / 6)) ** 2 for s in (k, k + 1))
                noises = []
                for has in (True, False):
                    row, time = torch.from_numpy(x[None]).float(), torch.tensor([1 - k / 6])
                    v = net.denoisers["t"](row, time, h[i : i + 1], torch.tensor([has]))[0].numpy().astype(float)
                    noises.append(math.sqrt(1 - now) * x + math.sqrt(now) * v)
                noise = noises[0] + 2.5 * (noises[0] - noises[1])
                clean = (x - math.sqrt(1 - now) * noise) / math.sqrt(now)
                if bounded:
                    cut += int(((clean < clear.min(0)) | (clean > clear.max(0))).sum())
                    clean = clean.clip(clear.min(0), clear.max(0))
                    noise = (x - math.sqrt(now) * clean) / math.sqrt(1 - now)
                sigma = fresh * math.sqrt((1 - then) / (1 - now)) * math.sqrt(1 - now / then)
                x = math.sqrt(then) * clean + math.sqrt(max(0.0, 1 - then - sigma**2)) * noise
                x = x + sigma * drawn[min(k + 1, 6), i] if fresh else x
            np.testing.assert_allclose(made[i], known.mean(0) + known.std(0) * x, rtol=2e-3, atol=2e-2)
    assert (cut > 3) == bounded


@pytest.mark.parametrize("kind", TASKS)
def test_likelihoods_and_conditions_of_every_task(kind: TaskKind) -> None:
    task = TASKS[kind]
    scores = torch.tensor([[1.0, -2.0, 0.5], [0.1, 0.4, -0.3]])[:, : task.outputs]
    several = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
    one = {"classification": torch.tensor([2, 0]), "regression": torch.tensor([0.25, -1.0])}
    target = one.get(kind, several)
    found, p = log_likelihood(scores, target, task), scores.softmax(1)
    if kind == "classification":
        assert found.exp().tolist() == pytest.approx([p[0, 2].item(), p[1, 0].item()])
        assert as_numbers(torch.tensor([2, -1]), task)[0].tolist() == [0, 0, 1]
        assert most_likely(scores, task).tolist() == [0, 1]
    elif kind == "multilabel":
        q = 1 / (1 + np.exp(-scores.numpy()))
        assert found.exp().tolist() == pytest.approx(
            [q[0, 0] * (1 - q[0, 1]) * q[0, 2], (1 - q[1, 0]) * q[1, 1] * q[1, 2]], rel=1e-5
        )
        assert as_numbers(target, task).tolist() == target.tolist()
        assert most_likely(scores, task).tolist() == [[1, 0, 1], [1, 1, 0]]
    else:
        assert found.tolist() == pytest.approx([-0.5 * 0.75**2, -0.5 * 1.1**2])
        assert as_numbers(torch.tensor([0.5, torch.nan]), task).tolist() == [[0.5], [0.0]]
        assert most_likely(scores, task).tolist() == scores[:, 0].tolist()


@pytest.mark.parametrize("kind", TASKS)
def test_the_gradient_of_a_judge_against_differences_and_it_fades_with_the_signal(kind: TaskKind) -> None:
    X, _ = data("x", "t")
    y: dict[str, Array] = {
        "classification": np.arange(24) % 3,
        "multilabel": np.stack([np.arange(24) % 2, np.arange(24) % 3 == 0, np.arange(24) < 9], 1).astype(float),
        "regression": np.sin(np.arange(24.0)),
    }
    model = fitted(X, y[kind], condition="class", guidance="classifier")
    net: Any = model.net_.double()
    task, judge = model.spec_.task, net.judges["t"]
    x, t = torch.randn(24, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64), torch.tensor(0.4)
    target = most_likely(torch.randn(24, task.outputs, dtype=torch.float64), task)
    with torch.inference_mode():
        found = _gradient(judge, x, t.double(), target, task)
        for k in range(5):
            moved = 1e-5 * torch.eye(5, dtype=torch.float64)[k]
            high, low = (log_likelihood(judge(x + s * moved, t.double()), target, task) for s in (1, -1))
            torch.testing.assert_close(found[:, k], (high - low) / 2e-5, rtol=1e-4, atol=1e-7)
        late, early = (_gradient(judge, x, torch.tensor(s).double(), target, task).abs().mean() for s in (1.0, 0.9))
    assert late < 0.02 * early


@pytest.mark.parametrize("form", [FORMS[0], FORMS[2]])
def test_gamma_1_is_conditional_bit_for_bit_and_gamma_0_knows_no_condition(form: dict[str, Any]) -> None:
    X, y = data("x", "t", n=40)
    model = fitted(X, y, **form)
    net: Any = model.net_
    one, none, guided = (model.set_params(scale=scale).generate(X, "t") for scale in (1.0, 0.0, 3.0))
    conditional = model.set_params(guidance="conditional", scale=3.0).generate(X, "t")
    np.testing.assert_array_equal(one, conditional)
    assert min(np.abs(guided - one).max(), np.abs(none - one).max()) > 1e-3
    model.set_params(guidance="classifier_free", scale=0.0)
    x, t = torch.randn(20, net.form("t").size), torch.tensor(0.3)
    with torch.no_grad():
        first, second = (model.field(net, to_batch(X[rows]), "t")(x, t) for rows in (slice(20), slice(20, 40)))
        model.set_params(scale=1.0)
        assert not torch.equal(model.field(net, to_batch(X[:20]), "t")(x, t), first)
    assert torch.equal(first, second)


def test_a_classifier_adds_gamma_times_its_gradient_to_the_field_without_condition() -> None:
    X, y = data("x", "t")
    model = fitted(X, y, condition="class", guidance="classifier")
    net: Any = model.net_
    batch, t = to_batch(X), torch.tensor(0.3)
    x = torch.randn(24, 5)
    plain, one, three = (model.set_params(scale=g).field(net, batch, "t")(x, t).detach() for g in (0.0, 1.0, 3.0))
    told = _gradient(net.judges["t"], x, t, torch.from_numpy(model.predict(X)), model.spec_.task)
    assert (one - plain).abs().max() > 1e-4
    torch.testing.assert_close(plain - one, (1 - kept(t)).sqrt() * told, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(plain - three, 3 * (plain - one), rtol=1e-3, atol=1e-5)
    v = net.denoisers["t"](x, t)
    torch.testing.assert_close(plain, (1 - kept(t)).sqrt() * x + kept(t).sqrt() * v)


def test_the_class_that_conditions_is_the_one_that_is_predicted() -> None:
    X, y = data("x", "t", n=40)
    model = fitted(X, y, condition="class", schedule=Schedule(updates=60, batch_size=16))
    net: Any = model.net_
    x, t, told = torch.randn(40, 5), torch.tensor(0.3), model.predict(X)
    assert 0 < told.mean() < 1
    with torch.no_grad():
        found = model.set_params(scale=1.0).field(net, to_batch(X), "t")(x, t)
        v = net.denoisers["t"](x, t, F.one_hot(torch.from_numpy(told), 2).float())
    torch.testing.assert_close(found, (1 - kept(t)).sqrt() * x + kept(t).sqrt() * v)


@pytest.mark.parametrize("guidance", ["classifier_free", "conditional", "classifier"])
def test_rows_without_a_label_teach_what_needs_no_class(guidance: str) -> None:
    X, y = data("x", "t")
    model = fitted(X, y, condition="class", guidance=guidance)
    model.net_.zero_grad()
    torch.stack(list(model.losses(model.net_, to_batch(X, np.full(24, -1))).values())).sum().backward()
    taught = {name for name, p in model.net_.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    of_null, of_class = "denoisers.t.null" in taught, "denoisers.t.condition.weight" in taught
    assert (of_null, of_class) == (guidance == "classifier_free", False)
    assert ("denoisers.t.out.weight" in taught) == (guidance != "conditional")
    assert not [name for name in taught if name.startswith(("judges", "encoders", "head"))]


@pytest.mark.parametrize("primary", ["x", "motion", "film", "picture", "words", "points"])
def test_every_kind_can_be_primary_every_parameter_gets_a_gradient_and_all_numbers_are_made(primary: str) -> None:
    X, y = data(primary=primary)
    for form in FORMS[:1] if primary != "x" else FORMS:
        model = fitted(X, y, steps=2, drop=0.5, **form)
        model.net_.zero_grad()
        torch.stack(list(model.losses(model.net_, to_batch(X, y)).values())).sum().backward()
        idle = [name for name, p in model.net_.named_parameters() if p.grad is None or p.grad.abs().sum() == 0]
        assert not idle, (form, idle)
        for name in set(X.secondary) - {"words"}:
            made = model.generate(X.only([primary]), name)
            assert made.shape == X[name].shape, name
            assert np.isfinite(made).all()


@pytest.mark.parametrize("fresh", [0.0, 1.0])
@pytest.mark.parametrize("primary", ["x", "motion"])
def test_a_sample_depends_on_its_row_and_the_seed_alone(primary: str, fresh: float) -> None:
    X, y = data(primary=primary)
    model = fitted(X, y, fresh=fresh)
    made = model.generate(X, "t")
    np.testing.assert_array_equal(model.generate(X, "t"), made)
    rows = np.array([17, 3, 3])
    some = model.generate(X[rows], "t")
    np.testing.assert_allclose(some, made[rows], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(some[1], some[2], rtol=1e-4)
    poisoned = X.replace("t", np.full_like(X["t"], np.nan)).without("picture")
    np.testing.assert_array_equal(model.generate(poisoned, "t"), made)
    if primary == "motion":
        beyond = np.arange(11) >= X.lengths["motion"][:, None]
        garbage = np.where(beyond[:, :, None], 50.0, X["motion"]).astype(np.float32)
        np.testing.assert_array_equal(model.generate(X.replace("motion", garbage), "t"), made)
    other = model.set_params(seed=1).generate(X, "t")
    assert (np.abs(other - made).max(1) > 1e-2).all()


def test_noise_is_normal_and_independent_between_rows_steps_and_modalities() -> None:
    values = torch.arange(300.0)[:, None]
    drawn = noise_of(values, None, (2, 40), 0, "t")
    assert drawn.shape == (2, 300, 40)
    flat = drawn.transpose(0, 1).flatten(1).numpy()
    assert np.abs(flat.mean()) < 0.03
    assert np.abs(np.corrcoef(flat) - np.eye(300)).max() < 0.6
    assert flat.std() == pytest.approx(1, abs=0.02)
    assert (noise_of(values, None, (2, 40), 0, "s") != drawn).all()
    zeros = noise_of(torch.tensor([[0.0], [-0.0]]), None, (1, 3), 0, "t")[0]
    assert torch.equal(zeros[0], zeros[1])


@pytest.mark.parametrize("form", FORMS)
def test_with_weight_0_it_is_unimodal_and_with_the_class_it_predicts_as_unimodal(form: dict[str, Any]) -> None:
    X, y = data()
    alone = create("unimodal", schedule=QUICK, seed=4).fit(X, y)
    same = GuidedDiffusion(weight=0.0, schedule=QUICK, seed=4, **form).fit(X, y)
    np.testing.assert_array_equal(same.predict_proba(X), alone.predict_proba(X))
    assert same.history_ == alone.history_
    assert set(same.net_.state_dict()) == set(alone.net_.state_dict())
    other = GuidedDiffusion(weight=2.0, schedule=QUICK, seed=4, **form).fit(X, y).predict_proba(X)
    assert (other == alone.predict_proba(X)).all() == (form["condition"] == "class")


def test_what_can_not_be_done_is_said() -> None:
    X, y = data("x", "words", "motion")
    model = fitted(X, y)
    with pytest.raises(DataError, match="The modality 'words' to generate must be numbers"):
        model.generate(X, "words")
    with pytest.raises(DataError, match="no modality 'moton' to generate. Did you mean 'motion'"):
        model.generate(X, "moton")
    with pytest.raises(ConfigError, match="'weight' of a GuidedDiffusion that generates must be above 0"):
        fitted(X, y, weight=0.0).generate(X, "motion")
    with pytest.raises(ConfigError, match="'condition' .* with guidance='classifier' must be 'class'. Got 'primary'"):
        fitted(X, y, guidance="classifier")
    with pytest.raises(ConfigError, match="'condition' .* without labels must be 'primary'. Got 'class'"):
        GuidedDiffusion(condition="class", schedule=QUICK).fit(X)


def planted(seed: int, noise: bool, n: int = 600) -> Views:
    """t is 3 x_1 + 5 with a deviation of 0.5 and, with the other sign of the deviation, minus that; or unrelated."""
    g = np.random.default_rng(seed)
    x = g.normal(size=(n, 3))
    told = (g.normal(size=n) if noise else x[:, 0]) * 3 + 5
    free = 0.5 * g.normal(size=n)
    return Views.of(primary="x", x=x, t=np.stack([told + free, free - told], 1))


def test_samples_have_the_planted_law_and_those_of_noise_tell_nothing() -> None:
    schedule = Schedule(updates=300, learning_rate=6e-3, batch_size=96)
    for noise in (False, True):
        X, test = planted(0, noise), planted(1, noise)
        model = GuidedDiffusion(scale=1.0, width=16, steps=25, schedule=schedule).fit(X)
        made = model.generate(test, "t")
        slope = np.polyfit(test["x"][:, 0], made, 1)[0]
        left = made - 5 * np.array([1, -1]) - np.outer(test["x"][:, 0], slope)
        if noise:
            assert np.abs(slope).max() < 0.6
            assert made.std(0) == pytest.approx(test["t"].std(0), rel=0.2)
        else:
            assert slope == pytest.approx([3, -3], abs=0.3)
            assert left.std(0) == pytest.approx([0.5, 0.5], abs=0.2)
            assert np.corrcoef(left.T)[0, 1] > 0.5
            assert made.mean(0) == pytest.approx([5, -5], abs=0.4)


@pytest.mark.parametrize("guidance", ["classifier_free", "classifier"])
def test_on_digits_more_guidance_is_more_of_the_class_and_less_variety(guidance: Any) -> None:
    images, digit = load_digits(return_X_y=True)
    images = images.reshape(-1, 1, 8, 8) / 16
    code = np.eye(10)[digit] * 3 + numpy_generator(0, "code").normal(size=(len(digit), 10)) * 0.3
    X = Views.of(primary="code", code=code, image=images)
    frozen = SVC().fit(images[:1000].reshape(1000, -1), digit[:1000])
    schedule = Schedule(updates=200, learning_rate=3e-3)
    model = GuidedDiffusion(condition="class", guidance=guidance, steps=16, width=48, schedule=schedule)
    model.fit(X[:1000], digit[:1000])
    rights, spreads = [], []
    for gamma in (0.0, 0.5, 1.0, 2.0, 4.0):
        made = model.set_params(scale=gamma).generate(X[1000:1300], "image").reshape(300, -1)
        rights.append((frozen.predict(made) == digit[1000:1300]).mean())
        spreads.append(np.mean([made[digit[1000:1300] == k].var(0).sum() for k in range(10)]))
    assert rights[0] < 0.2
    assert (np.diff(rights[:4]) > 0.02).all(), rights
    assert rights[4] > 0.97
    assert (np.diff(spreads) < -0.05).all(), spreads
