from __future__ import annotations

import numpy as np
import pytest

from bench.reference import distance


def test_scores_are_compared_in_the_order_of_the_rows() -> None:
    assert distance(b'{"scores":[0.25,0.5]}', np.array([0.25, 0.5])) == 0
    assert distance(b'{"scores":[0.25,0.5]}', np.array([0.5, 0.25])) == 0.25


def test_items_are_compared_best_first() -> None:
    answer = b'{"items":[{"id":"b","rank":1,"score":0.5},{"id":"a","rank":2,"score":0.125}]}'
    assert distance(answer, np.array([0.25, 0.5])) == 0.125


@pytest.mark.parametrize("answer", [b'{"scores":[0.5]}', b'{"items":[]}'])
def test_an_answer_of_another_length_is_infinitely_far(answer: bytes) -> None:
    assert distance(answer, np.array([0.5, 0.5])) == np.inf
