from __future__ import annotations

import time
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, cast

import pytest
from starlette.testclient import TestClient

from features.schema import CategoricalField, Schema
from service.app import App, create_app
from service.batcher import Batcher
from service.errors import Overloaded
from service.exchange import Exchange
from service.keys import Door, Keys
from service.request_log import RequestLog
from service.scorer import Scorer
from service.settings import Settings
from tests.service.linear import write_bundle
from tests.service.processes import served


def test_healthz_and_readyz_say_what_runs(client: TestClient) -> None:
    assert client.get("/healthz").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {
        "status": "ready",
        "model": "tiny",
        "version": 3,
        "provider": "CPUExecutionProvider",
    }


def test_a_field_may_have_any_name_that_json_writes_as_it_is(tmp_path: Path) -> None:
    names = [" ", "a/b~c", "é", "\x7f", "\u2028", "😀", "$ref", "{}", "f0", "id", "a.b[0]", "'"]
    fields = [CategoricalField(name=name, hash_buckets=9, missing="reject") for name in names]
    write_bundle(tmp_path / "m" / "1", Schema(tuple(fields)))
    row = {name: f"value {place}" for place, name in enumerate(names)}
    with TestClient(create_app(Settings(bundle=tmp_path / "m", provider="cpu"))) as client:
        (score,) = client.post("/score", json={"instances": [row]}).json()["scores"]
        columns = {name: [value] for name, value in row.items()}
        assert client.post("/score", json={"columns": columns}).json()["scores"] == [score]
        ranked = client.post("/rank", json={"candidates": [{"id": 1, "features": row}]}).json()
        assert ranked["items"] == [{"id": 1, "rank": 1, "score": pytest.approx(score)}]
        described = client.get("/openapi.json").json()["components"]["schemas"]["Instance"]
        assert list(described["properties"]) == names


def test_before_a_model_is_loaded_everything_but_healthz_is_503(
    bundle_path: Path, scorer: Scorer
) -> None:
    app = create_app(Settings(bundle=bundle_path.parent), scorer)
    client = TestClient(app)  # without `with`, the lifespan does not run
    assert client.get("/healthz").status_code == 200
    for answer in (client.get("/readyz"), client.post("/score", json={"instances": []})):
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        assert answer.headers["content-type"] == "application/problem+json"


def test_models_lists_versions_metrics_and_fields(client: TestClient) -> None:
    (model,) = client.get("/v1/models").json()["models"]
    (version,) = model["versions"]
    assert (model["name"], model["version"], version["version"]) == ("tiny", 3, 3)
    assert version["metrics"]["uncalibrated"]["valid"]["auc"] > 0
    assert {field["name"] for field in version["schema"]} >= {"age", "item", "tags"}


def test_metrics_count_requests_and_rows(client: TestClient) -> None:
    client.post("/score", json={"instances": [{}, {}]})
    client.post("/score", json={})
    text = client.get("/metrics").text
    assert 'deepfm_requests_total{route="/score",status="200"} 1.0' in text
    assert 'deepfm_requests_total{route="/score",status="422"} 1.0' in text
    assert 'deepfm_rows_total{route="/score"} 2.0' in text
    assert 'deepfm_request_seconds_count{route="/score"} 2.0' in text


def test_metrics_count_rows_that_were_scored_with_a_warning(client: TestClient) -> None:
    """A field renamed upstream is an unknown one."""
    client.post("/score", json={"instances": [{"agee": 3}, {"agee": 4, "colour": "red"}, {}]})
    twice = {"candidates": [{"id": 1}, {"id": 1}]}
    client.post("/rank", json=twice)
    text = client.get("/metrics").text
    assert 'deepfm_warnings_total{code="unknown_field"} 3.0' in text
    assert 'deepfm_warnings_total{code="duplicate_id"} 1.0' in text


def test_metrics_count_refusals_and_waiting_rows(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Batcher, "waiting", 7)
    monkeypatch.setattr("service.routes.deadline_of", lambda *_: 0.0)
    assert client.post("/score", json={"instances": [{}]}).status_code == 504
    text = client.get("/metrics").text
    assert 'deepfm_refused_total{reason="expired"} 1.0' in text
    assert "deepfm_queue_rows 7.0" in text


def test_metrics_keep_refusals_apart_from_answers(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise Overloaded("queue_full")

    client.post("/score", json={"instances": [{}]})
    monkeypatch.setattr(Batcher, "admit", refuse)
    monkeypatch.setattr("service.routes.arrival_of", lambda _: time.perf_counter() - 100)
    client.post("/score", json={"instances": [{}]})
    text = client.get("/metrics").text
    assert 'deepfm_request_seconds_count{route="/score"} 1.0' in text
    assert "deepfm_refusal_seconds_count 1.0" in text
    # Counted from the body's end, however long that took to arrive.
    assert 'deepfm_refusal_seconds_bucket{le="5.0"} 1.0' in text
    assert 'deepfm_requests_total{route="/score",status="429"} 1.0' in text


def head(*more: tuple[bytes, bytes]) -> Any:
    """The scope of a request at its head."""
    return {"headers": [(b"content-length", b"9"), *more], "server": ("127.0.0.1", 80)}


def test_a_head_is_refused_where_the_queue_refuses_what_it_lets_expect(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = cast(App, client.app)
    monkeypatch.setattr(Batcher, "expect", lambda *_: "queue_full")
    assert isinstance(app.at_head(b"POST", b"/score", head()), Exchange)  # nothing waits
    monkeypatch.setattr(Batcher, "is_busy", True)
    answer = app.at_head(b"POST", b"/score", head())
    assert isinstance(answer, bytes)
    assert answer.startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
    assert b"\r\nretry-after: 1\r\n" in answer
    counts = client.get("/metrics").text
    assert 'deepfm_refused_total{reason="queue_full"} 1.0' in counts
    assert 'deepfm_requests_total{route="/score",status="429"} 1.0' in counts


@pytest.mark.parametrize(
    ("method", "target", "headers"),
    [
        (b"GET", b"/score", ()),
        (b"POST", b"/score?version=3", ()),
        (b"POST", b"/other", ()),
        (b"POST", b"/score", ((b"x-deadline-ms", b"soon"),)),
        (b"POST", b"/score", ((b"content-encoding", b"gzip"),)),
    ],
)
def test_what_is_more_than_a_plain_request_goes_the_long_way(
    client: TestClient, method: bytes, target: bytes, headers: tuple[tuple[bytes, bytes], ...]
) -> None:
    assert cast(App, client.app).at_head(method, target, head(*headers)) is None


@pytest.mark.parametrize("length", [b"0", b"999999999", None])
def test_a_body_of_no_or_too_many_bytes_goes_the_long_way(
    client: TestClient, length: bytes | None
) -> None:
    scope = {"headers": [(b"content-length", length)] if length else []}
    assert cast(App, client.app).at_head(b"POST", b"/score", scope) is None


def test_a_request_that_is_logged_goes_the_long_way(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Batcher, "is_busy", True)
    monkeypatch.setattr(Batcher, "expect", lambda *_: "deadline")
    log = RequestLog(tmp_path / "log", 0.5, frozenset())
    monkeypatch.setattr(client.app, "request_log", log)
    scopes = [head() for _ in range(50)]
    found = [cast(App, client.app).at_head(b"POST", b"/score", scope) for scope in scopes]
    # Drawn once, for there is another look on the long way.
    assert [log.chooses(scope) for scope in scopes] == [answer is None for answer in found]
    assert 0 < found.count(None) < 50


def test_whoever_has_no_key_is_not_refused_at_the_head_for_want_of_time(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    app = cast(App, client.app)
    keys = tmp_path / "keys"
    keys.write_text("right\n")
    monkeypatch.setattr(app, "door", Door(Keys(keys), admin_port=81))
    for given, expected in ((b"Bearer right", Exchange), (b"Bearer wrong", type(None))):
        found = app.at_head(b"POST", b"/score", head((b"authorization", given)))
        assert isinstance(found, expected)
    monkeypatch.setattr(Batcher, "is_busy", True)
    monkeypatch.setattr(Batcher, "expect", lambda *_: "deadline")
    for given in (b"Bearer right", b"Bearer wrong"):
        answer = app.at_head(b"POST", b"/score", head((b"authorization", given)))
        assert (answer is None) == (given == b"Bearer wrong")
    assert app.at_head(b"POST", b"/score", head()) is None
    elsewhere = head((b"authorization", b"Bearer right")) | {"server": ("127.0.0.1", 81)}
    assert app.at_head(b"POST", b"/score", elsewhere) is None


def test_a_server_that_is_ending_is_not_ready_and_still_answers(client: TestClient) -> None:
    cast(App, client.app).is_ending = True
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert client.post("/score", json={"instances": [{}]}).status_code == 200


def test_docs_need_no_other_host(client: TestClient) -> None:
    page = client.get("/docs").text
    assert "//" not in page.replace("http://www.w3.org", "").replace("// ", "")
    for name in ("swagger-ui-bundle.js", "swagger-ui.css"):
        assert f"docs/{name}" in page
        assert client.get(f"/docs/{name}").status_code == 200
    assert client.get("/docs/LICENSE").status_code == 404


READ = ("/healthz", "/readyz", "/v1/models", "/openapi.json", "/docs", "/docs/start.js", "/metrics")


def test_head_answers_as_get_without_the_body(bundle_path: Path) -> None:
    """On one connection: a body that is sent all the same would be the next answer's head."""
    with served(bundle_path.parent) as (_, address):
        connection = HTTPConnection(address.removeprefix("http://"), timeout=10)
        for path in READ:
            connection.request("HEAD", path)
            told = connection.getresponse()
            assert told.read() == b""
            connection.request("GET", path)
            answer = connection.getresponse()
            assert (told.status, told.getheaders()) == (answer.status, answer.getheaders())
            assert told.headers["content-length"] == str(len(answer.read()))
        connection.close()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/score", 405),
        ("HEAD", "/rank", 405),
        ("DELETE", "/healthz", 405),
        ("GET", "/nope", 404),
        ("GET", "/healthz/", 404),
        ("POST", "/score/", 404),
    ],
)
def test_what_the_router_refuses_is_a_problem_document_too(
    client: TestClient, method: str, path: str, status: int
) -> None:
    answer = client.request(method, path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_bug_is_a_bare_500(
    client: TestClient, scorer: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(scorer, "score", fail)
    answer = client.post("/score", json={"instances": [{}]})
    assert answer.status_code == 500
    assert "secret" not in answer.text
