"""Logits -> order of the candidates: pure functions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def best_first(logit: NDArray[np.float32], top_k: int | None) -> NDArray[np.int64]:
    """Positions of the best `top_k` candidates (None: all), ties in input order.

    Args:
        logit: `[N]`, finite.
        top_k: at least 1; more than there are gives all.
    """
    order: NDArray[np.int64] = np.argsort(-logit, kind="stable")
    return order[:top_k]


def win_probability(logit: NDArray[np.float32]) -> NDArray[np.float64]:
    """`[N, N]` sigmoid(logit_i - logit_j): the probability that i is preferred to j.

    Source: Burges et al. 2005 (RankNet), the quantity that the pairwise loss trains.
    """
    difference = logit.astype(np.float64)[:, None] - logit.astype(np.float64)[None, :]
    return 0.5 + 0.5 * np.tanh(difference / 2)
