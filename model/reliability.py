"""Reliability curve: what was predicted against what was observed, over buckets of rows.

Source: DeGroot and Fienberg 1983, "The Comparison and Evaluation of Forecasters". Buckets hold
equally many rows, as those of the expected calibration error, because click probabilities crowd
near 0: of buckets of equal width nearly all rows would share one. Equal scores share a bucket, so
that the order of the input does not matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
BUCKETS = 20
# 97.5 % quantile of the normal distribution: two sides make 95 %.
_Z = 1.96


@dataclass(frozen=True)
class Reliability:
    """Buckets of rows in ascending order of their score.

    Args:
        predicted: `[buckets]`, mean score.
        observed: `[buckets]`, CTR.
        rows: `[buckets]` int64.
    """

    predicted: Floats
    observed: Floats
    rows: NDArray[np.int64]

    def interval(self) -> tuple[Floats, Floats]:
        """95 % interval of each bucket's true CTR, `[buckets]` low and high.

        Source: Wilson 1927; unlike the normal one it stays inside [0, 1] and open at 0 clicks.
        """
        size = 1 + _Z**2 / self.rows
        centre = (self.observed + _Z**2 / (2 * self.rows)) / size
        spread = self.observed * (1 - self.observed) / self.rows + (_Z / (2 * self.rows)) ** 2
        half = _Z * np.sqrt(spread) / size
        return np.maximum(centre - half, 0), np.minimum(centre + half, 1)

    def to_json(self) -> dict[str, list[float]]:
        """For the manifest: three lists, rates to six decimals."""
        return {
            "predicted": self.predicted.round(6).tolist(),
            "observed": self.observed.round(6).tolist(),
            "rows": self.rows.tolist(),
        }


def reliability(score: NDArray[Any], label: NDArray[Any]) -> Reliability:
    """Curve of `[rows]` click probabilities and labels, at least one; at most 20 buckets."""
    place = np.argsort(score, kind="stable")
    score, label = (np.asarray(values, np.float64)[place] for values in (score, label))
    least = score[np.arange(BUCKETS) * len(score) // BUCKETS]
    starts = np.unique(np.searchsorted(score, least))
    rows = np.diff(np.r_[starts, len(score)])
    predicted, observed = (np.add.reduceat(values, starts) / rows for values in (score, label))
    return Reliability(predicted, observed, rows)
