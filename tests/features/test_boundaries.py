from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from features.boundaries import Boundaries, log_boundaries, quantile_boundaries

finite = st.floats(allow_nan=False, allow_infinity=False)
samples = st.lists(finite | st.integers(-5, 5).map(float), min_size=1, max_size=60)


def learn(sample: list[float] | NDArray[np.float64], buckets: int) -> Boundaries:
    values, counts = np.unique(np.array(sample, np.float64), return_counts=True)
    return quantile_boundaries(values, counts, buckets)


def bucket_of(boundaries: Boundaries, x: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.searchsorted(boundaries, x, "right")


@given(samples, st.integers(1, 12))
def test_learned_boundaries_increase_strictly(sample: list[float], buckets: int) -> None:
    boundaries = learn(sample, buckets)
    assert all(np.isfinite(boundaries))
    assert all(low < high for low, high in pairwise(boundaries))


@given(samples, st.integers(1, 12))
def test_every_learned_bucket_holds_a_training_value(sample: list[float], buckets: int) -> None:
    boundaries = learn(sample, buckets)
    assert set(bucket_of(boundaries, np.array(sample)).tolist()) == set(range(len(boundaries) + 1))


@given(st.lists(st.integers(-50, 50), min_size=2, max_size=60), st.integers(2, 12))
def test_a_learned_boundary_lies_midway(sample: list[int], buckets: int) -> None:
    distinct = np.unique(sample)
    midways = {(low + high) / 2 for low, high in pairwise(distinct)}
    assert set(learn(np.array(sample, float), buckets)) <= midways


def test_equal_counts_get_equal_buckets() -> None:
    boundaries = learn(np.arange(100.0), 4)
    assert boundaries == (24.5, 49.5, 74.5)


def test_repeated_quantiles_are_merged() -> None:
    assert learn([0.0] * 90 + list(range(1, 11)), 4) == pytest.approx((0.5, 4.5, 7.5), abs=1)
    assert learn([1.0] * 50 + [2.0] * 50, 10) == (1.5,)


def test_one_value_makes_one_bucket() -> None:
    assert learn([3.0] * 10, 8) == ()


def test_a_bucket_count_of_1_has_no_boundary() -> None:
    assert learn([1.0, 2.0, 3.0], 1) == ()


def test_no_more_buckets_than_asked_for() -> None:
    sample = np.random.default_rng(0).normal(size=5000)
    assert len(learn(sample, 32)) == 31


@pytest.mark.parametrize("heavy", [-1.0, 0.0, 5.0, 99.0])
def test_a_heavy_value_has_a_bucket_of_its_own(heavy: float) -> None:
    sample = np.r_[np.full(100, heavy), np.linspace(-0.9, 98.9, 200)]
    boundaries = learn(sample, 8)
    same = bucket_of(boundaries, sample) == bucket_of(boundaries, np.array([heavy]))
    assert set(sample[same].tolist()) == {heavy}


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=2))
def test_float32_columns_fall_into_the_same_bucket_online(sample: list[float]) -> None:
    """JSON writes a float32 0.1 as 0.1, which float64 reads as another number."""
    column = np.unique(np.array(sample, np.float32))
    boundaries = learn(column.astype(np.float64), 8)
    sent = np.array([json.loads(str(value)) for value in column], np.float64)
    offline = bucket_of(boundaries, column.astype(np.float64))
    assert offline.tolist() == bucket_of(boundaries, sent).tolist()


def test_float32_prices_fall_into_the_same_bucket_online() -> None:
    column = (np.random.default_rng(0).integers(1, 10_000, 5000) / 100).astype(np.float32)
    boundaries = learn(column.astype(np.float64), 32)
    sent = np.array([float(str(value)) for value in column])
    assert (column.astype(np.float64) != sent).any()
    offline = bucket_of(boundaries, column.astype(np.float64))
    assert (offline == bucket_of(boundaries, sent)).all()


def test_neighbouring_floats_are_still_parted() -> None:
    low = 1.0
    high = float(np.nextafter(low, 2))
    assert learn([low, high], 2) == (high,)


def test_the_largest_numbers_do_not_overflow() -> None:
    assert learn([1e308, 1.7e308], 2) == pytest.approx((1.35e308,))


def test_log_boundaries_are_equal_steps_of_the_logarithm() -> None:
    boundaries = log_boundaries(0.0, np.expm1(4.0), 4)
    assert np.log1p(boundaries) == pytest.approx([1, 2, 3])


def test_log_boundaries_mirror_negative_numbers() -> None:
    boundaries = log_boundaries(-100.0, 100.0, 4)
    assert boundaries == pytest.approx((-boundaries[2], 0, boundaries[2]))


@given(finite, finite, st.integers(1, 40))
def test_log_boundaries_increase_strictly(one: float, other: float, buckets: int) -> None:
    boundaries = log_boundaries(min(one, other), max(one, other), buckets)
    assert all(np.isfinite(boundaries))
    assert all(low < high for low, high in pairwise(boundaries))
    assert len(boundaries) < max(buckets, 2)
