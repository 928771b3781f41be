"""What the network minimises: pure functions of logits, labels and pairs.

Logits come as `[passes, rows]` or `[rows]`: the mean over passes is taken (R-Drop makes two).
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

_LEAST_WEIGHT = 1e-12


def pointwise_loss(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean log loss of the click probabilities sigmoid(logit).

    Args:
        logits: `[..., rows]` float32.
        labels: `[rows]` float32, 0 or 1.
        weights: `[rows]` float32 row weights, or None for 1 each.

    Returns:
        Scalar, nats per row (per unit of weight).
    """
    losses = functional.binary_cross_entropy_with_logits(
        logits, labels.expand_as(logits), reduction="none"
    )
    return _mean(losses, weights)


def pair_logits(logits: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """Logit of the claim that a pair's clicked row outranks the other: the difference of both.

    Args:
        logits: `[..., rows]` float32.
        positive: `[pairs]` int64, the clicked row of each pair.
        negative: `[pairs]` int64, the other row.

    Returns:
        `[..., pairs]` float32.
    """
    return logits.index_select(-1, positive) - logits.index_select(-1, negative)


def pairwise_loss(pairs: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean log loss of the probabilities sigmoid(pair logit) that the clicked row wins.

    Args:
        pairs: `[..., pairs]` float32, as `pair_logits` gives them.
        weights: `[pairs]` float32, or None for 1 each.

    Returns:
        Scalar, nats per pair (per unit of weight); 0 without a pair.

    Source: Burges et al. 2005 (RankNet), Rendle et al. 2009 (BPR).
    """
    return _mean(functional.softplus(-pairs), weights)


def r_drop_loss(logits: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean two-way KL divergence between the probabilities of two passes over the same rows.

    With p = sigmoid(z), the two classes of a click have the probabilities p and 1 - p, and

        KL(p1 || p2) + KL(p2 || p1) = (p1 - p2) (ln(p1 / p2) - ln((1 - p1) / (1 - p2)))
                                    = (p1 - p2) (z1 - z2)

    R-Drop takes half of that sum, so the term is 0.5 (p1 - p2) (z1 - z2). It needs no logarithm and
    stays finite at any logit. A softmax over the one logit would be constant, and the term 0.

    Args:
        logits: `[2, rows]` float32, of rows or of pairs.
        weights: `[rows]` float32, or None for 1 each.

    Returns:
        Scalar, nats per row (per unit of weight), never negative; 0 without a row.

    Source: Liang et al. 2021 (arXiv:2106.14448), equation 2.
    """
    first, second = logits.unbind(0)
    return _mean(0.5 * (first.sigmoid() - second.sigmoid()) * (first - second), weights)


def _mean(values: Tensor, weights: Tensor | None) -> Tensor:
    """Weighted mean over the last axis, then the mean over the others; 0, never 0 / 0."""
    if weights is None:
        return values.sum() / max(values.numel(), 1)
    # A batch may hold nothing with weight.
    means = (values * weights).sum(-1) / weights.sum().clamp(min=_LEAST_WEIGHT)
    return means.mean()
