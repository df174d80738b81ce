"""Checks of the contract: the constructor, state, determinism, the card."""

from __future__ import annotations

import inspect
import random
import re
from typing import Any, get_args

import joblib
import numpy as np
import torch
from sklearn.base import clone
from sklearn.model_selection import cross_val_score

from transference.core.method import Method, Need
from transference.core.seeding import fence
from transference.core.spec import TaskKind, spec_from_json, spec_to_json
from transference.testing.subject import ConformanceError, Subject, answers, fitted, require, same
from transference.train.neural import NeuralMethod
from transference.train.schedule import Schedule


def constructor_stores(subject: Subject) -> None:
    """Parameters are keyword-only, have defaults, and are stored unchanged under their names; nothing else is."""
    cls = type(subject())
    parameters = list(inspect.signature(cls).parameters.values())
    for parameter in parameters:
        require(parameter.kind is parameter.KEYWORD_ONLY, f"The parameter {parameter.name!r} must be keyword-only.")
        require(parameter.default is not parameter.empty, f"The parameter {parameter.name!r} must have a default.")
    given = {parameter.name: [parameter.name] for parameter in parameters}
    try:
        method = cls(**given)
    except Exception as error:
        raise ConformanceError(
            f"The constructor must store anything unchanged and leave checks to 'fit': {error!r}"
        ) from error
    for name, value in given.items():
        require(getattr(method, name, None) is value, f"The constructor must store {name!r} unchanged, as self.{name}.")
    learned = [name for name in vars(method) if name.endswith("_") and not name.startswith("_")]
    require(not learned, f"The constructor must not set learned state. It set {learned}.")


def clones(subject: Subject) -> None:
    """`clone` and `get_params` / `set_params` go round; a clone is not fitted."""
    method = subject.fitted
    copy = clone(method)
    require(joblib.hash(_parameters(copy)) == joblib.hash(_parameters(method)), "A clone must have equal parameters.")
    require(not hasattr(copy, "spec_"), "A clone must not be fitted.")
    fresh = type(method)().set_params(**_parameters(method))
    require(joblib.hash(_parameters(fresh)) == joblib.hash(_parameters(method)), "set_params must undo get_params.")


def parameters_survive_fit(subject: Subject) -> None:
    """`fit` returns the method, leaves every parameter as it was, its content included, and adds but learned state."""
    method = subject()
    there = set(vars(method))
    before, content = _parameters(method), joblib.hash(_parameters(method))
    returned = method.fit(subject.rows(), subject.labels())
    require(returned is method, "'fit' must return the method itself.")
    require(
        all(value is before[name] for name, value in _parameters(method).items()), "'fit' must not replace a parameter."
    )
    require(joblib.hash(_parameters(method)) == content, "'fit' must not change the content of a parameter.")
    left = sorted(name for name in vars(method).keys() - there if not name.endswith("_"))
    require(not left, f"What 'fit' leaves behind must be learned state, whose names end in '_'. It left {left}.")


def fitting_again_starts_afresh(subject: Subject) -> None:
    """Fitting twice equals fitting a fresh object, whatever came first."""
    method = subject()
    method.fit(subject.rows(36, seed=7), subject.labels(36))
    again = answers(fitted(method, subject.rows(), subject.labels()), subject.rows())
    fresh = answers(subject.fitted, subject.rows())
    require(same(again, fresh), "Fitting again must equal fitting a fresh object, bit for bit.")


def same_seed_same_bits(subject: Subject) -> None:
    """The same seed gives the same bits, whatever the state of the global generators."""
    found = []
    for state in (1, 2):
        with fence(state, "elsewhere"):
            found.append(answers(subject.fit(seed=5), subject.rows()))
    require(same(*found), "Two fits with one seed must be alike, bit for bit, whatever the global generators are.")


def another_seed_differs(subject: Subject) -> None:
    """A network that starts from another seed ends elsewhere."""
    one, other = (answers(method, subject.rows()) for method in (subject.fitted, subject.fit(seed=1)))
    require(not same(one, other), "Another seed must give other answers: the 'seed' parameter is not used.")


def global_generators_untouched(subject: Subject) -> None:
    """The generators of random, numpy and torch are afterwards as they were."""
    with fence(271828, "elsewhere"):  # a state that nobody seeds by chance
        before = _generators()
        answers(subject.fit(), subject.rows())
        after = _generators()
    for name, state in after.items():
        require(state == before[name], f"The global generator of {name} must be as before; use core.seeding.fence.")


def card_is_filled_in(subject: Subject) -> None:
    """The card holds a sentence, an author-year key, and words that mean something."""
    card = subject.card
    require(
        bool(re.fullmatch(r"[A-Z0-9].*\.", card.summary)),
        "The summary of the card must be a sentence, with a full stop.",
    )
    require(
        bool(re.fullmatch(r"[a-z]+\d{4}[a-z0-9]*", card.reference)),
        f"The reference of the card must be an author-year key, as 'radford2021clip'. Got {card.reference!r} instead.",
    )
    fewest, most = card.modalities
    require(
        fewest >= 1 and (most is None or most >= fewest),
        f"The card allows {card.modalities} modalities: nobody has that.",
    )
    require(
        card.needs <= set(get_args(Need)), f"The card has unknown needs: {sorted(card.needs - set(get_args(Need)))}."
    )
    require(card.at_test in ("all", "primary", "any"), f"The card says at_test={card.at_test!r}.")
    require(
        bool(card.tasks) and card.tasks <= set(get_args(TaskKind)), f"The card has unknown tasks: {sorted(card.tasks)}."
    )
    require("paired" not in card.needs or most != 1, "The card wants pairs and one modality.")


def state_restores(subject: Subject) -> None:
    """`net_.state_dict()` and the spec are all that a fitted network is."""
    known: Any = subject.fitted
    state = {name: value.clone() for name, value in known.net_.state_dict().items()}
    require(all(value.is_contiguous() for value in state.values()), "The tensors of the state must be contiguous.")
    restored: Any = subject(seed=known.get_params().get("seed", 0))
    restored.restore(spec_from_json(spec_to_json(known.spec_)), state)
    X = subject.rows(20, seed=3)
    require(
        same(answers(known, X), answers(restored, X)),
        "A network restored from its state must answer alike, bit for bit.",
    )


def every_parameter_learns(subject: Subject) -> None:
    """Every parameter of the network gets a gradient at some time, or is marked as frozen."""
    method: Any = subject()
    taught: set[str] = set()
    build = method.build

    def watched(spec: Any) -> torch.nn.Module:
        net = build(spec)
        for name, parameter in net.named_parameters():
            if parameter.requires_grad:
                parameter.register_hook(lambda gradient, name=name: taught.add(name) if gradient.any() else None)
        return net

    method.build = watched
    unlabelled = np.arange(48) % 4 == 3
    method.fit(subject.rows(), subject.labels(unlabelled=unlabelled))
    idle = [
        name for name, parameter in method.net_.named_parameters() if parameter.requires_grad and name not in taught
    ]
    require(
        not idle,
        f"These parameters got no gradient and are not frozen: {idle}. Remove them, or set requires_grad = False.",
    )


def history_is_a_table(subject: Subject) -> None:
    """Named losses and "update", lists of equal length, the updates rising."""
    known: Any = subject.fitted
    history: dict[str, list[float]] = known.history_
    require(
        len(history) > 1 and "update" in history,
        f"The history must hold 'update' and a loss. It holds {sorted(history)}.",
    )
    require(len({len(values) for values in history.values()}) == 1, "The lists of the history must be of equal length.")
    require(bool((np.diff(history["update"]) > 0).all()), "The updates of the history must rise.")


def updates_keep_to_the_schedule(subject: Subject) -> None:
    """What answers is trained for the schedule's updates, and stages that prepare it (``answers=False``) for as many.

    Arms of a study shall differ in method alone. ``history_`` tells of the fit that answers, not of those that label
    rows for it; a method without one, or without a schedule, is not judged.
    """
    method: Any = subject.fitted
    done = getattr(method, "history_", {}).get("update")
    schedule = _parameters(method).get("schedule")
    if not done or not isinstance(schedule, Schedule):
        return
    stages = method.stages(method.net_) if isinstance(method, NeuralMethod) else ()
    preparing = sum(max(1, round(stage.share * schedule.updates)) for stage in stages if not stage.answers)
    rounding = max(0, len(stages) - 1)
    most = schedule.updates + min(preparing, schedule.updates) + rounding
    require(
        done[-1] <= most,
        f"A schedule of {schedule.updates} updates allows {most} with the stages that prepare. Got {done[-1]:g}.",
    )


def works_in_scikit_learn(subject: Subject) -> None:
    """`cross_val_score` takes the method and a Views."""
    X, y = subject.rows(30), subject.labels(30)
    scores = cross_val_score(subject(), X, y, cv=2, error_score="raise")
    require(
        len(scores) == 2 and bool(np.isfinite(scores).all()), f"cross_val_score must give finite scores. Got {scores}."
    )


def _parameters(method: Method) -> dict[str, Any]:
    return method.get_params(deep=False)


def _generators() -> dict[str, str]:
    states = {
        "random": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": torch.random.get_rng_state().numpy(),
    }
    return {name: joblib.hash(state) for name, state in states.items()}
