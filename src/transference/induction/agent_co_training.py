"""Agents, one a modality, debate in turns and are trained together, by reinforcement, to end up right.

Use it when the modalities each know a part and rows with all of them, labelled or not, are many: an agent then learns
what to make of the answers of the others, and to give answers that help them. At test time any agents may be absent.

    an agent's policy       pi_a(answer | x_a, m) = softmax(head_a(z_a) + r_a(z_a, m)),   z_a = encoder_a(x_a)
    m, the message to a     the answers of the other agents in the turn before; zeros in the first turn
    V(t, a), the verifier   1 where the answer is the label, else 0; in a row without a label, the answer's mean
                            probability under the agents as they were at the start, frozen
    R(t, a) = [V(t, a) + sum_(t' > t) gamma^(t' - t) mean_b V(t', b)] / sum_(t' >= t) gamma^(t' - t)  +  incentives
    minimise  - mean min(q A, clip(q, 1 - clip, 1 + clip) A) + value_weight mean (v - R)^2 + kl mean KL(pi, pi_start)
              q = pi_a(answer) / pi_a,old(answer),   A = R - v_old,   v a linear map of (z_a, m)

First every agent learns its modality from labels, without messages (stage "start"). In the second stage a debate is
played on each batch, with answers drawn from the policies, and `epochs` optimiser steps are taken on it. A turn is one
answer, so the generalised advantage estimate within a turn, whose last value is 0, is R - v. The answer is the mean of
the probabilities of the agents that are there, in the last turn of a debate in which each says its likeliest class.

Incentives a0 .. a3 pay for transitions between right and wrong; "others" are right or wrong where more than half are:

    own right -> wrong    -a0 where the others were wrong (persuaded of it),   -a1 where they were right
    own wrong -> right    +a0 where the others were right (persuaded of it),   +a1 where they were wrong
    others wrong -> right in the next turn    +a3 where the own answer was right,   +a2 where it was wrong
    others right -> wrong in the next turn    -a3 where the own answer was wrong,   -a2 where it was right

Shapes: z (n, width), m (n, (agents - 1) classes), V and R (n, turns, agents). The labels that the agents saw at the
start are also what judges them, so where the start fits its rows perfectly only unlabelled ones teach.
Cost: an encoder a modality and four linear maps. An update of the second stage encodes its rows 1 + `epochs` times and
is that many debates of `turns` passes through the maps.

Source: park2025maporl. Departs from it: small networks whose answers are classes, in place of language models that
write. In the published code the influence on others (a2, a3) has the opposite signs, so that an agent which makes the
others right is fined, and counts from the second turn on; here those who help are paid, in the first turn too. Each of
the epochs has the whole batch and its own AdamW; KL is exact, part of the loss and, for an answer of one token,
weighted 0.05 where the paper has 0.002; there is no bad format to fine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from transference.core.batch import Batch, labelled
from transference.core.errors import ConfigError, DataError, must_be
from transference.core.method import Card
from transference.core.parameters import Interval, Options
from transference.core.spec import DataSpec
from transference.core.views import Views
from transference.nn.losses import supervised
from transference.nn.named import ByModality
from transference.nn.network import Network
from transference.train.frozen import Remembered
from transference.train.loop import Stage, Step
from transference.train.neural import NeuralMethod
from transference.train.schedule import Schedule

ABSENT = -1e4  # a logarithm of a probability that counts for nothing


def shaped_rewards(values: Tensor, gamma: float, present: Tensor | None = None) -> Tensor:
    """(n, turns, agents) R without incentives, in the unit of the verifier.

    Parameters
    ----------
    values
        (n, turns, agents) V.
    gamma
        In [0, 1]: what the next turn counts.
    present
        (n, agents) bool: who takes part; None = all do. The mean over agents is over these.

    Examples
    --------
    Right now, and nothing else is:

    >>> values = torch.zeros(1, 3, 2)
    >>> values[0, 0, 0] = 1
    >>> round(shaped_rewards(values, 0.3)[0, 0, 0].item(), 4)
    0.7194
    """
    here = torch.ones_like(values[:, :1]) if present is None else present[:, None].to(values.dtype)  # (n, 1, agents)
    mean = (values * here).sum(2) / here.sum(2).clamp_min(1)  # (n, turns)
    future, weight, found = torch.zeros_like(mean[:, :1]), 1.0, []
    for turn in reversed(range(values.shape[1])):
        found.append((values[:, turn] + future) / weight)
        future, weight = gamma * (mean[:, turn, None] + future), 1 + gamma * weight
    return torch.stack(found[::-1], 1)


def incentives(right: Tensor, amounts: Sequence[float], present: Tensor | None = None) -> Tensor:
    """(n, turns, agents) what is paid for transitions between right and wrong; see the module.

    Parameters
    ----------
    right
        (n, turns, agents) bool.
    amounts
        a0, a1, a2, a3.
    present
        (n, agents) bool: who takes part; None = all do. An agent alone is paid by a1, for itself.
    """
    a0, a1, a2, a3 = amounts
    here = torch.ones_like(right[:, 0]) if present is None else present  # (n, agents)
    counted = (right & here[:, None]).float()
    count = (here.sum(1, keepdim=True) - here.long())[:, None]  # (n, 1, agents) others that take part
    share = (counted.sum(2, keepdim=True) - counted) / count.clamp_min(1)
    alone = count == 0
    before, after = share[:, :-1], share[:, 1:]  # from one turn to the next: (n, turns - 1, agents)
    was, now = right[:, :-1], right[:, 1:]
    own = (now & ~was) * (a0 * (before > 0.5) + a1 * (before < 0.5))
    own = own - (was & ~now) * (a0 * ((before < 0.5) & ~alone) + a1 * ((before > 0.5) | alone))
    gained, lost = (before < 0.5) & (after > 0.5), (before > 0.5) & (after < 0.5)
    influence = gained * (a3 * was + a2 * ~was) - lost * (a3 * ~was + a2 * was)
    return F.pad(own.float(), (0, 0, 1, 0)) + F.pad(influence.float(), (0, 0, 0, 1))


def clipped(log_p: Tensor, old_log_p: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """min(q A, clip(q, 1 - clip, 1 + clip) A), elementwise, q = exp(log_p - old_log_p): what PPO maximises."""
    ratio = (log_p - old_log_p).exp()
    return torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)


class Reply(nn.Module):
    """What an agent makes of a message: (n, width), (n, messages) -> (n, classes), zeros before training."""

    def __init__(self, width: int, messages: int, classes: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(width + messages, width)
        self.out = nn.Linear(width, classes)

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, z: Tensor, message: Tensor) -> Tensor:
        return self.out(torch.relu(self.hidden(torch.cat([z, message], 1))))


class Agents(Network):
    """An encoder, a head, a reply and a value for every modality; `head` is the primary modality's."""

    def __init__(self, spec: DataSpec, width: int) -> None:
        names = sorted(spec.modalities)
        super().__init__(spec, names, width)
        self.names, self.primary, self.classes = names, spec.primary, spec.task.outputs
        messages = (len(names) - 1) * self.classes
        self.heads = ByModality({name: nn.Linear(width, self.classes) for name in spec.secondary})
        self.replies = ByModality({name: Reply(width, messages, self.classes) for name in names if messages})
        self.values = ByModality({name: nn.Linear(width + messages, 1) for name in names})

    def logits(self, name: str, z: Tensor, message: Tensor | None = None) -> Tensor:
        """(n, classes) of one agent; without a message, of the agent as it was at the start."""
        own: Tensor = (self.head if name == self.primary else self.heads[name])(z)
        return own if message is None or name not in self.replies else own + self.replies[name](z, message)

    def debate(self, batch: Batch, turns: int, say: Callable[[Tensor, int], Tensor]) -> Debate:
        """A debate of the agents whose modality the batch has.

        Parameters
        ----------
        say
            (n, agents, classes) logarithms of probabilities, and the turn from 0 -> (n, agents) answers.
        """
        read = {name: self.encode(batch, name) for name in self.names if name in batch.views}
        silence = torch.zeros_like(self.head(next(iter(read.values()))))
        heard = dict.fromkeys(self.names, silence)
        number = torch.arange(self.classes, device=silence.device)
        answers, policies, values = [], [], []
        for turn in range(turns):
            told = {name: torch.cat([silence[:, :0], *(heard[k] for k in heard if k != name)], 1) for name in read}
            policy = torch.stack([self.logits(name, z, told[name]) for name, z in read.items()], 1).log_softmax(2)
            expected = [self.values[name](torch.cat([z.detach(), told[name]], 1)) for name, z in read.items()]
            values.append(torch.cat(expected, 1))
            answers.append(say(policy, turn))
            policies.append(policy)
            for k, name in enumerate(read):
                said = answers[-1][:, k, None] == number  # (n, classes)
                heard[name] = (said & batch.present[name][:, None]).float()
        return Debate(tuple(read), torch.stack(answers, 1), torch.stack(policies, 1), torch.stack(values, 1))


@dataclass(frozen=True)
class Debate:
    """What was said: answers (n, turns, agents), log_p (n, turns, agents, classes), values (n, turns, agents)."""

    names: tuple[str, ...]
    answers: Tensor
    log_p: Tensor
    values: Tensor

    @property
    def log_p_said(self) -> Tensor:
        """(n, turns, agents) of the answers that were given."""
        return self.log_p.gather(3, self.answers[..., None])[..., 0]


class AgentCoTraining(NeuralMethod):
    """Agents that learn to debate.

    Parameters
    ----------
    turns
        Of a debate, at least 1; the first is without messages.
    start
        Share of the schedule, in (0, 1], in which the agents learn from labels. Each update of the rest is a debate;
        with 1 there is none.
    rows
        "all", or "labelled": whether debates on unlabelled rows, judged by the agents of the start, teach too.
    gamma
        In [0, 1]: what the next turn counts in a reward.
    incentives
        a0, a1, a2, a3; see above. A right answer is worth 1.
    clip, epochs
        Of PPO: how far a probability may move, relatively, and the optimiser steps on a debate.
    value_weight, kl
        Of these losses, at least 0.
    width, schedule, seed
        See `NeuralMethod`.
    """

    card: ClassVar[Card] = Card(
        summary="Agents, one a modality, are trained together to be right at the end of a debate.",
        reference="park2025maporl",
        modalities=(1, None),
        needs=frozenset({"labels", "unlabelled", "paired"}),
        at_test="any",
        tasks=frozenset({"classification"}),
    )
    constraints = {
        "turns": Interval(1, whole=True),
        "start": Interval(0, 1, open_low=True),
        "rows": Options("all", "labelled"),
        "gamma": Interval(0, 1),
        "clip": Interval(0, 1, open_low=True),
        "epochs": Interval(1, whole=True),
        "value_weight": Interval(0),
        "kl": Interval(0),
    }

    def __init__(
        self,
        *,
        turns: int = 3,
        start: float = 0.5,
        rows: str = "all",
        gamma: float = 0.3,
        incentives: Sequence[float] = (0.0, 0.0, 0.0, 0.0),
        clip: float = 0.2,
        epochs: int = 4,
        value_weight: float = 0.1,
        kl: float = 0.05,
        width: int = 64,
        schedule: Schedule = Schedule(),
        seed: int = 0,
    ) -> None:
        super().__init__(width=width, schedule=schedule, seed=seed)
        self.turns = turns
        self.start = start
        self.rows = rows
        self.gamma = gamma
        self.incentives = incentives
        self.clip = clip
        self.epochs = epochs
        self.value_weight = value_weight
        self.kl = kl

    def check_parameters(self) -> None:
        super().check_parameters()
        given, number = self.incentives, Interval()
        if not (isinstance(given, Sequence) and len(given) == 4 and all(map(number.allows, given))):
            raise ConfigError(must_be("The 'incentives' parameter of AgentCoTraining", "four numbers", given))

    def build(self, spec: DataSpec) -> Agents:
        return Agents(spec, self.width)

    def stages(self, net: Agents) -> Sequence[Stage]:
        stages = [Stage("start", (Step(self.losses),), share=self.start)]
        if self.start < 1:
            game = _Game(self)
            steps = (Step(game.first), *[Step(game.again)] * (self.epochs - 1))
            stages.append(Stage("debate", steps, share=1 - self.start, begin=game.begin))
        return stages

    def losses(self, net: Agents, batch: Batch) -> dict[str, Tensor]:
        """Of every agent without a message, over the labelled rows that have its modality."""
        losses = {}
        for name in net.names:
            known = batch.labelled.complete([name])
            logits = net.logits(name, net.encode(known, name))
            losses[f"task {name}"] = supervised(logits, known.target, self.spec_.task)
        return losses

    def scores(self, net: Agents, batch: Batch) -> Tensor:
        """(n, classes) logarithm of the mean probability of the agents that are there, in the last turn."""
        debate = net.debate(batch, self.turns, lambda policy, turn: policy.argmax(2))
        return mean_log(debate.log_p[:, -1], _presence(batch, debate.names))

    def play(self, net: Agents, batch: Batch, start: Tensor) -> tuple[Debate, Tensor]:
        """A debate with answers drawn from the policies, and its (n, turns, agents) R, incentives included.

        Parameters
        ----------
        start
            (n, classes) probabilities that judge the answers in rows without a label.
        """

        def draw(policy: Tensor, turn: int) -> Tensor:
            return policy.exp().flatten(0, 1).multinomial(1).view(policy.shape[:2])

        with torch.no_grad():
            debate = net.debate(batch, self.turns, draw)
        present, known = _presence(batch, debate.names), batch.is_labelled[:, None, None]
        likely = start.gather(1, debate.answers.flatten(1)).view(debate.answers.shape)
        right = debate.answers == batch.target[:, None, None]  # type: ignore[index]
        rewards = shaped_rewards(torch.where(known, right.float(), likely), self.gamma, present)
        return debate, rewards + known * incentives(right, self.incentives, present)

    def improve(self, net: Agents, batch: Batch, played: Debate, rewards: Tensor, start: Tensor) -> dict[str, Tensor]:
        """The losses of PPO on a debate that was played.

        Parameters
        ----------
        rewards
            (n, turns, agents).
        start
            (n, agents, classes) logarithms of the probabilities at the start.
        """
        now = net.debate(batch, self.turns, lambda policy, turn: played.answers[:, turn])
        gain = clipped(now.log_p_said, played.log_p_said, rewards - played.values, self.clip)
        stay = (now.log_p.exp() * (now.log_p - start[:, None])).sum(3)
        losses = {}
        for k, name in enumerate(now.names):
            here = batch.present[name][:, None]
            losses[f"policy {name}"] = -_mean(gain[:, :, k], here)
            losses[f"value {name}"] = self.value_weight * _mean((now.values - rewards)[:, :, k].square(), here)
            losses[f"stay {name}"] = self.kl * _mean(stay[:, :, k], here)
        return losses

    def _trainable(self, X: Views, target: NDArray[Any]) -> tuple[Views, NDArray[Any]]:
        known = labelled(torch.from_numpy(target)).numpy()
        for name in X.names:
            if not (known & X.present[name]).any():
                raise DataError(f"No labelled row has {name!r}, so its agent cannot learn. Leave it out of the study.")
        return X, target


class _Game:
    """The steps of the second stage: a debate is played in the first, and learned from in all."""

    def __init__(self, method: AgentCoTraining) -> None:
        self.method = method

    def begin(self, net: Agents, rows: Batch) -> None:
        """Keep what the agents say before they have debated: (n, agents + 1, classes), their mean last."""

        def silent(batch: Batch) -> Tensor:
            own = torch.stack([net.logits(name, net.encode(batch, name)) for name in net.names], 1).log_softmax(2)
            return torch.cat([own, mean_log(own, _presence(batch, net.names))[:, None]], 1)

        net.eval()
        self.start = Remembered(rows, silent)

    def first(self, net: Agents, batch: Batch) -> dict[str, Tensor]:
        self.batch = batch.labelled if self.method.rows == "labelled" else batch
        self.before = self.start.of(self.batch)
        self.played = self.method.play(net, self.batch, self.before[:, -1].exp())
        return self.again(net, batch)

    def again(self, net: Agents, batch: Batch) -> dict[str, Tensor]:
        return self.method.improve(net, self.batch, *self.played, self.before[:, :-1])


def mean_log(log_p: Tensor, present: Tensor) -> Tensor:
    """(n, classes) logarithm of the mean probability over the agents that each row has; alike where it has none.

    Of log_p (n, agents, classes), present (n, agents) bool.
    """
    heard = log_p.masked_fill(~present[:, :, None], ABSENT)
    return heard.logsumexp(1) - present.sum(1, keepdim=True).clamp_min(1).log()


def _presence(batch: Batch, names: Iterable[str]) -> Tensor:
    """(n, agents) bool."""
    return torch.stack([batch.present[name] for name in names], 1)


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    """Over the rows of (n, turns) values in the mask (n, 1); 0 when there is none."""
    return values.where(mask, 0.0).sum() / (mask.sum() * values.shape[1]).clamp_min(1)
