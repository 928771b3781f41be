"""How often each value of a column occurs: exact up to a bound, and in bounded memory beyond it.

Both counters are deterministic: one log gives one schema. (KLL, the usual sketch of quantiles,
draws random bits that its libraries take from the clock.)

Numbers. At most `MOST_NUMBERS` distinct values are kept. With more, neighbours are joined to their
mean, with the sum of their counts, so that at most three quarters of the places stay taken. What is
joined stands for less than `8 / MOST_NUMBERS` of the rows seen so far; values that are as frequent
as half of that by themselves are left alone, as are the least and the largest. Joining happens at
most once in `MERGED_AT` rows, so of n rows the share below a boundary is off by at most
`4 n / MOST_NUMBERS**2`: for 100 million rows 0.0004, where one of 32 buckets holds 0.03. The mean
stays what it is, up to rounding; the standard deviation loses what lay between joined values.

Texts. At most `MOST_TEXTS` distinct texts are held. With more, the rarer half is dropped and the
count of the most frequent one of them taken off all others (Misra and Gries 1982, merged as
Agarwal et al. 2012, "Mergeable summaries"). A count is then too low by at most
`2 n / MOST_TEXTS` of n rows, so a text that is more frequent than that is never lost.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.vocabulary import Vocabulary

MOST_NUMBERS = 1 << 20
MOST_TEXTS = 1 << 22
# So many values of single batches wait before they are merged: merging costs a sort.
MERGED_AT = 1 << 20


class NumberCounts:
    """Distinct finite values, ascending, and their counts."""

    def __init__(self) -> None:
        self._parts: list[tuple[NDArray[np.float64], NDArray[np.int64]]] = []
        self._waiting = 0

    @classmethod
    def of(cls, column: NDArray[np.float64]) -> NumberCounts:
        """Counts of one column; what is not finite is left out."""
        found = pc.value_counts(pa.array(column))
        # Adding 0 makes -0.0 the same value as 0.0, as comparison has it.
        values, held = found.field(0).to_numpy() + 0.0, found.field(1).to_numpy()
        kept = np.isfinite(values)
        counts = cls()
        counts._append(values[kept], held[kept])
        return counts

    def add(self, other: NumberCounts) -> None:
        """Count the other's values too."""
        for values, counts in other._parts:
            self._append(values, counts)
        if self._waiting > MERGED_AT:
            self._parts, self._waiting = [self.merged()], 0

    def merged(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """All values, ascending, and their counts."""
        if not self._parts:
            return np.empty(0), np.empty(0, np.int64)
        values = np.concatenate([values for values, _ in self._parts])
        counts = np.concatenate([counts for _, counts in self._parts])
        order = np.argsort(values)
        values, counts = values[order], counts[order]
        starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]][: len(values)])
        if len(starts) < len(values):
            values, counts = values[starts], np.add.reduceat(counts, starts)
        return _joined(values, counts) if len(values) > MOST_NUMBERS else (values, counts)

    def _append(self, values: NDArray[np.float64], counts: NDArray[np.int64]) -> None:
        self._parts.append((values, counts))
        self._waiting += len(values)


def _joined(
    values: NDArray[np.float64], counts: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """At most 3/4 `MOST_NUMBERS` + 4 values with the same sum of counts and the same mean."""
    share = 4 * counts.sum() / MOST_NUMBERS
    # A run of light values ends where the rows below it pass a multiple of the share.
    run = (np.cumsum(counts) // share).astype(np.int64)
    heavy = counts >= share
    alone = heavy | np.isin(np.arange(len(values)), (0, len(values) - 1))
    begins = np.r_[True, (run[1:] != run[:-1]) | alone[1:] | alone[:-1]]
    starts = np.flatnonzero(begins)
    totals = np.add.reduceat(counts, starts)
    # Weights before the sum: a product of two large numbers would overflow.
    weight = counts / np.repeat(totals, np.diff(np.r_[starts, len(values)]))
    means = np.add.reduceat(values * weight, starts)
    return np.clip(means, values[starts], values[np.r_[starts[1:], len(values)] - 1]), totals


class TextCounts:
    """Distinct texts and their counts."""

    def __init__(self) -> None:
        self._parts: list[tuple[pa.StringArray, NDArray[np.int64]]] = []
        self._waiting = 0
        self._lost = 0

    @classmethod
    def of(cls, texts: pa.StringArray, codes: NDArray[np.int32]) -> TextCounts:
        """Counts of a column: `codes` are positions in `texts`, -1 where missing."""
        # What is missing comes first here, and is left out.
        found = np.bincount(codes + 1, minlength=len(texts) + 1)[1:]
        counts = cls()
        # Always a copy: the texts may be a part of the batch that they were read with.
        counts._append(texts.filter(pa.array(found > 0)), found[found > 0])
        return counts

    def add(self, other: TextCounts) -> None:
        """Count the other's texts too."""
        for texts, counts in other._parts:
            self._append(texts, counts)
        if self._waiting > MERGED_AT:
            self._merge()

    def most_frequent(self, least: int, most: int | None) -> Vocabulary:
        """By count descending, then by text: what occurs `least` times or more, `most` of it."""
        if not self._parts:
            return Vocabulary.of(())
        self._merge()
        ((texts, counts),) = self._parts
        kept = counts + self._lost >= least
        table = pa.table({"count": counts[kept], "text": texts.filter(pa.array(kept))})
        order = pc.sort_indices(table, [("count", "descending"), ("text", "ascending")])
        return Vocabulary.of_arrow(table["text"].take(order[:most]).combine_chunks())

    def _append(self, texts: pa.StringArray, counts: NDArray[np.int64]) -> None:
        self._parts.append((texts, counts))
        self._waiting += len(texts)

    def _merge(self) -> None:
        texts = pa.concat_arrays([texts for texts, _ in self._parts]).dictionary_encode()
        counts = np.concatenate([counts for _, counts in self._parts])
        totals = np.bincount(texts.indices.to_numpy(), counts, len(texts.dictionary))
        distinct, totals = texts.dictionary, totals.astype(np.int64)
        if len(distinct) > MOST_TEXTS:
            lost = int(np.partition(totals, -MOST_TEXTS // 2)[-MOST_TEXTS // 2])
            kept = totals > lost
            distinct, totals = distinct.filter(pa.array(kept)), totals[kept] - lost
            self._lost += lost
        self._parts, self._waiting = [(distinct, totals)], 0
