"""Logit -> click probability: fitted on validation rows, folded into the exported graph.

Rules:
- A calibration never decreases, so the order of scores is the order of logits up to ties.
- The shift for a log that kept only a share of its negatives comes after calibration, once: the
  true odds are the logged odds times that share.
- Scores are clipped to [1e-6, 1 - 1e-6]; no log loss is infinite.

Isotonic regression gives constant blocks; here each block is one knot at its mean logit and the
curve is linear in between (centered isotonic regression, Oron and Flournoy 2017), so that equal
networks on two runtimes, 1e-7 apart in the logit, stay 1e-5 apart in the score.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression
from sklearn.model_selection import StratifiedKFold

Method = Literal["none", "platt", "isotonic"]
METHODS: tuple[Method, ...] = ("none", "platt", "isotonic")
CLIP = 1e-6
# Knots nearer than this are merged: it bounds how steep the curve can be.
_LEAST_KNOT_DISTANCE = 0.05
_NEWTON_STEPS = 50
_FOLDS = 5

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """A fitted map from logit to probability.

    Args:
        method: which map.
        slope: of `platt`: sigmoid(slope * logit + intercept), slope above 0.
        intercept: of `platt`.
        knots: of `isotonic`: ascending logits.
        values: of `isotonic`: probability at each knot, constant beyond the end knots.
        negative_sampling_rate: share of negatives kept in the log; scores are shifted back.
    """

    method: Method
    slope: float = 1.0
    intercept: float = 0.0
    knots: tuple[float, ...] = ()
    values: tuple[float, ...] = ()
    negative_sampling_rate: float = 1.0

    def score(self, logit: NDArray[Any], shifted: bool = True) -> Floats:
        """Click probabilities of logits, both `[rows]`.

        Args:
            logit: the network's own.
            shifted: with the negative-sampling shift, as /score answers; without it the score
                is on the scale of the log, as metrics on logged rows need it.
        """
        logit = np.asarray(logit, np.float64)
        if self.method == "isotonic":
            probability: Floats = np.interp(logit, self.knots, self.values)
        else:
            probability = _sigmoid(self.slope * logit + self.intercept)
        rate = self.negative_sampling_rate if shifted else 1.0
        probability = probability * rate / (1 - probability + probability * rate)
        clipped: Floats = np.clip(probability, CLIP, 1 - CLIP)
        return clipped

    def to_json(self) -> dict[str, Any]:
        """For the manifest: the method and what it fitted."""
        fitted: dict[str, Any] = {"method": self.method}
        if self.method == "platt":
            fitted |= {"slope": self.slope, "intercept": self.intercept}
        if self.method == "isotonic":
            fitted |= {"knots": list(self.knots), "values": list(self.values)}
        return fitted | {"negative_sampling_rate": self.negative_sampling_rate}


def fit_calibration(
    method: Literal["auto"] | Method,
    logit: NDArray[Any],
    label: NDArray[Any],
    negative_sampling_rate: float = 1.0,
) -> Calibration:
    """Calibration fitted on validation rows.

    Args:
        method: `auto` takes the one with the least 5-fold cross-validated log loss.
        logit: `[rows]`.
        label: `[rows]`, 0 or 1.
        negative_sampling_rate: passed on into the result.
    """
    logit, label = np.asarray(logit, np.float64), np.asarray(label, np.float64)
    chosen = _best_method(logit, label) if method == "auto" else method
    return _fit(chosen, logit, label, negative_sampling_rate)


def _best_method(logit: Floats, label: Floats) -> Method:
    if min(label.sum(), (1 - label).sum()) < _FOLDS:
        return "none"
    folds = list(StratifiedKFold(_FOLDS, shuffle=True, random_state=0).split(logit, label))
    loss = {
        method: sum(
            _log_loss(_fit(method, logit[fit], label[fit]).score(logit[held]), label[held])
            * len(held)
            for fit, held in folds
        )
        for method in METHODS
    }
    return min(METHODS, key=loss.__getitem__)


def _fit(method: Method, logit: Floats, label: Floats, rate: float = 1.0) -> Calibration:
    if method == "platt":
        slope, intercept = _fit_platt(logit, label)
        return Calibration("platt", slope, intercept, negative_sampling_rate=rate)
    if method == "isotonic":
        knots, values = _fit_isotonic(logit, label)
        return Calibration("isotonic", knots=knots, values=values, negative_sampling_rate=rate)
    return Calibration("none", negative_sampling_rate=rate)


def _fit_platt(logit: Floats, label: Floats) -> tuple[float, float]:
    """Slope and intercept by Newton's method on the log loss.

    Source: Platt 1999, with his targets (n+ + 1) / (n+ + 2) and 1 / (n- + 2), which keep the
    optimum finite on separable rows.
    """
    positives = label.sum()
    negatives = len(label) - positives
    target = np.where(label > 0, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    design = np.stack([logit, np.ones_like(logit)], 1)
    parameters = np.array([1.0, 0.0])
    for _ in range(_NEWTON_STEPS):
        probability = _sigmoid(design @ parameters)
        gradient = design.T @ (probability - target)
        curvature = probability * (1 - probability)
        hessian = (design * curvature[:, None]).T @ design + 1e-9 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        # A long step from a flat region would overshoot; a bounded one still converges.
        step *= min(1.0, 1.0 / np.abs(step).max(initial=1e-12))
        parameters -= step
        if np.abs(step).max() < 1e-10:
            break
    # A map that does not rise would reorder candidates: such logits are left as they are.
    slope = float(parameters[0])
    return (slope, float(parameters[1])) if slope > 0 else (1.0, 0.0)


def _fit_isotonic(logit: Floats, label: Floats) -> tuple[tuple[float, ...], tuple[float, ...]]:
    order = np.argsort(logit, kind="stable")
    fitted = IsotonicRegression().fit_transform(logit[order], label[order])
    starts = np.flatnonzero(np.r_[True, np.diff(fitted) > 0])
    knots = np.add.reduceat(logit[order], starts)
    clicks = np.add.reduceat(label[order], starts)
    rows = np.diff(np.r_[starts, len(logit)]).astype(np.float64)
    knots, clicks, rows = _merged(knots, clicks, rows)
    # A block without a click is no proof that clicks cannot happen: bound it by its size.
    bound = 1 / (rows + 2)
    values = np.maximum.accumulate(np.clip(clicks / rows, bound, 1 - bound))
    return tuple((knots / rows).tolist()), tuple(values.tolist())


def _merged(knots: Floats, clicks: Floats, rows: Floats) -> tuple[Floats, Floats, Floats]:
    """Blocks (sums of logit, clicks, rows) joined until their means keep their distance."""
    merged: list[list[float]] = []
    for block in zip(knots.tolist(), clicks.tolist(), rows.tolist(), strict=True):
        merged.append(list(block))
        while (
            len(merged) > 1
            and merged[-1][0] / merged[-1][2] - merged[-2][0] / merged[-2][2] < _LEAST_KNOT_DISTANCE
        ):
            last = merged.pop()
            merged[-1] = [a + b for a, b in zip(merged[-1], last, strict=True)]
    sums = np.array(merged).T
    return sums[0], sums[1], sums[2]


def _sigmoid(logit: Floats) -> Floats:
    half: Floats = np.tanh(logit / 2)  # overflows nowhere, unlike exp(-logit)
    return 0.5 + 0.5 * half


def _log_loss(score: Floats, label: Floats) -> float:
    return float(-np.mean(label * np.log(score) + (1 - label) * np.log1p(-score)))
