from __future__ import annotations

from typing import Literal

import numpy as np
import pytest

from model.calibrate import CLIP, METHODS, Calibration, Floats, Method, fit_calibration
from model.metrics import expected_calibration_error


def draw(slope: float, rows: int = 20_000) -> tuple[Floats, Floats]:
    """Logits, and clicks drawn from sigmoid(slope * logit + 0.3)."""
    random = np.random.default_rng(0)
    logit = random.normal(-1, 2, rows)
    label = random.random(rows) < 1 / (1 + np.exp(-(slope * logit + 0.3)))
    return logit, label.astype(float)


def log_loss(score: Floats, label: Floats) -> float:
    return float(-np.mean(label * np.log(score) + (1 - label) * np.log1p(-score)))


def test_platt_recovers_slope_and_intercept() -> None:
    fitted = fit_calibration("platt", *draw(0.67))
    assert fitted.slope == pytest.approx(0.67, abs=0.03)
    assert fitted.intercept == pytest.approx(0.3, abs=0.05)


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_calibration_lowers_the_log_loss_of_overconfident_logits(method: Method) -> None:
    logit, label = draw(0.5)
    before = log_loss(Calibration("none").score(logit), label)
    assert log_loss(fit_calibration(method, logit, label).score(logit), label) < before - 0.01


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("rate", [1.0, 0.1])
def test_scores_never_decrease_and_stay_inside_the_clip(method: Method, rate: float) -> None:
    fitted = fit_calibration(method, *draw(0.67), negative_sampling_rate=rate)
    score = fitted.score(np.linspace(-100, 100, 10_001))
    assert (np.diff(score) >= 0).all()
    assert score.min() >= CLIP
    assert score.max() <= 1 - CLIP


def test_auto_takes_platt_when_the_truth_is_a_sigmoid() -> None:
    assert fit_calibration("auto", *draw(0.5)).method == "platt"


def test_auto_takes_isotonic_when_the_truth_is_no_sigmoid() -> None:
    random = np.random.default_rng(1)
    logit = random.normal(0, 2, 20_000)
    label = random.random(20_000) < np.where(logit > 0, 0.6, 0.4)
    assert fit_calibration("auto", logit, label).method == "isotonic"


def test_auto_leaves_a_handful_of_clicks_alone() -> None:
    label = np.zeros(1000)
    label[:3] = 1
    assert fit_calibration("auto", np.linspace(-1, 1, 1000), label).method == "none"


def test_separable_rows_give_finite_parameters() -> None:
    label = np.r_[np.zeros(50), np.ones(50)]
    fitted = fit_calibration("platt", label * 10 - 5, label)
    assert np.isfinite([fitted.slope, fitted.intercept]).all()


def test_logits_that_point_the_wrong_way_are_not_turned_round() -> None:
    logit, label = draw(0.67)
    assert fit_calibration("platt", -logit, label).slope > 0


def test_isotonic_curve_has_no_cliff() -> None:
    """A logit 1e-7 away, as another runtime computes it, moves the score by less than 1e-5."""
    logit = np.repeat([0.0, 1e-6], 500)
    fitted = fit_calibration("isotonic", logit, np.repeat([0.0, 1.0], 500))
    near = np.linspace(-1e-5, 1e-5, 201)
    assert np.abs(np.diff(fitted.score(near))).max() < 1e-5


@pytest.mark.parametrize("method", ["auto", "platt", "isotonic"])
def test_score_is_a_probability_whatever_the_level_of_the_logits(
    method: Literal["auto"] | Method,
) -> None:
    """A pairwise loss leaves the level of the logits free, and trains their spread otherwise."""
    logit, label = draw(0.67)
    logit = 4 * logit + 9
    fitted = fit_calibration(method, logit[:10_000], label[:10_000])
    score, held = fitted.score(logit[10_000:]), label[10_000:]
    assert expected_calibration_error(Calibration("none").score(logit), label) > 0.3
    # 500 rows per bucket alone are 0.015 away from their rate.
    assert expected_calibration_error(score, held) < 0.03
    assert score.sum() / held.sum() == pytest.approx(1, abs=0.03)


def test_shift_multiplies_the_odds_by_the_share_of_negatives_kept() -> None:
    logit = np.array([-2.0, 0.0, 1.5])
    plain = Calibration("none").score(logit)
    shifted = Calibration("none", negative_sampling_rate=0.1).score(logit)
    np.testing.assert_allclose(shifted / (1 - shifted), 0.1 * plain / (1 - plain))


def test_unshifted_score_is_on_the_scale_of_the_log() -> None:
    logit = np.array([-2.0, 0.0, 1.5])
    kept = Calibration("none", negative_sampling_rate=0.1).score(logit, shifted=False)
    np.testing.assert_allclose(kept, Calibration("none").score(logit))


@pytest.mark.parametrize("method", METHODS)
def test_scores_of_a_sampled_log_are_near_the_true_probabilities(method: Method) -> None:
    """A model of a log that kept a tenth of its negatives overstates; the shift takes it back."""
    random = np.random.default_rng(2)
    truth = 1 / (1 + np.exp(-random.normal(-3, 1, 200_000)))
    label = (random.random(len(truth)) < truth).astype(float)
    kept = (label == 1) | (random.random(len(truth)) < 0.1)
    # What a perfect model of the kept rows answers: the odds times ten.
    logit = np.log(truth / (1 - truth)) + np.log(10)
    fitted = fit_calibration(method, logit[kept], label[kept], negative_sampling_rate=0.1)
    score = fitted.score(logit)
    assert score.mean() == pytest.approx(label.mean(), rel=0.03)
    assert np.abs(score - truth).mean() < 0.01
    assert fitted.score(logit, shifted=False).mean() > 3 * label.mean()
