"""Co-training with a prompted language model: a label model over what it says and a small model teach one another.

Use it when labels are scarce, unlabelled rows are many and a language model, asked in several ways, is often right: the
small model, which is what answers, then needs no language model, and only the primary modality.

    view 0    phi_l (classes,): the probabilities of the label words as first token of the answer to prompt l
              label model   out = sum_l a_l s(W_l phi_l + b_l),  s the sigmoid or ReLU, trained with CE(y, softmax(out))
              it starts at W_l = diag(1 / p_l), b = 0, a = 1;  p_l is phi_l, of sum 1, for a row without content
    view 1    the model of the primary modality

    for t = 0 ... rounds - 1:    coverage beta_t = min(1, coverage + growth t)
        the label model labels the unlabelled rows; of them the share beta_t that the cut statistic finds most credible
        teaches a new model of the primary modality, beside the labelled rows, which keep their labels
        that model labels the rows; the share beta_t teaches a new label model, from its start, for 40 epochs

    cut statistic of row i    z = (J - mu) / s,   J = sum_j w_ij [y_j != y_i],   mu = (1 - p) sum_j w_ij
                              s^2 = p (1 - p) sum_j w_ij^2,   w_ij = 1 / (1 + d_ij),   p the share of the label y_i
    over its K nearest rows, itself included, in the representation of the model of the primary modality fitted last
    (the first time: to the labelled rows). The smaller z, the more credible. Where all labels are alike, z is 0.

Where the classes lie apart z says most of all how rare a label is, and after a few rounds one class is left; so each is
chosen in its share among the labelled rows (`class_share`). Nothing mends a view 0 whose first labels are guesses.

Of what teaches, the share `held_out` of each class chooses the best state: that of the largest balanced accuracy, of
equal ones that of the smallest loss. A `model` that is given chooses by its own rule.

Without a language model (`chat` None) phi_l are the probabilities of logistic regressions, fitted to the labelled rows
and then frozen: one a secondary modality; where there is one modality to read, four of it, on resampled rows. There is
no row without content to ask them about, so p_l is the same for all classes.

Cost: a question for each row and prompt, once, and `rounds` + 1 fits of the model, of which the last gets the whole
schedule. Source: lang2022. Departs from it: labelled rows are used, where the paper has none but those in its prompts;
the start of the small model is learned, not pretrained; an answer without probabilities counts as certain. The paper's
figures were not repeated: the outputs of GPT-3 that they rest on are not here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn import functional as F

from transference.core.batch import Batch
from transference.core.errors import ConfigError, DataError, must_be
from transference.core.method import Card, Method
from transference.core.parameters import Interval, Options
from transference.core.seeding import numpy_generator
from transference.core.spec import DataSpec, Task
from transference.core.views import Views
from transference.data.chat import Answer, Chat
from transference.data.loader import chunks
from transference.data.questions import fields_of
from transference.data.rendering import as_texts
from transference.data.tabular import features
from transference.nn.losses import supervised
from transference.nn.network import Network
from transference.nn.pseudo import class_shares
from transference.train.estimator import EstimatorMethod
from transference.train.loop import Stage, Step, train
from transference.train.models import as_unimodal, check_model, is_neural_default, new_model, one, shortened
from transference.train.neural import NeuralMethod
from transference.train.schedule import Schedule

Array = NDArray[Any]
TASK = Task("classification")
EMPTY = ("N/A", "", "[MASK]")  # rows without content
LEAST = 0.01  # a label word's share in them, at least
LINEAR = {"class": "sklearn.linear_model.LogisticRegression", "max_iter": 1000}


def cut_statistic(embeddings: Array, labels: Array, neighbours: int = 20) -> NDArray[np.float64]:
    """(n,) z of (n, d) embeddings and (n,) class numbers; of `neighbours`, the row itself included, at most n count."""
    x = np.asarray(embeddings, np.float64)
    distance, near = NearestNeighbors(n_neighbors=min(neighbours, len(x))).fit(x).kneighbors(x)  # (n, K)
    weight = 1 / (1 + distance)
    share = np.bincount(labels)[labels] / len(labels)
    cut = (weight * (labels[near] != labels[:, None])).sum(1) - (1 - share) * weight.sum(1)
    deviation = np.sqrt(share * (1 - share) * np.square(weight).sum(1))
    return np.divide(cut, deviation, out=np.zeros(len(x)), where=deviation > 0)


def most_credible(z: Array, labels: Array, coverage: float, least: Array) -> Array:
    """Positions of the share `coverage` of (n,) z, the smallest, with (classes,) least shares of each class first."""
    order, total = np.argsort(z, kind="stable"), int(coverage * len(z) + 1e-9)
    first = np.concatenate([order[labels[order] == c][: int(total * share + 1e-9)] for c, share in enumerate(least)])
    return np.concatenate([first, order[~np.isin(order, first)][: total - len(first)]])


class LabelModel(nn.Module):
    """(n, prompts, classes) phi to (n, classes) logits; a prompt that a row lacks, nan, adds nothing."""

    def __init__(self, content_free: Array, link: str) -> None:
        super().__init__()
        p = torch.as_tensor(content_free, dtype=torch.float32)
        self.link = torch.sigmoid if link == "sigmoid" else torch.relu
        self.weight = nn.Parameter(torch.diag_embed(1 / p))  # (prompts, classes, classes)
        self.bias = nn.Parameter(torch.zeros_like(p))
        self.scale = nn.Parameter(torch.ones(len(p)))

    def forward(self, phi: Tensor) -> Tensor:
        there = ~phi.isnan().any(2)  # (n, prompts)
        out = torch.einsum("lcd,nld->nlc", self.weight, phi.nan_to_num(0.0)) + self.bias
        return (self.link(out) * (self.scale * there)[:, :, None]).sum(1)

    def label(self, phi: Array) -> Array:
        return self(torch.as_tensor(phi, dtype=torch.float32)).argmax(1).numpy()

    def learn(self, phi: Array, labels: Array, held_out: float, seed: int) -> None:
        given, target = torch.as_tensor(phi, dtype=torch.float32), torch.as_tensor(labels)
        rest, held = _split(labels, held_out, numpy_generator(seed, "label model"))
        schedule = Schedule(40 * -(-len(rest) // 64), 64, 0.1, 0.005, warmup=0.0, checks=40)
        rows = Batch({"phi": given[rest]}, {}, {}, target[rest], torch.as_tensor(rest))
        steps = (Step(lambda net, batch: {"label model": supervised(net(batch.views["phi"]), batch.target, TASK)}),)

        def loss() -> float:
            with torch.inference_mode():
                return _unfitness(self(given[held]), target[held])

        train(self, [Stage("label model", steps)], rows, schedule, seed, held_out=loss if len(held) else None)


class PromptCoTraining(Method):
    """A language model and a model of the primary modality that label rows for one another.

    Parameters
    ----------
    model
        The small one: None, a network; or the id of a method, or a scikit-learn estimator as in ``unimodal``.
    chat
        The language model, as `data.chat` takes it: ``{ model = "...", base_url = "..." }``. None: see above.
    prompts
        Texts with names of modalities in braces, as ``"{review} Is this good or bad? It is"``; a row is asked those
        whose modalities it has. None: one that shows the secondary modalities, or else the primary, and the words.
    words
        Class -> the word that stands for it in an answer; None = its name. What counts is the first token.
    link
        s: "sigmoid" or "relu".
    rounds, coverage, growth
        How often they teach one another; beta of the first round and what each further one adds, in [0, 1].
    neighbours, class_share
        K of the cut statistic; how much of its share each class has at least among the chosen, in [0, 1], see above.
    held_out, round_updates
        Share, in [0, 0.5], of the rows that teach; share of the schedule in all rounds but the last, above 0.

    Attributes
    ----------
    model_, label_model_
        The fitted model of the primary modality, and the `LabelModel` of the last round.
    phi_, content_free_
        phi (n, prompts, classes), nan where a row lacks what a prompt shows; p (prompts, classes).
    rounds_
        A line a round: "coverage"; "rows" and "labels", positions in X and class numbers that taught the model of the
        primary modality; "rows back" and "labels back", those that taught the label model.
    """

    card: ClassVar[Card] = Card(
        summary="A prompted language model and a small model label rows for one another.",
        reference="lang2022",
        modalities=(1, None),
        needs=frozenset({"labels", "unlabelled", "paired"}),
        at_test="primary",
        tasks=frozenset({"classification"}),
    )
    constraints = {
        "link": Options("sigmoid", "relu"),
        "rounds": Interval(1, whole=True),
        "coverage": Interval(0, 1),
        "growth": Interval(0, 1),
        "neighbours": Interval(2, whole=True),
        "class_share": Interval(0, 1),
        "held_out": Interval(0, 0.5),
        "round_updates": Interval(0, 1, open_low=True),
    }

    def __init__(
        self,
        *,
        model: Any = None,
        chat: Mapping[str, Any] | Chat | None = None,
        prompts: Sequence[str] | None = None,
        words: Mapping[Any, str] | None = None,
        link: str = "sigmoid",
        rounds: int = 5,
        coverage: float = 0.5,
        growth: float = 0.1,
        neighbours: int = 20,
        class_share: float = 1.0,
        held_out: float = 0.2,
        round_updates: float = 0.3,
        width: int = 64,
        schedule: Schedule = Schedule(),
        seed: int = 0,
    ) -> None:
        self.model = model
        self.chat = chat
        self.prompts = prompts
        self.words = words
        self.link = link
        self.rounds = rounds
        self.coverage = coverage
        self.growth = growth
        self.neighbours = neighbours
        self.class_share = class_share
        self.held_out = held_out
        self.round_updates = round_updates
        self.width = width
        self.schedule = schedule
        self.seed = seed

    def check_parameters(self) -> None:
        super().check_parameters()
        check_model(self.model)
        if self.chat is not None:
            Chat.of(self.chat)
        elif self.prompts is not None or self.words is not None:
            raise ConfigError("'prompts' and 'words' of PromptCoTraining are for a language model. Set 'chat' too.")

    def learn(self, X: Views, target: Array) -> None:
        present = X.present[X.primary]
        if not (present & (target >= 0)).any():
            raise DataError(f"No labelled row has {X.primary!r}, so there is no start. Label rows that do.")
        self.phi_, self.content_free_ = self._frozen(X, target) if self.chat is None else self._asked(X)
        self.label_model_ = LabelModel(self.content_free_, self.link)
        said = ~np.isnan(self.phi_).all((1, 2))  # (n,) rows that view 0 knows something of
        pairs = np.flatnonzero(said & present)
        seen = one(X, X.primary)
        self.rounds_: list[dict[str, Any]] = []
        if not (target[pairs] < 0).any():
            model = new_model(self.model, width=self.width, schedule=self.schedule, seed=self.seed)
            model.fit_encoded(seen, target, self.spec_.task)
        else:
            model = self._small(seen, target, self.round_updates)
            for turn in range(self.rounds):
                share = min(1.0, self.coverage + self.growth * turn)
                labels = self._chosen(self.label_model_.label(self.phi_[pairs]), model, seen, target, pairs, share)
                model = self._small(seen, labels, 1.0 if turn == self.rounds - 1 else self.round_updates)
                back = self._chosen(model.decide(seen[pairs]).argmax(1), model, seen, target, pairs, share)
                rows, taught = np.flatnonzero((labels >= 0) & present), np.flatnonzero((back >= 0) & said)
                self.label_model_ = LabelModel(self.content_free_, self.link)
                self.label_model_.learn(self.phi_[taught], back[taught], self.held_out, self.seed)
                line = {"coverage": share, "rows": rows, "labels": labels[rows]}
                self.rounds_.append(line | {"rows back": taught, "labels back": back[taught]})
        self.history_ = getattr(model, "history_", {})
        self.model_ = as_unimodal(model, model.spec_) if isinstance(model, _Small) else model

    def decide(self, X: Views) -> Array:
        return self.model_.decide(X)

    def embed(self, X: Views) -> dict[str, Array]:
        self._fitted()
        return self.model_.embed(X)

    def deployed(self) -> Method:
        self._fitted()
        return self.model_.deployed()

    def _small(self, seen: Views, labels: Array, share: float) -> Method:
        """A new model of the primary modality, fitted."""
        schedule = replace(shortened(self.schedule, share), validation=self.held_out)
        given: dict[str, Any] = {"width": self.width, "schedule": schedule, "seed": self.seed}
        model = _Small(**given) if is_neural_default(self.model) else new_model(self.model, **given)
        return model.fit_encoded(seen, labels, self.spec_.task)

    def _chosen(self, said: Array, model: Method, seen: Views, target: Array, pairs: Array, share: float) -> Array:
        """(n,) labels: those that came, and what was `said` of the most credible of the other pairs; -1 elsewhere."""
        came = target[pairs]
        z = cut_statistic(_embedded(model, seen[pairs]), np.where(came < 0, said, came), self.neighbours)
        free = np.flatnonzero(came < 0)
        least = self.class_share * class_shares(target, self.spec_.task.outputs)
        chosen = free[most_credible(z[free], said[free], share, least)]
        labels = target.copy()
        labels[pairs[chosen]] = said[chosen]
        return labels

    def _frozen(self, X: Views, target: Array) -> tuple[Array, Array]:
        """phi and p where no language model is asked."""
        names = list(self.spec_.secondary) or [X.primary]
        bagged, generator = len(names) == 1, numpy_generator(self.seed, "bags")
        phi = []
        for name in names * (4 if bagged else 1):
            seen, there = one(X, name), X.present[name]
            rows = np.flatnonzero(there & (target >= 0))
            if bagged:
                groups = [rows[target[rows] == c] for c in np.unique(target[rows])]
                rows = np.concatenate([rows[:0], *(generator.choice(group, len(group)) for group in groups)])
            model = EstimatorMethod(LINEAR, seed=self.seed).fit_examples(seen, self.spec_.task, rows, target[rows])
            phi.append(np.full((len(X), self.spec_.task.outputs), np.nan))
            phi[-1][there] = model.decide(seen[there])
        return np.stack(phi, 1), np.full((len(phi), self.spec_.task.outputs), 1 / self.spec_.task.outputs)

    def _asked(self, X: Views) -> tuple[Array, Array]:
        """phi and p of a language model, which is asked about all rows and about rows without content."""
        words = self._words()
        shown = "\n".join(f"{name}: {{{name}}}" for name in self.spec_.secondary or (X.primary,))
        listed = ", ".join(words).replace("{", "{{").replace("}", "}}")
        default = f"{shown}\n\nWhich of these is it: {listed}? Answer with one of them and nothing else."
        prompts = [default] if self.prompts is None else list(self.prompts)
        texts: dict[str, list[str]] = {}
        asked: dict[tuple[int, int], str] = {}
        for k, prompt in enumerate(prompts):
            if not fields_of(prompt) or not set(fields_of(prompt)) <= set(X.names):
                raise ConfigError(must_be("A prompt", f"a text with {' or '.join(X.names)} in braces", repr(prompt)))
            texts |= {name: [*as_texts(X, name), *EMPTY] for name in fields_of(prompt) if name not in texts}
            there = np.logical_and.reduce([X.present[name] for name in fields_of(prompt)])
            for row in [*np.flatnonzero(there).tolist(), *range(len(X), len(X) + len(EMPTY))]:
                asked[row, k] = prompt.format(**{name: texts[name][row] for name in fields_of(prompt)})
        talks = [[{"role": "user", "content": text}] for text in asked.values()]
        phi = np.full((len(X) + len(EMPTY), len(prompts), len(words)), np.nan)
        for place, answer in zip(asked, Chat.of(self.chat or {}).ask(talks, most=8, likely=20), strict=True):
            phi[place] = word_probabilities(answer, words)
        free = phi[len(X) :].mean(0) + 1e-12  # (prompts, classes)
        free = np.maximum(free / free.sum(1, keepdims=True), LEAST)
        return phi[: len(X)], free / free.sum(1, keepdims=True)

    def _words(self) -> list[str]:
        """The label words, in the order of the classes."""
        given = {str(name): str(word) for name, word in (self.words or {}).items()}
        names = [str(name) for name in self.spec_.task.classes]
        words = [given.get(name, name) for name in names]
        if not set(given) <= set(names) or len({*map(_plain, words), ""}) <= len(words):
            expected = f"different words of the classes {', '.join(names)}"
            raise ConfigError(must_be("The 'words' parameter of PromptCoTraining", expected, given or repr(words)))
        return words


class _Small(NeuralMethod):
    """The network of ``unimodal``, in its state of the largest balanced accuracy on the rows held out."""

    card: ClassVar[Card] = PromptCoTraining.card

    def build(self, spec: DataSpec) -> Network:
        return Network(spec, [spec.primary], self.width)

    def scores(self, net: Any, batch: Batch) -> Tensor:
        return net.head(net.encode(batch, self.spec_.primary))

    def losses(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        return {"task": supervised(self.scores(net, batch), batch.target, self.spec_.task)}

    def _held_out_loss(self, rows: Batch) -> float:
        self.net_.eval()
        with torch.inference_mode():
            return _unfitness(torch.cat([self.scores(self.net_, part) for part in chunks(rows)]), rows.target)


def word_probabilities(answer: Answer, words: Sequence[str]) -> NDArray[np.float64]:
    """(classes,) of the first tokens that are a word, or begin it and no other; 1 for that of the text without any."""
    plain, text = [_plain(word) for word in words], _plain(answer.text)
    found = np.zeros(len(words))
    begun = max((word for word in plain if text.startswith(word)), key=len, default=text)
    tokens = [(_plain(token), np.exp(value)) for token, value in answer.likely.items()] or [(begun, 1.0)]
    for token, probability in tokens:
        meant = [k for k, word in enumerate(plain) if word == token]
        meant = meant or [k for k, word in enumerate(plain) if token and word.startswith(token)]
        if len(meant) == 1:
            found[meant[0]] += probability
    return found


def _plain(text: str) -> str:
    return text.strip(" \t\n\"'`*.,:;!▁").casefold()


def _embedded(model: Method, seen: Views) -> Array:
    """(n, d) a model's representation of rows; their standardised numbers where it has none."""
    try:
        return model.embed(seen)[seen.primary]
    except ConfigError:
        return np.asarray(StandardScaler().fit_transform(features(seen, seen.names)))


def _split(labels: Array, share: float, generator: np.random.Generator) -> tuple[Array, Array]:
    """Positions that train, and the share of each class that is held out."""
    order = [generator.permutation(np.flatnonzero(labels == c)) for c in np.unique(labels)]
    held = np.concatenate([each[: round(share * len(each))] for each in order])
    return np.setdiff1d(np.arange(len(labels)), held), np.sort(held)


def _unfitness(scores: Tensor, target: Any) -> float:
    """1 - the mean over classes of the share found; of what is equal there, the loss decides."""
    right, loss = (scores.argmax(1) == target).double(), float(F.cross_entropy(scores, target))
    found = torch.stack([right[target == c].mean() for c in target.unique()])
    return 1 - float(found.mean()) + 1e-6 * loss / (1 + loss)
