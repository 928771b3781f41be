from __future__ import annotations

from collections import Counter

from bench.open_loop import Window
from bench.overload import Outcome, bound_of

FOUND = [
    Window({"a": [1_000, 30_000]}, refused_us={429: [2_000]}, late_us=[9]),
    Window({"a": [10_000]}, errors={"lost": 2}),
]


def test_only_what_came_in_time_is_useful() -> None:
    outcome = Outcome.of(5.0, 2.0, FOUND)
    assert [outcome.useful(ms) for ms in (0.5, 10, 30)] == [0, 1.0, 1.5]


def test_windows_are_put_together() -> None:
    outcome = Outcome.of(5.0, 2.0, FOUND)
    assert outcome.latency_ms == [1, 30, 10]
    assert outcome.refused_ms == {429: [2], 504: []}
    assert outcome.errors == {"lost": 2}


def test_the_bound_of_a_percentile_is_that_of_its_bucket() -> None:
    buckets = Counter({0.001: 98, 0.005: 1, 0.1: 1})
    assert [bound_of(buckets, percent) for percent in (50, 98, 99, 100)] == [
        0.001,
        0.001,
        0.005,
        0.1,
    ]
