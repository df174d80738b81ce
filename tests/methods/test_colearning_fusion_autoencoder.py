"""Bimodal autoencoder: its loss on the augmented set, the regression it ends at, what is shared, and what it tells."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.cross_decomposition import CCA
from sklearn.linear_model import LinearRegression, LogisticRegression

from transference.colearning.fusion.autoencoder import Autoencoder
from transference.core.errors import ConfigError, DataError
from transference.core.registry import create
from transference.core.views import Views
from transference.data.loader import to_batch
from transference.train.schedule import Schedule

Array = NDArray[Any]
QUICK = Schedule(updates=8, batch_size=16, checks=2)


def data(*names: str, n: int = 24, primary: str = "x") -> tuple[Views, Array]:
    """These modalities, or all; motion has many lengths. Half of the rows lack t, a quarter a label."""
    g = np.random.default_rng(0)
    y = np.arange(n) % 2
    X = Views.of(
        primary=primary,
        kinds={"words": "text", "points": "set"},
        x=g.normal(size=(n, 4)) + y[:, None],
        t=g.normal(size=(n, 9)) * 5 - y[:, None],
        motion=g.normal(size=(n, 11, 3)) + y[:, None, None],
        picture=g.uniform(size=(n, 2, 8, 9)),
        film=g.uniform(size=(n, 3, 1, 34, 36)),
        words=g.integers(1, 30, (n, 5)),
        points=g.normal(size=(n, 6, 2)),
    )
    X = X.replace("motion", X["motion"], lengths=2 + np.arange(n) % 10)
    there = g.permutation(n) % 2 == 0
    X = X.replace("t", X["t"] * there[:, None], present=there)
    return X.only(names or X.names), np.where(np.arange(n) < 3 * n // 4, y, -1)


def standard(values: Array) -> Array:
    return (values - values.mean(0)) / values.std(0)


def test_the_losses_of_one_number_each_by_hand() -> None:
    """h = x + 2 t; x is told as h, t as h / 2. Of x = t = 1 that is 3, 1.5 from both, 1, .5 from x, 2, 1 from t."""
    X = Views.of(primary="x", x=[[5.0], [3.0]], t=[[-10.0], [-20.0]])
    method = Autoencoder(weight=6.0, depth=0, width=1, head="beside", schedule=Schedule(updates=1)).fit(X, ["a", "b"])
    net: Any = method.net_
    with torch.no_grad():
        for name, inward, outward in (("x", 1.0, 1.0), ("t", 2.0, 0.5)):
            net.encoders[name].linear.weight.fill_(inward)
            net.decoders[name][0].weight.fill_(outward)
            net.decoders[name][0].bias.zero_()
    losses = method.losses(net, to_batch(X, np.array([0, 1])))
    logit = net.head.weight.detach()[:, 0]  # h from x alone is 1 and -1
    task = -torch.stack([net.head.bias + logit, net.head.bias - logit]).log_softmax(1).diagonal().mean()
    assert {name: value.item() for name, value in losses.items()} == {
        "task": pytest.approx(task.item(), rel=1e-5),
        "reconstruction": pytest.approx(6 / 3 * ((3 - 1) ** 2 + (1.5 - 1) ** 2) / 2),
        "reconstruction from x": pytest.approx(6 / 3 * (0 + 0.5**2) / 2),
        "reconstruction from t": pytest.approx(6 / 3 * ((2 - 1) ** 2 + 0) / 2),
    }


@pytest.mark.parametrize("inputs", ["augmented", "all", "primary"])
def test_the_losses_are_those_of_the_augmented_rows_one_after_the_other(inputs: Any) -> None:
    """The paper's set: every row whole, then once a modality with the others at their mean; targets are whole."""
    X, y = data("x", "t", "points")
    method = Autoencoder(weight=2.0, depth=0, inputs=inputs, head="beside", width=5, schedule=QUICK).fit(X, y)
    net: Any = method.net_
    there = X.present["t"]
    spread = np.hstack([X["points"].mean(1), X["points"].std(1)])
    form = {"x": standard(X["x"]), "t": np.zeros((24, 9)), "points": standard(spread)}
    form["t"][there] = standard(X["t"][there])
    inward = {name: part.linear.weight.detach().numpy() for name, part in net.encoders.items()}
    outward = {name: [value.detach().numpy() for value in net.decoders[name].parameters()] for name in form}
    alone = {f"reconstruction from {name}": [name] for name in form}
    kept = {"reconstruction": list(form), **alone} if inputs == "augmented" else {"reconstruction": list(form)}
    kept = {"reconstruction from x": ["x"]} if inputs == "primary" else kept
    expected = {}
    for what, some in kept.items():
        errors: dict[str, list[float]] = {name: [] for name in form}
        for i in range(24):
            seen = [name for name in some if name != "t" or there[i]]
            for name in form if seen else ():
                if name != "t" or there[i]:
                    h = np.sum([inward[each] @ form[each][i] for each in seen], axis=0)
                    told = outward[name][0] @ h + outward[name][1]
                    errors[name].append(((told - form[name][i]) ** 2).sum() / form[name].shape[1])
        expected[what] = 2 * np.mean([np.mean(each) for each in errors.values()]) / len(kept)
    losses = method.losses(net, to_batch(X, y))
    assert set(losses) == {"task", *expected}
    for name, value in expected.items():
        assert losses[name].item() == pytest.approx(value, rel=1e-4), name


def test_the_variance_of_the_target_is_the_unit() -> None:
    """A network that tells every modality's mean misses all of it, whatever the kind."""
    X, y = data()
    X = X.replace("t", X["t"], present=np.ones(24, bool))
    method = Autoencoder(weight=1.0, head="beside", schedule=QUICK).fit(X, y)
    net: Any = method.net_
    with torch.no_grad():
        for decoder in net.decoders.values():
            decoder[-1].weight.zero_()
            decoder[-1].bias.zero_()
    values = [value.item() for name, value in method.losses(net, to_batch(X, y)).items() if name != "task"]
    assert len(values) == 1 + 7
    assert sum(values) == pytest.approx(1, rel=1e-4)


def gaussian(n: int, seed: int) -> Views:
    g, mix = np.random.default_rng([seed, n]), np.random.default_rng(5)
    s = g.normal(size=(n, 2))
    video = s @ mix.normal(size=(2, 4)) + 0.7 * g.normal(size=(n, 4))
    audio = s @ mix.normal(size=(2, 3)) + 0.7 * g.normal(size=(n, 3))
    return Views.of(primary="video", video=3 * video + 5, audio=0.1 * audio - 7)


def missed(told: Array, X: Views, name: str) -> float:
    return float(np.square(told - X[name]).mean() / np.square(X[name] - X[name].mean(0)).mean())


def test_a_linear_autoencoder_ends_at_the_regression_corrected_for_the_shared_decoder() -> None:
    """M_v = (C_tv - M_a C_av / 2) C_vv^-1 and the same for a: two equations, solved here for both maps."""
    X, test = gaussian(300, 0), gaussian(2000, 1)
    unit, middle = X["audio"].std(0), X["audio"].mean(0)
    both = np.hstack([standard(X["video"].astype(float)), standard(X["audio"].astype(float))])
    covariance, first = both.T @ both / 300, np.arange(7) < 4
    system = covariance * np.where(first[:, None] == first, 2, 1)  # seen in two of the three sets, together in one
    maps = np.linalg.solve(system, 2 * covariance)  # of video, then of audio: (7, 7), to all of t
    closed = (test["video"] - X["video"].mean(0)) / X["video"].std(0) @ maps[:4, 4:]
    regression = (LinearRegression().fit(X["video"], X["audio"]).predict(test["video"]) - middle) / unit

    schedule = Schedule(updates=250, learning_rate=3e-2, batch_size=300, weight_decay=0.0)
    told = {}
    for inputs in ("augmented", "primary", "all"):
        method = Autoencoder(depth=0, width=8, inputs=inputs, schedule=schedule).fit(X)
        told[inputs] = (method.generate(test, "audio") - middle) / unit
    np.testing.assert_allclose(told["augmented"], closed, atol=0.03)
    np.testing.assert_allclose(told["primary"], regression, atol=0.02)
    correction = regression @ maps[4:, 4:] / 2  # half of what the path of audio says of the audio told from video
    np.testing.assert_allclose(told["augmented"] + correction, regression, atol=0.04)
    assert np.abs(correction).max() > 0.5
    loss = {name: missed(values * unit + middle, test, "audio") for name, values in told.items()}
    assert loss["primary"] < loss["augmented"] < 0.5 < 0.9 < loss["all"]


def test_a_deep_one_comes_near_the_regression() -> None:
    X, test = gaussian(400, 0), gaussian(1000, 1)
    method = Autoencoder(width=32, schedule=Schedule(updates=250)).fit(X)
    best = missed(LinearRegression().fit(X["video"], X["audio"]).predict(test["video"]), test, "audio")
    assert best - 0.01 < missed(method.generate(test, "audio"), test, "audio") < best + 0.1


def shared(n: int, seed: int) -> tuple[Views, Array]:
    """Five numbers that both modalities mix, each in its own way; the class is the sign of the first."""
    g, mix = np.random.default_rng([seed, n]), np.random.default_rng(9)
    s = g.normal(size=(n, 5))
    audio = s @ mix.normal(size=(5, 8)) + 0.3 * g.normal(size=(n, 8))
    video = s @ mix.normal(size=(5, 10)) + 0.3 * g.normal(size=(n, 10))
    return Views.of(primary="video", video=video, audio=audio), np.where(s[:, 0] > 0, "up", "down")


def whitened_svd(x: Array, z: Array) -> tuple[Array, Array, Array]:
    """Directions of x, canonical correlations, directions of z: the SVD of the whitened cross-covariance."""
    roots = []
    for values in (x, z):
        scale, axes = np.linalg.eigh(np.cov(values.T))
        roots.append(axes / np.sqrt(scale) @ axes.T)
    cross = np.cov(x.T, z.T)[: x.shape[1], x.shape[1] :]
    u, correlations, v = np.linalg.svd(roots[0] @ cross @ roots[1], full_matrices=False)
    return roots[0] @ u, correlations, roots[1] @ v.T


def test_the_closed_form_of_canonical_correlations_is_that_of_an_iterative_one() -> None:
    X, _ = shared(300, 0)
    x, z = (X[name].astype(float) - X[name].astype(float).mean(0) for name in ("audio", "video"))
    one, correlations, other = whitened_svd(x, z)
    found = CCA(n_components=5, scale=False, max_iter=2000, tol=1e-12).fit(x, z).transform(x, z)
    for a, b, tolerance in ((x @ one, z @ other, 1e-6), (*found, 1e-3)):
        np.testing.assert_allclose(np.diagonal(np.corrcoef(a.T, b.T), len(a.T))[:5], correlations[:5], atol=tolerance)
    assert correlations[4] > 0.8 > 0.3 > correlations[5]


@pytest.fixture(scope="module")
def autoencoder() -> Autoencoder:
    """Learned from pairs without a label."""
    return Autoencoder(schedule=Schedule(updates=250)).fit(shared(600, 0)[0])


@pytest.mark.parametrize(("heard", "asked"), [("audio", "video"), ("video", "audio")])
def test_a_classifier_of_one_modality_reads_the_other(autoencoder: Autoencoder, heard: str, asked: str) -> None:
    """The third setting of the paper. Whatever the other modality holds, the classifier never sees it."""
    X, y = shared(600, 0)
    test, truth = shared(300, 1)
    assert set(y) == set(truth) == {"up", "down"}

    def protocol(X: Views, test: Views) -> Array:
        shown, new = autoencoder.embed(X)[heard], autoencoder.embed(test)[asked]
        return np.asarray(LogisticRegression(max_iter=2000).fit(shown, y).predict(new))

    answers = protocol(X, test)
    poisoned = [rows.replace(name, np.full_like(rows[name], np.nan)) for rows, name in ((X, asked), (test, heard))]
    assert answers.tolist() == protocol(*poisoned).tolist()
    assert answers.tolist() == protocol(X.only([heard], heard), test.only([asked], asked)).tolist()

    one, _, other = whitened_svd(X[heard].astype(float), X[asked].astype(float))
    reader = LogisticRegression().fit((X[heard] - X[heard].mean(0)) @ one[:, :5], y)
    baseline = np.mean(reader.predict((test[asked] - X[asked].mean(0)) @ other[:, :5]) == truth)
    assert baseline > 0.9
    assert np.mean(answers == truth) > baseline - 0.06  # chance: 0.5


def test_what_the_code_tells_is_shared_and_the_code_is_not(autoencoder: Autoencoder) -> None:
    """Pairs unseen in training find each other among 200 by what they tell. By the code they do not."""
    test, _ = shared(200, 2)
    net: Any = autoencoder.net_
    with torch.no_grad():
        code = {name: net.encode(to_batch(test), name).numpy() for name in ("audio", "video")}
    right = {}
    for what, found in (("code", code), ("told", autoencoder.embed(test))):
        unit = {name: value / np.linalg.norm(value, axis=1, keepdims=True) for name, value in found.items()}
        right[what] = np.mean((unit["video"] @ unit["audio"].T).argmax(1) == np.arange(200))
    assert right["told"] > 0.4  # chance: 0.005
    assert right["code"] < 0.1
    match = autoencoder.match(test.only(["video"]), test.only(["audio"], "audio")).argmax(1)
    assert np.mean(match == np.arange(200)) == right["told"]


def test_what_is_told_by_hand_alone_and_together(autoencoder: Autoencoder) -> None:
    X, _ = shared(50, 3)
    there = np.arange(50) % 2 == 0
    X = X.replace("audio", np.where(there[:, None], X["audio"], np.nan).astype(np.float32), present=there)
    net: Any = autoencoder.net_
    with torch.no_grad():
        audio, video = (net.encode(to_batch(X), name) for name in ("audio", "video"))
        for h, found in (
            (video, autoencoder.embed(X)["video"]),
            (audio[there], autoencoder.embed(X)["audio"][there]),
            (video + audio.where(torch.from_numpy(there)[:, None], 0.0), autoencoder.embed_together(X)),
        ):
            told = [net.decoders["audio"](h) / 8**0.5, net.decoders["video"](h) / 10**0.5]  # of total variance 1
            np.testing.assert_allclose(found, torch.cat(told, 1), atol=1e-5)


@pytest.mark.parametrize("name", ["t", "motion"])
def test_a_perfect_decoder_gives_back_all_that_a_form_holds(name: str) -> None:
    X, y = data("x", name)
    X = X.replace(name, X[name], present=np.ones(24, bool), lengths=np.full(24, 9) if name == "motion" else None)
    method = Autoencoder(width=8, schedule=QUICK).fit(X, y)
    net: Any = method.net_
    form, batch = net.forms[name], to_batch(X)
    wanted = form(batch.views[name], batch.lengths.get(name))
    net.decoders[name].register_forward_hook(lambda *_: wanted)
    told = torch.from_numpy(method.generate(X.only(["x"]), name))
    torch.testing.assert_close(form(told, batch.lengths.get(name)), wanted, atol=0.02, rtol=0)


def test_what_cannot_be_told_is_refused() -> None:
    X, y = data("x", "words", "motion")
    method = Autoencoder(width=8, schedule=QUICK).fit(X, y)
    with pytest.raises(
        DataError, match=r"The modality 'words' to generate must be numbers. Got 'text' instead. A text"
    ):
        method.generate(X, "words")
    with pytest.raises(DataError, match="There is no modality 'motions' to generate. Did you mean 'motion'?"):
        method.generate(X, "motions")
    nothing = Autoencoder(weight=0.0, schedule=QUICK).fit(X, y)
    with pytest.raises(ConfigError, match="The 'weight' of an Autoencoder that generates must be above 0 in its fit"):
        nothing.generate(X, "motion")
    with pytest.raises(ConfigError, match="The 'weight' of an Autoencoder that shows"):
        nothing.embed_together(X)


@pytest.mark.parametrize("more", [{}, {"head": "beside"}, {"depth": 0, "inputs": "primary"}])
def test_with_weight_zero_it_is_unimodal(more: dict[str, Any]) -> None:
    X, y = data("x", "t")
    same = Autoencoder(weight=0, schedule=QUICK, seed=4, **more).fit(X, y)
    alone = create("unimodal", schedule=QUICK, seed=4).fit(X, y)
    np.testing.assert_array_equal(same.predict_proba(X), alone.predict_proba(X))
    np.testing.assert_array_equal(same.embed(X)["x"], alone.embed(X)["x"])
    assert same.history_ == alone.history_
    beside = Autoencoder(weight=0.1, head="beside", schedule=QUICK, seed=4).fit(X, y)
    assert not np.array_equal(beside.predict_proba(X), alone.predict_proba(X))


@pytest.mark.parametrize("primary", ["x", "motion", "picture", "words", "points", "film"])
def test_every_kind_can_be_primary_and_nothing_else_is_read(primary: str) -> None:
    X, y = data(n=12, primary=primary)
    model = Autoencoder(width=8, schedule=Schedule(updates=2, batch_size=8)).fit(X, y)
    poisoned = X
    for name in X.secondary:
        poisoned = poisoned.replace(name, np.full_like(X[name], np.nan), present=np.zeros(12, bool))
    for other in (X.only([primary]), poisoned):
        np.testing.assert_array_equal(model.predict_proba(other), model.predict_proba(X))
        np.testing.assert_array_equal(model.generate(other, "t"), model.generate(X, "t"))


@pytest.mark.parametrize("head", ["after", "beside"])
@pytest.mark.parametrize("inputs", ["augmented", "all", "primary"])
def test_every_parameter_is_trained_also_in_batches_of_one(head: Any, inputs: Any) -> None:
    X, y = data("x", "t", "words")
    first, last = (
        Autoencoder(
            width=8, head=head, inputs=inputs, schedule=Schedule(updates=k, warmup=0, weight_decay=0, batch_size=1)
        ).fit(X, y)
        for k in (1, 20)
    )
    state = last.net_.state_dict()
    for name, parameter in first.net_.named_parameters():
        assert not torch.equal(parameter, state[name]), name
    assert list(last.embed(X)) == (["x"] if inputs == "primary" else ["t", "words", "x"])


def test_labels_do_not_touch_what_is_learned_before_them() -> None:
    X, y = data("x", "t")[0], np.arange(24) % 2
    for head, same in (("after", True), ("beside", False)):
        one, other = (Autoencoder(head=head, schedule=QUICK).fit(X, labels) for labels in (y, 1 - y))  # type: ignore[arg-type]
        states = [model.net_.state_dict() for model in (one, other)]
        assert all(torch.equal(value, states[1][n]) for n, value in states[0].items() if "head" not in n) == same
        assert not torch.equal(states[0]["head.weight"], states[1]["head.weight"])
    assert set(one.history_) == {"update", "task", "reconstruction", "reconstruction from x", "reconstruction from t"}


def test_absent_rows_padding_and_the_order_of_modalities_change_nothing() -> None:
    X, y = data("x", "t", "motion")
    beyond = np.arange(11)[None, :, None] >= X.lengths["motion"][:, None, None]
    rotten = X.replace("motion", np.where(beyond, 50, X["motion"]).astype(np.float32))
    rotten = rotten.replace("t", np.where(X.present["t"][:, None], X["t"], np.nan).astype(np.float32))
    turned = Views(dict(reversed(X.arrays.items())), X.specs, "x", present=X.present, lengths=X.lengths)
    models = [Autoencoder(head="beside", schedule=QUICK).fit(views, y) for views in (X, rotten, turned)]
    for other in models[1:]:
        np.testing.assert_array_equal(models[0].predict_proba(X), other.predict_proba(X))
        np.testing.assert_array_equal(models[0].generate(X, "motion"), other.generate(X, "motion"))


def planted(seed: int, noise: bool, n: int = 700) -> tuple[Views, Array, Array]:
    """y depends on two factors; t holds them, x mixes them with twenty louder ones. Few labels, many pairs."""
    g = np.random.default_rng(seed)
    factors, others = g.normal(size=(n, 2)), g.normal(size=(n, 20))
    y = (factors @ g.normal(size=2) > 0).astype(int)
    x = factors @ g.normal(size=(2, 40)) + 0.67 * others @ g.normal(size=(20, 40)) + 0.3 * g.normal(size=(n, 40))
    t = g.normal(size=(n, 2)) if noise else factors
    return Views.of(primary="x", x=x, t=t), y, np.where(np.arange(n) < 32, y, -1)


def test_what_is_shared_helps_and_noise_gives_nothing() -> None:
    found: dict[str, list[float]] = {"alone": [], "signal": [], "noise": []}
    for seed in range(3):
        for arm, scores in found.items():
            X, y, few = planted(seed, arm == "noise")  # the primary modality is the same
            name = "unimodal" if arm == "alone" else "colearning.fusion.autoencoder"
            method = create(name, schedule=Schedule(updates=120), width=32, seed=seed).fit(X[:500], few[:500])
            scores.append(method.score(X[500:], y[500:]))
    mean = {arm: np.mean(scores) for arm, scores in found.items()}
    assert mean["signal"] > mean["alone"] + 0.01
    assert mean["signal"] > mean["noise"] + 0.04
    assert mean["noise"] < mean["alone"] + 0.01
