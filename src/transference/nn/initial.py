"""Initial weights that depend on the seed and a module's name alone."""

from __future__ import annotations

from torch import nn

from transference.core.seeding import fence


def initialise(net: nn.Module, seed: int) -> None:
    """Call ``reset_parameters`` of every module, each under its own seed.

    Two networks that name a part alike therefore start it alike, whatever else they hold: a method whose transfer
    weight is zero equals the baseline bit for bit. A module with ``pretrained = True`` is left alone, with all below.
    """
    for name, module in net.named_children():
        _reset(module, name, seed)


def _reset(module: nn.Module, name: str, seed: int) -> None:
    if getattr(module, "pretrained", False):
        return
    for child_name, child in module.named_children():
        _reset(child, f"{name}.{child_name}", seed)
    reset = getattr(module, "reset_parameters", None)
    if callable(reset):
        with fence(seed, "initial", name):
            reset()
