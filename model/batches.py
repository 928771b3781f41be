"""Which rows form the batches of an epoch: any rows, or groups held together.

A group of few rows stays whole in a batch. A large one (a user with hundreds of rows) is cut at
random, anew every epoch: batches of a few whole large groups teach badly (decision 15).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.rows import Rows
from model.shuffle import shuffled, window_rows

Integers = NDArray[np.int64]


def row_batches(rows: Rows, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Shuffled row numbers, `[size]` int64 each; the last batch holds the rest.

    What was read of mapped rows is given back after every window of the shuffling.
    """
    window = max(window_rows(rows) // size, 1)
    for step, chosen in enumerate(torch.split(shuffled(rows, generator), size)):
        if step % window == 0:
            rows.release()
        yield chosen


class Groups:
    """Rows by group, for batches that keep groups together.

    Args:
        group: `[rows]`, equal inside a group; the rows may stand in any order.
        most_rows: groups of more rows are cut into nearly equal pieces of at most so many.
    """

    def __init__(self, group: Integers, most_rows: int) -> None:
        numbers, self.owner = np.unique(group, return_inverse=True)
        sizes = np.bincount(self.owner, minlength=len(numbers))
        pieces = -(-sizes // most_rows)
        of_group = np.repeat(np.arange(len(sizes)), pieces)
        piece = np.arange(len(of_group)) - _starts(pieces)[of_group]
        self.starts = _starts(sizes)[of_group] + piece * sizes[of_group] // pieces[of_group]
        self.sizes = np.diff(np.r_[self.starts, len(group)])

    def batches(self, size: int, generator: torch.Generator) -> Iterator[Tensor]:
        """Pieces in random order, batches filled with whole ones up to `size` rows.

        A piece of more than `size` rows is a batch of its own, larger than `size`.

        Args:
            size: most rows of a batch of several pieces.
            generator: shuffles the rows of each group, and the pieces.

        Yields:
            `[rows]` int64 row numbers, every row once in all.
        """
        rows = torch.randperm(len(self.owner), generator=generator).numpy()
        rows = rows[np.argsort(self.owner[rows], kind="stable")]  # group by group
        order = torch.randperm(len(self.sizes), generator=generator).numpy()
        starts, sizes = self.starts[order], self.sizes[order]
        ends = np.cumsum(sizes)
        begin = taken = 0
        while begin < len(order):
            fitting = int(np.searchsorted(ends, taken + size, side="right"))
            end = max(fitting, begin + 1)
            yield torch.from_numpy(rows[_runs(starts[begin:end], sizes[begin:end])])
            begin, taken = end, int(ends[end - 1])


def _starts(sizes: Integers) -> Integers:
    """Where each run begins when runs of `sizes` stand one after another."""
    starts: Integers = np.cumsum(sizes) - sizes
    return starts


def _runs(starts: Integers, sizes: Integers) -> Integers:
    """start, start + 1, ... for every run, one run after another."""
    shift = starts - _starts(sizes)
    runs: Integers = np.arange(sizes.sum()) + np.repeat(shift, sizes)
    return runs
