from __future__ import annotations

import math

import pytest

from bench.figures import percentile, slope


def test_a_percentile_is_a_value_that_was_seen() -> None:
    values = [float(value) for value in range(1, 101)]
    assert percentile(values, 99) == 99
    assert percentile(values, 50) == 50
    assert percentile([3.0, 1.0], 99) == 3


def test_no_values_have_no_percentile() -> None:
    assert math.isnan(percentile([], 50))


def test_a_slope_is_the_growth_per_unit() -> None:
    assert slope([0, 1, 2], [5, 7, 9]) == pytest.approx(2)
    assert slope([0, 1, 2, 3], [1, 0, 0, 1]) == pytest.approx(0)


def test_one_value_has_no_slope() -> None:
    assert math.isnan(slope([1], [1]))
