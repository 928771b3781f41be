from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.comparison import Comparison, rank_correlation


def floats(*values: float) -> NDArray[np.float32]:
    return np.array(values, np.float32)


@pytest.mark.parametrize(
    ("second", "expected"),
    [((0.1, 0.2, 0.3), 1.0), ((3, 2, 1), -1.0), ((1, 3, 2), 0.5), ((0, 0, 0), -1.0)],
)
def test_rank_correlation_is_spearmans_with_ties_in_input_order(
    second: tuple[float, ...], expected: float
) -> None:
    assert rank_correlation(floats(1, 2, 3), floats(*second)) == expected


@given(st.lists(st.floats(-5, 5, width=32), min_size=2, unique=True), st.randoms())
def test_rank_correlation_equals_the_correlation_of_the_ranks(
    values: list[float], random: np.random.Generator
) -> None:
    other = list(values)
    random.shuffle(other)
    first, second = floats(*values), floats(*other)
    ranks = [np.argsort(np.argsort(-each)) for each in (first, second)]
    expected = np.corrcoef(ranks[0], ranks[1])[0, 1]
    assert rank_correlation(first, second) == pytest.approx(expected, abs=1e-9)


def test_differences_and_agreement_are_counted() -> None:
    comparison = Comparison()
    comparison.add_scores(floats(0.5, 0.25), floats(0.5, 0.5))
    comparison.add_ranking(floats(1, 2), floats(1, 2))
    comparison.add_ranking(floats(1, 2), floats(2, 1))
    assert comparison.differences.sum() == 2
    assert comparison.difference_sum == 0.25
    assert comparison.score_sums == [0.75, 1.0]
    assert (comparison.same_best, comparison.other_best) == (1, 1)
    assert (comparison.correlations[0], comparison.correlations[-2]) == (1, 1)
