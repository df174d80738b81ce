"""A model inside a method: named in a study file or given in Python, it becomes a fresh, unfitted Method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sklearn.base import clone

from transference.core.errors import ConfigError, must_be
from transference.core.method import Method
from transference.core.registry import FAMILIES, create, find
from transference.core.spec import DataSpec
from transference.core.views import Views
from transference.train.estimator import EstimatorMethod
from transference.train.schedule import Schedule


def new_model(
    given: Any = None,
    *,
    width: int = 64,
    schedule: Schedule = Schedule(),
    seed: int = 0,
    modalities: int = 1,
) -> Method:
    """A fresh, unfitted Method for one modality, or for several side by side.

    Parameters
    ----------
    given
        None: the neural ``unimodal``, or ``fusion.early`` for several modalities. The id of a method, an estimator as
        `train.estimator.new_estimator` takes it, or a mapping with an id or a class under ``class`` and parameters
        beside it. A Method instance is cloned and keeps its own width, schedule and seed.
    width, schedule, seed
        For a method that has such parameters; `seed` is also that of an estimator whose ``random_state`` is None.
    modalities
        How many it will be given.

    Examples
    --------
    >>> new_model("sklearn.naive_bayes.GaussianNB").estimator
    'sklearn.naive_bayes.GaussianNB'
    >>> new_model(width=8).width
    8
    """
    if isinstance(given, Method):
        method = clone(given)
    else:
        is_mapping = isinstance(given, Mapping)
        name = given.get("class") if is_mapping else given
        if name is None and not is_mapping:
            name = "unimodal" if modalities == 1 else "fusion.early"
        if not (isinstance(name, str) and _is_id(name)):
            return EstimatorMethod(given, seed=seed)
        own = {key: value for key, value in given.items() if key != "class"} if is_mapping else {}
        shared = {"width": width, "schedule": schedule, "seed": seed}
        known = find(name)._get_param_names()
        method = create(name, **{**{key: value for key, value in shared.items() if key in known}, **own})
    fewest, most = method.card.modalities
    if modalities < fewest or (most is not None and modalities > most):
        raise ConfigError(must_be("A model", f"one for {modalities} modalities", f"{type(method).__name__}"))
    return method


def check_model(given: Any) -> None:
    """Raise ConfigError unless `new_model` can make something of it."""
    new_model(given).check_parameters()


def is_neural_default(given: Any) -> bool:
    """Whether a model is the neural ``unimodal`` with nothing set."""
    return given is None or (isinstance(given, str) and given == "unimodal")


def shortened(schedule: Schedule, share: float) -> Schedule:
    """The same schedule with this share of the updates."""
    return replace(schedule, updates=max(1, round(share * schedule.updates)))


def one(X: Views, name: str) -> Views:
    """One modality alone, as the primary one."""
    return X.only([name], primary=name)


def as_unimodal(method: Any, spec: DataSpec) -> Method:
    """A fitted network of an encoder and a head, as the fitted ``unimodal`` that answers alike."""
    plain: Any = create("unimodal", width=method.width, schedule=method.schedule, seed=method.seed)
    return plain.restore(spec, method.net_.state_dict())


def _is_id(name: str) -> bool:
    return ":" in name or name.split(".")[0] in FAMILIES
