import json
import re
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from features.errors import DeepFMError
from service.errors import (
    CONTENT_TYPE,
    LARGEST_BODY_BYTES,
    MOST_PROBLEMS,
    NotFound,
    NotReady,
    Overloaded,
    Problem,
    RequestError,
    answer_to,
    problem_answer,
)

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RequestError([Problem("", "invalid_json", "bad")], 400), 400),
        (RequestError([Problem("/a", "wrong_type", "bad")]), 422),
        (NotFound("no such version"), 404),
        (Overloaded("deadline"), 429),
        (NotReady("loading"), 503),
    ],
)
def test_every_error_has_its_status(error: DeepFMError, status: int) -> None:
    found, headers, body = answer_to(error)
    document = json.loads(body)
    assert found == status == document["status"]
    assert (b"content-type", CONTENT_TYPE) in headers
    assert document["detail"] == error.message
    assert set(document) - {"errors"} == {"type", "title", "status", "detail"}


@pytest.mark.parametrize("error", [Overloaded("deadline"), NotReady("loading")])
def test_what_passes_says_when_to_retry(error: DeepFMError) -> None:
    assert (b"retry-after", b"1") in answer_to(error)[1]


@pytest.mark.parametrize("error", [ValueError("secret"), DeepFMError("secret")])
def test_a_bug_keeps_its_text_inside(error: Exception) -> None:
    status, _, body = answer_to(error)
    assert status == 500
    assert b"secret" not in body


def test_at_most_twenty_problems_are_told() -> None:
    problems = [Problem(f"/{place}", "wrong_type", "bad") for place in range(30)]
    document = json.loads(answer_to(RequestError(problems))[2])
    assert len(document["errors"]) == MOST_PROBLEMS
    assert document["errors"][0] == {"pointer": "/0", "code": "wrong_type", "message": "bad"}


def test_long_pointers_do_not_make_a_long_answer() -> None:
    problems = [Problem("/" + "\N{SNOWMAN}" * 200, "unknown_key", "bad") for _ in range(20)]
    _, headers, body = problem_answer(422, "bad", problems)
    assert len(body) <= LARGEST_BODY_BYTES
    assert json.loads(body)["errors"]
    assert (b"content-length", str(len(body)).encode()) in headers


def test_the_error_that_docs_api_shows_is_the_one_that_is_answered(client: TestClient) -> None:
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8").partition("\n## Errors\n")[2]
    shown = re.search(r"/rank -d '(.*?)'\n```\n\n```json\n(.*?)\n```", text, re.DOTALL)
    assert shown is not None
    body, answer = (json.loads(part.replace("item_id", "item")) for part in shown.groups())
    assert client.post("/rank", json=body).json() == answer
