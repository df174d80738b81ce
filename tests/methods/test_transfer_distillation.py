"""Distillation: the sum that is minimised, the labels that are taught, and what it must equal."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier

from transference.core.batch import Batch
from transference.core.errors import ConfigError, DataError
from transference.core.registry import create
from transference.core.views import Views
from transference.data.corrupt import control
from transference.nn.pseudo import match_prior, most_confident, quotas, sharpen, soften
from transference.train.schedule import Schedule

SHORT = Schedule(updates=60, batch_size=16)


def pairs(n: int = 240, labelled: int = 12, seed: int = 0, share: float = 0.5) -> tuple[Views, Any, Any]:
    """The primary is a noisy copy of a clear secondary; few rows are labelled. Returns Views, y, all labels."""
    generator = np.random.default_rng(seed)
    truth = (np.arange(n) % 10 < 10 * share).astype(int)
    clear = generator.normal(size=(n, 2)) * 0.4 + truth[:, None] * [2.0, -2.0]
    noisy = generator.normal(size=(n, 16)) + truth[:, None] * 0.6
    names = np.where(truth == 1, "yes", "no").astype(object)
    y = names.copy()
    order = generator.permutation(n)
    keep = np.concatenate([order[truth[order] == c][: labelled // 2] for c in (0, 1)])
    y[np.setdiff1d(np.arange(n), keep)] = None
    return Views.of(primary="noisy", noisy=noisy, plain=clear), y, names


@pytest.mark.parametrize("student", [None, LogisticRegression()])
def test_weight_zero_is_the_baseline_bit_for_bit(student: Any) -> None:
    X, y, _ = pairs()
    alone = create("unimodal", estimator=student, schedule=SHORT, seed=3).fit(X, y)
    taught = create("transfer.distillation", student=student, weight=0, schedule=SHORT, seed=3).fit(X, y)
    assert np.array_equal(alone.predict_proba(X), taught.predict_proba(X))
    assert taught.teachers_ == []
    other = create("transfer.distillation", student=student, weight=0.5, schedule=SHORT, seed=3).fit(X, y)
    assert not np.array_equal(alone.predict_proba(X), other.predict_proba(X))


def test_the_losses_by_a_loop() -> None:
    """(1 - w) mean over labelled of -log p_y, plus w T² mean over pairs of -sum q log softmax(f / T)."""
    X, y, _ = pairs(n=20)
    method: Any = create("transfer.distillation", weight=0.3, temperature=2.0, schedule=Schedule(updates=1)).fit(X, y)
    scores = torch.tensor([[1.0, -1.0], [0.5, 0.0], [0.0, 2.0]])
    method.scores = lambda net, batch: scores
    q = np.array([[0.9, 0.1], [np.nan, np.nan], [0.2, 0.8]])
    method._taught = torch.tensor(q)
    batch = Batch({}, {}, {}, torch.tensor([0, 1, -1]), torch.arange(3))
    got = method.losses(method.net_, batch)
    task = -sum(float(scores[i].log_softmax(0)[c]) for i, c in ((0, 0), (1, 1))) / 2
    soft = 0.0
    for i in (0, 2):
        p = np.exp(scores[i].numpy() / 2) / np.exp(scores[i].numpy() / 2).sum()
        soft -= sum(q[i, c] * np.log(p[c]) for c in (0, 1)) / 2
    assert float(got["task"]) == pytest.approx(0.7 * task, rel=1e-5)
    assert float(got["distillation"]) == pytest.approx(0.3 * 4 * soft, rel=1e-5)


def test_the_loss_of_several_labels_by_a_loop() -> None:
    """Over pairs and labels alike: the mean of -q log p - (1 - q) log(1 - p)."""
    X, _, names = pairs(n=20)
    y = np.c_[names == "yes", np.arange(20) % 3 == 0].astype(int)
    method: Any = create("transfer.distillation", weight=0.3, schedule=Schedule(updates=1)).fit(X, y)
    scores = torch.tensor([[1.0, -1.0], [0.5, 0.0], [0.0, 2.0]])
    method.scores = lambda net, batch: scores
    q = np.array([[0.9, 0.4], [np.nan, np.nan], [0.2, 0.8]])
    method._taught = torch.tensor(q, dtype=torch.float32)
    target = torch.tensor([[1.0, 0.0], [1.0, 1.0], [np.nan, np.nan]])
    got = method.losses(method.net_, Batch({}, {}, {}, target, torch.arange(3)))
    p = 1 / (1 + np.exp(-scores.numpy().astype(float)))
    soft = sum(-q[i, c] * np.log(p[i, c]) - (1 - q[i, c]) * np.log(1 - p[i, c]) for i in (0, 2) for c in (0, 1)) / 4
    assert float(got["distillation"]) == pytest.approx(0.3 * soft, rel=1e-5)


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"teacher": LogisticRegression(), "temperature": 2.0},
        {"reads": "all"},
        {"teacher": LogisticRegression(), "student": LogisticRegression()},
        {"teacher": LogisticRegression(), "student": KNeighborsClassifier(5)},
    ],
)
def test_a_clear_secondary_helps_and_a_shuffled_one_does_not(parameters: Any) -> None:
    schedule = Schedule(updates=150, batch_size=32)
    test, _, truth = pairs(n=600, seed=1)
    gains = {}
    for kind in (None, "shuffle"):
        X, y, _ = pairs(labelled=6)
        if kind:
            X = control(X, kind, 0, ["plain"])
        estimator = parameters.get("student")
        alone = create("unimodal", estimator=estimator, schedule=schedule).fit(X, y).score(test, truth)
        method = create("transfer.distillation", schedule=schedule, **parameters).fit(X, y)
        gains[kind] = method.score(test, truth) - alone
    assert gains[None] > 0.04
    assert gains["shuffle"] < 0.5 * gains[None]


def test_predictions_do_not_read_the_secondary() -> None:
    X, y, _ = pairs()
    method = create("transfer.distillation", schedule=SHORT).fit(X, y)
    poisoned = X.replace("plain", np.full_like(X["plain"], np.nan))
    assert np.array_equal(method.predict_proba(X), method.predict_proba(poisoned))
    assert np.array_equal(method.predict_proba(X), method.predict_proba(X.only(["noisy"])))


def test_rows_that_lack_a_modality_teach_what_they_can() -> None:
    """Unlabelled rows without their secondary are no pairs: they change the student as little as their absence."""
    X, y, _ = pairs()
    without = np.arange(len(X)) % 2 == 0
    without[[i for i, label in enumerate(y) if label is not None]] = False
    gap = X.replace("plain", X["plain"] * ~without[:, None], present=~without)
    method = create("transfer.distillation", student=LogisticRegression(), teacher=LogisticRegression()).fit(gap, y)
    labels = method._soft_labels(gap, np.array([-1 if v is None else int(v == "yes") for v in y]))
    assert np.isnan(labels[without]).all()
    assert not np.isnan(labels[~without]).any()
    lonely = X.replace("plain", X["plain"], present=np.array([label is None for label in y]))
    with pytest.raises(DataError, match="No labelled row has 'plain', so there is nothing to teach from"):
        create("transfer.distillation").fit(lonely, y)


def test_soft_labels_keep_the_class_shares_of_the_labelled_rows() -> None:
    X, y, _ = pairs(share=0.3)
    target = np.array([-1 if v is None else int(v == "yes") for v in y])
    shares = {}
    for matched in (True, False):
        method: Any = create(
            "transfer.distillation", prior_matched=matched, teacher=LogisticRegression(), schedule=SHORT
        )
        shares[matched] = method.fit(X, y)._soft_labels(X, target)[:, 1].mean()
    assert shares[True] == pytest.approx(0.5, abs=1e-5)  # 6 of 12 labelled rows
    assert abs(shares[False] - 0.5) > 0.1


def test_a_weighted_student_learns_the_same_sum() -> None:
    """Every pair once per class with its probability, against 200 copies of it, the share q of them of the class."""
    X, y, _ = pairs(n=60)
    method: Any = create("transfer.distillation", teacher=LogisticRegression(C=0.01), student=LogisticRegression())
    method.set_params(weight=1.0, temperature=1.0, prior_matched=False).fit(X, y)
    q = method.teachers_[0].decide(X.only(["plain"], primary="plain"))
    hard = ((np.arange(200)[:, None] + 0.5) / 200 < q[:, 1]).astype(int)
    x = X["noisy"].astype(float)
    x = (x - x.mean(0)) / x.std(0)
    many = LogisticRegression().fit(np.tile(x, (200, 1)), hard.ravel(), sample_weight=np.full(200 * 60, 1 / 200))
    assert np.allclose(method.predict_proba(X), many.predict_proba(x), atol=0.003)


def test_labels_and_pairs_weigh_as_many_rows_as_there_are() -> None:
    """Of n rows, labels count (1 - w) n in all and pairs w n, whatever their numbers are; C makes the sum matter."""
    X, y, _ = pairs(n=60)
    known = np.array([label is not None for label in y])
    there = np.arange(60) % 3 == 0
    X = X.replace("plain", X["plain"] * there[:, None], present=there)
    settings: Any = {"teacher": LogisticRegression(), "temperature": 1.0, "prior_matched": False}
    method: Any = create("transfer.distillation", student=LogisticRegression(C=0.05), weight=0.4, **settings).fit(X, y)
    q = method.teachers_[0].decide(X[there].only(["plain"], primary="plain"))
    n, few, both = (known | there).sum(), known.sum(), there.sum()
    assert len({int(n), int(few), int(both)}) == 3
    x = X["noisy"].astype(float)
    x = (x - x.mean(0)) / x.std(0)
    by_hand = LogisticRegression(C=0.05).fit(
        np.r_[x[known], x[there], x[there]],
        np.r_[y[known] == "yes", np.zeros(both, bool), np.ones(both, bool)],
        sample_weight=np.r_[np.full(few, 0.6 * n / few), 0.4 * n / both * q[:, 0], 0.4 * n / both * q[:, 1]],
    )
    assert np.allclose(method.predict_proba(X), by_hand.predict_proba(x), atol=1e-3)


@pytest.mark.parametrize("reads", ["secondary", "all"])
def test_the_teacher_reads_what_it_is_told_to(reads: str) -> None:
    X, y, _ = pairs()
    known = np.array([label is not None for label in y])
    settings: Any = {"teacher": LogisticRegression(), "temperature": 1.0, "prior_matched": False}
    method: Any = create("transfer.distillation", reads=reads, schedule=Schedule(updates=1), **settings).fit(X, y)
    x = np.hstack([X["noisy"], X["plain"]]) if reads == "all" else X["plain"]
    x = (x - x.mean(0)) / x.std(0)
    by_hand = LogisticRegression().fit(x[known], y[known] == "yes").predict_proba(x)
    assert np.allclose(method._soft_labels(X, np.where(known, y == "yes", -1)), by_hand, atol=1e-4)


def test_an_estimator_as_student_of_several_labels_is_refused_in_words() -> None:
    X, _, names = pairs(n=20)
    y = np.c_[names == "yes", np.arange(20) % 3 == 0].astype(int)
    wording = "must be a task of an estimator as student: classification, regression. Got 'multilabel' instead"
    for weight in (0, 0.5):
        with pytest.raises(DataError, match=wording):
            create("transfer.distillation", student=LogisticRegression(), weight=weight, schedule=SHORT).fit(X, y)


@pytest.mark.parametrize("student", [None, Ridge(alpha=1e-6)])
def test_values_are_taught_in_the_unit_of_the_target(student: Any) -> None:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(200, 1))
    X = Views.of(primary="p", p=np.c_[x, generator.normal(size=(200, 3))], s=x)
    y = 500 + 40 * x[:, 0]
    few = np.where(np.arange(200) < 5, y, np.nan)
    method = create("transfer.distillation", teacher=Ridge(alpha=1e-6), student=student, schedule=Schedule(updates=300))
    assert np.abs(method.fit(X, few).predict(X) - y).mean() < 6
    alone = create("unimodal", estimator=student, schedule=Schedule(updates=300)).fit(X, few)
    assert np.abs(alone.predict(X) - y).mean() > 6 or student is not None


@pytest.mark.parametrize(
    ("parameters", "wording"),
    [
        ({"weight": 1.5}, r"The 'weight' parameter of Distillation must be a number in \[0, 1\]\. Got 1\.5"),
        ({"reads": "both"}, "The 'reads' parameter of Distillation must be one of 'secondary', 'all'"),
        ({"teacher": "unimodl"}, "Write the module too"),
        ({"student": "fusion.late"}, "'student' parameter of Distillation must be None or a scikit-learn estimator"),
    ],
)
def test_wrong_parameters_are_told_in_words(parameters: Any, wording: str) -> None:
    with pytest.raises(ConfigError, match=wording):
        create("transfer.distillation", **parameters).check_parameters()


def test_softening_by_hand() -> None:
    logits = np.array([[2.0, 0.0, -1.0]])
    p = np.exp(logits) / np.exp(logits).sum()
    expected = np.exp(logits / 4) / np.exp(logits / 4).sum()
    assert np.allclose(soften(p, 4.0), expected)


def test_matching_the_prior_keeps_the_order_and_finds_the_quantile() -> None:
    generator = np.random.default_rng(0)
    p = 1 / (1 + np.exp(-30 * generator.normal(size=500)))  # nearly hard, half of them 1
    q = match_prior(np.c_[1 - p, p], np.array([0.8, 0.2]))
    assert q[:, 1].mean() == pytest.approx(0.2, abs=1e-4)
    assert (np.diff(q[np.argsort(p), 1]) >= 0).all()
    top = np.argsort(p)[-90:]
    assert (q[top, 1] > 0.5).all()
    many = generator.dirichlet([0.3] * 5, 200)
    prior = np.array([0.4, 0.3, 0.1, 0.1, 0.1])
    assert np.allclose(match_prior(many, prior).mean(0), prior, atol=1e-5)


@pytest.mark.parametrize("matched", [True, False])
def test_labels_of_unsure_and_of_sure_teachers_become_alike(matched: bool) -> None:
    """Whatever the temperature of the teacher was, the labels are the same; unlike rows of zeros and ones."""
    generator = np.random.default_rng(3)
    p = generator.dirichlet([0.7] * 4, 100)
    prior = np.array([0.1, 0.2, 0.3, 0.4])
    q = sharpen(p, prior, share=0.3, matched=matched)
    entropy = -(q * np.log(q + 1e-300)).sum(1).mean()
    assert entropy == pytest.approx(0.3 * -(prior * np.log(prior)).sum(), rel=0.01)
    assert np.allclose(q, sharpen(soften(p, 30.0), prior, share=0.3, matched=matched), atol=0.02)
    assert np.allclose(q.mean(0), prior, atol=1e-5) is matched


def test_several_teachers_are_averaged() -> None:
    X, y, _ = pairs()
    target = np.array([-1 if v is None else int(v == "yes") for v in y])
    strong, weak = LogisticRegression(C=10.0), LogisticRegression(C=0.01)
    settings: Any = {"temperature": 1.0, "prior_matched": False, "schedule": Schedule(updates=1)}
    labels = [
        create("transfer.distillation", teacher=teacher, **settings).fit(X, y)._soft_labels(X, target)
        for teacher in (strong, weak, [strong, weak])
    ]
    assert np.allclose((labels[0] + labels[1]) / 2, labels[2])
    default = create("transfer.distillation", schedule=Schedule(updates=1)).fit(X, y)
    assert [type(teacher).__name__ for teacher in default.teachers_] == ["Unimodal", "EstimatorMethod"]


def test_the_surest_rows_by_a_loop() -> None:
    generator = np.random.default_rng(1)
    p = generator.dirichlet([1.0] * 3, 40)
    quota = np.array([14, 9, 12])
    rows, classes = most_confident(p, quota, above=0.2)
    left, free, expected = quota.tolist(), set(range(40)), []
    while True:
        best = max(((p[i, c], -i, -c) for i in free for c in range(3) if left[c] and p[i, c] > 0.2), default=None)
        if best is None:
            break
        expected.append((-best[1], -best[2]))
        free.remove(-best[1])
        left[-best[2]] -= 1
    assert list(zip(rows.tolist(), classes.tolist(), strict=True)) == expected
    assert len(most_confident(np.array([[1.0, 0.0]]), np.array([1, 1]), above=1.0)[0]) == 0


def test_two_classes_are_cut_at_the_quantile() -> None:
    p = np.random.default_rng(2).random(50)
    rows, classes = most_confident(np.c_[1 - p, p], quotas(50, np.array([0.8, 0.2])))
    assert sorted(rows[classes == 1].tolist()) == sorted(np.argsort(p)[-10:].tolist())
    assert len(rows) == 50
