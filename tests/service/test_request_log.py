from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from service import request_log
from service.app import create_app
from service.request_log import kept
from service.scorer import Scorer
from service.settings import Settings, load_settings

SECRET = "a-very-private-city"
SCORED = {"instances": [{"age": 31, "city": SECRET, SECRET: 1}]}
RANKED = {
    "context": {"age": 31, "city": SECRET},
    "candidates": [{"id": "a", "features": {"item": 3, "shop": SECRET}}],
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "requests.jsonl"


@pytest.fixture
def serve(scorer: Scorer, bundle_path: Path, file: Path) -> Callable[..., TestClient]:
    def make(**given: Any) -> TestClient:
        options: dict[str, Any] = {"request_log": file, "request_log_share": 1.0} | given
        return TestClient(create_app(Settings(bundle=bundle_path.parent, **options), scorer))

    return make


def lines_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_by_default_no_log_holds_request_data(
    client: TestClient, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(0)
    client.post("/score", json=SCORED, headers={"x-request-id": SECRET})
    client.post("/score", content=f"{SECRET}{{".encode())
    client.post(f"/score?version={SECRET}", json=SCORED)
    logged = [r.getMessage() for r in caplog.records if r.name != "httpx"]  # the client's own
    assert SECRET not in "".join([*logged, *capfd.readouterr()])


def test_a_line_says_what_came_of_a_request_and_no_value_unless_named(
    serve: Callable[..., TestClient], file: Path
) -> None:
    with serve() as client:
        client.post("/score", json=SCORED, headers={"x-request-id": "r1"})
        client.post("/score", content=b"{")
    first, second = lines_of(file)
    assert (first["request_id"], first["route"], first["status"]) == ("r1", "/score", 200)
    assert first["ms"] > 0
    assert first["bytes"] > 10
    assert first["body"] is None
    assert (second["request_id"], second["status"]) == (None, 400)
    assert SECRET not in file.read_text()


def test_under_a_prefix_the_same_is_logged(serve: Callable[..., TestClient], file: Path) -> None:
    with serve() as client:
        TestClient(Starlette(routes=[Mount("/ctr", client.app)])).post("/ctr/rank", json=RANKED)
    assert [line["route"] for line in lines_of(file)] == ["/rank"]


def test_only_named_fields_are_kept(serve: Callable[..., TestClient], file: Path) -> None:
    with serve(request_log_fields=("age", "item", "id")) as client:
        client.post("/score", json=SCORED)
        client.post("/rank", json=RANKED)
    scored, ranked = lines_of(file)
    assert scored["body"] == {"instances": [{"age": 31}]}
    assert ranked["body"] == {
        "context": {"age": 31},
        "candidates": [{"id": "a", "features": {"item": 3}}],
    }
    assert SECRET not in file.read_text()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"columns": {"age": [1, 2], "city": ["x", "y"]}}', {"columns": {"age": [1, 2]}}),
        (
            b'{"candidates": {"id": ["s"], "features": {"age": [1], "city": ["x"]}}}',
            {"candidates": {"features": {"age": [1]}}},
        ),
        (b'{"age": 1, "instances": ["x", 3, {"age": 2}]}', {"instances": [{"age": 2}]}),
        (b'{"instances": "x", "context": 3}', {"instances": None, "context": None}),
        (b"[1]", None),
        (b'{"instances": [{"age": 1e999}]}', None),
        (b"\xff", None),
        (b"[" * 100_000, None),
    ],
)
def test_nothing_but_named_fields_is_kept_of_any_body(body: bytes, expected: Any) -> None:
    assert kept(body, frozenset({"age"})) == expected


def test_no_depth_of_a_body_ends_the_log(serve: Callable[..., TestClient], file: Path) -> None:
    """Where decoding, pruning and writing stop, at another depth each, differs among Pythons."""
    depths = [*range(960, 1010), 2000, 5000, 9000, 20_000]
    with serve(request_log_fields=("age",)) as client:
        for depth in depths:
            inner = b'{"features":' * depth + b"{}" + b"}" * depth
            client.post("/score", content=b'{"instances":[%s]}' % inner)
        wait_for(lambda: file.exists() and file.read_text().count("\n") == len(depths))


def test_a_share_is_chosen_by_the_request_id(serve: Callable[..., TestClient], file: Path) -> None:
    with serve(request_log_share=0.5) as client:
        for number in 2 * [*range(40)]:
            client.post("/score", json=SCORED, headers={"x-request-id": f"id-{number}"})
    ids = [line["request_id"] for line in lines_of(file)]
    assert 10 < len(set(ids)) < 30
    assert all(ids.count(one) == 2 for one in ids)


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (1.0, 5)])
def test_none_or_all_may_be_chosen(
    serve: Callable[..., TestClient], file: Path, share: float, count: int
) -> None:
    with serve(request_log_share=share) as client:
        for _ in range(5):
            client.post("/score", json=SCORED)
    assert (len(lines_of(file)) if file.exists() else 0) == count


def test_a_file_that_was_moved_away_is_opened_anew(
    serve: Callable[..., TestClient], file: Path
) -> None:
    with serve() as client:
        client.post("/score", json=SCORED)
        wait_for(file.exists)
        wait_for(lambda: file.read_text().endswith("\n"))
        moved = file.rename(file.with_suffix(".1"))
        client.post("/score", json=SCORED)
    assert len(lines_of(moved)) == len(lines_of(file)) == 1


def wait_for(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < until, "not in time"
        time.sleep(0.01)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_loses_the_log_and_not_the_request(
    serve: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    # Not by caplog: an earlier test may have left the level of all logs higher.
    monkeypatch.setattr(request_log._log, "warning", lambda text, *_: told.append(text))
    with serve(request_log=Path("/dev/full")) as client:
        for _ in range(3):
            assert client.post("/score", json=SCORED).status_code == 200
        lost = 'deepfm_request_log_total{outcome="lost"} 3.0'
        wait_for(lambda: lost in client.get("/metrics").text)
    assert told == ["%s: the request log fails: %s"]


def test_a_writer_that_is_stuck_blocks_no_request(
    serve: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    monkeypatch.setattr(request_log.RequestLog, "_write", lambda *_: go_on.wait(10))
    monkeypatch.setattr(request_log, "_MOST_WAITING", 4)
    with serve() as client:
        for _ in range(10):
            assert client.post("/score", json=SCORED).status_code == 200
        assert 'deepfm_request_log_total{outcome="lost"} 5.0' in client.get("/metrics").text
        go_on.set()


def test_a_large_body_is_logged_without_its_content(
    serve: Callable[..., TestClient], file: Path
) -> None:
    with serve(request_log_fields=("age",)) as client:
        client.post("/score", content=json.dumps(SCORED).encode() + b" " * (300 << 10))
    (line,) = lines_of(file)
    assert line["body"] is None
    assert line["bytes"] > 300 << 10


def test_fields_come_from_the_environment_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPFM_REQUEST_LOG_FIELDS", "age, city,")
    assert load_settings(bundle="b").request_log_fields == ("age", "city")
