"""How good scores are: ranking within the log and within groups, and fit of the probabilities.

Definitions:
- `auc`: probability that a clicked row outranks an unclicked one, ties counting one half
  (Fawcett 2006).
- `log_loss`: mean negative log likelihood, nats per row.
- `gauc`: AUC inside each group, averaged with the group's rows as weights, over groups that hold
  both labels (Zhou et al. 2018, DIN); `gauc_coverage` is the share of rows in such groups.
- `ndcg@10`: per group with a click, binary gains, ties in input order (Jarvelin and Kekalainen
  2002); the mean over those groups.
- `ece`: expected calibration error over 20 buckets of equally many rows (Naeini et al. 2015).
"""

from __future__ import annotations

from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Floats = NDArray[np.float64]
NDCG_DEPTH = 10
_ECE_BUCKETS = 20
_CLIP = 1e-7


def evaluate(
    order: NDArray[Any],
    score: NDArray[Any],
    label: NDArray[Any],
    group: NDArray[np.int64] | None = None,
) -> dict[str, float]:
    """All metrics of one set of rows.

    Args:
        order: `[rows]`, what ranks the rows: the logit.
        score: `[rows]` click probabilities.
        label: `[rows]`, 0 or 1, both present.
        group: `[rows]` numbers; None leaves out what needs groups.

    Returns:
        Finite numbers by name: a metric that these rows cannot judge is left out.
    """
    label = np.asarray(label, np.float64)
    metrics = {
        "auc": auc(order, label),
        "log_loss": log_loss(score, label),
        "ece": expected_calibration_error(score, label),
    }
    if group is not None:
        metrics |= group_metrics(order, label, group)
    return {name: value for name, value in metrics.items() if isfinite(value)}


def auc(order: NDArray[Any], label: NDArray[Any]) -> float:
    """Area under the ROC curve, by the rank sum of the clicked rows; NaN without both labels."""
    clicks = float(label.sum())
    others = len(label) - clicks
    if not clicks or not others:
        return float("nan")
    rank_sum = float(rankdata(order)[label > 0].sum())
    return (rank_sum - clicks * (clicks + 1) / 2) / (clicks * others)


def log_loss(score: NDArray[Any], label: NDArray[Any]) -> float:
    """Mean negative log likelihood, nats per row."""
    clipped = np.clip(np.asarray(score, np.float64), _CLIP, 1 - _CLIP)
    return float(-np.mean(np.where(label > 0, np.log(clipped), np.log1p(-clipped))))


def expected_calibration_error(score: NDArray[Any], label: NDArray[Any]) -> float:
    """Mean distance of predicted and observed CTR over buckets of equally many rows."""
    order = np.argsort(score, kind="stable")
    starts = np.unique(np.arange(_ECE_BUCKETS) * len(order) // _ECE_BUCKETS)
    gap = np.asarray(score, np.float64)[order] - np.asarray(label, np.float64)[order]
    return float(np.abs(np.add.reduceat(gap, starts)).sum() / len(order))


def group_metrics(
    order: NDArray[Any], label: NDArray[Any], group: NDArray[np.int64]
) -> dict[str, float]:
    """`gauc`, `gauc_coverage` and `ndcg@10`; NaN where no group can be judged."""
    # Best first inside each group; among equals the input order stands.
    place = np.lexsort((-np.asarray(order, np.float64), group))
    label, order, group = label[place], np.asarray(order, np.float64)[place], group[place]
    starts = np.flatnonzero(np.r_[True, group[1:] != group[:-1]])
    sizes = np.diff(np.r_[starts, len(group)])
    clicks = np.add.reduceat(label, starts)
    return _gauc(order, label, starts, sizes, clicks) | {
        f"ndcg@{NDCG_DEPTH}": _ndcg(label, starts, sizes, clicks)
    }


def _gauc(
    order: Floats,
    label: Floats,
    starts: NDArray[np.int64],
    sizes: NDArray[np.int64],
    clicks: Floats,
) -> dict[str, float]:
    # Rank inside the group, ties sharing their mean rank, all groups at once.
    owner = np.repeat(np.arange(len(starts)), sizes)
    position = np.arange(len(order)) - starts[owner]
    tied = np.flatnonzero(np.r_[True, (order[1:] != order[:-1]) | (owner[1:] != owner[:-1])])
    counts = np.diff(np.r_[tied, len(order)])
    mean_position = np.repeat(np.add.reduceat(position, tied) / counts, counts)
    rank = sizes[owner] - mean_position  # 1 for the lowest
    rank_sum = np.add.reduceat(rank * label, starts)
    judged = (clicks > 0) & (clicks < sizes)
    if not judged.any():
        return {"gauc": float("nan"), "gauc_coverage": 0.0}
    pairs = np.where(judged, clicks * (sizes - clicks), 1)
    areas = (rank_sum - clicks * (clicks + 1) / 2) / pairs
    return {
        "gauc": float(np.average(areas[judged], weights=sizes[judged])),
        "gauc_coverage": float(sizes[judged].sum() / len(order)),
    }


def _ndcg(
    label: Floats, starts: NDArray[np.int64], sizes: NDArray[np.int64], clicks: Floats
) -> float:
    if not (clicks > 0).any():
        return float("nan")
    position = np.arange(len(label)) - np.repeat(starts, sizes)
    discount = np.where(position < NDCG_DEPTH, 1 / np.log2(position + 2), 0)
    gained = np.add.reduceat(label * discount, starts)
    best = np.cumsum(1 / np.log2(np.arange(NDCG_DEPTH) + 2))
    ideal = best[np.minimum(clicks, NDCG_DEPTH).astype(np.int64) - 1]
    return float(np.mean((gained / ideal)[clicks > 0]))
