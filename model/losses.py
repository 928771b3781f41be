"""What the network minimises: pure functions of logits and labels."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def pointwise_loss(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean log loss of the click probabilities sigmoid(logit).

    Args:
        logits: `[rows]` float32.
        labels: `[rows]` float32, 0 or 1.
        weights: `[rows]` float32 row weights, or None for 1 each.

    Returns:
        Scalar, nats per row (per unit of weight).
    """
    losses = functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    return losses.mean() if weights is None else (losses * weights).sum() / weights.sum()
