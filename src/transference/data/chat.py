"""A language model behind an API: several questions at once, every answer kept on disk, within a budget.

Any server that speaks the chat-completions protocol will do: that of a provider, or one of your own (``base_url``). The
key of the API is read from an environment variable at the moment of asking. It is held nowhere else, and struck out of
whatever comes back: answers, errors, log lines.

    name of an answer = blake2b(server, model, messages, settings)

An answer is a file of that name with a checksum; a damaged one is told by a warning and asked for again. Identical
questions with the same settings are one question: for another draw at a temperature above 0, give another seed.
"""

from __future__ import annotations

import inspect
import os
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from transference.core.errors import ConfigError, DataError, TransferenceError, did_you_mean, must_be
from transference.core.parameters import Constraint, Interval, Options
from transference.data.answers import Answer, Kept, digest
from transference.data.secret import guard_logs, struck_from_answer, told

__all__ = ["Answer", "Chat", "Message"]

VERSION = 1  # of what is asked and kept
SERVER = "https://api.openai.com/v1"  # where no base_url is given
BYTES = 4  # of a text that make a token, about

Message = Mapping[str, str]
Question = tuple[Sequence[Message], Mapping[str, Any]]
Tell = Callable[[int, int], None]


class Chat:
    """Questions to one model.

    Parameters
    ----------
    model
        Its name on the server.
    base_url
        Of the server, such as ``"http://localhost:8000/v1"``; None = the API of OpenAI.
    key_variable
        Name of the environment variable with the key. A server of your own may do without one.
    timeout, retries
        Seconds without an answer; how often a question is put again after an overload or a lost connection.
    cache
        A folder, in which answers are kept below ``chat``; None = the user's cache folder for this package.
    most_tokens, most_cost
        Budget of this object (in a study: of each cell): tokens of questions and answers, and money. What is on disk is
        free. When it is used up nothing more is asked; it may be passed by questions under way, `at_once` at most.
    price
        Of a million tokens of questions, and of answers.
    dry_run
        Nothing is asked. Questions are counted, with an estimate of their tokens and of the longest answers.
    at_once
        Questions that are under way at the same time.

    Attributes
    ----------
    asked
        How many questions were answered by the server, or would have been asked in a dry run.
    used
        Tokens of these questions and of their answers.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        key_variable: str = "OPENAI_API_KEY",
        timeout: float = 60.0,
        retries: int = 3,
        cache: str | Path | None = None,
        most_tokens: int | None = None,
        most_cost: float | None = None,
        price: Sequence[float] = (0.0, 0.0),
        dry_run: bool = False,
        at_once: int = 4,
    ) -> None:
        self.model = model
        self.base_url = base_url
        self.key_variable = key_variable
        self.timeout = timeout
        self.retries = retries
        self.cache = cache
        self.most_tokens = most_tokens
        self.most_cost = most_cost
        self.price = price
        self.dry_run = dry_run
        self.at_once = at_once
        self._check()
        self.asked = 0
        self.used = (0, 0)
        self._counted: set[str] = set()

    @classmethod
    def of(cls, given: Chat | Mapping[str, Any]) -> Chat:
        """What a study file writes: ``chat = { model = "...", base_url = "..." }``, with the parameters as keys."""
        if isinstance(given, Chat):
            return given
        if not isinstance(given, Mapping):
            raise ConfigError(must_be("'chat'", 'a table such as { model = "..." }', type(given).__name__))
        known = list(inspect.signature(cls).parameters)
        for name in map(str, given):
            if name not in known:
                secret = any(word in name.lower() for word in ("key", "token", "secret", "password"))
                remedy = " A key is written nowhere: put it into the variable that 'key_variable' names."
                raise ConfigError(f"'chat' has no option {name!r}. {did_you_mean(name, known)}{remedy * secret}")
        if "model" not in given:
            raise ConfigError("'chat' does not say which model is asked. Write { model = \"...\" }.")
        return cls(**given)

    def __repr__(self) -> str:
        return f"Chat({self.model!r}, base_url={self.base_url!r})"

    @property
    def cost(self) -> float:
        """Of what was used, at the given price."""
        return (self.used[0] * self.price[0] + self.used[1] * self.price[1]) / 1e6

    def ask(
        self,
        conversations: Sequence[Sequence[Message]],
        *,
        most: int = 256,
        temperature: float | None = 0.0,
        seed: int | Sequence[int] | None = None,
        likely: int = 0,
        progress: Tell | None = None,
    ) -> list[Answer]:
        """The answer to each conversation, in their order.

        Parameters
        ----------
        conversations
            Each a list of ``{"role": "system" | "user" | "assistant", "content": text}``.
        most
            Tokens of an answer.
        temperature, seed
            As the API takes them; None is not sent. Several seeds are one a conversation. Few servers promise that a
            seed repeats an answer; the disk does.
        likely
            How many of the likeliest first tokens are told, in [0, 20].
        progress
            Called with (answered questions, questions to ask). Left out: a bar, where there is a terminal.

        Raises
        ------
        ConfigError
            When the budget is used up, the key is refused or missing, or ``openai`` is not installed.
        DataError
            When a question is not answered. Finished answers are kept in each case, so that running again goes on.
        """
        limits = {"most": (Interval(1, whole=True), most), "likely": (Interval(0, 20, whole=True), likely)}
        for subject, (limit, value) in limits.items():
            if not limit.allows(value):
                raise ConfigError(must_be(f"The {subject!r} of a question", str(limit), value))
        seeds = [seed] * len(conversations) if seed is None or isinstance(seed, int) else list(seed)
        settings = {"most": most, "temperature": temperature, "likely": likely}
        questions: list[Question] = [
            ([{key: _clean(text) for key, text in each.items()} for each in talk], {**settings, "seed": own})
            for talk, own in zip(conversations, seeds, strict=True)
        ]
        names = [digest([VERSION, self.base_url or SERVER, self.model, *question]) for question in questions]
        todo = dict(zip(names, questions, strict=True))
        disk = Kept(self.cache)
        found = {name: kept for name in todo if (kept := disk.load(name)) is not None}
        todo = {name: question for name, question in todo.items() if name not in found}
        if self.dry_run:
            found |= {name: self._estimate(name, talk, most) for name, (talk, _) in todo.items()}
        elif todo:
            found |= self._ask(todo, disk, progress)
        return [found[name] for name in names]

    def _ask(self, todo: Mapping[str, Question], disk: Kept, progress: Tell | None) -> dict[str, Answer]:
        _require_openai()
        key = self._key()
        found: dict[str, Answer] = {}
        waiting, running = deque(todo), dict[Future[Answer | TransferenceError], str]()
        fault: TransferenceError | None = None
        with (
            self._client(key) as client,
            _bar(self.model, len(todo), progress) as tell,
            ThreadPoolExecutor(self.at_once) as pool,
        ):
            while waiting or running:
                while waiting and fault is None and len(running) < self.at_once:
                    fault = self._used_up(len(waiting))
                    if fault is None:
                        name = waiting.popleft()
                        running[pool.submit(self._one, client, name, *todo[name], disk, key)] = name
                if not running:
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    name, outcome = running.pop(future), future.result()
                    if isinstance(outcome, Answer):
                        found[name] = outcome
                        self._count(outcome.tokens)
                        tell(len(found), len(todo))
                    else:
                        fault = fault or outcome
        if fault is not None:  # raised here, so that nothing of the client's own error hangs on it
            raise type(fault)(f"{fault} {len(found)} of {len(todo)} answers came and are kept; running again goes on.")
        return found

    def _one(
        self, client: Any, name: str, talk: Sequence[Message], settings: Mapping[str, Any], disk: Kept, key: str
    ) -> Answer | TransferenceError:
        """An answer, kept on disk; or what is to be raised."""
        import openai

        limit = "max_completion_tokens" if self.base_url is None else "max_tokens"  # which other servers understand
        request: dict[str, Any] = {"model": self.model, "messages": talk, limit: settings["most"]}
        request |= {each: settings[each] for each in ("temperature", "seed") if settings[each] is not None}
        if settings["likely"]:
            request |= {"logprobs": True, "top_logprobs": settings["likely"]}
        try:
            answer = _read(client.chat.completions.create(**request), talk)
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            subject = f"The key in the environment variable {self.key_variable!r} was refused by {self._where}"
            return ConfigError(f"{subject}: {told(error, key)}.")
        except (openai.OpenAIError, ValueError, TypeError, AttributeError, LookupError) as error:
            return DataError(f"A question was not answered by {self._where}: {told(error, key)}.")
        likely = {struck_from_answer(token, key): value for token, value in answer.likely.items()}
        answer = replace(answer, text=struck_from_answer(answer.text, key), likely=likely)
        disk.keep(name, answer)
        return answer

    @property
    def _where(self) -> str:
        return f"{self.model!r} at {self.base_url or SERVER}"

    def _client(self, key: str) -> Any:
        import openai

        guard_logs(self.key_variable)
        where = self.base_url or SERVER
        return openai.OpenAI(api_key=key or "none", base_url=where, timeout=self.timeout, max_retries=self.retries)

    def _key(self) -> str:
        key, subject = os.environ.get(self.key_variable, "").strip(), f"The environment variable {self.key_variable!r}"
        if not key and self.base_url is None:
            raise ConfigError(f"{subject} must hold the key of the API, and is empty. Set it, or give a 'base_url'.")
        if not (key.isascii() and key.isprintable()):
            raise ConfigError(f"{subject} holds something that can be no key. Set it again.")
        return key

    def _used_up(self, left: int) -> ConfigError | None:
        """What is to be raised where the budget allows no further question."""
        total = sum(self.used)
        for name, limit, used in (("most_tokens", self.most_tokens, total), ("most_cost", self.most_cost, self.cost)):
            if limit is not None and used >= limit:
                spent = f"{used:.6g} of {name} = {limit:.6g} went into {self.asked} answers"
                subject = f"The budget for {self._where} is used up"
                return ConfigError(f"{subject}: {spent}, and {left} questions remain. Raise {name!r}.")
        return None

    def _count(self, tokens: tuple[int, int]) -> None:
        self.asked += 1
        self.used = (self.used[0] + tokens[0], self.used[1] + tokens[1])

    def _estimate(self, name: str, talk: Sequence[Message], most: int) -> Answer:
        if name not in self._counted:
            self._counted.add(name)
            self._count((_tokens(talk), most))
        return Answer("", tokens=(_tokens(talk), most))

    def _check(self) -> None:
        limits: dict[str, Constraint] = {
            "timeout": Interval(0, open_low=True),
            "retries": Interval(0, whole=True),
            "most_tokens": Interval(1, whole=True, none=True),
            "most_cost": Interval(0, open_low=True, none=True),
            "dry_run": Options(True, False),
            "at_once": Interval(1, whole=True),
        }
        for name, limit in limits.items():
            if not limit.allows(getattr(self, name)):
                raise ConfigError(must_be(f"The option {name!r} of a chat", str(limit), getattr(self, name)))
        if not (isinstance(self.model, str) and self.model):
            raise ConfigError(must_be("The option 'model' of a chat", "the name of a model", self.model))
        if not (isinstance(self.key_variable, str) and re.fullmatch(r"[A-Za-z_]\w*", self.key_variable)):
            raise ConfigError(
                "The option 'key_variable' of a chat must be the name of an environment variable, such as "
                "'OPENAI_API_KEY'. What came is not shown, since it may be a key."
            )
        if self.base_url is not None:
            parts = urlsplit(self.base_url) if isinstance(self.base_url, str) else None
            if parts is None or parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
                raise ConfigError(
                    "The option 'base_url' of a chat must be an address that begins with http:// or https:// and holds "
                    "no user or password. Write one such as 'http://localhost:8000/v1'."
                )
        if not (isinstance(self.cache, str | Path) or self.cache is None):
            raise ConfigError(must_be("The option 'cache' of a chat", "a folder", self.cache))
        pair = isinstance(self.price, list | tuple) and len(self.price) == 2
        if not (pair and all(Interval(0).allows(each) for each in self.price)):
            expected = "two numbers: of a million tokens of questions, and of answers"
            raise ConfigError(must_be("The option 'price' of a chat", expected, self.price))
        if self.most_cost is not None and not any(self.price):
            raise ConfigError("The option 'most_cost' of a chat means nothing without a price. Give 'price' too.")


def _require_openai() -> None:
    if find_spec("openai") is None:
        raise ConfigError(
            "Asking a language model needs openai, not installed here. Run: pip install 'transference[language-models]'"
        )


def _read(reply: Any, talk: Sequence[Message]) -> Answer:
    """Raises ValueError or the like where the reply is no chat completion."""
    choices = getattr(reply, "choices", None)
    if not choices or not isinstance(choices[0].message.content, str | None):
        raise ValueError("what came is no chat completion")
    text, usage = choices[0].message.content or "", reply.usage
    first = getattr(choices[0].logprobs, "content", None)
    likely = {each.token: float(each.logprob) for each in (first[0].top_logprobs if first else ())}
    if usage is None:
        return Answer(text, likely, (_tokens(talk), _tokens([{"content": text}])))
    return Answer(text, likely, (int(usage.prompt_tokens), int(usage.completion_tokens)))


def _tokens(talk: Sequence[Message]) -> int:
    """About how many tokens a conversation has."""
    return sum(BYTES + len(each["content"].encode()) // BYTES for each in talk)


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode()  # halves of characters can not be sent


@contextmanager
def _bar(what: str, total: int, progress: Tell | None) -> Iterator[Tell]:
    """What is told of progress: the caller's own function, or a bar where there is a terminal."""
    if progress is not None:
        yield progress
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done, total: bar.update(task, completed=done, total=total)
