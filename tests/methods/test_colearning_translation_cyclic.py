"""Cyclic translation: the two losses by hand, one encoder for both ways, and when it helps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from transference.colearning.translation.cyclic import Cyclic, fit_to
from transference.core.errors import ConfigError
from transference.core.registry import create
from transference.core.spec import Kind
from transference.core.views import Views
from transference.data.loader import to_batch
from transference.nn.losses import unexplained
from transference.train.schedule import Schedule

QUICK = Schedule(updates=12, batch_size=16, validation=0.0)
KINDS: dict[str, Kind] = {"words": "text", "points": "set"}


def data(n: int = 40, seed: int = 0, primary: str = "x") -> tuple[Views, NDArray[Any]]:
    """Vectors x and t, a series of many lengths, an image, a text and a set; the last quarter has no label."""
    g = np.random.default_rng(seed)
    y = g.integers(0, 2, n)
    X = Views.of(
        primary=primary,
        kinds=KINDS,
        x=g.normal(size=(n, 4)) + y[:, None],
        t=g.normal(size=(n, 9)) - y[:, None],
        motion=g.normal(size=(n, 11, 3)) + y[:, None, None],
        picture=g.uniform(size=(n, 2, 8, 9)),
        words=g.integers(1, 30, (n, 5)),
        points=g.normal(size=(n, 6, 2)),
    )
    X = X.replace("motion", X["motion"], lengths=g.integers(2, 12, n))
    return X, np.where(np.arange(n) < 3 * n // 4, y, -1)


def test_padded_or_folded_numbers_keep_their_variance() -> None:
    x = torch.randn(20000, 7, generator=torch.Generator().manual_seed(0))
    assert torch.equal(fit_to(x, 9)[:, :7], x)
    assert fit_to(x, 9)[:, 7:].abs().max() == 0
    folded = fit_to(x, 3)  # seven numbers in three layers: 3 + 3 + 1
    torch.testing.assert_close(folded[:, 0], (x[:, 0] + x[:, 3] + x[:, 6]) / 3**0.5)
    assert folded[:, 0].var().item() == pytest.approx(1.0, abs=0.05)


def test_the_unexplained_share_counts_the_rows_that_are_there() -> None:
    target = torch.tensor([[2.0, 0.0], [0.0, 4.0], [9.0, 9.0]])
    share = unexplained(torch.zeros(3, 2), target, torch.tensor(5.0), torch.tensor([True, True, False]))
    assert share.item() == pytest.approx((4 / 5 + 16 / 5) / 2)
    assert unexplained(torch.zeros(3, 2), target, torch.tensor(5.0), torch.zeros(3, dtype=torch.bool)).item() == 0.0


def test_the_losses_by_hand() -> None:
    X, y = data()
    X = X.only(["x", "t"])
    model = Cyclic(translation=3.0, cycle=0.5, schedule=QUICK).fit(X, y)
    net, batch = model.net_, to_batch(X, y)
    losses = {name: value.item() for name, value in model.losses(net, batch).items()}
    with torch.no_grad():
        x = torch.from_numpy((X["x"] - X["x"].mean(0)) / X["x"].std(0))
        t = torch.from_numpy((X["t"] - X["t"].mean(0)) / X["t"].std(0))
        h = net.encoders["x"].body(x, None)
        answer = net.decoders["t"](h)  # (n, 9)
        folded = (answer[:, :4] + answer[:, 4:8] + torch.nn.functional.pad(answer[:, 8:], (0, 3))) / 3**0.5
        back = net.decoders["t"](net.encoders["x"].body(folded, None))[:, :4]
        log_p = net.head(h).log_softmax(1)[np.arange(30), y[:30]]
    assert losses["task"] == pytest.approx(-log_p.mean().item(), rel=1e-4)
    assert losses["translation"] == pytest.approx(3 * ((answer - t) ** 2).sum(1).mean().item() / 9, rel=1e-4)
    assert losses["cycle"] == pytest.approx(0.5 * ((back - x) ** 2).sum(1).mean().item() / 4, rel=1e-4)


def test_several_secondary_modalities_count_by_the_mean_of_their_losses() -> None:
    X, y = data()
    X = Views.of(primary="x", x=X["x"], t=X["t"], u=X["t"][:, :2] * 5 + X["x"][:, :2])
    model = Cyclic(translation=3.0, cycle=0.5, schedule=QUICK).fit(X, y)
    net, translation, cycle = model.net_, [], []
    with torch.no_grad():
        x, t, u = (torch.from_numpy((X[name] - X[name].mean(0)) / X[name].std(0)) for name in ("x", "t", "u"))
        h = net.encoders["x"].body(x, None)
        for name, value, d in (("t", t, 9), ("u", u, 2)):
            answer = net.decoders[name](h)[:, :d]
            translation.append(((answer - value) ** 2).sum(1).mean().item() / d)
            back = net.decoders[name](net.encoders["x"].body(fit_to(answer, 4), None))[:, :4]
            cycle.append(((back - x) ** 2).sum(1).mean().item() / 4)
    losses = model.losses(net, to_batch(X, y))
    assert losses["translation"].item() == pytest.approx(3 * sum(translation) / 2, rel=1e-4)
    assert losses["cycle"].item() == pytest.approx(0.5 * sum(cycle) / 2, rel=1e-4)


@pytest.mark.parametrize("primary", ["x", "motion", "picture", "words", "points"])
def test_every_kind_can_be_primary_and_every_parameter_gets_a_gradient(primary: str) -> None:
    X, y = data(24, primary=primary)
    model = Cyclic(width=8, schedule=Schedule(updates=2, batch_size=8)).fit(X, y)
    model.net_.zero_grad()
    sum(model.losses(model.net_, to_batch(X[:9], y[:9])).values()).backward()
    for name, parameter in model.net_.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_the_cycle_goes_through_the_same_encoder_and_decoder() -> None:
    X, y = data()
    model = Cyclic(translation=0.0, schedule=QUICK).fit(X, y)
    net = model.net_
    names = {name.partition(".")[0] for name, _ in net.named_parameters()}
    assert names == {"encoders", "head", "decoders"}
    assert set(net.encoders) == {"x"}
    encoded: list[torch.Tensor] = []
    decoded: list[torch.Tensor] = []
    net.encoders["x"].linear.register_forward_hook(lambda part, given, answer: encoded.append(answer))
    net.decoders["t"].register_forward_hook(lambda part, given, answer: decoded.append(answer))
    net.zero_grad()
    loss = model.losses(net, to_batch(X, y))["cycle"]
    assert len(encoded) == 1 + 5  # x once, and every secondary modality's translation
    assert len(decoded) == 2
    (first,) = torch.autograd.grad(loss, encoded[0], retain_graph=True)
    assert (first.abs().sum(1) > 0).all()  # from the cycle through the decoder to the encoding of x
    loss.backward()
    assert net.encoders["x"].linear.weight.grad.abs().sum() > 0
    assert net.head.weight.grad is None


def test_with_weights_zero_it_is_unimodal() -> None:
    X, y = data()
    same = Cyclic(translation=0.0, cycle=0.0, schedule=QUICK, seed=4).fit(X, y)
    alone = create("unimodal", schedule=QUICK, seed=4).fit(X, y)
    np.testing.assert_array_equal(same.predict_proba(X), alone.predict_proba(X))
    assert same.history_ == alone.history_
    assert set(same.net_.state_dict()) == set(alone.net_.state_dict())


@pytest.mark.parametrize("primary", ["x", "motion"])
def test_nothing_but_the_primary_modality_of_the_row_itself_is_read(primary: str) -> None:
    X, y = data(primary=primary)
    model = Cyclic(schedule=QUICK).fit(X, y)
    answer = model.predict_proba(X)
    poisoned = X
    for name in X.secondary:
        poisoned = poisoned.replace(name, np.full_like(X[name], np.nan))
    for other in (X.only([primary]), poisoned):
        np.testing.assert_array_equal(model.predict_proba(other), answer)
    rows = np.array([17, 3])
    np.testing.assert_allclose(model.predict_proba(X[rows]), answer[rows], atol=1e-6)
    np.testing.assert_allclose(model.predict_proba(X[5]), answer[5:6], atol=1e-6)


def test_padding_changes_no_loss() -> None:
    X, y = data(primary="motion")
    model = Cyclic(schedule=QUICK).fit(X, y)
    garbage = X["motion"].copy()
    for row, length in enumerate(X.lengths["motion"]):
        garbage[row, length:] = 50.0
    model.net_.eval()
    first, second = (model.losses(model.net_, to_batch(views, y)) for views in (X, X.replace("motion", garbage)))
    for name, value in first.items():
        torch.testing.assert_close(second[name], value)


def test_rows_without_label_or_without_secondary_modality_count_where_they_can() -> None:
    X, y = data()
    X = X.only(["x", "t"])
    paired = np.arange(40) % 2 == 0
    X = X.replace("t", X["t"] * paired[:, None], present=paired)
    model = Cyclic(schedule=QUICK).fit(X, y)
    model.net_.eval()
    whole = model.losses(model.net_, to_batch(X, y))
    pairs = model.losses(model.net_, to_batch(X[paired], y[paired]))
    known = model.losses(model.net_, to_batch(X[:30], y[:30]))
    torch.testing.assert_close(whole["translation"], pairs["translation"])
    torch.testing.assert_close(whole["task"], known["task"])
    assert abs((whole["translation"] - known["translation"]).item()) > 1e-3


def three(seed: int = 0) -> tuple[Views, NDArray[Any]]:
    """Vectors x, t and u, whose rows are partly absent in u."""
    X, y = data(seed=seed)
    there = np.arange(40) % 4 != 1
    return Views.of(primary="x", x=X["x"], t=X["t"], u=X["t"][:, :6] * 5 + X["motion"][:, 0, :2].repeat(3, 1)).replace(
        "u", X["t"][:, :6] * 5, present=there
    ), y


@pytest.mark.parametrize("order", [None, ("u", "t")])
def test_one_after_another_by_hand(order: tuple[str, str] | None) -> None:
    X, y = three()
    model = Cyclic(translation=3.0, cycle=0.5, hierarchical=True, order=order, schedule=QUICK).fit(X, y)
    net: Any = model.net_
    first, second = order or ("t", "u")
    sizes = {"t": 9, "u": 6}
    assert {name: net.decoders[name][2].out_features for name in sizes} == sizes  # x has four numbers
    with torch.no_grad():
        standard = {}
        for name in X.names:
            there = X[name][X.present[name]]
            standard[name] = torch.from_numpy((X[name] - there.mean(0)) / there.std(0))
        h = net.encoders["x"].body(standard["x"], None)
        deeper = h + net.further[second].deep[3](net.further[second].deep[0](h).relu())
        missed = {}
        for name, encoding in ((first, h), (second, deeper)):
            error = ((net.decoders[name](encoding) - standard[name]) ** 2).sum(1).numpy()
            missed[name] = error[X.present[name]].mean() / sizes[name]
        again = net.encoders["x"].body(fit_to(net.decoders[first](h), 4), None)
        back = ((net.decoders[first](again)[:, :4] - standard["x"]) ** 2).sum(1).mean().item() / 4
        p = net.head(deeper).softmax(1)
    losses = {name: value.item() for name, value in model.losses(net, to_batch(X, y)).items()}
    assert losses["task"] == pytest.approx(-p.log()[np.arange(30), y[:30]].mean().item(), rel=1e-4)
    assert losses["translation"] == pytest.approx(3 * sum(missed.values()) / 2, rel=1e-4)
    assert losses["cycle"] == pytest.approx(0.5 * back, rel=1e-4)
    np.testing.assert_allclose(model.predict_proba(X), p.numpy(), atol=1e-5)


def test_one_after_another_keeps_what_a_method_of_the_primary_modality_promises() -> None:
    X, y = three()
    model = Cyclic(hierarchical=True, schedule=QUICK).fit(X, y)
    answer = model.predict_proba(X)
    poisoned = X.replace("t", np.full_like(X["t"], np.nan)).replace("u", X["u"] * 1e6)
    for other in (X.only(["x"]), poisoned, X.without("u")):
        np.testing.assert_array_equal(model.predict_proba(other), answer)
    np.testing.assert_allclose(model.predict_proba(X[[17, 3]]), answer[[17, 3]], atol=1e-6)
    net: Any = model.net_
    losses = model.losses(net, to_batch(X, y))
    for name in ("translation", "cycle"):
        net.zero_grad()
        losses[name].backward(retain_graph=True)
        assert net.encoders["x"].linear.weight.grad.abs().sum() > 0
        assert (net.further["u"].deep[0].weight.grad is None) == (name == "cycle")
    zero = Cyclic(translation=0.0, cycle=0.0, hierarchical=True, schedule=QUICK).fit(X, y)
    np.testing.assert_array_equal(zero.predict_proba(X), create("unimodal", schedule=QUICK).fit(X, y).predict_proba(X))


def test_each_encoding_is_of_the_one_before() -> None:
    X, y = three()
    X = Views.of(primary="x", x=X["x"], t=X["t"], u=X["u"], v=X["u"][:, :3] ** 2)
    net: Any = Cyclic(hierarchical=True, order=("v", "t", "u"), schedule=QUICK).fit(X, y).net_
    found = net.encodings(to_batch(X))
    assert list(found) == ["v", "t", "u"]
    torch.testing.assert_close(found["v"], net.encode(to_batch(X), "x"))
    for before, name in (("v", "t"), ("t", "u")):
        torch.testing.assert_close(found[name], found[before] + net.further[name].deep(found[before]))


def test_with_two_modalities_there_is_nothing_to_put_one_after_another() -> None:
    X, y = three()
    X = X.only(["x", "t"])
    first, second = (Cyclic(hierarchical=flag, schedule=QUICK).fit(X, y).predict_proba(X) for flag in (False, True))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("order", [("t",), ("t", "v"), ("x", "t", "u")])
def test_an_order_of_other_modalities_is_refused(order: tuple[str, ...]) -> None:
    X, y = three()
    with pytest.raises(ConfigError, match="The 'order' parameter of Cyclic must be None or all of 't', 'u', each once"):
        Cyclic(hierarchical=True, order=order, schedule=QUICK).fit(X, y)


def test_what_an_absent_row_holds_changes_nothing_in_training() -> None:
    X, y = three()
    nothing = np.where(X.present["u"][:, None], X["u"], np.nan).astype(np.float32)
    first, second = (Cyclic(schedule=QUICK).fit(views, y).predict_proba(X) for views in (X, X.replace("u", nothing)))
    np.testing.assert_array_equal(first, second)


def planted(seed: int, noise: bool, n: int = 800, labelled: int = 16) -> tuple[Views, NDArray[Any], NDArray[Any]]:
    """y depends on two factors; t holds them, x mixes them with twenty louder ones. Few labels, many pairs."""
    g = np.random.default_rng(seed)
    factors, others = g.normal(size=(n, 2)), g.normal(size=(n, 20))
    y = (factors @ g.normal(size=2) > 0).astype(int)
    x = factors @ g.normal(size=(2, 40)) + 0.67 * others @ g.normal(size=(20, 40)) + 0.3 * g.normal(size=(n, 40))
    t = g.normal(size=(n, 2)) if noise else factors
    few = y.copy()
    few[labelled:] = -1
    return Views.of(primary="x", x=x, t=t), y, few


def test_translation_finds_what_is_shared_and_noise_gives_nothing() -> None:
    gains: dict[bool, list[float]] = {False: [], True: []}
    schedule = Schedule(updates=120, learning_rate=1e-2)
    for seed in range(3):
        for noise, gain in gains.items():
            X, y, few = planted(seed, noise)
            alone, cyclic = (
                create(name, schedule=schedule, width=16, seed=seed).fit(X[:500], few[:500]).score(X[500:], y[500:])
                for name in ("unimodal", "colearning.translation.cyclic")
            )
            gain.append(cyclic - alone)
    assert np.mean(gains[False]) > 0.05
    assert np.mean(gains[True]) < 0.01


def linear_tanh(seed: int, n: int = 500, labelled: int = 40) -> tuple[Views, NDArray[Any], NDArray[Any]]:
    """t = A x and u = B x, without noise; y = tanh of t and u. A and B turn away from the loudest directions of x."""
    g = np.random.default_rng(seed)
    turn = np.linalg.qr(g.normal(size=(30, 30)))[0]
    hidden = g.normal(size=(n, 30)) * np.where(np.arange(30) < 4, 1.0, 1.5)
    angle = g.uniform(0.3, 1.2)
    t, u = hidden[:, :2], hidden[:, 2:4]
    y = np.tanh(np.cos(angle) * t[:, 0] + np.sin(angle) * u[:, 1])
    few = y.copy()
    few[labelled:] = np.nan
    return Views.of(primary="x", x=hidden @ turn, t=t, u=u), y, few


def test_a_joint_representation_regresses_better_than_one_of_the_primary_modality_alone() -> None:
    gains: dict[bool, list[float]] = {False: [], True: []}
    schedule = Schedule(updates=100, learning_rate=1e-2)
    for seed in range(3):
        X, y, few = linear_tanh(seed)
        alone = create("unimodal", schedule=schedule, width=16, seed=seed).fit(X[:300], few[:300])
        for hierarchical, gain in gains.items():
            joint = Cyclic(hierarchical=hierarchical, schedule=schedule, width=16, seed=seed).fit(X[:300], few[:300])
            gain.append(joint.score(X[300:], y[300:]) - alone.score(X[300:], y[300:]))
    assert min(np.mean(gain) for gain in gains.values()) > 0.15


def test_without_translation_there_is_no_further_encoding() -> None:
    X, y = three()
    names = [
        name for name, _ in Cyclic(hierarchical=True, translation=0.0, schedule=QUICK).fit(X, y).net_.named_parameters()
    ]
    assert not any(name.startswith("further") for name in names)
