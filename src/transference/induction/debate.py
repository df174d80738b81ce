"""Debate: agents answer by themselves, hear what the others answered, and answer again; the majority has it.

Use it where several models see the same rows, or each a modality of its own, and their mistakes differ. Two sorts of
agents: models of the modalities, one each, and language models behind an API, which are given the rows as texts.

    round 1:          a_i(1) = answer of agent i to the row alone
    round t:          a_i(t) = answer of agent i to the row, its own answers so far, and a_j(t - 1) of every other j
    after R rounds:   the class that most of a_1(R) ... a_n(R) name

Everybody answers to the round before, so the order of the agents means nothing. With one round it is a majority vote.

A model answers with its class c_j and the probability w_j of that class. It holds on to its own opinion p_i, and counts
another's answer as much as the odds of w_j against each of the other k - 1 classes say:

    q_i(c)  ~  p_i(c) · prod_{j != i: c_j = c}  ( w_j (k - 1) / (1 - w_j) ) ^ trust        the answer of the next round

`trust` 0 is a majority vote again. The agents whose modality a row lacks stay out. Ties: models, the class with the
larger mean of the agents' last probabilities; language models, the class that was named more often in all rounds; after
that the first class. The probabilities are (votes + one more vote, divided as ties are decided) / (agents + 1).

A language model's answer without one of the classes is no vote. A row without any vote gets None for a label, which is
wrong; its probabilities are alike, but for a hair more of the class that is rarest in training. A seed goes with each
agent's questions and answers are kept on disk, so that predictions stay the same.

Shapes: probabilities (n, agents, classes). Cost: models, a fit of each; a debate costs nothing more. Language models,
rows x agents x rounds questions, whose lengths grow with agents x rounds; fitting asks nothing.

Source: du2024debate. Departs from it: agents may be models, with a rule in place of words; others are quoted in an
order that does not depend on the agents'; an answer that names no class is no vote, where the authors' code counts it
as right; ties go to what was said more often, there to what was said first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from transference.core.errors import ConfigError, DataError, did_you_mean
from transference.core.method import Card, Method
from transference.core.parameters import Interval
from transference.core.seeding import derive, numpy_generator
from transference.core.views import Views
from transference.data.chat import Chat
from transference.data.questions import class_named, fields_of, filled
from transference.data.rendering import as_texts
from transference.train.models import check_model, new_model, one
from transference.train.schedule import Schedule

Array = NDArray[Any]

QUESTION = "What is known of a case:\n\n{views}\n\nWhich of these classes is it: {classes}?"
FORM = "Reason in a few sentences. Then end with a line of the form 'Answer: X', where X is one of: {classes}."
HEARD = "Weigh this against what you know of the case. Then answer again, in the same form."
ALONE = "Go through your answer once more, and look for mistakes. Then answer again, in the same form."
HAIR = 1e-3  # by which the class of a row without votes is ahead


@dataclass(frozen=True)
class Speech:
    """What one agent said in one round, counted from 1.

    `asked` and `said` are the messages (of a model, none and its answer in words), `answer` the class or None where it
    named none, `confidence` the probability of a model's class, 1 for a language model.
    """

    agent: str
    turn: int
    asked: str
    said: str
    answer: Any
    confidence: float


class Debate(Method):
    """Agents that answer, hear one another, and answer again.

    Parameters
    ----------
    chat
        None: the agents are models. Otherwise they are language models: what `data.chat.Chat` takes, as a mapping with
        ``model`` and, say, ``base_url``.
    agents
        Of a language model: how many, each of which sees all modalities; None = one a modality, which sees that alone.
    rounds
        R, the first one included.
    question
        A template of what a language model is asked first. Fields: ``{classes}``; the names of modalities; ``{views}``,
        a line for each modality that the agent sees. None = a plain question.
    examples
        How many labelled rows of each class a language model is shown before the question.
    temperature, most
        Of a language model's answers; the most tokens of one.
    models
        What the agents are without a `chat`: one model for all modalities, or a mapping from modality to model (None
        for those left out). A model is None: a network; or the id of a method, or a scikit-learn estimator as in
        ``unimodal``.
    trust
        How much a model gives to another's answer: 0 = nothing, 1 = as if it were evidence of its own.

    Attributes
    ----------
    models_
        The fitted model of each modality; empty with a `chat`.
    chat_
        The language model, with what was ``asked`` and ``used``; None without a `chat`.
    examples_
        (modality -> text, class) of each example.
    rarest_
        The class number of which the fewest rows are labelled.
    """

    card: ClassVar[Card] = Card(
        summary="Agents answer, hear one another's answers, and answer again; the majority has it.",
        reference="du2024debate",
        modalities=(1, None),
        needs=frozenset({"labels"}),
        at_test="any",
        tasks=frozenset({"classification"}),
    )
    constraints = {
        "agents": Interval(1, whole=True, none=True),
        "rounds": Interval(1, whole=True),
        "examples": Interval(0, whole=True),
        "temperature": Interval(0),
        "most": Interval(1, whole=True),
        "trust": Interval(0),
    }

    def __init__(
        self,
        *,
        chat: Mapping[str, Any] | None = None,
        agents: int | None = None,
        rounds: int = 2,
        question: str | None = None,
        examples: int = 0,
        temperature: float = 0.7,
        most: int = 512,
        models: Any = None,
        trust: float = 0.5,
        width: int = 64,
        schedule: Schedule = Schedule(),
        seed: int = 0,
    ) -> None:
        self.chat = chat
        self.agents = agents
        self.rounds = rounds
        self.question = question
        self.examples = examples
        self.temperature = temperature
        self.most = most
        self.models = models
        self.trust = trust
        self.width = width
        self.schedule = schedule
        self.seed = seed

    def check_parameters(self) -> None:
        super().check_parameters()
        if self.chat is not None:
            Chat.of(self.chat)
            fields_of(self.question or QUESTION)
        elif self.agents is not None or self.question is not None or self.examples:
            raise ConfigError(
                "The 'agents', 'question' and 'examples' parameters of Debate are of language models. Give a 'chat', "
                "or leave them out."
            )
        for given in self.models.values() if self._by_modality() else [self.models]:
            check_model(given)

    def learn(self, X: Views, target: Array) -> None:
        self.rarest_ = int(np.bincount(target[target >= 0], minlength=self.spec_.task.outputs).argmin())
        self.models_: dict[str, Method] = {}
        self.examples_: list[tuple[dict[str, str], Any]] = []
        self.chat_ = None if self.chat is None else Chat.of(self.chat)
        self.history_: dict[str, list[float]] = {}
        if self.chat_ is not None:
            self._show(X, target)
            return
        if self._by_modality():
            for name in self.models:
                if name not in X.names:
                    raise ConfigError(f"'models' names {name!r}, which is no modality. {did_you_mean(name, X.names)}")
        for name in X.names:
            if not ((target >= 0) & X.present[name]).any():
                raise DataError(f"No labelled row has {name!r}, so its agent cannot learn. Leave it out of the study.")
        for name in X.names:
            given = self.models.get(name) if self._by_modality() else self.models
            model = new_model(given, width=self.width, schedule=self.schedule, seed=self.seed)
            self.models_[name] = model.fit_encoded(one(X, name), target, self.spec_.task)
        self.history_ = getattr(self.models_[X.primary], "history_", {})

    def predict(self, X: Views) -> Array:
        """(n,) labels; None for a row in which no language model named a class."""
        self._fitted()
        answers, silent = self._tally(self._readable(X))
        labels = self.classes_[answers.argmax(1)]
        if silent.any():
            labels = labels.astype(object)
            labels[silent] = None
        return labels

    def decide(self, X: Views) -> Array:
        return self._tally(X)[0]

    def transcript(self, X: Views) -> list[list[Speech]]:
        """For each row all that was said, round by round, and in a round agent by agent."""
        self._fitted()
        X = self._readable(X)
        if self.chat_ is not None:
            return self._debate_of_languages(X)
        rows: list[list[Speech]] = [[] for _ in range(len(X))]
        for turn, (opinions, there) in enumerate(self._debate_of_models(X), 1):
            for row, agent in np.argwhere(there).tolist():
                best = int(opinions[row, agent].argmax())
                label, sure = self.classes_.tolist()[best], float(opinions[row, agent, best])
                said = f"Answer: {label} (confidence {sure:.2f})"
                rows[row].append(Speech(list(self.models_)[agent], turn, "", said, label, sure))
        return rows

    def embed(self, X: Views) -> dict[str, Array]:
        self._fitted()
        if self.chat_ is not None:
            return super().embed(X)
        return {name: model.embed(one(X, name))[name] for name, model in self.models_.items() if name in X.arrays}

    def _by_modality(self) -> bool:
        return isinstance(self.models, Mapping) and "class" not in self.models

    def _tally(self, X: Views) -> tuple[Array, Array]:
        """(n, classes) probabilities, and (n,) whether nobody voted."""
        if self.chat_ is None:
            opinions, there = self._debate_of_models(X)[-1]
            voters = there.sum(1, keepdims=True)
            answers = (_votes(opinions, there) + opinions.sum(1) / voters) / (voters + 1)
            return answers, np.zeros(len(X), bool)
        known = self.classes_.tolist()
        named = np.zeros((len(X), self.rounds, len(known)))
        for row, speeches in enumerate(self._debate_of_languages(X)):
            for speech in speeches:
                if speech.answer is not None:
                    named[row, speech.turn - 1, known.index(speech.answer)] += 1
        votes, all_rounds = named[:, -1], named.sum(1)
        voters = votes.sum(1, keepdims=True)
        answers = (votes + all_rounds / np.maximum(all_rounds.sum(1, keepdims=True), 1)) / (voters + 1)
        silent = voters[:, 0] == 0
        answers[silent] = (1 - HAIR) / len(known) + HAIR * (np.arange(len(known)) == self.rarest_)
        return answers, silent

    def _debate_of_models(self, X: Views) -> list[tuple[Array, Array]]:
        """For each round (n, agents, classes) opinions, 0 of absent agents, and (n, agents) who is there."""
        there = np.zeros((len(X), len(self.models_)), bool)
        own = np.zeros((*there.shape, self.spec_.task.outputs))
        for agent, (name, model) in enumerate(self.models_.items()):
            if name in X.arrays and X.present[name].any():
                there[:, agent] = X.present[name]
                own[there[:, agent], agent] = model.decide(one(X, name)[X.present[name]])
        rounds = [own]
        while len(rounds) < self.rounds:
            rounds.append(heard(own, rounds[-1], there, self.trust))
        return [(opinions, there) for opinions in rounds]

    def _show(self, X: Views, target: Array) -> None:
        """Choose the examples, and refuse now what could not be asked."""
        fields = fields_of(self.question or QUESTION, ["views", "classes", *X.names])
        if not {"views", *X.names}.intersection(fields):
            raise ConfigError(
                "The 'question' of Debate shows no modality. Write {views}, or the name of one in braces."
            )
        chosen: list[int] = []
        for label in range(self.spec_.task.outputs):
            rows = numpy_generator(self.seed, "examples", str(label)).permutation(np.flatnonzero(target == label))
            chosen += rows[: self.examples].tolist()
        shown = X.take(np.array(chosen or [0]))  # one row at least, which tells whether it can be written out
        texts = {name: as_texts(shown, name) for name in X.names}
        for place, row in enumerate(chosen):
            there = {name: texts[name][place] for name in X.names if X.present[name][row]}
            self.examples_.append((there, self.classes_.tolist()[target[row]]))

    def _debate_of_languages(self, X: Views) -> list[list[Speech]]:
        """For each row what was said, round by round and agent by agent."""
        chat: Any = self.chat_
        names, classes = tuple(self.spec_.modalities), self.classes_.tolist()
        agents: dict[str, tuple[str, ...]] = {name: (name,) for name in names}
        if self.agents is not None:
            agents = {f"agent {k}": names for k in range(1, self.agents + 1)}
        texts = {name: as_texts(X, name) for name in X.names}
        talks: dict[str, dict[int, list[dict[str, str]]]] = {agent: {} for agent in agents}  # agent -> row -> messages
        for agent, seen in agents.items():
            for row in range(len(X)):
                shown = {name: texts[name][row] for name in seen if name in texts and X.present[name][row]}
                if shown:
                    talks[agent][row] = [{"role": "user", "content": self._opening(shown, seen)}]
        found: list[list[Speech]] = [[] for _ in range(len(X))]
        for turn in range(1, self.rounds + 1):
            if turn > 1:
                self._pass_on(talks)
            places = [(agent, row) for agent, by_row in talks.items() for row in by_row]
            asked = [talks[agent][row] for agent, row in places]
            seeds = [derive(self.seed, "agent", agent) % 2**31 for agent, _ in places]
            said = chat.ask(asked, most=self.most, temperature=self.temperature, seed=seeds)
            for (agent, row), talk, answer in zip(places, asked, said, strict=True):
                number = class_named(answer.text, classes)
                label = None if number is None else classes[number]
                found[row].append(Speech(agent, turn, talk[-1]["content"], answer.text, label, 1.0))
                talk.append({"role": "assistant", "content": answer.text})
        return found

    def _opening(self, shown: Mapping[str, str], seen: Sequence[str]) -> str:
        names, classes = tuple(self.spec_.modalities), self.classes_.tolist()
        parts = []
        for texts, label in self.examples_:
            known = {name: text for name, text in texts.items() if name in seen}
            if known:
                parts.append(filled("An example:\n\n{views}\n\nAnswer: ", known, names, classes) + str(label))
        parts += [filled(self.question or QUESTION, shown, names, classes), filled(FORM, shown, names, classes)]
        return "\n\n".join(parts)

    def _pass_on(self, talks: Mapping[str, Mapping[int, list[dict[str, str]]]]) -> None:
        """Add to every conversation what the others said last; nothing that is said now is heard now."""
        last: dict[int, dict[str, str]] = {}  # row -> agent -> what it said
        for agent, by_row in talks.items():
            for row, talk in by_row.items():
                last.setdefault(row, {})[agent] = talk[-1]["content"]
        who = "One who knows the {} alone" if self.agents is None else "Another"
        for agent, by_row in talks.items():
            for row, talk in by_row.items():
                others = sorted((text, other) for other, text in last[row].items() if other != agent)
                said = [f"{who.format(other)} says:\n{text}" for text, other in others]
                content = "\n\n".join([*said, HEARD]) if said else ALONE
                talk.append({"role": "user", "content": content})


def heard(own: Array, last: Array, there: Array, trust: float) -> Array:
    """(n, agents, classes) opinions after the others' last answers were heard.

    Parameters
    ----------
    own, last
        (n, agents, classes) probabilities before the debate, and after the round before; 0 for agents that are absent.
    there
        (n, agents).
    trust
        Exponent of what the others say.

    Examples
    --------
    >>> own = np.array([[[0.8, 0.2], [0.3, 0.7]]])
    >>> heard(own, own, np.array([[True, True]]), 1.0).round(3).tolist()
    [[[0.632, 0.368], [0.632, 0.368]]]
    """
    k = own.shape[2]
    sure = np.clip(last.max(2), 1 / k, 1 - 1e-6)
    odds = np.where(there, np.log(sure * max(k - 1, 1) / (1 - sure)), 0)  # (n, agents), 0 or more
    said = odds[:, :, None] * (last.argmax(2)[:, :, None] == np.arange(k))  # (n, agents, classes)
    logits = np.log(np.maximum(own, 1e-12)) + trust * (said.sum(1, keepdims=True) - said)
    weight = np.exp(logits - logits.max(2, keepdims=True)) * there[:, :, None]
    return weight / np.maximum(weight.sum(2, keepdims=True), 1e-300)


def _votes(opinions: Array, there: Array) -> Array:
    """(n, classes) how many agents that are there hold each class for the most probable."""
    return ((opinions.argmax(2)[:, :, None] == np.arange(opinions.shape[2])) & there[:, :, None]).sum(1)
