"""Co-regularisation: the one kernel it equals, its limits, the term's gradient, and where agreement helps."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import make_moons
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Ridge
from sklearn.metrics.pairwise import linear_kernel, rbf_kernel

from transference.core.batch import Batch
from transference.core.errors import ConfigError
from transference.core.registry import create
from transference.core.views import Views
from transference.data.corrupt import control
from transference.data.loader import to_batch
from transference.deploy.export import export
from transference.nn.agreement import co_regularized, disagreement
from transference.testing import Subject, checks
from transference.train.schedule import Schedule

torch.set_num_threads(1)

METHOD = "induction.co_regularization"
SHORT = Schedule(updates=40, batch_size=16)


def scaled(x: Any) -> Any:
    """(n, d) what a vector is to the closed forms: standardised, of a mean squared length of 1."""
    return (x - x.mean(0)) / x.std(0) / np.sqrt(x.shape[1])


def two_views(n: int = 60, seed: int = 0) -> tuple[Any, Any, Any]:
    """Two views of random numbers and a target that both tell a part of."""
    generator = np.random.default_rng(seed)
    a, b = generator.normal(size=(n, 3)), generator.normal(size=(n, 4))
    return a, b, np.sin(a[:, :1]) + b[:, :1] ** 2 + 0.1 * generator.normal(size=(n, 1))


def moons(seed: int, n: int = 200) -> tuple[Views, Any, Any]:
    """A row of a class is any point of its moon in one view, and any of its line in the other; one label a class."""
    generator = np.random.default_rng(seed)
    truth = np.arange(n) % 2
    points, side = make_moons(2 * n, noise=0.1, random_state=seed)
    moon = np.stack([points[generator.choice(np.flatnonzero(side == c))] for c in truth])
    line = np.c_[generator.uniform(-2, 2, n), 3.0 * truth - 1.5 + 0.3 * generator.normal(size=n)]
    return Views.of(primary="moon", line=line, moon=moon), np.where(np.arange(n) < 2, truth, -1), truth


@pytest.mark.parametrize("kernel", [linear_kernel, rbf_kernel])
@pytest.mark.parametrize("mu", [0.0, 0.3, 40.0])
def test_the_sum_of_both_is_ridge_regression_with_one_kernel(kernel: Any, mu: float) -> None:
    """s - d_P' (I / mu + s_PP)^-1 d_P with s = K1/g1 + K2/g2 and d = K1/g1 - K2/g2, also for rows that were not there.

    In sums: g1 |f1|² + g2 |f2|² + mu sum_P (f1 - f2)² + sum_L (y - f1 - f2)²; means are of 10 and 40 rows.
    """
    a, b, y = two_views()
    g1, g2 = 0.7, 1.9
    k1, k2 = kernel(a) / g1, kernel(b) / g2
    seen = np.arange(60) < 40  # the last 20 rows are new
    features = {}
    for name, k in (("a", k1), ("b", k2)):  # features whose inner products are the kernel
        values, vectors = np.linalg.eigh(k)
        features[name] = vectors * np.sqrt(np.maximum(values, 0))
    target = np.where(np.arange(60)[:, None] < 10, y, np.nan)
    found = co_regularized(features, dict.fromkeys("ab", seen), target, ridge=1 / 10, weight=mu * 40 / 10, loss="sum")
    together = sum(features[name] @ found[name] for name in "ab")
    s, d, pairs = k1 + k2, k1 - k2, np.flatnonzero(seen)
    one = s.copy()
    if mu:
        inner = np.linalg.inv(np.eye(40) / mu + s[np.ix_(pairs, pairs)])
        one = s - d[:, pairs] @ inner @ d[pairs]
    expected = KernelRidge(alpha=1.0, kernel="precomputed").fit(one[:10, :10], y[:10]).predict(one[:, :10])
    assert np.abs(together - expected).max() < 1e-6 * np.abs(expected).max()


def test_the_more_it_weighs_the_closer_the_views_are() -> None:
    a, b, y = two_views()
    features = {"a": np.c_[a, a**2], "b": np.c_[b, b**2]}
    target = np.where(np.arange(60)[:, None] < 10, y, np.nan)
    for loss in ("each", "sum"):
        gaps = []
        for weight in (0.0, 1.0, 1e2, 1e4, 1e8):
            found = co_regularized(
                features, dict.fromkeys("ab", np.ones(60, bool)), target, ridge=0.01, weight=weight, loss=loss
            )
            gaps.append(np.abs(features["a"] @ found["a"] - features["b"] @ found["b"]).max())
        assert (np.diff(gaps) < 0).all()
        assert gaps[0] > 0.5
        assert gaps[-1] < 1e-6


@pytest.mark.parametrize("loss", ["each", "sum"])
def test_the_closed_form_by_a_loop_with_three_views_and_gaps(loss: str) -> None:
    """The objective, row by row; the solution is where no direction of it descends."""
    generator = np.random.default_rng(1)
    features = {name: generator.normal(size=(12, 2)) for name in "abc"}
    present = {"a": np.arange(12) != 3, "b": np.arange(12) % 4 != 1, "c": np.arange(12) % 3 != 2}
    target = np.where(np.arange(12)[:, None] < 7, generator.normal(size=(12, 2)), np.nan)
    target[5] = np.nan

    def objective(weights: dict[str, Any]) -> float:
        f = {(v, i): features[v][i] @ weights[v] for v in "abc" for i in range(12) if present[v][i]}
        total = sum(0.05 * (weights[v] ** 2).sum() for v in "abc")
        known = [i for i in range(12) if not np.isnan(target[i]).any()]
        if loss == "each":
            for v in "abc":
                total += np.mean([((target[i] - f[v, i]) ** 2).sum() for i in known if present[v][i]])
        else:
            errors = []
            for i in known:
                held = [f[v, i] for v in "abc" if present[v][i]]
                errors.append(((target[i] - 3 * sum(held) / len(held)) ** 2).sum())
            total += np.mean(errors)
        for v, u in combinations("abc", 2):
            both = [i for i in range(12) if present[v][i] and present[u][i]]
            total += 0.8 / 3 * np.mean([((f[v, i] - f[u, i]) ** 2).sum() for i in both])
        return float(total)

    found = co_regularized(features, present, target, ridge=0.05, weight=0.8, loss=loss)
    least = objective(found)
    for name in "abc":
        for place in np.ndindex(2, 2):
            step = np.zeros((2, 2))
            step[place] = 1e-3
            moved = [objective({**found, name: found[name] + sign * step}) - least for sign in (1, -1)]
            assert min(moved) > 0
            assert abs(moved[0] - moved[1]) < 1e-9  # a parabola with its lowest point here


@pytest.mark.parametrize("form", ["linear", "kernel"])
def test_a_closed_form_by_the_equations_of_its_dual(form: str) -> None:
    """f_v = K_v a_v with ridge a_v + (labelled residual) / l + weight (f_v - f_u) / n = 0, for the sum and for each."""
    a, b, y = two_views()
    y = y[:, 0] * 40 + 500
    X = Views.of(primary="a", a=a, b=b)
    few = np.where(np.arange(60) < 15, y, np.nan).astype(np.float32)
    kernel = linear_kernel if form == "linear" else lambda x: rbf_kernel(x, gamma=0.6)
    k1, k2 = kernel(scaled(a)), kernel(scaled(b))
    mean = y[:15].mean()
    labelled = np.diag((np.arange(60) < 15) / 15)
    apart = np.kron([[1, -1], [-1, 1]], 2.5 / 60 * np.eye(60))
    for loss, fit in (("each", np.kron(np.eye(2), labelled)), ("sum", np.kron(np.ones((2, 2)), labelled))):
        system = 0.03 * np.eye(120) + (fit + apart) @ np.block([[k1, 0 * k1], [0 * k2, k2]])
        residual = np.tile(np.where(np.arange(60) < 15, (y - mean) / 15, 0.0), 2)
        answer = k1 @ np.linalg.solve(system, residual)[:60] * (1 if loss == "each" else 2) + mean
        method = create(METHOD, form=form, loss=loss, ridge=0.03, weight=2.5, gamma=0.6).fit(X, few)
        assert np.allclose(method.predict(X), answer, atol=1e-3 * y.std())
        assert method.history_["update"] == [1.0]


def test_without_weight_a_closed_form_is_ridge_regression_of_the_primary() -> None:
    """Means for sums: the alpha of 15 labelled rows is 15 times the ridge."""
    a, b, y = two_views()
    X, few = Views.of(primary="a", a=a, b=b), np.where(np.arange(60) < 15, y[:, 0], np.nan).astype(np.float32)
    z, mean = scaled(a), y[:15, 0].mean()
    linear = Ridge(alpha=15 * 0.02, fit_intercept=False).fit(z[:15], y[:15, 0] - mean).predict(z) + mean
    method = create(METHOD, form="linear", weight=0.0, ridge=0.02).fit(X, few)
    assert np.allclose(method.predict(X), linear, atol=1e-4)
    kernel = KernelRidge(alpha=15 * 0.02, kernel="rbf", gamma=0.7).fit(z[:15], y[:15, 0] - mean).predict(z) + mean
    method = create(METHOD, form="kernel", weight=0.0, ridge=0.02, gamma=0.7).fit(X, few)
    assert np.allclose(method.predict(X), kernel, atol=1e-4)


def test_classes_are_values_that_sum_to_1() -> None:
    """Three classes by three ridge regressions of 1 and 0; the probabilities are their values where none is below 0."""
    generator = np.random.default_rng(0)
    truth = np.arange(60) % 3
    a = generator.normal(size=(60, 4)) + np.eye(3)[truth] @ generator.normal(size=(3, 4))
    X = Views.of(primary="a", a=a, b=generator.normal(size=(60, 2)))
    method = create(METHOD, form="linear", weight=0.0, ridge=0.1).fit(X, np.array(["u", "v", "w"])[truth])
    z, wanted = scaled(a), np.eye(3)[truth]
    values = Ridge(alpha=6.0, fit_intercept=False).fit(z, wanted - wanted.mean(0)).predict(z) + wanted.mean(0)
    assert np.allclose(values.sum(1), 1)
    expected = np.maximum(values, 1e-3)
    assert (values < 1e-3).any()
    assert np.allclose(method.predict_proba(X), expected / expected.sum(1, keepdims=True), atol=1e-4)
    several = np.c_[truth > 0, truth == 2].astype(int)
    both = create(METHOD, form="linear", weight=0.0, ridge=0.1).fit(X, several).predict_proba(X)
    assert np.allclose(both[:, 1], np.clip(values[:, 2], 1e-3, 1 - 1e-3), atol=1e-4)


def test_the_gradient_of_the_term_and_batches_without_labels() -> None:
    f = torch.tensor([[1.0, -2.0], [0.5, 3.0]], requires_grad=True)
    g = torch.tensor([[0.0, 1.0], [2.0, 3.0]], requires_grad=True)
    (2 * disagreement(f, g)).backward()  # times the rows, to have each row's term
    gradients: Any = f.grad, g.grad
    assert torch.equal(gradients[0], 2 * (f - g).detach())
    assert torch.equal(gradients[1], -2 * (f - g).detach())
    X, y, _ = moons(0, n=20)
    method: Any = create(METHOD, schedule=Schedule(updates=1)).fit(X, y)
    losses = method.losses(method.net_, to_batch(X[5:], np.full(15, -1)))
    assert {name: value.item() > 0 for name, value in losses.items()} == {
        "task": False,
        "task of line": False,
        "disagreement of moon and line": True,
    }
    sum(losses.values()).backward()
    assert all(part.grad.isfinite().all() for part in method.net_.parameters())
    assert disagreement(f[:0], g[:0]).item() == 0.0


@pytest.mark.parametrize("compare", ["probabilities", "scores"])
def test_the_losses_of_networks_by_a_loop(compare: str) -> None:
    X = Views.of(primary="p", p=np.eye(4), q=np.eye(4), r=np.eye(4))
    method: Any = create(METHOD, weight=0.6, compare=compare, schedule=Schedule(updates=1)).fit(X, [0, 1, 0, 1])
    generator = np.random.default_rng(0)
    told = {name: generator.normal(size=(4, 2)) for name in "pqr"}
    present = {"p": [True] * 4, "q": [True, True, False, True], "r": [False, True, True, True]}

    class Net:
        head = staticmethod(lambda x: x)
        heads = {"q": lambda x: x, "r": lambda x: x}

        @staticmethod
        def encode(batch: Batch, name: str) -> Any:
            return torch.tensor(told[name])

    here = {name: torch.tensor(mask) for name, mask in present.items()}
    target = [0, -1, 1, 1]
    got = method.losses(Net, Batch({}, here, {}, torch.tensor(target), torch.arange(4)))
    p = {name: np.exp(f) / np.exp(f).sum(1, keepdims=True) for name, f in told.items()}
    for name in "pqr":
        known = [i for i in range(4) if target[i] >= 0 and present[name][i]]
        expected = -np.mean([np.log(p[name][i, target[i]]) for i in known])
        assert float(got["task" if name == "p" else f"task of {name}"]) == pytest.approx(expected)
    f = p if compare == "probabilities" else told
    for u, v in (("p", "q"), ("p", "r"), ("q", "r")):
        both = [i for i in range(4) if present[u][i] and present[v][i]]
        expected = 0.2 * np.mean([((f[u][i] - f[v][i]) ** 2).sum() for i in both])
        assert float(got[f"disagreement of {u} and {v}"]) == pytest.approx(expected)


@pytest.mark.parametrize("task", ["classification", "regression", "multilabel"])
def test_without_weight_networks_are_the_baseline_bit_for_bit(task: str) -> None:
    generator = np.random.default_rng(0)
    X = Views.of(primary="a", a=generator.normal(size=(40, 3)), b=generator.normal(size=(40, 2)))
    X = X.replace("a", X["a"], present=np.arange(40) != 7)
    value = X["a"][:, 0] + X["b"][:, 0]
    y: Any = {"classification": value > 0, "regression": value, "multilabel": np.c_[value > 0, value > 1]}[task]
    y = np.where(np.arange(40) < 30, y, -1) if task == "classification" else y.astype(np.float32)
    fits: list[Any] = [
        create(name, schedule=SHORT, seed=3, **more).fit(X, y)
        for name, more in (("unimodal", {}), (METHOD, {"weight": 0.0}), (METHOD, {"weight": 0.5}))
    ]
    alone, ours, other = (method.decide(X.only(["a"])) for method in fits)
    assert np.array_equal(alone, ours)
    assert not np.array_equal(alone, other)
    assert [list(method.net_.encoders) for method in fits] == [["a"], ["a"], ["a", "b"]]


@pytest.mark.parametrize("form", ["kernel", "deep"])
def test_two_moons_are_told_apart_by_agreeing_with_two_lines(form: str) -> None:
    """With one label a class, moderate agreement with the other view lowers the error, not with a shuffled one."""
    settings: Any = {"form": form, "gamma": 4.0, "ridge": 0.01, "schedule": Schedule(updates=150, batch_size=64)}
    errors: dict[Any, list[float]] = {"without": [], "moderate": [], "shuffled": []}
    for seed in range(4):
        X, y, truth = moons(seed)
        mixed = control(X, "shuffle", 0, ["line"])
        for name, rows, weight in (("without", X, 0.0), ("moderate", X, 1.0), ("shuffled", mixed, 1.0)):
            method = create(METHOD, weight=weight, **settings).fit(rows, y)
            errors[name].append(1 - method.score(X, truth))
    mean = {name: float(np.mean(value)) for name, value in errors.items()}
    assert mean["moderate"] < 0.6 * mean["without"]
    assert mean["shuffled"] > 0.9 * mean["without"]


@pytest.mark.parametrize("form", ["deep", "linear", "kernel"])
def test_predictions_do_not_read_the_secondary(form: str) -> None:
    X, y, _ = moons(0, n=40)
    method = create(METHOD, form=form, schedule=SHORT).fit(X, y)
    poisoned = X.replace("line", np.full_like(X["line"], np.nan))
    assert np.array_equal(method.predict_proba(X), method.predict_proba(poisoned))
    assert np.array_equal(method.predict_proba(X), method.predict_proba(X.only(["moon"])))


def test_few_centres_are_nearly_as_good_as_all() -> None:
    X, y, _ = moons(1)
    whole, few, one = (
        create(METHOD, form="kernel", centres=centres, gamma=2.0).fit(X, y).predict_proba(X)[:, 1]
        for centres in (200, 60, 1)
    )
    assert np.abs(whole - few).max() < 0.1
    assert np.abs(whole - one).max() > 0.3


@pytest.mark.parametrize(("form", "loss"), [("linear", "each"), ("kernel", "each"), ("kernel", "sum")])
def test_closed_forms_keep_the_promises_too(form: str, loss: str, tmp_path: Path) -> None:
    """All but those of networks that are trained: there is no loss to tell of, and a seed changes nothing."""
    of_networks = {"another_seed_differs", "history_is_a_table", "every_parameter_learns"}
    subject = Subject(lambda: create(METHOD, form=form, loss=loss, weight=1.0))
    asked = [check for check in checks(subject) if check.name not in of_networks]
    assert len(asked) > 30
    for check in asked:
        check(subject)
    assert export(subject.fitted, subject.rows(12, seed=3), tmp_path / "one.onnx") < 1e-4


@pytest.mark.parametrize(
    ("parameters", "wording"),
    [
        ({"form": "rbf"}, "The 'form' parameter of CoRegularization must be one of 'deep', 'linear', 'kernel'"),
        ({"loss": "sum"}, "The 'loss' of CoRegularization must be 'each' with the form 'deep'. Got 'sum' instead."),
    ],
)
def test_wrong_parameters_are_told_in_words(parameters: Any, wording: str) -> None:
    with pytest.raises(ConfigError, match=wording):
        create(METHOD, **parameters).check_parameters()
