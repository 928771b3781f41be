"""What `Encoder` does with each kind of field stands in test_encode.py."""

from __future__ import annotations

import math

import numpy as np
import pytest

from features.kinds import buckets_of, transform
from features.schema import ValueField


@pytest.mark.parametrize("count", [0, 1, 31, 255, 256])
def test_many_rows_land_where_few_do(count: int) -> None:
    """Beside, on and far from boundaries."""
    random = np.random.default_rng(0)
    boundaries = np.unique(random.normal(size=count))
    column = np.concatenate([random.normal(size=5000), boundaries, [-np.inf, np.inf, 1e308, -0.0]])
    expected = [buckets_of(column[row : row + 1], boundaries)[0] for row in range(len(column))]
    assert buckets_of(column, boundaries).tolist() == expected


def test_a_value_is_clipped_before_its_transform() -> None:
    member = ValueField(name="f", minimum=0, maximum=10, transform="log1p")
    assert transform(member, np.array([1e308]))[0] == math.log1p(10)


def test_log1p_keeps_the_sign() -> None:
    member = ValueField(name="f", minimum=-10, maximum=10, transform="log1p")
    assert transform(member, np.array([-3.0, 3.0])).tolist() == [-math.log1p(3), math.log1p(3)]


def test_standard_subtracts_the_mean_and_divides_by_the_deviation() -> None:
    member = ValueField(name="f", minimum=0, maximum=9, transform="standard", mean=3, deviation=2)
    assert transform(member, np.array([3.0, 7.0])).tolist() == [0, 2]
