from __future__ import annotations

import json
from typing import cast

import pytest
from starlette.testclient import TestClient

from service.app import App
from service.batcher import Batcher
from service.errors import Overloaded
from service.expected import ExpectedRows
from service.routes import RankRoute

ITEM = {"item": 3, "shop": "shop1"}
RANK = {"candidates": [{"id": number, "features": ITEM} for number in range(3)]}


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


def test_what_the_length_of_a_body_lets_expect_is_asked_for_before_it_is_decoded(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def admit(_: Batcher, rows: int, deadline: float) -> None:
        asked.append(rows)
        if rows > 1:
            raise Overloaded("queue_full")

    client.post("/rank", json=RANK)  # which teaches how many rows a byte has
    monkeypatch.setattr(Batcher, "admit", admit)
    monkeypatch.setattr(RankRoute, "read", lambda *_: pytest.fail("it was decoded"))
    twice = {"candidates": RANK["candidates"] * 2}
    assert client.post("/rank", json=twice).status_code == 429
    assert [rows > len(RANK["candidates"]) for rows in asked] == [True]
    assert client.post("/score", json={}).status_code == 422  # each route learns for itself


def test_while_parts_are_asked_for_a_body_is_expected_to_need_one_row(client: TestClient) -> None:
    client.post("/rank", json=RANK)
    client.post("/rank", json=RANK | {"partial": True})
    route = cast(App, client.app).hot["/rank"]
    assert route.expected.of(len(json.dumps(RANK))) == 1
