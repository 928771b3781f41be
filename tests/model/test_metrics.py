from __future__ import annotations

from math import isnan

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import metrics as sklearn

from model.metrics import (
    auc,
    average_precision,
    copc,
    evaluate,
    expected_calibration_error,
    group_metrics,
    log_loss,
)

ROWS = 500
NO_GROUPS = {"auc", "log_loss", "pr_auc", "ece", "copc"}


@pytest.fixture
def order() -> NDArray[np.float64]:
    """Logits with many ties."""
    return np.random.default_rng(0).normal(size=ROWS).round(1)


@pytest.fixture
def label(order: NDArray[np.float64]) -> NDArray[np.float64]:
    clicked = np.random.default_rng(1).random(ROWS) < 1 / (1 + np.exp(-order))
    return clicked.astype(np.float64)


@pytest.fixture
def group() -> NDArray[np.int64]:
    """Groups of 1 to about 20 rows, scattered over the log; some hold one class only."""
    return np.random.default_rng(2).integers(0, 70, ROWS) ** 2


def test_auc_is_scikit_learns_ties_included(
    order: NDArray[np.float64], label: NDArray[np.float64]
) -> None:
    assert auc(order, label) == pytest.approx(sklearn.roc_auc_score(label, order), abs=1e-12)


def test_auc_counts_ties_one_half() -> None:
    assert auc(np.zeros(4), np.array([0, 1, 0, 1])) == 0.5
    assert auc(np.array([1, 1, 2]), np.array([0, 1, 1])) == 0.75


def test_auc_without_both_labels_is_nan() -> None:
    assert isnan(auc(np.arange(3), np.ones(3)))
    assert isnan(auc(np.arange(3), np.zeros(3)))


def test_log_loss_is_scikit_learns(label: NDArray[np.float64]) -> None:
    score = np.random.default_rng(3).random(ROWS)
    assert log_loss(score, label) == pytest.approx(sklearn.log_loss(label, score), abs=1e-12)


def test_log_loss_of_certain_and_wrong_scores_is_finite() -> None:
    assert log_loss(np.array([0.0, 1.0]), np.array([1, 0])) == pytest.approx(-np.log(1e-7))


def test_ece_is_the_mean_gap_of_twenty_equal_buckets(label: NDArray[np.float64]) -> None:
    score = np.random.default_rng(3).random(ROWS)
    by_score = np.argsort(score)
    gaps = [abs(score[part].mean() - label[part].mean()) for part in np.split(by_score, 20)]
    assert expected_calibration_error(score, label) == pytest.approx(np.mean(gaps))


def test_ece_of_the_observed_rates_is_zero() -> None:
    score, label = np.repeat([0.25, 0.75], 40), np.tile([0, 0, 0, 1], 20)
    label[40:] = 1 - label[40:]
    assert expected_calibration_error(score, label) == pytest.approx(0)


def test_ece_takes_fewer_rows_than_buckets() -> None:
    ece = expected_calibration_error(np.array([0.2, 0.9]), np.array([0, 1]))
    assert ece == pytest.approx(0.15)


def test_gauc_weights_the_auc_of_each_group_with_both_labels_by_its_rows(
    order: NDArray[np.float64], label: NDArray[np.float64], group: NDArray[np.int64]
) -> None:
    areas, sizes = [], []
    for number in np.unique(group):
        rows = group == number
        if 0 < label[rows].sum() < rows.sum():
            areas.append(sklearn.roc_auc_score(label[rows], order[rows]))
            sizes.append(int(rows.sum()))
    measured = group_metrics(order, label, group)
    assert sum(sizes) < ROWS  # some groups are skipped
    assert measured["gauc"] == pytest.approx(np.average(areas, weights=sizes), abs=1e-12)
    assert measured["gauc_coverage"] == pytest.approx(sum(sizes) / ROWS)


def test_one_class_groups_change_only_the_coverage() -> None:
    order, label, group = np.array([2.0, 1, 3]), np.array([1, 0, 0]), np.array([7, 7, 7])
    alone = group_metrics(order, label, group)
    more = group_metrics(np.r_[order, 9, 8], np.r_[label, 1, 1], np.array([7, 7, 7, 5, 5]))
    assert (alone["gauc"], alone["gauc_coverage"]) == (0.5, 1.0)
    assert (more["gauc"], more["gauc_coverage"]) == (0.5, 0.6)


def test_gauc_without_a_group_to_judge_is_nan_and_covers_nothing() -> None:
    measured = group_metrics(np.arange(4.0), np.array([0, 0, 1, 1]), np.array([1, 1, 2, 2]))
    assert isnan(measured["gauc"])
    assert measured["gauc_coverage"] == 0


def test_gauc_counts_ties_one_half() -> None:
    measured = group_metrics(np.zeros(5), np.array([0, 1, 0, 1, 0]), np.array([1, 1, 2, 2, 2]))
    assert measured["gauc"] == 0.5


def test_ndcg_is_the_mean_over_groups_with_a_click(
    label: NDArray[np.float64], group: NDArray[np.int64]
) -> None:
    order = np.random.default_rng(4).permutation(ROWS) / 100  # scikit-learn averages ties
    gains = [
        sklearn.ndcg_score(label[None, rows], order[None, rows], k=10) if rows.sum() > 1 else 1.0
        for rows in (group == number for number in np.unique(group))
        if label[rows].sum() > 0
    ]
    measured = group_metrics(order, label, group)["ndcg@10"]
    assert measured == pytest.approx(np.mean(gains), abs=1e-12)


def test_ndcg_takes_ties_in_input_order() -> None:
    first, second = (
        group_metrics(np.zeros(2), np.array(label), np.zeros(2, np.int64))["ndcg@10"]
        for label in ([1, 0], [0, 1])
    )
    assert first == 1
    assert second == pytest.approx(1 / np.log2(3))


def test_ndcg_sees_nothing_below_the_tenth_place() -> None:
    label = np.zeros(11)
    label[0] = 1
    measured = group_metrics(np.arange(11.0), label, np.zeros(11, np.int64))
    assert measured["ndcg@10"] == 0


def test_ndcg_without_a_click_is_nan() -> None:
    assert isnan(group_metrics(np.zeros(2), np.zeros(2), np.zeros(2, np.int64))["ndcg@10"])


def test_evaluate_leaves_out_what_needs_groups(
    order: NDArray[np.float64], label: NDArray[np.float64], group: NDArray[np.int64]
) -> None:
    score = 1 / (1 + np.exp(-order))
    assert set(evaluate(order, score, label)) == NO_GROUPS
    grouped = {"gauc", "gauc_coverage", "ndcg@10", "mrr"}
    assert set(evaluate(order, score, label, group)) == NO_GROUPS | grouped


def test_evaluate_leaves_out_what_the_rows_cannot_judge() -> None:
    one_each = evaluate(np.arange(2.0), np.full(2, 0.5), np.array([0, 1]), np.arange(2))
    assert set(one_each) == NO_GROUPS | {"gauc_coverage", "ndcg@10", "mrr"}


def test_average_precision_is_the_mean_precision_over_clicks(
    order: NDArray[np.float64], label: NDArray[np.float64]
) -> None:
    """Precision among the rows that are at least as high; tied clicks have the same."""
    precisions = [label[order >= row].mean() for row in order[label > 0]]
    assert average_precision(order, label) == pytest.approx(np.mean(precisions), abs=1e-12)


def test_average_precision_of_tied_rows_is_their_rate_whatever_the_order() -> None:
    assert average_precision(np.zeros(4), np.array([1, 0, 0, 0])) == 0.25
    assert average_precision(np.zeros(4), np.array([0, 0, 0, 1])) == 0.25


def test_average_precision_without_a_click_is_nan() -> None:
    assert isnan(average_precision(np.zeros(3), np.zeros(3)))


def test_equal_scores_share_a_bucket_of_the_ece() -> None:
    """However the log orders them: one constant score has one gap, that of the means."""
    score = np.full(100, 0.3)
    for label in (np.repeat([0, 1], 50), np.tile([0, 1], 50)):
        assert expected_calibration_error(score, label) == pytest.approx(0.2)


def test_ece_does_not_depend_on_the_order_of_the_rows(label: NDArray[np.float64]) -> None:
    score = np.random.default_rng(3).random(ROWS).round(1)
    turned = expected_calibration_error(score[::-1], label[::-1])
    assert expected_calibration_error(score, label) == pytest.approx(turned, abs=1e-12)


def test_copc_is_predicted_over_observed_clicks() -> None:
    assert copc(np.array([0.5, 0.25, 0.75]), np.array([1, 0, 0])) == 1.5
    assert isnan(copc(np.array([0.5]), np.array([0])))


def test_mrr_is_the_mean_inverse_rank_of_the_first_click(
    order: NDArray[np.float64], label: NDArray[np.float64], group: NDArray[np.int64]
) -> None:
    """Over groups with a click; ties in input order."""
    inverse = []
    for number in np.unique(group):
        rows = np.flatnonzero(group == number)
        ranked = sorted(rows.tolist(), key=lambda row: (-order[row], row))
        if label[rows].any():
            inverse.append(1 / next(n for n, row in enumerate(ranked, 1) if label[row]))
    assert group_metrics(order, label, group)["mrr"] == pytest.approx(np.mean(inverse), abs=1e-12)


def test_mrr_without_a_click_is_nan() -> None:
    assert isnan(group_metrics(np.zeros(2), np.zeros(2), np.zeros(2, np.int64))["mrr"])
