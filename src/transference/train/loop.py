"""The one training loop: stages of steps, cosine rate, held-out choice of the best state, finite losses."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from transference.core.batch import Batch
from transference.core.errors import DivergenceError
from transference.data.loader import batches
from transference.train.schedule import Schedule

PRETRAINED_SHARE = 0.01
"""Of the learning rate, for the weights of modules with ``pretrained = True``."""

Losses = Callable[[Any, Batch], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Step:
    """One optimiser's part of an update: the sum of `losses` is minimised over `parameters`.

    Attributes
    ----------
    losses
        (network, batch) -> named scalars.
    parameters
        Network -> the parameters this step moves; None = all that require a gradient.
    optimizer
        (parameters, learning rate) -> optimiser; None = fused AdamW with the schedule's weight decay, in which modules
        with ``pretrained = True`` move at a hundredth of the rate.
    rate
        Multiple of the schedule's learning rate.
    """

    losses: Losses
    parameters: Callable[[Any], Iterable[nn.Parameter]] | None = None
    optimizer: Callable[[list[nn.Parameter], float], Optimizer] | None = None
    rate: float = 1.0


@dataclass(frozen=True)
class Stage:
    """A stretch of training. Every update performs all `steps`, one after the other, on the same batch.

    Attributes
    ----------
    share
        Updates, as a multiple of the schedule's.
    begin
        Called once with the network and all training rows: freeze a teacher, cluster, mine pairs.
    after
        Called after each update with the network and the number of updates done: momentum encoders, queues.
    answers
        Whether the method's scores mean something during this stage, so that held-out rows can choose its best state.
    """

    name: str
    steps: tuple[Step, ...]
    share: float = 1.0
    begin: Callable[[Any, Batch], None] | None = None
    after: Callable[[Any, int], None] | None = None
    answers: bool = True


History = list[dict[str, float]]


def train(
    net: nn.Module,
    stages: Iterable[Stage],
    rows: Batch,
    schedule: Schedule,
    seed: int,
    *,
    unlabelled: bool = False,
    held_out: Callable[[], float] | None = None,
) -> History:
    """Train `net` in place; returns a line a check, each with "update", the mean of every named loss since the last
    check and, where `held_out` is given, "held out".

    Raises
    ------
    DivergenceError
        When a loss is not a finite number; names the loss, the stage and the update.
    """
    history: History = []
    done = 0
    for stage in stages:
        if stage.begin:
            stage.begin(net, rows)
        updates = max(1, round(stage.share * schedule.updates))
        history += _train_stage(net, stage, updates, done, rows, schedule, seed, unlabelled, held_out)
        done += updates
    return history


def _train_stage(
    net: nn.Module,
    stage: Stage,
    updates: int,
    done: int,
    rows: Batch,
    schedule: Schedule,
    seed: int,
    unlabelled: bool,
    held_out: Callable[[], float] | None,
) -> History:
    turns = [(step, *_optimizer(net, step, schedule)) for step in stage.steps]
    every = max(1, updates // schedule.checks)
    seen: dict[str, list[Tensor]] = defaultdict(list)
    history: History = []
    best, best_state = math.inf, None
    net.train()
    for update, batch in enumerate(batches(rows, schedule.batch_size, updates, seed, unlabelled), 1):
        rate = schedule.learning_rate * rate_at(update, updates, schedule.warmup)
        for step, optimizer, parameters in turns:
            losses = step.losses(net, batch)
            optimizer.zero_grad(set_to_none=True)
            reduce(torch.add, losses.values()).backward()
            if schedule.clip is not None:
                nn.utils.clip_grad_norm_(parameters, schedule.clip)
            for group in optimizer.param_groups:
                group["lr"] = rate * step.rate * group.get("share", 1.0)
            optimizer.step()
            for name, value in losses.items():
                seen[name].append(value.detach())
        if stage.after:
            stage.after(net, done + update)
        if update % every == 0 or update == updates:
            line = {name: float(torch.stack(values).mean()) for name, values in seen.items()}
            seen.clear()
            _finite(line, stage.name, done + update)
            if held_out and stage.answers:
                line["held out"] = held_out()
                net.train()
                if line["held out"] < best:
                    best = line["held out"]
                    best_state = {name: value.clone() for name, value in net.state_dict().items()}
            prefix = "" if stage.answers else f"{stage.name}: "
            history.append({"update": done + update, **{prefix + name: value for name, value in line.items()}})
    if best_state is not None:
        net.load_state_dict(best_state)
    return history


def rate_at(update: int, updates: int, warmup: float) -> float:
    """Share of the learning rate at an update counted from 1: a linear rise, then half a cosine down to 0.

    >>> rate_at(1, 100, 0.0), round(rate_at(5, 100, 0.1), 2), rate_at(100, 100, 0.1)
    (1.0, 0.5, 0.0)
    """
    rise = int(warmup * updates)
    if update <= rise:
        return update / rise
    span = max(1, updates - rise - 1)
    return 0.5 * (1 + math.cos(math.pi * (update - rise - 1) / span))


def _optimizer(net: nn.Module, step: Step, schedule: Schedule) -> tuple[Optimizer, list[nn.Parameter]]:
    given = net.parameters() if step.parameters is None else step.parameters(net)
    parameters = [parameter for parameter in given if parameter.requires_grad]
    rate = schedule.learning_rate * step.rate
    if step.optimizer:
        return step.optimizer(parameters, rate), parameters
    marked = [module for module in net.modules() if getattr(module, "pretrained", False)]
    pretrained = {id(parameter) for module in marked for parameter in module.parameters()}
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if id(p) not in pretrained]},
        {"params": [p for p in parameters if id(p) in pretrained], "share": PRETRAINED_SHARE},
    ]
    groups = [group for group in groups if group["params"]]
    return AdamW(groups, lr=rate, weight_decay=schedule.weight_decay, fused=True), parameters


def _finite(line: Mapping[str, float], stage: str, update: int) -> None:
    for name, value in line.items():
        if not math.isfinite(value):
            raise DivergenceError(
                f"The loss {name!r} of stage {stage!r} became {value} by update {update}. "
                "Lower the schedule's learning_rate, or set its clip to 1.0."
            )
