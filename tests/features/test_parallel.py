from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from features.parallel import ordered_map


def test_results_come_in_the_order_of_the_items() -> None:
    def slow_when_small(item: int) -> int:
        time.sleep(0.002 / (item + 1))
        return item * item

    assert list(ordered_map(slow_when_small, range(40))) == [n * n for n in range(40)]


def test_items_are_taken_as_results_are() -> None:
    taken = []

    def items() -> Iterator[int]:
        for item in range(1000):
            taken.append(item)
            yield item

    results = ordered_map(lambda item: item, items())
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    assert len(taken) < 200


def test_an_error_is_raised_where_its_result_would_be() -> None:
    results = ordered_map(lambda item: 1 // item, [1, 0, 1])
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)
