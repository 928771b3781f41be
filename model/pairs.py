"""Pairs of a clicked and an unclicked row of one group, drawn anew for every batch.

Rules:
- Pairs never cross groups; a group with one class gives none. A row of weight 0 gives none either.
- Every clicked row meets min(k, unclicked rows of its group) different unclicked rows. They are a
  window of the group's unclicked rows in random order, and each clicked row's window begins where
  the one before ended: every choice is equally likely, and the unclicked rows are used evenly.
- Every group with pairs weighs the same in its batch, whatever its rows; its pairs share that.
  With row weights a pair counts times the geometric mean of its two, so that weights of c all
  through a group make the group weigh c.

In numpy: on arrays of a few thousand rows torch's threads wait for one another longer than they
work.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Integers = NDArray[np.int64]
Floats = NDArray[np.float32]


class Pairs(NamedTuple):
    """Pairs of one batch.

    Args:
        positive: `[pairs]` int64, the clicked row.
        negative: `[pairs]` int64, the unclicked row.
        weight: `[pairs]` float32, above 0.
    """

    positive: Tensor
    negative: Tensor
    weight: Tensor

    def rows(self) -> int:
        """How many different rows form them."""
        return len(np.unique(np.r_[self.positive.numpy(), self.negative.numpy()]))


class _Sides(NamedTuple):
    """Rows that can form pairs, and how many of them each group holds.

    Args:
        owner: `[rows]`, number of the row's group, from 0.
        positive: the clicked rows of groups with both labels.
        negative: the unclicked rows, of all groups.
        positives: `[groups]`, how many of `positive`.
        negatives: `[groups]`, how many of `negative`.
    """

    owner: Integers
    positive: Integers
    negative: Integers
    positives: Integers
    negatives: Integers


def draw_pairs(
    label: Floats,
    group: Integers,
    row_weight: Floats | None,
    per_positive: int,
    generator: torch.Generator,
) -> Pairs:
    """Pairs of a batch.

    Args:
        label: `[rows]`, 0 or 1.
        group: `[rows]`, equal inside a group; rows may stand in any order.
        row_weight: `[rows]`, or None for 1 each.
        per_positive: most unclicked rows drawn per clicked row.
        generator: draws them.
    """
    owner, positive, negative, positives, negatives = _sides(label, group, row_weight)
    positive = positive[np.argsort(owner[positive], kind="stable")]
    negative = negative[torch.randperm(len(negative), generator=generator).numpy()]
    negative = negative[np.argsort(owner[negative], kind="stable")]

    # Place of each clicked row among those of its group, and the width of its window.
    of_group = owner[positive]
    place = np.arange(len(positive)) - _starts(positives)[of_group]
    width = np.minimum(negatives[of_group], per_positive)
    pair = np.repeat(np.arange(len(positive)), width)
    step = np.arange(len(pair)) - _starts(width)[pair]
    of_group = of_group[pair]
    window = (place[pair] * per_positive + step) % negatives[of_group]
    positive, negative = positive[pair], negative[_starts(negatives)[of_group] + window]

    weight = 1 / np.bincount(of_group, minlength=len(negatives))[of_group]
    if row_weight is not None:
        weight = weight * np.sqrt(row_weight[positive] * row_weight[negative])
    return Pairs(
        torch.from_numpy(positive),
        torch.from_numpy(negative),
        torch.from_numpy(weight.astype(np.float32)),
    )


def _sides(label: Floats, group: Integers, row_weight: Floats | None) -> _Sides:
    numbers, owner = np.unique(group, return_inverse=True)
    counts = np.ones(len(label), bool) if row_weight is None else row_weight > 0
    negative = np.flatnonzero((label == 0) & counts)
    negatives = np.bincount(owner[negative], minlength=len(numbers))
    positive = np.flatnonzero((label > 0) & counts & (negatives > 0)[owner])
    positives = np.bincount(owner[positive], minlength=len(numbers))
    return _Sides(owner, positive, negative, positives, negatives)


def _starts(sizes: Integers) -> Integers:
    """Where each run begins when runs of `sizes` stand one after another."""
    starts: Integers = np.cumsum(sizes) - sizes
    return starts
