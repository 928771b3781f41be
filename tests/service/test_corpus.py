"""Bodies that went wrong somewhere, kept as files: ROUTE/STATUS.CODE.WHAT.json, of a 200 no code.

A body is sent as it lies there. `ECHO-ME` in one must not come back in an error.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from service.errors import LARGEST_BODY_BYTES

BODIES = Path(__file__).parent / "bodies"
FILES = sorted(BODIES.glob("*/*.json"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_a_nasty_body_gets_the_answer_that_its_file_names(client: TestClient, file: Path) -> None:
    status, *code = file.stem.split(".")[:-1]
    answer = client.post(f"/{file.parent.name}", content=file.read_bytes())
    assert answer.status_code == int(status), answer.text
    document = json.loads(answer.content)
    if not code:
        assert document.keys() >= {"model", "version"}
        return
    assert answer.headers["content-type"] == "application/problem+json"
    assert len(answer.content) < LARGEST_BODY_BYTES
    assert b"ECHO-ME" not in answer.content
    assert document.keys() == {"type", "title", "status", "detail", "errors"}
    assert document["status"] == answer.status_code
    assert 1 <= len(document["errors"]) <= 20
    for error in document["errors"]:
        assert error.keys() == {"pointer", "code", "message"}
    assert {error["code"] for error in document["errors"]} == set(code)


def test_the_corpus_is_there() -> None:
    assert len(FILES) > 100
