"""Cross-modal transfer: train with every modality you have, deploy with the one you will get.

The public names resolve when they are first used, so that ``import transference`` imports neither torch nor
scikit-learn.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "Views": "transference.core.views",
    "ModalitySpec": "transference.core.spec",
    "Finding": "transference.core.records",
    "RunRecord": "transference.core.records",
    "Method": "transference.core.method",
    "Card": "transference.core.method",
    "NeuralMethod": "transference.train.neural",
    "Schedule": "transference.train.schedule",
    "create": "transference.core.registry",
    "names": "transference.core.registry",
    "load_manifest": "transference.data.manifest",
    "run": "transference.experiment.runner",
    "publish": "transference.experiment.publish",
    "export": "transference.deploy.export",
    "Predictor": "transference.deploy.predictor",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
