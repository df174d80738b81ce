"""How long, how fast and on what a network is trained. No torch."""

from __future__ import annotations

from dataclasses import dataclass

from transference.core.errors import ConfigError, must_be
from transference.core.parameters import Interval


@dataclass(frozen=True)
class Schedule:
    """The same for every arm of a study, so that arms differ in method alone.

    Attributes
    ----------
    updates
        Optimiser updates of the model that answers. A method that trains others before it, such as a teacher, says how
        many those get.
    batch_size
        Labelled rows an update; methods that use unlabelled rows draw as many of those besides.
    learning_rate, weight_decay
        Of AdamW; the rate rises linearly over the first `warmup` share and falls to 0 along a cosine.
    clip
        Largest norm of the gradient; None = not clipped.
    validation
        Share of the labelled rows of every class held out to choose the best state; used only where that is at least
        `least_validation` rows of each, otherwise the last state is kept. In [0, 0.5].
    checks
        How often, over the training, losses are written to the history, finiteness is checked and the held-out rows
        are scored.
    device
        "auto" (a GPU when there is one), or a torch device name.
    """

    updates: int = 400
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.1
    warmup: float = 0.05
    clip: float | None = None
    validation: float = 0.0
    least_validation: int = 3
    checks: int = 20
    device: str = "auto"

    def __post_init__(self) -> None:
        limits = {
            "updates": Interval(1, whole=True),
            "batch_size": Interval(1, whole=True),
            "learning_rate": Interval(0, open_low=True),
            "weight_decay": Interval(0),
            "warmup": Interval(0, 1, open_high=True),
            "clip": Interval(0, open_low=True, none=True),
            "validation": Interval(0, 0.5),
            "least_validation": Interval(1, whole=True),
            "checks": Interval(1, whole=True),
        }
        for name, limit in limits.items():
            if not limit.allows(getattr(self, name)):
                raise ConfigError(must_be(f"The {name!r} of the schedule", str(limit), getattr(self, name)))
