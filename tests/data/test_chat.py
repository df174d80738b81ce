"""Questions to a language model: kept, counted, limited; and a key that is nowhere. The server runs in the test."""

from __future__ import annotations

import logging
import traceback
from pathlib import Path
from typing import Any

import pytest
from scripted_chat import ScriptedChat

from transference.core.errors import ConfigError, DataError, TransferenceError
from transference.data import chat as module
from transference.data.chat import Chat

KEY = 'sk-se"cret\\1234'  # a quote and a backslash, which JSON writes in another way


def said(*texts: str) -> list[list[dict[str, str]]]:
    return [[{"role": "user", "content": text}] for text in texts]


def echo(messages: list[dict[str, str]]) -> str:
    return f"so {messages[-1]['content']}"


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_answers_keep_the_order_and_are_asked_for_once(tmp_path: Path) -> None:
    with ScriptedChat(echo) as server:
        chat = Chat.of(server.options(tmp_path))
        assert [answer.text for answer in chat.ask(said("a", "b", "a"))] == ["so a", "so b", "so a"]
        assert (len(server.requests), chat.asked, chat.used) == (2, 2, (2, 4))
        again = Chat.of(server.options(tmp_path)).ask(said("b", "c", "a"))
        assert [(answer.text, answer.cached) for answer in again] == [("so b", True), ("so c", False), ("so a", True)]
        assert again[0].tokens == (1, 2)
        assert len(server.requests) == 3
        for change in ({"seed": 1}, {"temperature": 0.5}, {"most": 9}, {"likely": 2}):
            assert not chat.ask(said("a"), **change)[0].cached, change  # type: ignore[arg-type]
        assert [each.cached for each in chat.ask(said("a", "a"), seed=[1, 2])] == [True, False]
        assert not Chat.of(server.options(tmp_path, model="other")).ask(said("a"))[0].cached
    with ScriptedChat(echo) as elsewhere:
        assert not Chat.of(elsewhere.options(tmp_path)).ask(said("a"))[0].cached
    assert all(path.suffix == ".json" for path in files(tmp_path))  # nothing half written stays


def test_what_is_asked_is_what_is_sent(tmp_path: Path) -> None:
    with ScriptedChat(lambda _: {"yes": -0.1, "no": -2.5, "maybe": -4.0}) as server:
        chat = Chat.of(server.options(tmp_path))
        answer = chat.ask(said("a \udc80"), most=7, temperature=0.25, seed=3, likely=2)[0]
        assert (answer.text, answer.likely) == ("yes", {"yes": -0.1, "no": -2.5})
        assert chat.ask(said("a \udc80"), most=7, temperature=0.25, seed=3, likely=2)[0].likely == answer.likely
        assert not chat.ask(said("b"), temperature=None)[0].likely
    first, second = server.requests
    assert first == {
        "model": "scripted",
        "messages": [{"role": "user", "content": "a ?"}],
        "max_tokens": 7,
        "temperature": 0.25,
        "seed": 3,
        "logprobs": True,
        "top_logprobs": 2,
    }
    assert second.keys() == {"model", "messages", "max_tokens"}


@pytest.mark.parametrize("status", [429, 500])
def test_an_overloaded_server_is_asked_again(tmp_path: Path, status: int) -> None:
    with ScriptedChat(echo, fail=2, status=status) as server:
        assert Chat.of(server.options(tmp_path, retries=2)).ask(said("a"))[0].text == "so a"
    assert len(server.requests) == 3


def test_what_can_not_be_answered_is_told_and_the_rest_is_kept(tmp_path: Path) -> None:
    replies: dict[str, Any] = {"a": "fine", "b": "fine", "c": b"{half", "d": b'{"choices": []}', "e": b'"text"'}
    with ScriptedChat(lambda messages: replies[messages[-1]["content"]]) as server:
        for wrong in "cde":
            chat = Chat.of(server.options(tmp_path / wrong, at_once=1))
            with pytest.raises(DataError, match=r"'scripted' at http://127.*2 of 4 answers came and are kept"):
                chat.ask(said("a", "b", wrong, "f"))
            assert len(files(tmp_path / wrong)) == 2
            assert [answer.cached for answer in chat.ask(said("a", "b"))] == [True, True]
    with (
        ScriptedChat(echo, fail=2, status=500) as server,
        pytest.raises(DataError, match="InternalServerError: .*refused"),
    ):
        Chat.of(server.options(tmp_path, retries=1)).ask(said("a"))
    with ScriptedChat(echo, hang=0.6) as server, pytest.raises(DataError, match="APITimeoutError"):
        Chat.of(server.options(tmp_path, timeout=0.1)).ask(said("a"))


@pytest.mark.parametrize("damage", ["", "[]", '{"text": "other"}', None])
def test_a_damaged_file_is_asked_for_again(tmp_path: Path, damage: str | None) -> None:
    with ScriptedChat(echo) as server:
        chat = Chat.of(server.options(tmp_path))
        chat.ask(said("a"))
        path = files(tmp_path)[0]
        path.write_text(path.read_text().replace("so a", "so b") if damage is None else damage)
        with pytest.warns(UserWarning, match="is damaged and is asked for again"):
            assert chat.ask(said("a"))[0].text == "so a"
        assert chat.ask(said("a"))[0].cached
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("limit", "told"),
    [
        ({"most_tokens": 6}, r"6 of most_tokens = 6 went into 2 answers, and 3 questions remain. Raise 'most_tokens'"),
        (
            {"most_cost": 1.5, "price": (1e5, 2e5)},
            r"1.5 of most_cost = 1.5 went into 3 answers, and 2 questions remain",
        ),
    ],
)
def test_a_budget_stops_before_it_is_passed_and_more_of_it_goes_on(
    tmp_path: Path, limit: dict[str, Any], told: str
) -> None:
    """A question of 1 word and its answer of 2 are 3 tokens, and cost 0.1 + 0.4."""
    with ScriptedChat(echo) as server:
        chat = Chat.of(server.options(tmp_path, at_once=1, **limit))
        with pytest.raises(ConfigError, match=told):
            chat.ask(said(*"abcde"))
        done = len(server.requests)
        with pytest.raises(ConfigError, match="is used up"):
            chat.ask(said("f"))
        assert chat.ask(said("a"))[0].cached  # what is on disk is free
        assert len(server.requests) == done
        assert [answer.cached for answer in Chat.of(server.options(tmp_path)).ask(said(*"abcde"))].count(True) == done
    assert len(server.requests) == 5


def test_a_dry_run_counts_and_asks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    chat = Chat("some-model", dry_run=True, cache=tmp_path, price=[1e6, 0])
    for _ in range(2):
        assert [answer.text for answer in chat.ask(said("x" * 36, "y" * 36, "x" * 36), most=50)] == [""] * 3
    assert (chat.asked, chat.used, chat.cost) == (2, (2 * (4 + 9), 100), 26.0)
    assert not files(tmp_path)


def test_several_questions_are_under_way_at_once(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    with ScriptedChat(echo, hang=0.15, usage=False) as server:
        chat = Chat.of(server.options(tmp_path, at_once=3))
        answers = chat.ask(said(*"abcdef"), progress=lambda done, total: told.append((done, total)))
    assert [answer.text for answer in answers] == [f"so {letter}" for letter in "abcdef"]
    assert 2 <= server.most_at_once <= 3
    assert told == [(k, 6) for k in range(1, 7)]
    assert chat.used == (6 * 4, 6 * 5)  # estimated, since the server does not say


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "does not say which model"),
        ({"model": "m", "base_ulr": "x"}, "no option 'base_ulr'. Did you mean 'base_url'"),
        ({"model": "m", "api_key": "hidden"}, "no option 'api_key'.*A key is written nowhere"),
        ({"model": "m", "key_variable": "sk-hidden"}, "name of an environment variable"),
        ({"model": "m", "base_url": "https://me:hidden@host/v1"}, "no user or password"),
        ({"model": "m", "base_url": "host"}, "begins with http"),
        ({"model": ""}, "'model' of a chat must be the name of a model"),
        ({"model": "m", "at_once": 0}, "'at_once' of a chat must be an integer of at least 1. Got 0"),
        ({"model": "m", "price": [1]}, "'price' of a chat must be two numbers"),
        ({"model": "m", "most_cost": 1.0}, "means nothing without a price"),
        ({"model": "m", "cache": 3}, "'cache' of a chat must be a folder"),
    ],
)
def test_wrong_options_are_refused_and_a_key_among_them_is_not_shown(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told) as raised:
        Chat.of(options)
    assert "hidden" not in str(raised.value)


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    chat = Chat("m", cache=tmp_path)
    with pytest.raises(ConfigError, match="'OPENAI_API_KEY' must hold the key of the API, and is empty"):
        chat.ask(said("a"))
    monkeypatch.setenv("OPENAI_API_KEY", "line\none")
    with pytest.raises(ConfigError, match="can be no key"):
        chat.ask(said("a"))
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'transference\[language-models\]'"):
        chat.ask(said("a"))
    with pytest.raises(ConfigError, match="'most' of a question must be an integer of at least 1. Got 0"):
        chat.ask(said("a"), most=0)


def test_the_key_is_sent_and_is_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Though the server repeats it in errors, in answers and in its headers."""
    monkeypatch.setenv("MY_KEY", f" {KEY}\n")
    caplog.set_level(logging.DEBUG)
    seen: list[str] = []
    for status, error in ((401, ConfigError), (500, DataError)):
        with ScriptedChat(echo, fail=1, status=status, echo=True) as server:
            chat = Chat.of(server.options(tmp_path, key_variable="MY_KEY"))
            with pytest.raises(TransferenceError, match=r"Bearer \[key\]") as raised:
                chat.ask(said("a"))
            assert type(raised.value) is error
            assert raised.value.__context__ is None
            seen += traceback.format_exception(raised.value)
            answer = chat.ask(said("a"))[0]
            assert "Bearer [key]" in answer.text
            seen += [repr(answer), repr(chat), repr(vars(chat)), *(path.read_text() for path in files(tmp_path))]
    assert "[key]" in caplog.text  # the headers of the answer are told at this level
    seen.append(caplog.text)
    assert not [text for text in seen if KEY.replace("\\", "") in text.replace("\\", "")]


def test_a_word_that_stands_in_for_a_key_is_not_struck_out_of_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "none")
    with ScriptedChat(echo) as server:
        assert Chat.of(server.options(tmp_path, key_variable="MY_KEY")).ask(said("none"))[0].text == "so none"
