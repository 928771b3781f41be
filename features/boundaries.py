"""Where to cut a number into buckets: quantiles of its distinct values, or logarithmic steps.

Rules:
- A learned boundary lies midway between two neighbouring distinct values. On a value itself, a
  float32 column would fall on the other side once JSON has written its digits in float64.
- A value that holds more than 1/buckets of the rows gets a bucket of its own.
- What is left is cut, between those values, into buckets of equal count; equal cuts are merged.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Boundaries = tuple[float, ...]


def quantile_boundaries(
    values: NDArray[np.float64], counts: NDArray[np.int64], buckets: int
) -> Boundaries:
    """Boundaries of at most `buckets` buckets, or as many as the heavy values' own ones need.

    Args:
        values: `[n]` distinct finite values, ascending.
        counts: `[n]` rows holding each.
        buckets: at least 1.
    """
    if len(values) < 2 or buckets < 2:
        return ()
    heavy = counts * buckets > counts.sum()
    # Segments: each heavy value alone, and each run of light values between them.
    starts = np.flatnonzero(np.r_[True, heavy[1:] | heavy[:-1]])
    ends = np.r_[starts[1:], len(values)]
    mass = np.add.reduceat(counts, starts)
    light = ~heavy[starts]
    shares = np.ones(len(starts), np.int64)
    shares[light] = _apportion(mass[light], max(buckets - int((~light).sum()), 0))
    cuts = [
        cut
        for start, end, share in zip(starts, ends, shares, strict=True)
        for cut in start + _equal_cuts(counts[start:end], int(share))
    ]
    return _midpoints(values, np.unique(np.r_[cuts, ends[:-1]].astype(np.int64)))


def log_boundaries(minimum: float, maximum: float, buckets: int) -> Boundaries:
    """Boundaries of `buckets` equal steps of sign(x) * log1p(|x|) from `minimum` to `maximum`."""
    low, high = (np.sign(x) * np.log1p(np.abs(x)) for x in (minimum, maximum))
    steps = np.linspace(low, high, buckets + 1)[1:-1]
    return tuple(np.unique(np.sign(steps) * np.expm1(np.abs(steps))).tolist())


def _apportion(mass: NDArray[np.int64], buckets: int) -> NDArray[np.int64]:
    """Buckets per segment in proportion to its rows, at least one each (largest remainders)."""
    if not len(mass):
        return mass
    exact = mass / mass.sum() * buckets
    shares: NDArray[np.int64] = np.maximum(np.floor(exact), 1).astype(np.int64)
    spare = buckets - int(shares.sum())
    if spare > 0:
        shares[np.argsort(shares - exact, kind="stable")[:spare]] += 1
    return shares


def _equal_cuts(counts: NDArray[np.int64], buckets: int) -> NDArray[np.int64]:
    """Positions before which to cut so that the parts hold about equally many rows."""
    seen = np.cumsum(counts)
    targets = seen[-1] * np.arange(1, buckets) / buckets
    cuts: NDArray[np.int64] = np.unique(np.searchsorted(seen, targets) + 1)
    inside: NDArray[np.int64] = cuts[cuts < len(counts)]
    return inside


def _midpoints(values: NDArray[np.float64], cuts: NDArray[np.int64]) -> Boundaries:
    low, high = values[cuts - 1], values[cuts]
    middle = low / 2 + high / 2  # the sum of two large values would overflow
    # Between two neighbouring floats there is no number: the upper one starts the upper bucket.
    return tuple(np.where((low < middle) & (middle <= high), middle, high).tolist())
