from __future__ import annotations

import pytest

from service.expected import ExpectedRows


def test_before_anything_is_known_a_body_has_one_row() -> None:
    assert ExpectedRows().of(10**6) == 1


def test_rows_follow_from_the_bytes_of_recent_bodies() -> None:
    expected = ExpectedRows()
    expected.learn(1000, 10)
    assert [expected.of(length) for length in (0, 99, 1000, 5050)] == [1, 1, 10, 50]


def test_a_body_without_a_length_teaches_nothing() -> None:
    expected = ExpectedRows()
    expected.learn(1000, 10)
    expected.learn(0, 10)
    assert expected.of(1000) == 10


def test_it_falls_at_once_and_rises_slowly() -> None:
    expected = ExpectedRows()
    expected.learn(1000, 100)
    expected.learn(1000, 1)
    assert expected.of(1000) == 1
    expected.learn(1000, 100)
    assert expected.of(1000) == pytest.approx(11, abs=1)
    for _ in range(60):
        expected.learn(1000, 100)
    assert expected.of(1000) == pytest.approx(100, abs=1)
