"""Debate: scripted agents whose ends are known, the rule of models as a loop, and what an answer without a class is."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scripted_chat import Messages, ScriptedChat
from sklearn.naive_bayes import GaussianNB

from transference.core.errors import ConfigError, DataError
from transference.core.registry import create
from transference.core.spec import ModalitySpec
from transference.core.views import Views
from transference.data.chat import Chat
from transference.data.dataset import Dataset
from transference.data.decoders.text import as_bytes
from transference.experiment.config import parse
from transference.experiment.runner import run
from transference.experiment.store import Store
from transference.induction.debate import heard

torch.set_num_threads(1)
METHOD = "induction.debate"
LABELS = ["ant", "bee", "cat"]


def told(**columns: list[str | None]) -> Views:
    """Texts of at most 16 bytes; None where a row lacks one."""
    arrays, present, lengths, specs, width = {}, {}, {}, {}, 16
    for name, texts in columns.items():
        numbers = [as_bytes(text or "") for text in texts]
        arrays[name] = np.stack([np.pad(row, (0, width - len(row))) for row in numbers])
        present[name] = np.array([text is not None for text in texts])
        lengths[name] = np.array([len(row) for row in numbers])
        specs[name] = ModalitySpec(name, "text", (width,), lengths=True, vocabulary=257, reading={"units": "bytes"})
    return Views(arrays, specs, min(columns), present=present, lengths=lengths)


TRAIN = told(a=["x", "y", "z"], b=["x", "y", "z"], c=["x", "y", "z"])
ROWS = told(
    a=["ant", "ant", "bee", "cat", "ant"], b=["ant", "bee", "bee", "bee", "bee"], c=["bee", "bee", "bee", "ant", "bee"]
)
FIRST = [["ant", "ant", "bee"], ["ant", "bee", "bee"], ["bee"] * 3, ["cat", "bee", "ant"], ["ant", "bee", "bee"]]


def debate(server: ScriptedChat, folder: Path, *, X: Views = TRAIN, chat: Any = None, **more: Any) -> Any:
    return create(METHOD, chat=server.options(folder, **(chat or {})), **more).fit(X, LABELS)


def opened(messages: Messages) -> str:
    """What the only modality of an agent says."""
    return messages[0]["content"].split("a case:\n\n")[1].partition("\n")[0].partition(": ")[2]


def held(messages: Messages) -> list[str]:
    """The agent's own last answer, then those that it hears, in their order."""
    heard = [line for line in messages[-1]["content"].splitlines() if line.startswith("Answer: ")]
    return [each.removeprefix("Answer: ") for each in (messages[-2]["content"], *heard)]


def stubborn(messages: Messages) -> str:
    return f"Answer: {opened(messages)}"


def conformist(messages: Messages) -> str:
    """Joins the majority, its own answer counted."""
    if len(messages) == 1:
        return stubborn(messages)
    names = held(messages)
    (best, most), *rest = Counter(names).most_common()
    return f"Answer: {names[0] if rest and rest[0][1] == most else best}"


def first_quoted(messages: Messages) -> str:
    return stubborn(messages) if len(messages) == 1 else f"Answer: {held(messages)[1]}"


def copier(messages: Messages) -> str:
    """a repeats b, b repeats c, c repeats a."""
    me = messages[0]["content"].split("a case:\n\n")[1][0]
    if len(messages) == 1:
        return stubborn(messages)
    other = {"a": "b", "b": "c", "c": "a"}[me]
    return messages[-1]["content"].split(f"knows the {other} alone says:\n")[1].partition("\n")[0]


def rounds_of(method: Any, X: Views) -> list[list[list[Any]]]:
    """Row -> round -> answers, agent by agent."""
    return [
        [[each.answer for each in row if each.turn == turn] for turn in range(1, method.rounds + 1)]
        for row in method.transcript(X)
    ]


# language models


def test_conformists_agree_after_one_round(tmp_path: Path) -> None:
    with ScriptedChat(conformist) as server:
        method = debate(server, tmp_path, rounds=2)
        first, second = zip(*rounds_of(method, ROWS), strict=True)
        assert list(first) == FIRST
        assert [set(row) for row in second] == [{"ant"}, {"bee"}, {"bee"}, {"ant", "bee", "cat"}, {"bee"}]
        assert method.predict(ROWS).tolist() == ["ant", "bee", "bee", "ant", "bee"]  # a tie of three: the first class


def test_stubborn_agents_end_with_the_majority_vote(tmp_path: Path) -> None:
    with ScriptedChat(stubborn) as server:
        long, vote = (debate(server, tmp_path, rounds=rounds) for rounds in (4, 1))
        np.testing.assert_allclose(long.predict_proba(ROWS), vote.predict_proba(ROWS), atol=1e-12)
        assert vote.predict_proba(ROWS)[0] == pytest.approx([(2 + 2 / 3) / 4, (1 + 1 / 3) / 4, 0])
        assert vote.predict(ROWS).tolist() == ["ant", "bee", "bee", "ant", "bee"]


def test_agents_that_copy_one_another_in_a_ring_never_agree(tmp_path: Path) -> None:
    """Answers go round once in three rounds, which they do only if all answer to the round before."""
    with ScriptedChat(copier) as server:
        found = rounds_of(debate(server, tmp_path, rounds=6), ROWS)
    for row, first in zip(found, FIRST, strict=True):
        assert row == [[first[(agent + turn) % 3] for agent in range(3)] for turn in range(6)]


@pytest.mark.parametrize("script", [conformist, first_quoted])
def test_the_order_of_the_agents_changes_nothing(tmp_path: Path, script: Any) -> None:
    turned = told(**{new: [row[old] for row in FIRST] for new, old in (("a", 2), ("b", 0), ("c", 1))})
    with ScriptedChat(script) as server:
        method = debate(server, tmp_path, rounds=3)
        ends = [[Counter(row[-1]) for row in rounds_of(method, X)] for X in (ROWS, turned)]
        assert ends[0] == ends[1]
        np.testing.assert_array_equal(method.predict_proba(ROWS), method.predict_proba(turned))


def test_an_agent_says_and_is_told_one_thing_a_round(tmp_path: Path) -> None:
    with ScriptedChat(conformist) as server:
        method = debate(server, tmp_path, rounds=3)
        row = method.transcript(ROWS[:1])[0]
        asked = [each["messages"] for each in server.requests]
    assert [(each.agent, each.turn) for each in row] == [(name, turn) for turn in (1, 2, 3) for name in "abc"]
    for name in "abc":
        own = [message for each in row if each.agent == name for message in (each.asked, each.said)]
        assert len(own) == 2 * 3
        last = next(talk for talk in asked if len(talk) == 5 and talk[0]["content"] == own[0])
        assert [message["content"] for message in last] == own[:5]
        assert [message["role"] for message in last] == ["user", "assistant"] * 2 + ["user"]
    assert len(asked) == 9
    assert row[3].asked.count("Answer: ") == 2  # a hears b and c, and not itself


def test_one_round_of_several_draws_is_the_vote_of_them(tmp_path: Path) -> None:
    """Five agents with seeds of their own; what a seed answers is drawn once."""
    with ScriptedChat(lambda messages: f"Answer: {LABELS[server.requests[-1]['seed'] % 3]}") as server:
        method = debate(server, tmp_path, agents=5, rounds=1, chat={"at_once": 1})
        answers = [each.answer for each in method.transcript(ROWS[:1])[0]]
        seeds = [each["seed"] for each in server.requests]  # one question at a time, agent by agent
        assert len(set(seeds)) == 5
        assert answers == [LABELS[seed % 3] for seed in seeds]
        votes = [answers.count(label) for label in LABELS]
        assert len(set(votes)) > 1
        assert method.predict(ROWS[:1])[0] == LABELS[int(np.argmax(votes))]
        content = server.requests[0]["messages"][0]["content"]
        assert "a: ant\nb: ant\nc: bee\n" in content  # each of them sees all
        assert "one of: ant, bee, cat" in content


def test_one_agent_alone_is_asked_to_check_itself(tmp_path: Path) -> None:
    with ScriptedChat(lambda messages: "Answer: bee" if len(messages) == 1 else "Answer: cat") as server:
        method = debate(server, tmp_path, agents=1, rounds=2)
        assert method.predict(ROWS[:1]).tolist() == ["cat"]
        assert "look for mistakes" in method.transcript(ROWS[:1])[0][1].asked


def test_an_answer_without_a_class_is_no_vote_and_never_right(tmp_path: Path) -> None:
    X = told(a=["ant", "?", "?"], b=["?", "?", "bee"], c=["?", "ant or bee", "cat"])
    with ScriptedChat(stubborn) as server:
        method = debate(server, tmp_path, rounds=1)
        assert [[each.answer for each in row] for row in method.transcript(X)][1] == [None] * 3
        assert method.predict(X).tolist() == ["ant", None, "bee"]
        assert method.predict_proba(X)[0].tolist() == [1, 0, 0]
        for label in LABELS:
            assert method.score(X[[1, 1]], [label, label]) == 0
        uneven = create(METHOD, chat=server.options(tmp_path), rounds=1)
        uneven.fit(told(a=["x"] * 5, b=["x"] * 5, c=["x"] * 5), ["ant", "bee", "ant", "cat", "cat"])
        p = uneven.predict_proba(X)[1]
        assert p.argmax() == 1  # the rarest in training
        assert np.ptp(p) < 0.01
        assert p.sum() == pytest.approx(1)


def test_who_answered_before_and_fell_silent_has_no_vote(tmp_path: Path) -> None:
    with ScriptedChat(lambda messages: stubborn(messages) if len(messages) == 1 else "hm") as server:
        assert debate(server, tmp_path, rounds=2).predict(ROWS).tolist() == [None] * 5


def test_a_tie_goes_to_what_was_said_more_often(tmp_path: Path) -> None:
    """First cat and cat, then bee and cat: bee 1, cat 3 of all."""

    def script(messages: Messages) -> str:
        return "Answer: cat" if len(messages) == 1 or opened(messages) == "cat" else "Answer: bee"

    with ScriptedChat(script) as server:
        method = debate(server, tmp_path, X=TRAIN.only(["a", "b"]), rounds=2)
        assert method.predict_proba(told(a=["bee"], b=["cat"]))[0] == pytest.approx([0, 1.25 / 3, 1.75 / 3])


def test_agents_of_what_a_row_lacks_stay_out(tmp_path: Path) -> None:
    X = told(a=["ant", None], b=["bee", "bee"], c=["bee", None])
    with ScriptedChat(stubborn) as server:
        method = debate(server, tmp_path, rounds=2)
        assert [[each.agent for each in row] for row in method.transcript(X)] == [["a", "b", "c"] * 2, ["b"] * 2]
        assert method.predict(X.only(["a"])[:1]).tolist() == ["ant"]
    with ScriptedChat(lambda _: "ant") as server:
        shared = debate(server, tmp_path, agents=2, rounds=1, question="{c}; {views}: {classes}")
        assert shared.transcript(X[1:])[0][0].asked.startswith("(not known); b: bee: ant, bee, cat\n")


def test_examples_are_labelled_rows_that_the_agent_may_see(tmp_path: Path) -> None:
    X = told(a=[f"sign{k}" for k in range(9)], b=[None, *(f"note{k}" for k in range(1, 9))])
    y = [*np.repeat(LABELS, 3)[:8], None]  # row 8 has no label
    with ScriptedChat(stubborn) as server:
        method = create(METHOD, chat=server.options(tmp_path), examples=2, rounds=1, seed=1).fit(X, y)
        asked = method.transcript(told(a=["q"], b=["r"]))[0][0].asked
        again = create(METHOD, chat=server.options(tmp_path), examples=2, rounds=1, seed=1).fit(X, y)
    assert again.examples_ == method.examples_
    shown = asked.split("An example:\n\n")[1:]
    assert [part.split("Answer: ")[1].split()[0] for part in shown] == [label for label in LABELS for _ in range(2)]
    for text, label in method.examples_:
        row = int(text["a"].removeprefix("sign"))
        assert (y[row], text.get("b")) == (label, f"note{row}" if row else None)
        assert f"a: {text['a']}\n\nAnswer: {label}" in asked
    assert "note" not in asked
    assert "sign8" not in asked


def test_predictions_stay_and_a_dry_run_counts(tmp_path: Path) -> None:
    with ScriptedChat(lambda messages: f"Answer: {LABELS[len(server.requests) % 3]}") as server:  # never the same
        first = debate(server, tmp_path, rounds=3).predict_proba(ROWS)
        asked = len(server.requests)
        assert np.array_equal(debate(server, tmp_path, rounds=3).predict_proba(ROWS), first)
        assert len(server.requests) == asked
        dry = debate(server, tmp_path / "other", rounds=2, agents=2, chat={"dry_run": True})
        assert dry.predict(ROWS).tolist() == [None] * 5
        assert dry.chat_.asked == 4 * 2 * 2  # different rows, agents, rounds
        assert len(server.requests) == asked


def test_the_key_is_in_no_record_and_no_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("MY_KEY", "sk-secret-0123456789")
    n = 16
    texts = {name: [LABELS[k % 2] for k in range(n)] for name in "ab"}
    data = Dataset(
        "told", told(**texts), np.array(texts["a"], object), "classification", np.array([f"r{k}" for k in range(n)])
    )
    for fail in (0, 10**6):
        with ScriptedChat(stubborn, fail=fail, status=401, echo=True) as server:
            chat = server.options(tmp_path / "cache", key_variable="MY_KEY")
            study = {"seeds": 1, "budgets": ["all"], "controls": []}
            arms = {"unimodal": {"width": 2}, METHOD: {"chat": chat, "rounds": 1}}
            whole = {"name": f"s{fail}", "data": {"set": "told"}, "study": study, "schedule": {"updates": 2}}
            folder = run(parse({**whole, "arms": arms}), folder=tmp_path / "runs", data=data)
        records = {each.cell.method: each for each in Store(folder).records()}
        assert records[METHOD].status == ("failed" if fail else "ok")
        assert ("MY_KEY" in records[METHOD].error) == bool(fail)
    content = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"MY_KEY" in content
    assert b"secret" not in content
    assert "secret" not in caplog.text


def test_wrong_parameters_are_told(tmp_path: Path) -> None:
    words = Views.of(primary="a", kinds={"a": "image"}, a=np.zeros((3, 3, 32, 32)))
    chat = {"model": "m", "base_url": "http://127.0.0.1:9/v1", "cache": str(tmp_path)}
    for parameters, X, told_of in (
        ({"chat": {"modle": "m"}}, TRAIN, "no option 'modle'. Did you mean 'model'"),
        ({"agents": 3}, TRAIN, "of language models. Give a 'chat'"),
        ({"chat": chat, "question": "{a} {d}"}, TRAIN, "field 'd' of nothing known"),
        ({"chat": chat, "question": "{a"}, TRAIN, "cannot be read"),
        ({"chat": chat, "question": "Which of {classes}?"}, TRAIN, "shows no modality"),
        ({"models": {"d": None}}, TRAIN, "'models' names 'd', which is no modality"),
        ({"chat": chat}, words, "image 'a' cannot be written out"),
    ):
        with pytest.raises((ConfigError, DataError), match=told_of):
            create(METHOD, **parameters).fit(X, LABELS)  # type: ignore[arg-type]
    assert Chat.of(chat).asked == 0


# models


def test_what_is_heard_counts_as_much_as_its_odds() -> None:
    """Three classes: 0.6 against 0.2 each is 3 to 1, 0.5 against 0.25 is 2 to 1; the third agent is absent."""
    own = np.array([[[0.6, 0.2, 0.2], [0.25, 0.5, 0.25], [0.0, 0.0, 0.0]]])
    there = np.array([[True, True, False]])
    after = heard(own, own, there, 1.0)[0]
    assert after[0] == pytest.approx(np.array([0.6, 0.4, 0.2]) / 1.2)
    assert after[1] == pytest.approx(np.array([0.75, 0.5, 0.25]) / 1.5)
    assert after[2].tolist() == [0, 0, 0]
    half = heard(own, own, there, 0.5)[0, 0]
    assert half == pytest.approx(np.array([0.6, 0.2 * 2**0.5, 0.2]) / (0.8 + 0.2 * 2**0.5))
    np.testing.assert_allclose(heard(own, own, there, 0.0), own, atol=1e-12)


def gaussians(seed: int, n: int, noise: bool = False) -> tuple[Views, np.ndarray]:
    """Three views of three classes, of which the last two are noise or as good as the first; some rows lack one."""
    g = np.random.default_rng(seed)
    y = np.arange(n) % 3
    views = {name: (0 if noise and name != "p" else 1.2) * np.eye(3)[y] + g.normal(size=(n, 3)) for name in "pqr"}
    X = Views.of(primary="p", **views)
    return X.replace("q", X["q"], present=np.arange(n) % 7 != 3), np.array(LABELS, object)[y]


def slowly(method: Any, X: Views) -> list[list[float]]:
    """The debate of models, row by row and agent by agent."""
    answers = []
    for row in range(len(X)):
        agents = [name for name in X.names if X.present[name][row]]
        own = {name: method.models_[name].decide(X[[row]].only([name], primary=name))[0] for name in agents}
        now = dict(own)
        for _ in range(method.rounds - 1):
            before = dict(now)
            for name in agents:
                belief = own[name].copy()
                for other in agents:
                    if other != name:
                        best = before[other].argmax()
                        sure = before[other][best]
                        belief[best] *= (sure * 2 / (1 - sure)) ** method.trust
                now[name] = belief / belief.sum()
        votes = sum(np.eye(3)[now[name].argmax()] for name in agents)
        answers.append((votes + sum(now.values()) / len(agents)) / (len(agents) + 1))
    return answers


@pytest.mark.parametrize(("rounds", "trust"), [(1, 0.5), (2, 0.5), (4, 0.3)])
def test_a_debate_of_models_is_the_loop_of_its_rule(rounds: int, trust: float) -> None:
    X, y = gaussians(0, 60)
    method = create(METHOD, models=GaussianNB(), rounds=rounds, trust=trust).fit(X, y)
    test, _ = gaussians(1, 30)
    np.testing.assert_allclose(method.predict_proba(test), slowly(method, test), atol=1e-9)
    said = method.transcript(test)
    assert [len(row) for row in said] == [rounds * (3 - (k % 7 == 3)) for k in range(30)]
    assert {each.answer for each in said[0]} <= set(LABELS)


def test_without_trust_it_is_a_vote_and_the_order_means_nothing() -> None:
    (X, y), (test, _) = gaussians(0, 60), gaussians(1, 40)
    vote, deaf, open_minded = (
        create(METHOD, models=GaussianNB(), **each).fit(X, y)
        for each in ({"rounds": 1}, {"rounds": 5, "trust": 0.0}, {})
    )
    np.testing.assert_allclose(deaf.predict_proba(test), vote.predict_proba(test), atol=1e-6)
    assert abs(open_minded.predict_proba(test) - vote.predict_proba(test)).max() > 0.05
    other = {"p": "z", "q": "b", "r": "a"}

    def renamed(X: Views) -> Views:
        present = {other[name]: mask for name, mask in X.present.items()}
        specs = {new: ModalitySpec(new, "vector", (3,)) for new in other.values()}
        return Views({other[name]: array for name, array in X.arrays.items()}, specs, "z", present=present)

    turned = create(METHOD, models=GaussianNB()).fit(renamed(X), y)
    np.testing.assert_allclose(turned.predict_proba(renamed(test)), open_minded.predict_proba(test), atol=1e-12)


def test_agents_that_know_something_help_and_noise_does_not() -> None:
    gains: dict[bool, list[float]] = {True: [], False: []}
    for noise in (False, True):
        for seed in range(8):
            (X, y), (test, truth) = gaussians(seed, 150, noise), gaussians(seed + 100, 600, noise)
            method = create(METHOD, models=GaussianNB()).fit(X, y)
            gains[noise].append(method.score(test, truth) - method.score(test.only(["p"]), truth))
    assert min(gains[False]) > 0.05, gains
    assert np.mean(gains[True]) < 0.01, gains
