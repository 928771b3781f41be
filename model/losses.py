"""What the network minimises: pure functions of logits and labels."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

_LEAST_WEIGHT = 1e-12


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
    if weights is None:
        return losses.mean()
    # A batch may hold no row with weight: its loss is 0, not 0 / 0.
    return (losses * weights).sum() / weights.sum().clamp(min=_LEAST_WEIGHT)
