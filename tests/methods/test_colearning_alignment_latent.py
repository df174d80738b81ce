"""Latent: the identity of the floor, the targets, the frozen teacher, and what the weights 0 and 1 mean."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from transference.colearning.alignment.latent import Bank, Latent, draws, floor
from transference.core.batch import Batch
from transference.core.errors import ConfigError, DataError
from transference.core.spec import ModalitySpec
from transference.core.views import Views
from transference.data.loader import to_batch
from transference.train.schedule import Schedule
from transference.unimodal import Unimodal

FAST = Schedule(updates=40, batch_size=16, device="cpu")


def planted(n: int = 90, seed: int = 0, labelled: int | None = None, noise: float = 1.2) -> tuple[Views, np.ndarray]:
    """A class direction, seen through much noise (primary, 6 numbers) and little noise (secondary, 4 numbers)."""
    generator = np.random.default_rng(seed)
    number = np.arange(n) % 3
    centre = np.eye(3)[number] * 2
    noisy = np.hstack([centre, centre]) + generator.normal(size=(n, 6)) * noise
    clean = np.hstack([centre, np.ones((n, 1))]) + generator.normal(size=(n, 4)) * 0.1
    y = np.array(["a", "b", "c"], object)[number]
    if labelled is not None:
        y[labelled:] = None
    return Views.of(primary="noisy", noisy=noisy, clean=clean), y


def bank(m: int = 5, d: int = 3, classes: int = 4, seed: int = 0) -> Bank:
    generator = torch.Generator().manual_seed(seed)
    own = torch.randn(m, d, generator=generator, dtype=torch.float64)
    return Bank(torch.arange(m) * 10, own, torch.randn(classes, d, generator=generator, dtype=torch.float64))


def batch_of(rows: Tensor, target: Tensor | None = None) -> Batch:
    return Batch({}, {}, {}, target, rows)


def test_floor_by_hand() -> None:
    """Of the points 0 and 4 on one axis and 1 and 1 on the other, variances 4 and 0, mean 2."""
    assert floor(torch.tensor([[0.0, 1.0], [4.0, 1.0]])).item() == 2.0


@pytest.mark.parametrize("target", ["paired", "mean", "other_row", "class", "mean_class", "random_class"])
def test_expected_loss_is_distance_to_the_expected_target_plus_the_floor(target: str) -> None:
    """The identity of the source, with every possible draw written out for every row."""
    these = bank()
    generator = torch.Generator().manual_seed(1)
    g = torch.randn(5, 3, generator=generator, dtype=torch.float64).requires_grad_()
    label = torch.tensor([0, 1, 2, 3, 0])
    total = torch.zeros((), dtype=torch.float64)
    for i in range(5):
        possible = {
            "paired": [these.own[i]],
            "mean": [sum(these.own) / 5],
            "other_row": [these.own[j] for j in range(5) if j != i],
            "class": [these.classes[label[i]]],
            "mean_class": [sum(these.classes) / 4],
            "random_class": list(these.classes),
        }[target]
        total = total + sum(((g[i] - z) ** 2).sum() / 3 for z in possible) / len(possible) / 5
    expected = these.expected(target, batch_of(these.rows, label))
    short = ((g - expected) ** 2).mean()
    assert total.item() == pytest.approx(short.item() + these.least(target, 0.0), abs=1e-10)
    (slow,) = torch.autograd.grad(total, g)
    torch.testing.assert_close(slow, 2 * (g - expected).detach() / 3 / 5, atol=1e-12, rtol=0)


def test_noise_has_its_variance_as_floor() -> None:
    torch.manual_seed(0)
    these = bank(m=2000)
    batch = batch_of(these.rows)
    drawn = these.sample("noise", batch, 0.5) - these.own
    assert these.least("noise", 0.5) == 0.25
    assert drawn.square().mean().item() == pytest.approx(0.25, rel=0.05)


def test_another_row_is_never_the_own_and_every_other_is_as_likely() -> None:
    torch.manual_seed(0)
    these = bank(m=5, d=1)
    rows = torch.tensor([20, 0, 40])  # positions 2, 0, 4
    counts = np.zeros((3, 5))
    for _ in range(2000):
        drawn = these.sample("other_row", batch_of(rows), 0.0)
        counts[np.arange(3), (drawn == these.own.T).nonzero()[:, 1].numpy()] += 1
    assert counts[[0, 1, 2], [2, 0, 4]].tolist() == [0, 0, 0]
    others = counts[counts > 0]
    assert len(others) == 12
    assert np.abs(others - 500).max() < 5 * np.sqrt(2000 * 0.25 * 0.75)


def test_random_classes_differ_within_a_batch_and_do_not_depend_on_the_label() -> None:
    torch.manual_seed(0)
    assert all(len(set(draws(7, 7).tolist())) == 7 for _ in range(20))
    assert np.bincount(draws(10, 4).numpy()).max() == 3
    these = bank(classes=4, d=1)
    label = torch.tensor([0, 1, 2, 3])
    table = np.zeros((4, 4))
    for _ in range(1000):
        drawn = these.sample("random_class", batch_of(these.rows[:4], label), 0.0)
        chosen = (drawn == these.classes.T).nonzero()[:, 1].numpy()
        assert len(set(chosen.tolist())) == 4
        table[label.numpy(), chosen] += 1
    assert ((table - 250) ** 2 / 250).sum() < 27.9  # 99.9 % of chi-square with 9 degrees of freedom


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_weight_zero_is_the_unimodal_baseline_bit_for_bit(task: str) -> None:
    X, y = planted(labelled=70)
    if task == "regression":
        y = np.where([label is None for label in y], np.nan, X["noisy"][:, 0]).astype(np.float32)
    plain = Unimodal(schedule=FAST, seed=3).fit(X, y)
    latent = Latent(weight=0, schedule=FAST, seed=3).fit(X, y)
    assert np.array_equal(plain.decide(X), latent.decide(X))
    assert plain.history_ == latent.history_
    assert not np.array_equal(plain.decide(X), Latent(weight=0.1, schedule=FAST, seed=3).fit(X, y).decide(X))


def test_weight_one_gives_the_head_a_gradient_of_exactly_zero() -> None:
    X, y = planted()
    method = WithBanks(weight=1.0, schedule=FAST).fit(X, y)
    losses = method.again(X)
    sum(losses.values()).backward()
    assert all(torch.count_nonzero(parameter.grad) == 0 for parameter in method.net_.head.parameters())
    assert any(torch.count_nonzero(parameter.grad) for parameter in method.net_.encoders.parameters())


class WithBanks(Latent):
    """Keeps the targets and the teacher as they were when the student began."""

    def _prepare(self, net: Any, rows: Batch) -> None:
        super()._prepare(net, rows)
        self.banks_ = dict(self._banks)
        self.before_ = {name: value.clone() for name, value in net.teachers.state_dict().items()}

    def again(self, X: Views, target: Any = None) -> dict[str, Tensor]:
        """The losses of the fitted network on all rows."""
        self._banks = self.banks_
        batch = to_batch(X, np.full(len(X), -1) if target is None else target)
        self.net_.eval()
        return self.losses(self.net_, batch)


def test_the_teacher_is_trained_first_and_then_frozen() -> None:
    X, y = planted()
    method = WithBanks(schedule=FAST).fit(X, y)
    teachers: Any = method.net_.teachers
    after = teachers.state_dict()
    assert method.before_.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in method.before_.items())
    assert all(not parameter.requires_grad and parameter.grad is None for parameter in teachers.parameters())
    line = method.history_["teacher: task of clean"]
    assert line[0] > line[19] > 0
    assert np.isnan(line[20:]).all()


def test_losses_against_a_slow_loop_over_rows() -> None:
    """Unlabelled rows count for the latent loss alone, rows without the secondary for the task alone."""
    X, y = planted(n=12, labelled=9)
    there = np.arange(12) % 4 != 0
    X = X.replace("clean", np.where(there[:, None], X["clean"], 0), present=there)
    order = np.random.default_rng(0).permutation(12)  # rows of a split do not come in the order of the manifest
    X, y, there = X[order], y[order], there[order]
    method = WithBanks(weight=0.3, schedule=FAST, width=8).fit(X, y)
    target = np.array([-1 if label is None else "abc".index(label) for label in y])
    losses = method.again(X, target)
    net: Any = method.net_
    task, latent = [], []
    for i in range(12):
        row = to_batch(X[[i]])
        g = net.encode(row, "noisy")[0]
        if target[i] >= 0:
            task.append(-net.head(g).log_softmax(0)[target[i]].item())
        if there[i]:
            hidden = net.teachers["clean"].encode(row, "clean")[0]
            z = (hidden - hidden.mean()) / (hidden.var(correction=0) + 1e-5).sqrt()
            norm: Any = net.projections["clean"][1]
            matched = (g - g.mean()) / (g.var(correction=0) + 1e-5).sqrt() * norm.weight + norm.bias
            latent.append(((matched - z) ** 2).sum().item() / 8)
    assert losses["task"].item() == pytest.approx(0.7 * sum(task) / 9, rel=1e-5)
    assert losses["latent"].item() == pytest.approx(0.3 * sum(latent) / 9, rel=1e-5)
    assert method.latent_above_floor_ == pytest.approx(sum(latent) / 9, rel=1e-5)
    unweighted = np.array(method.history_["latent"]) / 0.3
    assert method.history_["latent above floor"] == pytest.approx(unweighted, nan_ok=True)


def test_two_secondary_modalities_are_averaged_each_through_its_own_map() -> None:
    X, y = planted(n=30)
    X = Views.of(primary="noisy", noisy=X["noisy"], clean=X["clean"], other=X["clean"][:, ::-1] * 2)
    method = WithBanks(weight=1.0, schedule=FAST, width=8).fit(X, y)
    net: Any = method.net_
    batch = to_batch(X)
    by_hand = []
    for name in ("clean", "other"):
        z = F.layer_norm(net.teachers[name].encode(batch, name), (8,))
        by_hand.append((net.projections[name](net.encode(batch, "noisy")) - z).square().mean().item())
    assert method.again(X)["latent"].item() == pytest.approx(np.mean(by_hand), rel=1e-5)


@pytest.mark.parametrize("unit", [1.0, 1e-7])
def test_features_of_a_pretrained_encoder_are_the_target_standardised(unit: float) -> None:
    X, y = planted(n=30)
    X = as_given(X.replace("clean", X["clean"] * np.float32(unit)))
    method = WithBanks(schedule=FAST, width=8).fit(X, y)
    own = method.banks_["clean"].own.numpy()
    clean = X["clean"].astype(float)
    z = (clean - clean.mean(0)) / clean.std(0)
    assert not method.net_.teachers
    assert own == pytest.approx(z, abs=1e-5)
    assert method.net_.projections["clean"][0].out_features == 4
    assert len(Latent(schedule=FAST, teacher="trained").fit(X, y).net_.teachers) == 1


def as_given(X: Views) -> Views:
    """The same, the secondary being features of a pretrained encoder."""
    return Views(
        X.arrays, {**X.specs, "clean": ModalitySpec("clean", "vector", (4,), encoder="hf:some/encoder")}, "noisy"
    )


LONG = Schedule(updates=300, batch_size=64, learning_rate=1e-2, device="cpu")


def matched(method: Latent, X: Views) -> np.ndarray:
    """(n, d) what is held against the targets of the only bank."""
    net: Any = method.net_
    (projection,) = net.projections.values()
    with torch.no_grad():
        return projection(net.encode(to_batch(X), "noisy")).numpy()


@pytest.mark.parametrize(("drawn", "constant"), [("other_row", "mean"), ("random_class", "mean_class")])
def test_a_random_target_ends_where_the_constant_one_that_controls_it_does(drawn: str, constant: str) -> None:
    """Half of the rows are of one of three classes, so the two constants differ; the task is switched off."""
    X, y = planted(n=120)
    keep = (y == "a") | (np.arange(120) % 2 == 0)
    X, y = as_given(X[keep]), y[keep]
    z = (X["clean"] - X["clean"].mean(0)) / X["clean"].std(0)
    means = {"mean": z.mean(0), "mean_class": np.stack([z[y == label].mean(0) for label in "abc"]).mean(0)}
    assert np.abs(means["mean"] - means["mean_class"]).max() > 0.2
    for target in (drawn, constant):
        method = Latent(weight=1.0, target=target, schedule=LONG, width=8).fit(X, y)
        end = matched(method, X)
        assert end.mean(0) == pytest.approx(means[constant], abs=0.08)
        assert end.std(0).max() < 0.3
    assert method.latent_floor_ == 0.0
    assert method.history_["latent"][-1] < 0.01


def test_random_classes_teach_their_mean_and_stop_at_the_floor() -> None:
    """With the task switched off, drawing prompts at random and the constant mean prompt end at the same features."""
    X, y = planted()
    prompts = np.random.default_rng(0).normal(size=(3, 16))
    settings: Any = {"weight": 1.0, "prompts": prompts, "schedule": LONG, "width": 16}
    method = Latent(target="random_class", **settings).fit(X, y)
    control = Latent(target="mean_class", **settings).fit(X, y)
    z = (prompts - prompts.mean(1, keepdims=True)) / prompts.std(1, keepdims=True)
    spread = np.mean([((row - z.mean(0)) ** 2).mean() for row in z])
    assert method.latent_floor_ == pytest.approx(spread, rel=1e-4)
    assert 0 < method.latent_above_floor_ < 0.15 * spread
    assert method.history_["latent"][-1] == pytest.approx(spread, rel=0.1)
    assert method.history_["latent above floor"][-1] == pytest.approx(method.history_["latent"][-1] - spread, abs=1e-4)
    assert control.latent_floor_ == 0.0
    assert control.history_["latent"][-1] < 0.01
    assert ((matched(method, X) - matched(control, X)) ** 2).mean() < 0.15 * spread


def test_the_gap_to_the_floor_is_a_mean_over_modalities_however_many_rows_each_has() -> None:
    X, y = planted()
    few = np.arange(90) < 6
    X = Views.of(primary="noisy", noisy=X["noisy"], clean=X["clean"], other=-X["clean"]).replace(
        "other", -X["clean"] * few[:, None], present=few
    )
    method = WithBanks(weight=1.0, target="random_class", schedule=FAST, width=8).fit(X, y)
    net: Any = method.net_
    gaps = []
    for name, rows in (("clean", X), ("other", X[few])):
        g = net.projections[name](net.encode(to_batch(rows), "noisy"))
        gaps.append((g - method.banks_[name].classes.mean(0)).square().mean().item())
    assert method.latent_above_floor_ == pytest.approx(np.mean(gaps), rel=1e-5)
    assert abs(gaps[0] - gaps[1]) > 0.01


@pytest.mark.parametrize("name", ["prompts", "clean"])
def test_a_modality_may_be_named_as_the_prompts_are(name: str) -> None:
    """Rows that lack it have no target, unless there are prompts, which need it in no row."""
    X, y = planted(n=30)
    there = np.arange(30) % 3 != 0
    X = Views.of(primary="noisy", noisy=X["noisy"], **{name: X["clean"]})
    X = X.replace(name, X[name] * there[:, None], present=there)
    truth = np.arange(30) % 3
    method = WithBanks(schedule=FAST, width=8).fit(X, y)
    batch = to_batch(X[there])
    net: Any = method.net_
    g = net.projections[name](net.encode(batch, "noisy"))
    z = F.layer_norm(net.teachers[name].encode(batch, name), (8,))
    assert method.again(X, truth)["latent"].item() == pytest.approx(0.5 * (g - z).square().mean().item(), rel=1e-5)
    prompts = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
    method = WithBanks(target="class", prompts=prompts, schedule=FAST, width=8).fit(X, y)
    z = (prompts - prompts.mean(1, keepdims=True)) / prompts.std(1, keepdims=True)
    by_hand = ((matched(method, X) - z[truth]) ** 2).mean()
    assert method.again(X, truth)["latent"].item() == pytest.approx(0.5 * by_hand, rel=1e-4)


def test_a_teacher_without_a_labelled_row_is_refused_and_given_features_need_none() -> None:
    X, y = planted(n=60, labelled=30)
    X = Views.of(primary="noisy", noisy=X["noisy"], clean=X["clean"], other=X["clean"])
    X = X.replace("other", X["clean"] * (np.arange(60) >= 30)[:, None], present=np.arange(60) >= 30)
    with pytest.raises(
        DataError, match="^No labelled row has 'other', so it cannot teach. Leave it out of the study.$"
    ):
        Latent(schedule=FAST).fit(X, y)
    Latent(schedule=FAST, teacher="given").fit(X, y)


def test_targets_by_class_are_means_of_the_labelled_rows() -> None:
    X, y = planted(n=30, labelled=15)
    method = WithBanks(target="class", schedule=FAST, width=8).fit(X, y)
    these = method.banks_["clean"]
    labelled = [[i for i in range(15) if i % 3 == k] for k in range(3)]
    assert these.classes.numpy() == pytest.approx(np.stack([these.own.numpy()[rows].mean(0) for rows in labelled]))
    assert method.latent_floor_ == 0.0


def test_the_own_target_of_unlabelled_rows_teaches_what_few_labels_and_other_targets_cannot() -> None:
    schedule = Schedule(updates=150, batch_size=64, device="cpu")
    scores: dict[str, list[float]] = {"unimodal": [], "paired": [], "other_row": []}
    for seed in range(2):
        X, y = planted(n=300, seed=seed, labelled=9, noise=2.0)
        test, truth = planted(n=300, seed=100 + seed, noise=2.0)
        for arm, reached in scores.items():
            method = (
                Unimodal(schedule=schedule, seed=seed)
                if arm == "unimodal"
                else Latent(weight=0.95, target=arm, schedule=schedule, seed=seed)
            )
            reached.append(method.fit(X, y).score(test, truth))
    mean = {arm: float(np.mean(values)) for arm, values in scores.items()}
    assert mean["paired"] > mean["unimodal"] + 0.02
    assert mean["paired"] > mean["other_row"] + 0.04


@pytest.mark.parametrize(
    ("parameters", "wording"),
    [
        ({"target": "pared"}, "The 'target' parameter of Latent must be one of 'paired', "),
        (
            {"target": "mean", "prompts": np.ones((3, 4))},
            "must be one of 'class', 'random_class', 'mean_class' where 'prompts' are given. Got 'mean'",
        ),
        (
            {"target": "class", "prompts": np.ones((2, 4))},
            r"must be of shape \(3, d\), a row for each of .* Got \(2, 4\)",
        ),
        ({"target": "class", "prompts": "about {}"}, "beside a 'language_model'. Got about {} instead"),
        (
            {"target": "class", "prompts": "about", "language_model": "hf:x"},
            "beside a 'language_model'. Got 'about' instead",
        ),
        ({"language_model": "hf:x"}, "a text with {} where 'language_model' is given. Got None"),
        ({"weight": 1.5}, r"The 'weight' parameter of Latent must be a number in \[0, 1\]"),
    ],
)
def test_wrong_parameters_are_refused_in_words(parameters: dict[str, Any], wording: str) -> None:
    X, y = planted(n=12)
    with pytest.raises(ConfigError, match=wording):
        Latent(schedule=FAST, **parameters).fit(X, y)


def test_what_the_data_do_not_allow_is_refused_in_words() -> None:
    X, y = planted(n=12)
    with pytest.raises(ConfigError, match="'target' parameter of Latent must be not by class for regression"):
        Latent(schedule=FAST, target="class").fit(X, np.arange(12.0))
    steps = Views.of(primary="noisy", noisy=X["noisy"], steps=np.ones((12, 3, 2)))
    with pytest.raises(ConfigError, match="must be 'auto' or 'trained' where rows differ in length, as in 'steps'"):
        Latent(schedule=FAST, teacher="given").fit(steps, y)
    half = np.arange(12) < 6
    apart = X.replace("clean", X["clean"], present=half).replace("noisy", X["noisy"], present=~half)
    with pytest.raises(DataError, match="needs training rows that have both 'noisy' and 'clean'. None has"):
        Latent(schedule=FAST).fit(apart, y)
