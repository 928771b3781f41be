"""How the scores of two versions differ on the same requests: counts that are cheap to keep."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate

import numpy as np

from service.ranking import best_first
from service.scorer import Floats

DIFFERENCE_BOUNDS = (1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
CORRELATION_BOUNDS = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999, 1.0)


class Comparison:
    """Counts over the requests that both versions have scored.

    One thread adds; another may read, and sees counts that are at most one request apart.
    """

    def __init__(self) -> None:
        self.differences = np.zeros(len(DIFFERENCE_BOUNDS) + 1, np.int64)
        self.difference_sum = 0.0
        self.correlations = [0] * (len(CORRELATION_BOUNDS) + 1)
        self.same_best = 0
        self.other_best = 0
        self.score_sums = [0.0, 0.0]

    def add_scores(self, first: Floats, second: Floats) -> None:
        """Count the scores of one request's rows, `[rows]` each."""
        difference = np.abs(second.astype(np.float64) - first)
        places = np.searchsorted(DIFFERENCE_BOUNDS, difference)
        self.differences += np.bincount(places, minlength=len(self.differences))
        self.difference_sum += float(difference.sum())
        self.score_sums[0] += float(first.sum(dtype=np.float64))
        self.score_sums[1] += float(second.sum(dtype=np.float64))

    def add_ranking(self, first: Floats, second: Floats) -> None:
        """Count how two orders of one request's candidates agree.

        Args:
            first: logits `[candidates]`, at least two.
            second: those of the other version.
        """
        self.correlations[bisect_left(CORRELATION_BOUNDS, rank_correlation(first, second))] += 1
        if first.argmax() == second.argmax():
            self.same_best += 1
        else:
            self.other_best += 1


def rank_correlation(first: Floats, second: Floats) -> float:
    """Spearman's: 1 for the same order of the answer, -1 for the reverse.

    Args:
        first: logits `[candidates]`, at least two; ties are ranked as an answer ranks them.
        second: of the same candidates.
    """
    count = len(first)
    # In integers, exact: the sum is at most count^3 / 3.
    apart = int(((_ranks(first) - _ranks(second)) ** 2).sum())
    return 1 - 6 * apart / (count * (count * count - 1))


def cumulative(counts: list[int]) -> list[int]:
    """Counts of single buckets as Prometheus wants them."""
    return list(accumulate(counts))


def _ranks(logit: Floats) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    ranks = np.empty(len(logit), np.int64)
    ranks[best_first(logit, None)] = np.arange(len(logit))
    return ranks
