import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from service.ranking import Item, best_first, items_in, win_probability

LOGITS = hnp.arrays(np.float32, st.integers(0, 30), elements=st.floats(-50, 50, width=32))


@given(LOGITS)
def test_the_order_descends_and_ties_keep_their_place(logit: np.ndarray) -> None:
    order = best_first(logit, None).tolist()
    assert order == sorted(range(len(logit)), key=lambda place: (-logit[place], place))


@pytest.mark.parametrize(
    ("top_k", "expected"), [(1, [2]), (2, [2, 0]), (99, [2, 0, 1]), (None, [2, 0, 1])]
)
def test_top_k_cuts_the_order(top_k: int | None, expected: list[int]) -> None:
    logit = np.array([1.0, -1.0, 3.0], np.float32)
    assert best_first(logit, top_k).tolist() == expected


@given(LOGITS)
def test_win_probabilities_of_a_pair_sum_to_one(logit: np.ndarray) -> None:
    matrix = win_probability(logit)
    assert matrix.shape == (len(logit), len(logit))
    assert np.allclose(matrix + matrix.T, 1)
    assert np.allclose(np.diag(matrix), 0.5)


def test_win_probability_is_the_sigmoid_of_the_difference() -> None:
    matrix = win_probability(np.array([2.0, 0.5], np.float32))
    assert matrix[0, 1] == pytest.approx(1 / (1 + np.exp(-1.5)))


def test_far_apart_logits_do_not_overflow() -> None:
    """Warnings are errors: an overflow in exp would fail here."""
    assert win_probability(np.array([1e30, -1e30], np.float32))[0, 1] == 1


def test_items_follow_the_order_and_count_from_one() -> None:
    score = np.array([0.25, 0.5, 0.75], np.float32)
    items = items_in(np.array([2, 0]), ["a", 7, "c"], score)
    assert items == [Item("c", 1, 0.75), Item("a", 2, 0.25)]
