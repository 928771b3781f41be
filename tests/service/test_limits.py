"""Each bound of a request's body: what is at it is taken, what is beyond is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient

ROWS, TEXT, ELEMENTS, BODY_BYTES = 200, 1024, 1000, 1 << 20  # as `client` has them


def rows(count: int) -> dict[str, Any]:
    return {"instances": [{}] * count}


def columns(count: int) -> dict[str, Any]:
    return {"columns": {"age": [1] * count}}


def candidates(count: int) -> dict[str, Any]:
    return {"candidates": [{"id": n, "features": {}} for n in range(count)]}


def candidate_columns(count: int) -> dict[str, Any]:
    return {"candidates": {"id": list(range(count))}}


def text(length: int) -> dict[str, Any]:
    return {"instances": [{"city": "é" * length}]}


def text_id(length: int) -> dict[str, Any]:
    return {"candidates": [{"id": "é" * length, "features": {}}]}


def elements(count: int) -> dict[str, Any]:
    return {"instances": [{"history": ["h1"] * count}]}


@pytest.mark.parametrize(
    ("body", "most", "code"),
    [
        (rows, ROWS, "too_many"),
        (columns, ROWS, "too_many"),
        (candidates, ROWS, "too_many"),
        (candidate_columns, ROWS, "too_many"),
        (text, TEXT, "too_long"),
        (text_id, TEXT, "too_long"),
        (elements, ELEMENTS, "too_many"),
    ],
    ids=lambda given: getattr(given, "__name__", None),
)
def test_the_limit_is_taken_and_one_more_is_refused(
    client: TestClient, body: Any, most: int, code: str
) -> None:
    route = "/rank" if "candidates" in body(1) else "/score"
    assert client.post(route, json=body(most)).status_code == 200
    answer = client.post(route, json=body(most + 1))
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, code)


@pytest.mark.parametrize("pieces", [1, 7], ids=["whole", "chunked"])
def test_a_body_at_the_limit_is_taken_and_one_byte_more_is_refused(
    client: TestClient, pieces: int
) -> None:
    for length, status in ((BODY_BYTES, 200), (BODY_BYTES + 1, 413)):
        body = json.dumps(rows(1)).encode().ljust(length)
        step = -(-length // pieces)
        parts = [body[begin : begin + step] for begin in range(0, length, step)]
        content = body if pieces == 1 else iter(parts)
        assert client.post("/score", content=content).status_code == status
