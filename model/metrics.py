"""How good scores are: ranking within the log and within groups, and fit of the probabilities.

Rows rank by their logit, higher first. `auc`, `pr_auc`, `gauc` and `ece` do not depend on the order
of the input; `ndcg@10` and `mrr` take equal logits in input order, as /rank answers them.
"""

from __future__ import annotations

from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score

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
        "pr_auc": average_precision(order, label),
    }
    if group is not None:
        metrics |= group_metrics(order, label, group)
    metrics |= {"ece": expected_calibration_error(score, label), "copc": copc(score, label)}
    return {name: value for name, value in metrics.items() if isfinite(value)}


def auc(order: NDArray[Any], label: NDArray[Any]) -> float:
    """Probability that a clicked row outranks an unclicked one, ties counting one half.

    NaN without both labels. Source: Fawcett 2006, by the rank sum of the clicked rows.
    """
    clicks = float(label.sum())
    others = len(label) - clicks
    if not clicks or not others:
        return float("nan")
    rank_sum = float(rankdata(order)[label > 0].sum())
    return (rank_sum - clicks * (clicks + 1) / 2) / (clicks * others)


def average_precision(order: NDArray[Any], label: NDArray[Any]) -> float:
    """Area under the precision-recall curve, as a sum of steps: the mean precision over clicks.

    Precision is taken at each distinct logit, so that tied rows count as one step; NaN without a
    click. Source: scikit-learn's `average_precision_score`; Davis and Goadrich 2006 on why the
    points are not joined by lines.
    """
    return float(average_precision_score(label, order)) if label.any() else float("nan")


def log_loss(score: NDArray[Any], label: NDArray[Any]) -> float:
    """Mean negative log likelihood, nats per row, scores clipped to [1e-7, 1 - 1e-7]."""
    clipped = np.clip(np.asarray(score, np.float64), _CLIP, 1 - _CLIP)
    return float(-np.mean(np.where(label > 0, np.log(clipped), np.log1p(-clipped))))


def expected_calibration_error(score: NDArray[Any], label: NDArray[Any]) -> float:
    """Mean distance of predicted and observed CTR over 20 buckets of equally many rows, 0 to 1.

    Equal scores share a bucket, the one where they begin, so buckets may differ in size; each
    counts by its rows. Source: Naeini et al. 2015, with the equal-mass buckets of Nguyen and
    O'Connor 2015.
    """
    place = np.argsort(score, kind="stable")
    score = np.asarray(score, np.float64)[place]
    starts = np.arange(_ECE_BUCKETS) * len(score) // _ECE_BUCKETS
    starts = np.unique(np.searchsorted(score, score[starts]))
    gap = score - np.asarray(label, np.float64)[place]
    return float(np.abs(np.add.reduceat(gap, starts)).sum() / len(score))


def copc(score: NDArray[Any], label: NDArray[Any]) -> float:
    """Predicted clicks over observed clicks: 1 is right, 1.2 is a fifth too many; NaN without any.

    Source: He et al. 2014 (who call it calibration); some write its inverse under the same name.
    """
    clicks = float(np.sum(label, dtype=np.float64))
    return float(np.sum(score, dtype=np.float64)) / clicks if clicks else float("nan")


def group_metrics(
    order: NDArray[Any], label: NDArray[Any], group: NDArray[np.int64]
) -> dict[str, float]:
    """`gauc`, `gauc_coverage`, `ndcg@10` and `mrr`; NaN where no group can be judged.

    Args:
        order: `[rows]`, what ranks the rows.
        label: `[rows]`, 0 or 1.
        group: `[rows]`, equal inside a group; the rows may stand in any order.
    """
    # Best first inside each group; among equals the input order stands.
    place = np.lexsort((-np.asarray(order, np.float64), group))
    label, order, group = label[place], np.asarray(order, np.float64)[place], group[place]
    starts = np.flatnonzero(np.r_[True, group[1:] != group[:-1]])
    sizes = np.diff(np.r_[starts, len(group)])
    clicks = np.add.reduceat(label, starts)
    return _gauc(order, label, starts, sizes, clicks) | {
        f"ndcg@{NDCG_DEPTH}": _ndcg(label, starts, sizes, clicks),
        "mrr": _mrr(label, starts, clicks),
    }


def _gauc(
    order: Floats,
    label: Floats,
    starts: NDArray[np.int64],
    sizes: NDArray[np.int64],
    clicks: Floats,
) -> dict[str, float]:
    """AUC inside each group with both labels, averaged with the group's rows as weights.

    Rows are impressions: the weight that Zhou et al. 2018 (DIN) take. Ties count one half.
    `gauc_coverage` is the share of all rows in such groups; the others are skipped.
    """
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
    """Mean over groups with a click: discounted clicks of the first 10 rows over the best order's.

    Gains are 0 and 1, the discount of rank r is 1 / log2(r + 1).
    Source: Jarvelin and Kekalainen 2002.
    """
    if not (clicks > 0).any():
        return float("nan")
    position = np.arange(len(label)) - np.repeat(starts, sizes)
    discount = np.where(position < NDCG_DEPTH, 1 / np.log2(position + 2), 0)
    gained = np.add.reduceat(label * discount, starts)
    best = np.cumsum(1 / np.log2(np.arange(NDCG_DEPTH) + 2))
    ideal = best[np.minimum(clicks, NDCG_DEPTH).astype(np.int64) - 1]
    return float(np.mean((gained / ideal)[clicks > 0]))


def _mrr(label: Floats, starts: NDArray[np.int64], clicks: Floats) -> float:
    """Mean over groups with a click of 1 / rank of the first clicked row (Voorhees 1999)."""
    if not (clicks > 0).any():
        return float("nan")
    clicked = np.flatnonzero(label > 0)
    judged = starts[clicks > 0]
    first = clicked[np.searchsorted(clicked, judged)]
    return float(np.mean(1 / (first - judged + 1)))
