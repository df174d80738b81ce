"""How long, how fast and on what a network is trained. No torch."""

from __future__ import annotations

from dataclasses import dataclass

from transference.core.errors import ConfigError, must_be


@dataclass(frozen=True)
class Schedule:
    """The same for every arm of a study, so that arms differ in method alone.

    Attributes
    ----------
    updates
        Optimiser updates in all; the stages of a method share them.
    batch_size
        Labelled rows an update; methods that use unlabelled rows draw as many of those besides.
    learning_rate, weight_decay
        Of AdamW; the rate rises linearly over the first `warmup` share and falls to 0 along a cosine.
    clip
        Largest norm of the gradient; None = not clipped.
    validation
        Share of the labelled rows held out to choose the best state; used only where it gives at least
        `least_validation` rows a class, otherwise the last state is kept. In [0, 0.5].
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
            "updates": (self.updates >= 1, "an integer of at least 1"),
            "batch_size": (self.batch_size >= 1, "an integer of at least 1"),
            "learning_rate": (self.learning_rate > 0, "a number above 0"),
            "weight_decay": (self.weight_decay >= 0, "a number of at least 0"),
            "warmup": (0 <= self.warmup < 1, "a number in [0, 1)"),
            "clip": (self.clip is None or self.clip > 0, "a number above 0, or None"),
            "validation": (0 <= self.validation <= 0.5, "a number in [0, 0.5]"),
            "least_validation": (self.least_validation >= 1, "an integer of at least 1"),
            "checks": (self.checks >= 1, "an integer of at least 1"),
        }
        for name, (holds, expected) in limits.items():
            if not holds:
                raise ConfigError(must_be(f"The {name!r} of the schedule", expected, getattr(self, name)))
