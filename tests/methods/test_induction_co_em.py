"""Co-EM: EM where views are one, expected counts, its fixed point, and where it is better than EM and co-training."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB, MultinomialNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline

from transference.core.batch import Batch
from transference.core.errors import ConfigError, DataError
from transference.core.registry import create
from transference.core.views import Views
from transference.data.corrupt import control
from transference.induction import co_em
from transference.train.schedule import Schedule

torch.set_num_threads(1)

SHORT = Schedule(updates=40, batch_size=16)
RAW = make_pipeline(GaussianNB())  # a pipeline is given the numbers as they are


def news(seed: int, n: int = 606, labelled: int = 6, words: int = 200, length: int = 30) -> tuple[Views, Any, Any]:
    """Word counts of two views, independent given the class; the words of a view also depend on a topic of its own.

    A view is then no naive Bayes model of two classes: EM finds the topics, of which more words tell.
    """
    generator = np.random.default_rng(seed)
    truth = np.arange(n) % 2
    views: dict[str, Any] = {}
    for name in ("links", "page"):
        general, by_class, by_topic = (generator.dirichlet(np.full(words, 0.3), size=k) for k in (1, 2, 2))
        rate = 0.25 * general + 0.3 * by_class[truth] + 0.45 * by_topic[generator.integers(2, size=n)]
        views[name] = np.stack([generator.multinomial(length, each / each.sum()) for each in rate])
    y = np.array(["sci", "talk"], object)[truth]
    y[labelled:] = None
    return Views.of(primary="page", **views), y, truth


def gaussians(n: int = 60, labelled: int = 9, seed: int = 0, names: str = "abc") -> tuple[Views, Any]:
    generator = np.random.default_rng(seed)
    truth = np.arange(n) % 3
    views: dict[str, Any] = {name: generator.normal(size=(n, 2)) + 1.5 * np.eye(3)[truth][:, :2] for name in names}
    y = np.array(["x", "y", "z"], object)[truth]
    y[labelled:] = None
    return Views.of(primary=names[1], **views), y


def naive_bayes(counts: Any, soft: Any) -> Any:
    """(n, classes) posteriors of the multinomial naive Bayes of expected counts, add-one smoothing, row by row."""
    k, words = soft.shape[1], counts.shape[1]
    prior, word = [0.0] * k, np.ones((k, words))
    for row, q in zip(counts, soft, strict=True):
        for c in range(k):
            prior[c] += q[c]
            word[c] += q[c] * row
    word /= word.sum(1, keepdims=True)
    posteriors = []
    for row in counts:
        logs = np.array([np.log(prior[c]) + (row * np.log(word[c])).sum() for c in range(k)])
        posteriors.append(np.exp(logs - logs.max()) / np.exp(logs - logs.max()).sum())
    return np.array(posteriors)


def em(counts: Any, truth: Any, labelled: int, steps: int, weight: float = 1.0) -> Any:
    """Posteriors after the fit to the labelled rows and so many steps of EM, in which the labelled rows stay."""
    given = np.eye(2)[truth]
    soft = np.where(np.arange(len(truth))[:, None] < labelled, given, 0.0)
    for _ in range(steps):
        soft = np.r_[given[:labelled], weight * naive_bayes(counts, soft)[labelled:]]
    return naive_bayes(counts, soft)


@pytest.mark.parametrize(("rounds", "weight"), [(1, 1.0), (3, 1.0), (2, 0.3)])
def test_with_identical_views_every_fit_is_a_step_of_em(rounds: int, weight: float) -> None:
    """The secondary's first fit sees the labels alone; then the views are fitted by turns, the primary last."""
    X, y, truth = news(0, n=60)
    twin = Views.of(primary="a", a=X["page"], b=X["page"])
    settings: Any = {"rounds": rounds, "tolerance": 0.0, "weight": weight, "entropy": None}
    method: Any = create("induction.co_em", models=MultinomialNB(), **settings).fit(twin, y)
    found = [method.models_[name].decide(twin.only([name], primary=name)) for name in ("b", "a")]
    expected = [em(X["page"].astype(float), truth, 6, steps, weight) for steps in (2 * rounds, 2 * rounds + 1)]
    assert np.allclose(found, expected, atol=1e-5)
    assert np.array_equal(found[1], method.predict_proba(twin))
    assert not np.allclose(expected[0], expected[1], atol=1e-3)  # one step more is seen


def test_soft_labels_count_as_the_rows_they_stand_for() -> None:
    """Of 4 labelled rows a class 3 hold one word: with add-one smoothing, it is 2/3 of the rows with it that have it.

    2/3 of a row of one class and 1/3 of another are then two of three copies of it, and one.
    """
    number = np.array([0, 0, 0, 1, 0, 1, 1, 1] + [0, 1, 1] * 4)
    target = np.r_[np.zeros(4, int), np.ones(4, int), np.full(12, -1)]
    counts = np.random.default_rng(0).poisson(1.0, size=(20, 6))
    X = Views.of(primary="text", text=counts, word=np.eye(2)[number])
    method: Any = create("induction.co_em", models=MultinomialNB()).fit(X, target)
    soft = method._answers(X, "word", target, np.full((20, 2), np.nan))
    assert np.allclose(soft[8:], np.where(number[8:, None] == 0, [2 / 3, 1 / 3], [1 / 3, 2 / 3]))
    copies = np.repeat(np.arange(20), 3)
    labels = np.concatenate(
        [[target[i]] * 3 if i < 8 else [0, 0, 1] if number[i] == 0 else [0, 1, 1] for i in range(20)]
    )
    integer = MultinomialNB(alpha=3.0).fit(counts[copies], labels)
    fractional = method._fit(X, "text", target, soft, 1.0).decide(X.only(["text"]))
    assert np.allclose(fractional, integer.predict_proba(counts), atol=1e-9)


def test_when_both_views_say_the_same_nothing_changes() -> None:
    """One word a row, the same in both views: 3 of 4 labelled rows with it have one class, so 3 of 4 always will."""
    word = np.eye(2)[[0, 0, 0, 1, 0, 1, 1, 1] + [0] * 5 + [1] * 17]
    y = np.array(["p"] * 4 + ["q"] * 4 + [None] * 22, object)
    X = Views.of(primary="a", a=word, b=word)
    settings: Any = {"models": MultinomialNB(alpha=1e-9), "rounds": 6, "entropy": None}
    method: Any = create("induction.co_em", **settings).fit(X, y)
    assert len(method.rounds_) == 1  # it has converged
    method = create("induction.co_em", tolerance=0.0, **settings).fit(X, y)
    assert len(method.rounds_) == 6
    assert max(max(line["changes"].values()) for line in method.rounds_) < 1e-6
    assert max(line["disagreement"] for line in method.rounds_) < 1e-6
    assert np.allclose(method.predict_proba(X), word @ [[0.75, 0.25], [0.25, 0.75]], atol=1e-6)


def test_it_is_as_good_as_co_training_where_em_is_misled() -> None:
    """Mean error over the unlabelled rows: co-EM <= co-training < EM, of the primary alone and of both views."""
    errors = []
    for seed in range(8):
        X, y, truth = news(seed)

        def wrong(p: Any, truth: Any = truth) -> float:
            return float(np.mean(p.argmax(1)[6:] != truth[6:]))

        line = []
        arms: list[tuple[str, Any]] = [("co_em", {"entropy": None}), ("co_training", {"rounds": 15})]
        for name, settings in arms:
            method: Any = create(f"induction.{name}", models=MultinomialNB(), **settings).fit(X, y)
            page, links = (method.models_[view].decide(X.only([view], primary=view)) for view in ("page", "links"))
            line.append([wrong(page), wrong(page * links)])
        line.append([wrong(quick_em(words, truth)) for words in (X["page"], np.hstack([X["page"], X["links"]]))])
        errors.append(line)
    co_em_error, co_training, alone = np.mean(errors, 0)  # (of the primary, of both) each
    assert (co_em_error <= co_training).all()
    assert (co_training < 0.5 * alone).all()


def test_sharpened_labels_keep_the_class_shares_and_leave_the_stated_entropy_open() -> None:
    X, y, _ = news(2, n=100)
    y[4:6] = None  # 2 and 2
    y[6] = "sci"  # 3 to 2
    method: Any = create("induction.co_em", models=LogisticRegression(), rounds=2, entropy=0.3).fit(X, y)
    q = method.soft_labels_[~np.isnan(method.soft_labels_).any(1)]
    assert np.allclose(q.mean(0), [0.6, 0.4], atol=1e-4)
    entropy = -(q * np.log(q + 1e-300)).sum(1).mean()
    assert entropy == pytest.approx(-0.3 * (0.6 * np.log(0.6) + 0.4 * np.log(0.4)), rel=0.01)


def quick_em(counts: Any, truth: Any, labelled: int = 6, steps: int = 20) -> Any:
    model = MultinomialNB().fit(counts[:labelled], truth[:labelled])
    for _ in range(steps):
        soft = np.r_[np.eye(2)[truth[:labelled]], model.predict_proba(counts[labelled:])]
        model = MultinomialNB().fit(
            np.r_[counts, counts], np.repeat([0, 1], len(counts)), sample_weight=soft.T.ravel() + 1e-12
        )
    return model.predict_proba(counts)


def test_the_rounds_by_a_loop_with_three_views_and_gaps() -> None:
    """A view is taught the mean of the others that the row has; the primary goes first and is fitted once more."""
    X, y = gaussians()
    number = np.arange(60)
    present = {"a": number % 5 != 3, "b": np.ones(60, bool), "c": (number % 4 != 1) | (number < 9)}
    for name in ("a", "c"):
        X = X.replace(name, X[name] * present[name][:, None], present=present[name])
    settings: Any = {"models": RAW, "rounds": 3, "tolerance": 0.0, "weight": 0.5, "entropy": None}
    method: Any = create("induction.co_em", **settings).fit(X, y)
    truth = number % 3

    def fit(name: str, soft: dict[int, Any]) -> Any:
        rows = [i for i in range(9) if present[name][i]]
        labels, weights = [truth[i] for i in rows], [1.0] * len(rows)
        for i, q in soft.items():
            for c in range(3):
                rows, labels, weights = [*rows, i], [*labels, c], [*weights, 0.5 * q[c]]
        return GaussianNB().fit(X[name][rows], labels, sample_weight=weights)

    def told(name: str) -> dict[int, Any]:
        given = {i: [answers[u][i] for u in answers if u != name and i in answers[u]] for i in range(9, 60)}
        return {i: sum(each) / len(each) for i, each in given.items() if each and present[name][i]}

    def says(name: str, model: Any) -> dict[int, Any]:
        return {i: model.predict_proba(X[name][[i]])[0] for i in range(9, 60) if present[name][i]}

    answers = {name: says(name, fit(name, {})) for name in ("a", "c")}
    for turn in range(3):
        for name in ("b", "a", "c"):
            before, answers[name] = answers.get(name), says(name, fit(name, told(name)))
            if before is not None:
                change = np.mean([abs(before[i] - answers[name][i]).sum() / 2 for i in before])
                assert method.rounds_[turn]["changes"][name] == pytest.approx(change, abs=1e-5)
        assert ("b" in method.rounds_[turn]["changes"]) is (turn > 0)
        apart = [
            np.mean([abs(answers[u][i] - answers[v][i]).sum() / 2 for i in answers[u] if i in answers[v]])
            for u, v in ("ab", "ac", "bc")
        ]
        assert method.rounds_[turn]["disagreement"] == pytest.approx(np.mean(apart), abs=1e-5)
    soft = told("b")
    assert set(np.flatnonzero(~np.isnan(method.soft_labels_[:, 0]))) == set(soft)
    assert len(soft) < 51  # rows that no other view has are taught nothing
    assert np.allclose([method.soft_labels_[i] for i in soft], list(soft.values()), atol=1e-5)
    assert np.allclose(method.predict_proba(X), fit("b", soft).predict_proba(X["b"]), atol=1e-5)


@pytest.mark.parametrize("models", [None, MultinomialNB(), LogisticRegression()])
def test_without_weight_or_unlabelled_rows_it_is_the_baseline_bit_for_bit(models: Any) -> None:
    X, y, _ = news(1, n=40)
    settings: Any = {"schedule": SHORT, "seed": 3}
    alone = create("unimodal", estimator=models, **settings).fit(X, y)
    untaught = create("induction.co_em", models=models, weight=0.0, **settings).fit(X, y)
    assert np.array_equal(alone.predict_proba(X), untaught.predict_proba(X))
    other = create("induction.co_em", models=models, rounds=1, **settings).fit(X, y)
    assert not np.array_equal(alone.predict_proba(X), other.predict_proba(X))
    few = create("unimodal", estimator=models, **settings).fit(X[:6], y[:6])
    method: Any = create("induction.co_em", models=models, **settings).fit(X[:6], y[:6])
    assert np.array_equal(few.predict_proba(X), method.predict_proba(X))
    assert method.rounds_ == []
    assert np.isnan(method.soft_labels_).all()


def test_the_losses_of_a_network_by_a_loop() -> None:
    """(1 - part) mean over labelled of -log p_y, plus part times the mean over taught rows of -sum q log p."""
    X, y = gaussians(n=12, labelled=6, names="ab")
    method: Any = create("induction.co_em", rounds=1, weight=0.5, schedule=Schedule(updates=1)).fit(X, y)
    q = np.array([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]])
    table = torch.full((12, 3), torch.nan)
    table[[7, 9]] = torch.tensor(q, dtype=torch.float32)
    network: Any = co_em._Taught(table, 0.3, width=4, schedule=SHORT, seed=0)
    network.spec_ = method.models_["b"].spec_
    scores = torch.tensor([[1.0, -1.0, 0.0], [0.5, 0.0, 2.0], [0.0, 2.0, 1.0], [3.0, 1.0, 0.0]])
    network.scores = lambda net, batch: scores
    got = network.losses(None, Batch({}, {}, {}, torch.tensor([2, -1, -1, -1]), torch.tensor([3, 7, 8, 9])))
    p = np.exp(scores.numpy()) / np.exp(scores.numpy()).sum(1, keepdims=True)
    assert float(got["task"]) == pytest.approx(-0.7 * np.log(p[0, 2]), rel=1e-5)
    soft = -(q[0] @ np.log(p[1]) + q[1] @ np.log(p[3])) / 2
    assert float(got["taught"]) == pytest.approx(0.3 * soft, rel=1e-5)


def test_rows_count_alike_in_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """6 labelled rows of weight 1 and 18 of weight 1/2: the soft labels are 9 of 15 rows."""
    parts = []
    original = co_em._Taught.fit_encoded

    def watched(self: Any, *given: Any) -> Any:
        parts.append(self.part)
        return original(self, *given)

    monkeypatch.setattr(co_em._Taught, "fit_encoded", watched)
    X, y = gaussians(n=24, labelled=6, names="ab")
    method: Any = create("induction.co_em", weight=0.5, rounds=1, schedule=Schedule(updates=20)).fit(X, y)
    assert parts == [pytest.approx(0.6)] * 3
    assert method.history_["update"][-1] == 20  # the last fit has the whole schedule
    assert set(method.history_) == {"update", "task", "taught"}
    assert {type(model).__name__ for model in method.models_.values()} == {"Unimodal"}


def test_rows_are_known_by_their_numbers() -> None:
    X, y = gaussians(n=24, labelled=6, names="ab")
    renumbered = Views(X.arrays, X.specs, X.primary, rows=100 - np.arange(24))
    ours, other = (create("induction.co_em", rounds=1, schedule=SHORT).fit(rows, y) for rows in (X, renumbered))
    assert np.array_equal(ours.predict_proba(X), other.predict_proba(X))


@pytest.mark.parametrize("models", [{"p": KNeighborsClassifier(3)}, {"p": "fusion.early"}])
def test_models_that_take_no_weights_learn_the_likeliest_class(models: Any) -> None:
    generator = np.random.default_rng(0)
    truth = np.arange(60) % 2
    X = Views.of(primary="p", p=generator.normal(size=(60, 2)), s=truth[:, None] * 4 + generator.normal(size=(60, 1)))
    y = np.where(np.arange(60) < 10, truth, -1)
    method: Any = create("induction.co_em", models={**models, "s": RAW}, rounds=1, schedule=SHORT).fit(X, y)
    labels = np.where(y >= 0, y, np.nan_to_num(method.soft_labels_).argmax(1))
    assert 0 < np.mean(labels == truth) <= 1
    if models["p"] == "fusion.early":
        expected = create("fusion.early", schedule=SHORT).fit(X.only(["p"]), labels)
    else:
        expected = create("unimodal", estimator=models["p"]).fit(X, labels)
    assert np.array_equal(method.predict_proba(X), expected.predict_proba(X.only(["p"])))


@pytest.mark.parametrize("models", [None, LogisticRegression()])
def test_a_clear_secondary_helps_and_a_shuffled_one_does_not(models: Any) -> None:
    schedule = Schedule(updates=100, batch_size=32)
    gains: dict[Any, list[float]] = {None: [], "shuffle": []}
    for seed in range(2):
        generator = np.random.default_rng(seed)
        truth = np.arange(640) % 2
        clear = generator.normal(size=(640, 2)) * 0.4 + truth[:, None] * [2.0, -2.0]
        noisy = generator.normal(size=(640, 16)) + truth[:, None] * 0.6
        whole = Views.of(primary="noisy", noisy=noisy, plain=clear)
        y = np.where(np.arange(240) < 8, truth[:240], -1)
        for kind, told in gains.items():
            X = whole[:240] if kind is None else control(whole[:240], kind, 0, ["plain"])
            alone = create("unimodal", estimator=models, schedule=schedule).fit(X, y)
            method = create("induction.co_em", models=models, rounds=3, schedule=schedule).fit(X, y)
            told.append(method.score(whole[240:], truth[240:]) - alone.score(whole[240:], truth[240:]))
    assert np.mean(gains[None]) > 0.05
    assert np.mean(gains["shuffle"]) < 0.02


@pytest.mark.parametrize("models", [None, RAW])
def test_predictions_do_not_read_the_secondary(models: Any) -> None:
    X, y = gaussians()
    method = create("induction.co_em", models=models, rounds=2, schedule=SHORT).fit(X, y)
    poisoned = X.replace("a", np.full_like(X["a"], np.nan))
    assert np.array_equal(method.predict_proba(X), method.predict_proba(poisoned))
    assert np.array_equal(method.predict_proba(X), method.predict_proba(X.only(["b"])))
    assert method.deployed().spec_.primary == "b"


@pytest.mark.parametrize(
    ("parameters", "wording"),
    [
        ({"tolerance": -0.1}, r"The 'tolerance' parameter of CoEM must be a number in \[0, 1\]. Got -0.1"),
        ({"models": {"a": "unimodel"}}, "Write the module too"),
    ],
)
def test_wrong_parameters_are_told_in_words(parameters: Any, wording: str) -> None:
    with pytest.raises(ConfigError, match=wording):
        create("induction.co_em", **parameters).check_parameters()


def test_wrong_data_are_told_in_words() -> None:
    X, y = gaussians(names="ab")
    with pytest.raises(ConfigError, match="'models' names 'c', which is no modality"):
        create("induction.co_em", models={"c": None}).fit(X, y)
    lonely = X.replace("a", X["a"], present=np.arange(60) >= 9)
    with pytest.raises(DataError, match="No labelled row has 'a', so it cannot teach"):
        create("induction.co_em").fit(lonely, y)
