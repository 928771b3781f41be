"""Logistic regression on the encoded features that a run's DeepFM was trained on.

`python -m examples.baseline SPEC [section.key=value ...]` prints the metrics of scikit-learn's
logistic regression on the validation and test rows, its L2 strength chosen on the former.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from features.spec import load_spec
from model.data import Split, read_split
from model.metrics import evaluate
from model.rows import Rows

STRENGTHS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)  # scikit-learn's C: the inverse of the penalty


def baseline(split: Split) -> tuple[float, dict[str, dict[str, float]]]:
    """Best strength by validation AUC, and the metrics of both parts under it."""
    features = one_hot(split.train, split.schema.size)
    best: tuple[float, float, dict[str, dict[str, float]]] = (-1.0, 0.0, {})
    for strength in STRENGTHS:
        regression = LogisticRegression(C=strength, solver="lbfgs", max_iter=500)
        regression.fit(features, split.train.label)
        found = {
            name: judge(regression, rows, split.schema.size)
            for name, rows in (("valid", split.valid), ("test", split.test))
            if rows is not None
        }
        if found["valid"]["auc"] > best[0]:
            best = found["valid"]["auc"], strength, found
    return best[1], best[2]


def one_hot(rows: Rows, size: int) -> Any:
    """`[rows, size]` sparse matrix: an index's column holds its weight."""
    count, slots = rows.index.shape
    weight = np.ones(rows.index.shape, np.float32) if rows.weight is None else rows.weight
    row = np.repeat(np.arange(count), slots)
    matrix = sparse.csr_matrix((weight.ravel(), (row, rows.index.ravel())), (count, size))
    matrix.eliminate_zeros()
    return matrix


def judge(regression: Any, rows: Rows, size: int) -> dict[str, float]:
    """Metrics of a fitted regression."""
    logit = regression.decision_function(one_hot(rows, size)).astype(np.float32)
    return evaluate(logit, 1 / (1 + np.exp(-logit.astype(np.float64))), rows.label, rows.group)


def main(arguments: Sequence[str]) -> None:
    """Print the baseline of one spec."""
    strength, metrics = baseline(read_split(load_spec(Path(arguments[0]), arguments[1:])))
    for name, values in metrics.items():
        told = ", ".join(f"{key} {value:.4f}" for key, value in values.items())
        print(f"{name}: {told} (C = {strength})")


if __name__ == "__main__":
    main(sys.argv[1:])
