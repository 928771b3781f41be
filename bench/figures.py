"""Figures of a series of measurements."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that so many percent of all do not exceed; NaN without values."""
    if not values:
        return float("nan")
    return float(np.percentile(values, percent, method="inverted_cdf"))


def slope(at: Sequence[float], values: Sequence[float]) -> float:
    """How much the values grow per unit of `at`, by least squares; NaN with fewer than two."""
    if len(values) < 2:
        return float("nan")
    x, y = np.asarray(at, float), np.asarray(values, float)
    away = x - x.mean()
    return float(away @ (y - y.mean()) / (away @ away))
