from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from service import compiled
from service.app import create_app
from service.nesting import is_deeper
from service.scorer import Scorer
from service.settings import Settings

MOST = 9


def nested(levels: int, kind: str) -> Any:
    """So many lists or objects inside each other."""
    value: Any = 0
    for _ in range(levels):
        value = [value] if kind == "lists" else {"x": value}
    return value


@pytest.mark.parametrize("kind", ["lists", "objects"])
def test_depth_is_counted_exactly(kind: str) -> None:
    values = [1, "a", nested(3, kind), None]
    assert is_deeper(values, 2)
    assert not is_deeper(values, 3)
    assert not is_deeper([], 0)
    assert not is_deeper([1, None], 0)


@pytest.fixture(params=["compiled", "python"])
def shallow(
    scorer: Scorer,
    bundle_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[TestClient]:
    """Bodies of at most `MOST` levels, read either way."""
    if request.param == "python":
        monkeypatch.setattr(compiled, "IS_THERE", False)
    elif not compiled.IS_THERE:
        pytest.skip("the compiled module was not built")
    settings = Settings(bundle=bundle_path.parent, max_depth=MOST)
    with TestClient(create_app(settings, scorer)) as client:
        yield client


# Each puts a value where nothing types it, and says how many levels are around it.
PLACES: dict[str, tuple[str, int, Callable[[Any], Any]]] = {
    "instance": ("/score", 3, lambda value: {"instances": [{"new": value}, {}]}),
    "column": ("/score", 2, lambda value: {"columns": {"age": [1], "new": value}}),
    "context": ("/rank", 2, lambda value: {"context": {"new": value}, "candidates": []}),
    "candidate": (
        "/rank",
        4,
        lambda value: {"candidates": [{"id": 1, "features": {"age_new": value}}]},
    ),
}


@pytest.mark.parametrize("kind", ["lists", "objects"])
@pytest.mark.parametrize("place", PLACES)
def test_one_level_more_than_the_most_is_a_400(shallow: TestClient, place: str, kind: str) -> None:
    """Also where the name is learned: each body is sent three times."""
    path, around, body = PLACES[place]
    for _ in range(3):
        taken = shallow.post(path, json=body(nested(MOST - around, kind)))
        assert taken.status_code == 200, taken.text
        assert taken.json()["warnings"][0]["code"] == "unknown_field"
        refused = shallow.post(path, json=body(nested(MOST - around + 1, kind)))
        assert refused.status_code == 400
        assert refused.json()["errors"] == [
            {
                "pointer": "",
                "code": "invalid_json",
                "message": "the body is nested too deeply",
            }
        ]


@pytest.mark.parametrize("levels", [MOST + 1, 500, 5_000, 200_000])
def test_no_depth_is_more_than_a_400(shallow: TestClient, levels: int) -> None:
    for body in (b"[" * levels + b"]" * levels, b'{"a":' * levels + b"1" + b"}" * levels):
        answer = shallow.post("/score", content=body)
        assert answer.status_code == 400
        assert answer.json()["errors"][0]["code"] == "invalid_json"


def test_a_wide_body_is_not_a_deep_one(shallow: TestClient) -> None:
    body: dict[str, Any] = {"instances": [{"new": [[]] * 500} for _ in range(5)]}
    assert shallow.post("/score", content=json.dumps(body)).status_code == 200
