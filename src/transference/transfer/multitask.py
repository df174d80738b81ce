"""Many tasks, one trunk: what several sets of rows have to say is learned by one transformer, each task with its head.

Use it where the rows to be answered are few and there are other sets, of whatever modalities and labels, that ask
related things. The primary modality's own encoder stands beside the trunk, so that with few rows a small transformer
need not do what a linear map can.

    r_t       = trunk([a_t | tokens of the modalities that task t reads])      what becomes of a_t, a learned token
    s         = head(E(x) + w U r)                    the task that answers, from the primary modality x alone
    minimise  CE(s, y) + w sum over the other tasks t that go of CE(s_t, y_t)

The tasks of a set are two: its label from its primary modality alone, with an encoder as above, and from all modalities
that a row has, s_t = head_t(r_t). With no other set the own rows still pose the second one. All tasks of an update are
one step, so that a schedule means as many steps as for any method. With w = 0 it is `unimodal`, bit for bit.

Stop and go: the other tasks are scored at each check, by exp(-loss) on rows of their set that are held out for it (for
the second task of the own rows, on the rows that train). One that has not got better by a thousandth for more than
`patience` checks stops; it then trains in every `gap`-th update, to stay warm, and goes again when its score falls by
half a per cent of its best. The task that answers never stops.

Shapes: tokens (n, at most 16 a modality, width), r (n, width). Cost: a pass of a transformer of `depth` layers for each
task that goes; deployed, one for the primary modality.

Source: lu2020. Departs from it: any modalities, as the tokens of `nn.perceiver`, whose weights all modalities share,
and a small transformer over them in the place of ViLBERT; the tasks' losses are summed where there one step follows
another, each with its own rate; the encoder beside the trunk; the score is a smooth one, so that a plateau on a few
rows that are held out is not an artefact of counting.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from transference.core.batch import Batch
from transference.core.method import Card
from transference.core.parameters import Interval, Options
from transference.core.spec import DataSpec
from transference.core.views import Views
from transference.data.loader import chunks
from transference.nn.heads import head
from transference.nn.losses import supervised
from transference.nn.named import ByModality
from transference.nn.network import Network
from transference.nn.perceiver import Entry, Flat, channels_of
from transference.nn.tokens import Learned, Transformer
from transference.train.loop import Stage, Step
from transference.train.others import JointMethod, Other
from transference.train.schedule import Schedule

HEADS = 4
HELD_OUT = 0.2  # of another set's rows, to tell when its tasks stop
MOST = 1024  # rows that score a task
TOGETHER = "task together"


class StopAndGo:
    """Whether a task is stopped, told one score after another; higher is better, and scores are above 0.

    Parameters
    ----------
    patience
        It stops after more checks than these without a better score.
    better
        A score is better when it exceeds the best one by this share.
    worse
        A stopped task goes again when its score is below the best one by this share.
    cooldown
        Checks after a stop that count for nothing.

    Examples
    --------
    >>> rule = StopAndGo()
    >>> [rule.told(score) for score in (1.0, 1.0, 1.0, 1.0, 0.9)]
    [False, False, True, True, False]
    """

    def __init__(self, patience: int = 1, better: float = 0.001, worse: float = 0.005, cooldown: int = 1) -> None:
        self.patience, self.better, self.worse, self.cooldown = patience, better, worse, cooldown
        self.best = -math.inf
        self.waited = self.resting = 0
        self.stopped = False

    def told(self, score: float) -> bool:
        """Whether the task is stopped from here on."""
        if self.best == -math.inf or score > self.best * (1 + self.better):
            self.best, self.waited = score, 0
        else:
            self.waited += 1
        if self.resting:
            self.resting -= 1
            self.waited = 0
        if self.waited > self.patience:  # also of a task that is stopped, which may put off that it goes again
            self.stopped, self.resting, self.waited = True, self.cooldown, 0
        elif self.stopped and score < self.best * (1 - self.worse):
            self.stopped = False
        return self.stopped


class Trunk(nn.Module):
    """What all tasks share: the map from the numbers of any modality to tokens, and a transformer over them."""

    def __init__(self, channels: int, width: int, depth: int) -> None:
        super().__init__()
        self.entry = Entry(channels, width)
        self.transformer = Transformer(width, depth, math.gcd(width, HEADS))
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor, real: Tensor) -> Tensor:
        """(n, width) what becomes of the first of (n, tokens, width), when only `real` ones are read."""
        found: Tensor = self.norm(self.transformer(tokens, real)[-1][:, 0])
        return found


class TaskNetwork(Network):
    """The primary modality's encoder and head; numbers of all modalities, the trunk, the token of each task.

    Attributes
    ----------
    together
        The head of the label from all modalities; there is none where there is one modality.
    """

    def __init__(self, spec: DataSpec, width: int, depth: int, channels: int) -> None:
        super().__init__(spec, [spec.primary], width)
        self.spec = spec
        self.names = (spec.primary, *spec.secondary)
        self.tokens = ByModality({name: Flat(spec.modalities[name], width) for name in self.names})
        self.trunk = Trunk(channels, width, depth)
        self.asks_alone = Learned((width,))
        self.mixed = nn.Linear(width, width)
        if len(self.names) > 1:
            self.asks_together = Learned((width,))
            self.together = head(width, spec.task)

    def read(self, batch: Batch, names: Sequence[str], asks: Tensor) -> Tensor:
        """(n, width) r, from these modalities as far as a row has them."""
        n, device = batch.rows.shape[0], batch.rows.device
        tokens, real = [asks.expand(n, 1, -1)], [torch.ones(n, 1, dtype=torch.bool, device=device)]
        for name in names:
            part: Any = self.tokens[name]
            numbers, there = part(batch.views[name], batch.lengths.get(name))
            tokens.append(self.trunk.entry(numbers, part.place, part.row.value))
            real.append(there & batch.present[name][:, None])
        answer: Tensor = self.trunk(torch.cat(tokens, 1), torch.cat(real, 1))
        return answer


class Multitask(JointMethod):
    """The primary modality's model beside a trunk that other tasks train too.

    Parameters
    ----------
    others
        Other sets to train on: name -> a `Dataset`, or what a study file says of a named one, such as
        ``{ set = "mfeat", primary = "fourier", secondary = ["profile"], budget = 20 }``. None: the own rows alone.
    weight
        w, of the trunk and of all tasks but the one that answers.
    stop_and_go
        Whether tasks stop and go.
    patience, gap
        See above.
    depth
        Layers of the trunk.
    width, schedule, seed
        See `NeuralMethod`.

    Attributes
    ----------
    history_
        Has for each task that may stop, beside its loss, "stopped: task", the share of updates that it was stopped.
    stops_
        A line whenever a task stopped or went again: "update", "task", "stopped".
    others_
        Name -> a fitted Multitask of that set.
    """

    card: ClassVar[Card] = Card(
        summary="One trunk for the tasks of several sets, each of which stops and goes.",
        reference="lu2020",
        modalities=(1, None),
        needs=frozenset({"labels", "paired"}),
        at_test="primary",
        tasks=frozenset({"classification", "regression", "multilabel"}),
    )
    constraints = {
        "weight": Interval(0),
        "stop_and_go": Options(True, False),
        "patience": Interval(0, whole=True),
        "gap": Interval(1, whole=True),
        "depth": Interval(1, whole=True),
    }

    def __init__(
        self,
        *,
        others: Mapping[str, Any] | None = None,
        weight: float = 1.0,
        stop_and_go: bool = True,
        patience: int = 1,
        gap: int = 4,
        depth: int = 2,
        width: int = 64,
        schedule: Schedule = Schedule(),
        seed: int = 0,
    ) -> None:
        super().__init__(width=width, schedule=schedule, seed=seed)
        self.others = others
        self.weight = weight
        self.stop_and_go = stop_and_go
        self.patience = patience
        self.gap = gap
        self.depth = depth

    def read(self) -> dict[str, Other]:
        return super().read() if self.weight > 0 else {}

    def build(self, spec: DataSpec) -> Network:
        if self.weight == 0:
            return Network(spec, [spec.primary], self.width)
        specs = [spec, *(other.spec for other in self.others_in_training.values())]
        return TaskNetwork(spec, self.width, self.depth, channels_of(specs, self.width))

    def share(self, net: TaskNetwork, part: TaskNetwork) -> None:
        part.trunk = net.trunk

    def learn(self, X: Views, target: NDArray[Any]) -> None:
        self.stops_: list[dict[str, Any]] = []
        self._rules: dict[str, StopAndGo] = {}
        self._held_out: dict[str, Batch] = {}
        self._done = 0
        try:
            super().learn(X, target)
        finally:
            del self._rules, self._held_out, self._done

    def prepare(self, X: Views, target: NDArray[Any]) -> None:
        if not self.stop_and_go:
            return
        for name, other in self._others.items():
            self._others[name], self._held_out[name] = other.divided(HELD_OUT, self.seed)

    def stages(self, net: Network) -> Sequence[Stage]:
        if not (isinstance(net, TaskNetwork) and self.stop_and_go):
            return (Stage("train", (Step(self.losses),)),)
        return (Stage("train", (Step(self.losses),), begin=self._watch, after=self._check),)

    def losses(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        found = {"task": supervised(self.scores(net, batch), batch.target, self.spec_.task)}
        if not isinstance(net, TaskNetwork):
            return found
        others = self.others_in_training
        for key in _tasks(net, others):
            stopped = key in getattr(self, "_rules", {}) and self._rules[key].stopped
            if key in getattr(self, "_rules", {}):
                found[f"stopped: {key}"] = torch.full((), float(stopped), device=batch.rows.device)
            if not stopped or (self._done + 1) % self.gap == 0:
                name, _, _ = key.rpartition(": ")
                rows = others[name].draw(self.schedule.batch_size) if name else batch
                found[key] = self.weight * self.of_other(net, key, rows)
        return found

    def of_other(self, net: TaskNetwork, key: str, batch: Batch) -> Tensor:
        """The loss of a task other than the one that answers, as it is called in the history."""
        name, _, task = key.rpartition(": ")
        part: Any = net.others[name] if name else net  # type: ignore[index]
        if task == TOGETHER:
            scores = part.together(part.read(batch, part.names, part.asks_together.value))
            return supervised(scores, batch.target, part.spec.task)
        own = batch.complete([part.spec.primary])
        return supervised(self.scores(part, own), own.target, part.spec.task)

    def scores(self, net: Network, batch: Batch) -> Tensor:
        return net.head(self._features(net, batch))

    def embeddings(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        """The primary modality -> (n, width), what the head reads."""
        primary = self.spec_.primary
        return {primary: self._features(net, batch)} if primary in batch.views else {}

    def _features(self, net: Network, batch: Batch) -> Tensor:
        (primary,) = net.encoders
        features = net.encode(batch, primary)
        if not isinstance(net, TaskNetwork):
            return features
        return features + self.weight * net.mixed(net.read(batch, [primary], net.asks_alone.value))

    def _watch(self, net: TaskNetwork, rows: Batch) -> None:
        """From here on tasks may stop."""
        self._held_out[""] = rows.labelled
        self._rules = {key: StopAndGo(self.patience) for key in _tasks(net, self._others)}

    def _check(self, net: TaskNetwork, done: int) -> None:
        self._done = done
        if done % max(1, self.schedule.updates // self.schedule.checks):
            return
        net.eval()
        for key, rule in self._rules.items():
            before = rule.stopped
            rule.told(self._score(net, key))
            if rule.stopped != before:
                self.stops_.append({"update": done, "task": key, "stopped": rule.stopped})
        net.train()

    def _score(self, net: TaskNetwork, key: str) -> float:
        """exp(-loss) on rows that are held out for it, in (0, 1]."""
        rows = self._held_out[key.rpartition(": ")[0]].take(slice(MOST))
        with torch.inference_mode():
            parts = [(len(part), float(self.of_other(net, key, part))) for part in chunks(rows)]
        return math.exp(-sum(n * loss for n, loss in parts) / len(rows))


def _tasks(net: TaskNetwork, others: Mapping[str, Other]) -> list[str]:
    """What the tasks beside the one that answers are called."""
    found = [TOGETHER] if len(net.names) > 1 else []
    for name, other in others.items():
        found += [f"{name}: task"] + [f"{name}: {TOGETHER}"] * (len(other.spec.modalities) > 1)
    return found
