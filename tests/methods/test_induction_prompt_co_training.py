"""Co-training with a prompted model: the cut statistic, the label model, the rounds, and a scripted language model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scripted_chat import Messages, ScriptedChat
from sklearn.metrics import balanced_accuracy_score
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from transference.core.errors import ConfigError, DataError
from transference.core.registry import create
from transference.core.spec import ModalitySpec
from transference.core.views import Views
from transference.data.answers import Answer
from transference.induction import prompt_co_training
from transference.induction.prompt_co_training import (
    LabelModel,
    _Small,
    _unfitness,
    cut_statistic,
    most_credible,
    word_probabilities,
)
from transference.train.schedule import Schedule

torch.set_num_threads(1)
METHOD = "induction.prompt_co_training"
RAW = make_pipeline(GaussianNB())  # a pipeline is given the numbers as they are
SHORT = Schedule(updates=60, batch_size=32)


def slow_cut_statistic(x: Any, labels: Any, neighbours: int) -> Any:
    n, found = len(x), []
    for i in range(n):
        distance = [math.dist(x[i], x[j]) for j in range(n)]
        near = sorted(range(n), key=lambda j: distance[j])[:neighbours]
        weight = [1 / (1 + distance[j]) for j in near]
        p = np.mean(labels == labels[i])
        cut = sum(w for w, j in zip(weight, near, strict=True) if labels[j] != labels[i])
        deviation = math.sqrt(p * (1 - p) * sum(w * w for w in weight))
        found.append((cut - (1 - p) * sum(weight)) / deviation if deviation else 0.0)
    return np.array(found)


def test_the_cut_statistic_by_hand_and_as_a_slow_loop() -> None:
    """Points 0, 1, 3 with labels a, a, b: of the first J = 1/4, mu = 1.75 / 3, s^2 = 2/9 (1 + 1/4 + 1/16)."""
    z = cut_statistic(np.array([[0.0], [1.0], [3.0]]), np.array([0, 0, 1]), 3)
    assert z[0] == pytest.approx((1 / 4 - 1.75 / 3) / math.sqrt(2 / 9 * (1 + 1 / 4 + 1 / 16)))
    generator = np.random.default_rng(0)
    x, labels = generator.normal(size=(60, 3)), generator.integers(0, 3, 60)
    for neighbours in (2, 20, 60):
        assert np.allclose(cut_statistic(x, labels, neighbours), slow_cut_statistic(x, labels, neighbours))
    assert np.allclose(cut_statistic(x, labels, 500), cut_statistic(x, labels, 60))


def test_the_cut_statistic_has_no_nan_and_names_of_classes_mean_nothing() -> None:
    generator = np.random.default_rng(1)
    x, labels = generator.normal(size=(50, 2)), generator.integers(0, 3, 50)
    assert np.allclose(cut_statistic(x, np.array([2, 0, 1])[labels]), cut_statistic(x, labels))
    assert cut_statistic(x, np.full(50, 2)).tolist() == [0.0] * 50
    assert np.isfinite(cut_statistic(np.zeros((50, 2)), labels)).all()  # rows that are all alike


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_flipped_labels_are_the_last_to_be_chosen(seed: int) -> None:
    """A quarter of the labels of a separable mixture is flipped: purity 1, 1, 1, 0.999 and what there is."""
    generator = np.random.default_rng(seed)
    truth = np.arange(1000) % 2
    x = generator.normal(size=(1000, 5)) + 6.0 * truth[:, None]
    labels = np.where(generator.random(1000) < 0.25, 1 - truth, truth)
    order = np.argsort(cut_statistic(x, labels), kind="stable")
    purity = {beta: np.mean((labels == truth)[order[: int(beta * 1000)]]) for beta in (0.1, 0.3, 0.5, 0.7, 1.0)}
    assert [purity[beta] for beta in (0.1, 0.3, 0.5)] == pytest.approx([1.0] * 3, abs=0.005)
    assert purity[0.7] == pytest.approx(0.999, abs=0.01)
    assert purity[1.0] == pytest.approx(0.76, abs=0.03)


def test_each_class_has_its_least_share_of_those_chosen() -> None:
    """Of eight rows the half: pooled the four of the rarer class; with shares of a half each two of both."""
    z, labels = np.array([-9, -8, -7, -6, -2, -1, -4, -3]), np.array([1, 1, 1, 1, 0, 0, 0, 0])
    assert most_credible(z, labels, 0.5, np.zeros(2)).tolist() == [0, 1, 2, 3]
    assert most_credible(z, labels, 0.5, np.full(2, 0.5)).tolist() == [6, 7, 0, 1]
    assert sorted(most_credible(z, labels, 0.5, np.full(2, 0.25))) == [0, 1, 2, 6]
    assert sorted(most_credible(z, np.ones(8, int), 0.5, np.full(2, 0.5))) == [0, 1, 2, 3]  # none of the other class


def test_a_label_model_starts_calibrated_and_skips_prompts_that_a_row_lacks() -> None:
    """p = (0.8, 0.2): probabilities of 0.6 and 0.3 become 0.75 and 1.5, that is the second class."""
    p, phi = np.array([[0.8, 0.2], [0.5, 0.5]]), np.array([[[0.6, 0.3], [np.nan, np.nan]]])
    logits = LabelModel(p, "relu")(torch.tensor(phi, dtype=torch.float32))
    assert logits[0].tolist() == pytest.approx([0.75, 1.5])
    logits = LabelModel(p, "sigmoid")(torch.tensor(phi, dtype=torch.float32))
    assert logits[0].tolist() == pytest.approx([1 / (1 + math.exp(-0.75)), 1 / (1 + math.exp(-1.5))])
    model, phi = LabelModel(np.ones((3, 2)), "sigmoid"), np.random.default_rng(0).random((4, 3, 2))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    W, b, a = (each.detach().numpy() for each in (model.weight, model.bias, model.scale))
    for i, out in enumerate(model(torch.tensor(phi, dtype=torch.float32)).tolist()):
        for c in range(2):
            terms = [a[k] / (1 + math.exp(-(W[k, c] @ phi[i, k] + b[k, c]))) for k in range(3)]
            assert out[c] == pytest.approx(sum(terms), abs=1e-5)


def test_a_label_model_is_trained_for_40_epochs_and_turns_a_liar_round(monkeypatch: pytest.MonkeyPatch) -> None:
    generator, seen = np.random.default_rng(0), list[Schedule]()
    truth = np.arange(200) % 2
    phi = np.stack([np.where(truth, 0.2, 0.7), np.where(truth, 0.7, 0.2)], 1)[:, None] + 0.05 * generator.random(
        (200, 2, 2)
    )
    phi[:, 1] = phi[:, 0, ::-1] * 1.2  # surer than the other, and always wrong
    train = prompt_co_training.train

    def watched(*args: Any, **more: Any) -> Any:
        seen.append(args[3])
        return train(*args, **more)

    monkeypatch.setattr(prompt_co_training, "train", watched)
    model = LabelModel(np.full((2, 2), 0.5), "sigmoid")
    assert np.mean(model.label(phi) == truth) < 0.1
    model.learn(phi, truth, 0.2, 0)
    assert np.mean(model.label(phi) == truth) == 1.0
    assert (seen[0].updates, seen[0].learning_rate, seen[0].weight_decay) == (40 * 3, 0.1, 0.005)  # 160 rows, 64 a time


def test_the_best_state_is_that_of_the_largest_balanced_accuracy() -> None:
    scores = torch.tensor([[2.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [3.0, 0.0, 0.0]])
    target = torch.tensor([0, 0, 1, 0])
    balanced = balanced_accuracy_score(target, scores.argmax(1))
    assert _unfitness(scores, target) == pytest.approx(1 - balanced, abs=1e-5)
    assert _unfitness(scores, target) == pytest.approx(1 - (2 / 3 + 1) / 2, abs=1e-5)
    assert _unfitness(2 * scores, torch.tensor([0, 1, 1, 0])) < _unfitness(scores, torch.tensor([0, 1, 1, 0]))


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer("x", {" Good": math.log(0.5), "go": math.log(0.2), "bad.": math.log(0.1)}), [0.7, 0.1]),
        (Answer("x", {"": 0.0, "the": math.log(0.9), "g": math.log(0.05)}), [0.05, 0.0]),
        (Answer(" Bad, I think."), [0.0, 1.0]),
        (Answer("I cannot tell"), [0.0, 0.0]),
    ],
)
def test_first_tokens_become_probabilities_of_words(answer: Answer, expected: list[float]) -> None:
    assert word_probabilities(answer, ["good", "Bad"]).tolist() == pytest.approx(expected)


def test_a_token_that_begins_two_words_counts_for_none() -> None:
    words = ["entailment", "entail", "other"]
    assert word_probabilities(Answer("x", {"ent": 0.0, "entail": -1.0}), words).tolist() == [
        0,
        pytest.approx(math.exp(-1)),
        0,
    ]
    assert word_probabilities(Answer("Entailment."), words).tolist() == [1, 0, 0]


def views(n: int, seed: int, labelled: int, other: str = "strong") -> tuple[Views, Any, Any]:
    """A primary that shows three classes dimly in many numbers, beside a clear one, or noise."""
    generator = np.random.default_rng(seed)
    truth = np.arange(n) % 3
    look = generator.normal(size=(n, 12)) + np.tile(1.1 * np.eye(3)[truth], 4)
    hear = generator.normal(size=(n, 4)) + (np.eye(3, 4)[truth] * 5 if other == "strong" else 0)
    names = np.array(["ant", "bee", "cat"], object)[truth]
    y = names.copy()
    y[labelled:] = None
    return Views.of(primary="look", look=look, hear=hear), y, names


def test_rounds_are_those_of_the_pseudo_code() -> None:
    X, y, _ = views(90, 0, 12)
    absent = np.arange(90) % 10 == 7
    absent[:12] = False
    X = X.replace("hear", X["hear"], present=~absent)
    method = create(METHOD, model=RAW, rounds=3, coverage=0.4, growth=0.25, neighbours=7).fit(X, y)
    target = np.array([{"ant": 0, "bee": 1, "cat": 2, None: -1}[each] for each in y])
    pairs = [i for i in range(90) if not absent[i]]
    free = [i for i in pairs if target[i] < 0]
    standard = StandardScaler().fit_transform(X["look"][pairs].astype(float))
    assert np.isnan(method.phi_[absent]).all()
    assert method.phi_.shape == (90, 4, 3)

    def chosen(said: dict[int, int], beta: float) -> dict[int, int]:
        labels = np.array([said[i] if target[i] < 0 else target[i] for i in pairs])
        z = dict(zip(pairs, slow_cut_statistic(standard, labels, 7), strict=True))
        ranked, total = sorted(free, key=lambda i: z[i]), int(beta * len(free))
        kept = [i for c in range(3) for i in [i for i in ranked if said[i] == c][: total // 3]]  # a third each
        kept += [i for i in ranked if i not in kept][: total - len(kept)]
        return {i: int(target[i]) for i in range(90) if target[i] >= 0} | {i: said[i] for i in kept}

    teacher = LabelModel(np.full((4, 3), 1 / 3), "sigmoid")
    for turn, beta in enumerate((0.4, 0.65, 0.9)):
        line = method.rounds_[turn]
        assert line["coverage"] == pytest.approx(beta)
        taught = chosen(dict(zip(pairs, teacher.label(method.phi_[pairs]).tolist(), strict=True)), beta)
        assert dict(zip(line["rows"].tolist(), line["labels"].tolist(), strict=True)) == taught
        rows = sorted(taught)
        small = GaussianNB().fit(X["look"][rows], [taught[i] for i in rows])  # a new one every round
        back = chosen(dict(zip(pairs, small.predict(X["look"][pairs]).tolist(), strict=True)), beta)
        assert dict(zip(line["rows back"].tolist(), line["labels back"].tolist(), strict=True)) == back
        rows = sorted(back)
        teacher = LabelModel(np.full((4, 3), 1 / 3), "sigmoid")  # and a new label model
        teacher.learn(method.phi_[rows], np.array([back[i] for i in rows]), 0.2, 0)
    assert np.allclose(method.predict_proba(X), small.predict_proba(X["look"]), atol=1e-6)
    for name, value in teacher.state_dict().items():
        assert torch.equal(value, method.label_model_.state_dict()[name])


def test_a_network_starts_afresh_in_the_last_round_and_has_the_whole_schedule() -> None:
    X, y, _ = views(120, 0, 12)
    method = create(METHOD, rounds=2, schedule=SHORT).fit(X, y)
    labels = np.full(120, -1)
    labels[method.rounds_[-1]["rows"]] = method.rounds_[-1]["labels"]
    fresh = _Small(schedule=Schedule(updates=60, batch_size=32, validation=0.2))
    fresh.fit_encoded(X.only(["look"]), labels, method.spec_.task)
    assert np.array_equal(fresh.decide(X), method.predict_proba(X))
    assert method.history_["update"][-1] == 60
    assert "held out" in method.history_
    assert type(method.deployed()).__name__ == "Unimodal"


def test_without_unlabelled_pairs_it_is_the_baseline() -> None:
    X, _, names = views(60, 0, 0)
    method = create(METHOD, schedule=SHORT).fit(X, names)
    assert method.rounds_ == []
    assert np.array_equal(method.predict_proba(X), create("unimodal", schedule=SHORT).fit(X, names).predict_proba(X))


def test_a_clear_secondary_helps_and_noise_does_not() -> None:
    gains: dict[str, list[float]] = {"strong": [], "noise": []}
    for seed in range(3):
        for other, found in gains.items():
            X, y, _ = views(200, seed, 9, other)
            T, _, truth = views(300, seed + 10, 0, other)
            arms = (create(METHOD, schedule=SHORT), create("unimodal", schedule=SHORT))
            ours, alone = (method.fit(X, y).score(T, truth) for method in arms)
            found.append(ours - alone)
    assert min(gains["strong"]) > 0.03
    assert np.mean(gains["strong"]) > 0.06
    assert max(gains["noise"]) < 0.02


def test_the_primary_alone_is_read_by_four_resampled_models() -> None:
    X, y, _ = views(60, 0, 12)
    method = create(METHOD, rounds=1, model=RAW).fit(X.only(["look"]), y)
    assert method.phi_.shape == (60, 4, 3)
    assert not np.allclose(method.phi_[:, 0], method.phi_[:, 1])
    both = create(METHOD, rounds=1, model=RAW).fit(
        Views.of(primary="look", look=X["look"], a=X["hear"], b=X["hear"]), y
    )
    assert both.phi_.shape == (60, 2, 3)
    assert np.allclose(both.phi_[:, 0], both.phi_[:, 1])


def texts(n: int, seed: int, labelled: int) -> tuple[Views, Any, Any]:
    """Two texts of 6 words; words 1 to 10 are commoner where a row is good, 11 to 20 where it is bad."""
    generator = np.random.default_rng(seed)
    good = np.arange(n) % 2 == 0
    words, specs = {}, {}
    for name, clear in (("look", 0.7), ("read", 0.85)):
        own = generator.random((n, 6)) < clear
        words[name] = (generator.integers(1, 11, (n, 6)) + 10 * (own != good[:, None])).astype(np.float32)
        specs[name] = ModalitySpec(name, "text", (6,), lengths=True, vocabulary=21)
    names = np.where(good, "plus", "minus").astype(object)
    y = names.copy()
    y[labelled:] = None
    return Views(words, specs, "look"), y, names


PROMPTS = ("A: {read}. It is", "B: {read}. It is", "C: {read}. It is")
WORDS = {"plus": "good", "minus": "bad"}


def said(messages: Messages) -> dict[str, float]:
    """A leans to good, B sees half of the words, and C is sure of the opposite; a tenth goes to another token."""
    text = messages[0]["content"]
    words = [int(each.strip(".")) for each in text.split() if each.strip(".").isdigit()]
    evidence = sum(1 if word <= 10 else -1 for word in words if text[0] != "B" or word % 2)
    logit = {"A": 0.6 * evidence + 1.0, "B": 0.6 * evidence, "C": -1.2 * evidence}[text[0]]
    good = 0.9 / (1 + math.exp(-logit))
    return {" good": math.log(good), "Bad": math.log(0.9 - good), " the": math.log(0.1)}


def test_both_models_improve_on_two_texts_with_a_scripted_language_model(tmp_path: Path) -> None:
    X, y, names = texts(300, 0, 10)
    with ScriptedChat(said) as server:
        chat = server.options(tmp_path)
        method = create(METHOD, chat=chat, prompts=PROMPTS, words=WORDS, schedule=SHORT).fit(X, y)
        shown = [each["messages"][0]["content"] for each in server.requests]
        asked = len(shown)
        again = create(METHOD, chat=chat, prompts=PROMPTS, words=WORDS, schedule=SHORT).fit(X, y)
        assert len(server.requests) == asked  # answers are kept
    assert sorted(shown)[0].startswith("A: ")
    assert any(text == "A: N/A. It is" for text in shown)
    assert all(each["top_logprobs"] == 20 for each in server.requests)
    assert method.classes_.tolist() == ["minus", "plus"]
    p = 1 / (1 + math.exp(-1.0))  # of good, without content
    assert np.allclose(method.content_free_, [[1 - p, p], [0.5, 0.5], [0.5, 0.5]], atol=1e-6)
    assert method.phi_.sum(2) == pytest.approx(0.9)
    assert [line["coverage"] for line in method.rounds_] == pytest.approx([0.5, 0.6, 0.7, 0.8, 0.9])
    assert [len(line["rows"]) for line in method.rounds_] == [
        10 + round(290 * beta) for beta in (0.5, 0.6, 0.7, 0.8, 0.9)
    ]
    truth = names == "plus"
    before, after = (
        np.mean(model.label(method.phi_[10:]) == truth[10:])
        for model in (LabelModel(method.content_free_, "sigmoid"), method.label_model_)
    )
    assert after > before + 0.1
    T, _, unseen = texts(400, 1, 0)
    alone = create("unimodal", schedule=SHORT).fit(X, y)
    assert method.score(T, unseen) > alone.score(T, unseen) + 0.08  # the server is gone
    assert np.array_equal(method.predict_proba(T), again.predict_proba(T.only(["look"])))


def test_without_prompts_the_secondary_is_shown_with_all_words(tmp_path: Path) -> None:
    X, y, _ = texts(12, 0, 6)
    absent = X.replace("read", X["read"], present=np.arange(12) != 8)
    with ScriptedChat(lambda messages: "Minus." if "word 3" in messages[0]["content"] else "{plus}") as server:
        method = create(METHOD, chat=server.options(tmp_path), words={"plus": "{plus}"}, rounds=1, model=RAW)
        method.fit(absent, y)
        shown = [each["messages"][0]["content"] for each in server.requests]
        assert "read: N/A" in "".join(shown)
        assert all("minus, {plus}?" in text and "look" not in text for text in shown)
        alone = create(METHOD, chat=server.options(tmp_path), rounds=1, model=RAW).fit(X.only(["look"]), y)
        assert any("look: word" in each["messages"][0]["content"] for each in server.requests)
    assert np.isnan(method.phi_[8]).all()
    known = ["word 3" in " ".join(f"word {int(w)}" for w in row) for row in X["read"]]
    assert all(method.phi_[i, 0].tolist() == ([1, 0] if known[i] else [0, 1]) for i in range(12) if i != 8)
    assert alone.phi_.shape == (12, 1, 2)


@pytest.mark.parametrize(
    ("parameters", "wording"),
    [
        ({"prompts": ["{read}"]}, "'prompts' and 'words' of PromptCoTraining are for a language model. Set 'chat'"),
        (
            {"chat": {"model": "m"}, "prompts": ["{raed} is"]},
            r"A prompt must be a text with look or read in braces\. Got",
        ),
        ({"chat": {"model": "m"}, "prompts": ["is it?"]}, "A prompt must be a text with look or read in braces"),
        ({"chat": {"model": "m"}, "prompts": ["{read.__class__}"]}, "A prompt must be a text with look or read"),
        ({"chat": {"model": "m"}, "prompts": ["{read"]}, r"The template .* cannot be read: .* Write a brace as"),
        (
            {"chat": {"model": "m"}, "words": {"plus": "Good", "minus": "good "}},
            "must be different words of the classes",
        ),
        ({"chat": {"model": "m"}, "words": {"pluss": "good"}}, "must be different words of the classes minus, plus"),
        ({"chat": {"modle": "m"}}, "'chat' has no option 'modle'"),
    ],
)
def test_wrong_parameters_are_told_in_words(parameters: Any, wording: str) -> None:
    X, y, _ = texts(12, 0, 6)
    with pytest.raises(ConfigError, match=wording):
        create(METHOD, **parameters).fit(X, y)


def test_a_primary_without_a_labelled_row_is_refused() -> None:
    X, y, _ = views(30, 0, 9)
    with pytest.raises(DataError, match="No labelled row has 'look', so there is no start"):
        create(METHOD).fit(X.replace("look", X["look"], present=np.arange(30) >= 9), y)
