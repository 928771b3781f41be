from __future__ import annotations

import numpy as np
import pytest

from model.metrics import expected_calibration_error
from model.reliability import BUCKETS, reliability


def test_buckets_hold_mean_score_and_ctr_of_equally_many_rows() -> None:
    score = np.repeat(np.arange(BUCKETS) / BUCKETS, 10)
    label = np.tile([1, 1, 0, 0, 0, 0, 0, 0, 0, 0], BUCKETS)
    shuffled = np.random.default_rng(0).permutation(len(score))
    curve = reliability(score[shuffled], label[shuffled])
    np.testing.assert_allclose(curve.predicted, np.arange(BUCKETS) / BUCKETS, atol=1e-12)
    np.testing.assert_allclose(curve.observed, 0.2)
    assert curve.rows.tolist() == [10] * BUCKETS


def test_curve_is_the_one_whose_distance_the_ece_is() -> None:
    random = np.random.default_rng(1)
    score = random.random(1007)
    label = (random.random(1007) < score**2).astype(float)
    curve = reliability(score, label)
    distance = np.average(np.abs(curve.predicted - curve.observed), weights=curve.rows)
    assert distance == pytest.approx(expected_calibration_error(score, label))


def test_fewer_rows_than_buckets_make_a_bucket_each() -> None:
    curve = reliability(np.array([0.9, 0.2]), np.array([1, 0]))
    assert curve.rows.tolist() == [1, 1]
    assert curve.observed.tolist() == [0, 1]


def test_interval_holds_the_true_rate_as_often_as_it_says() -> None:
    random = np.random.default_rng(2)
    score = 0.1 + np.arange(20_000) / 1e9
    held = []
    for _ in range(50):
        low, high = reliability(score, random.random(20_000) < 0.1).interval()
        held += ((low < 0.1) & (high > 0.1)).tolist()
    assert np.mean(held) == pytest.approx(0.95, abs=0.03)


def test_interval_of_a_bucket_without_a_click_is_open_and_inside_0_and_1() -> None:
    low, high = reliability(np.array([0.1, 0.2]), np.array([0, 1])).interval()
    assert (low >= 0).all()
    assert (high <= 1).all()
    assert (high > low).all()


def test_json_is_three_short_lists() -> None:
    document = reliability(np.linspace(0, 1, 100), np.zeros(100)).to_json()
    assert set(document) == {"predicted", "observed", "rows"}
    assert all(len(values) == BUCKETS for values in document.values())
    assert document["predicted"][0] == pytest.approx(0.020202, abs=1e-12)


def test_equal_scores_share_a_bucket_whatever_their_order() -> None:
    score = np.repeat([0.1, 0.5], [30, 70])
    label = (np.arange(100) % 10 == 0).astype(float)
    for order in (np.arange(100), np.arange(100)[::-1]):
        curve = reliability(score[order], label[order])
        assert curve.rows.tolist() == [30, 70]
        assert curve.observed.tolist() == [0.1, 0.1]
