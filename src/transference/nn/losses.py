"""Losses that several methods share; all are means over rows, in nats where they are entropies."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from transference.core.batch import labelled
from transference.core.spec import Task


def supervised(scores: Tensor, target: Tensor | None, task: Task) -> Tensor:
    """Cross-entropy, binary cross-entropy or squared error over the labelled rows; 0 when there is none.

    Parameters
    ----------
    scores
        (n, classes) logits or (n, outputs) values.
    target
        (n,) int64 with -1, or (n,) / (n, k) float32 with nan, where unlabelled; None where all are.
    """
    if target is None or not (mask := labelled(target)).any():
        return scores.sum() * 0.0
    if not mask.all():
        scores, target = scores[mask], target[mask]
    if task.kind == "classification":
        return F.cross_entropy(scores, target)
    if task.kind == "multilabel":
        return F.binary_cross_entropy_with_logits(scores, target)
    return F.mse_loss(scores[:, 0], target)


def soft_cross_entropy(scores: Tensor, probabilities: Tensor, temperature: float = 1.0) -> Tensor:
    """Mean of T² · CE(q, softmax(scores / T)) over the rows; q is already softened with T.

    Parameters
    ----------
    scores, probabilities
        (n, classes) logits; (n, classes), each row sums to 1.
    """
    log_p = F.log_softmax(scores / temperature, dim=1)
    return -(probabilities * log_p).sum(1).mean() * temperature**2


def unexplained(answer: Tensor, target: Tensor, variance: Tensor, mask: Tensor) -> Tensor:
    """Mean over the rows in `mask` of the squared error as a share of the total variance; 0 when there is none.

    Parameters
    ----------
    answer, target
        (n, d).
    variance
        Scalar, above 0.
    mask
        (n,) bool.
    """
    missed = (answer - target).where(mask[:, None], 0.0)  # before the square: what an absent row holds has no gradient
    return missed.square().sum() / variance / mask.sum().clamp_min(1)
