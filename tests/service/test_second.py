"""A canary or a shadow beside the version that answers, through the application."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from features.schema import Schema
from service import shadow
from service.app import create_app
from service.second import is_among
from service.settings import Settings
from tests.service.linear import NO_CONTEXT, REJECTING, SCHEMA, write_bundle

KEY = {"authorization": "Bearer key"}
BODY: dict[str, Any] = {"instances": [{"price": 3, "age": 20}, {"price": 50}]}
RANKED: dict[str, Any] = {
    "context": {"age": 20},
    "candidates": [{"id": n, "features": {"price": 3**n}} for n in range(6)],
    "top_k": 2,
}


@contextmanager
def serving(
    folder: Path, schemas: tuple[Schema, ...] = (SCHEMA, SCHEMA), **options: Any
) -> Iterator[TestClient]:
    """Version 1 answers; the others lie beside it on disk."""
    for number, schema in enumerate(schemas, 1):
        write_bundle(folder / "m" / str(number), schema, seed=number)
    (folder / "keys").write_text("key\n")
    given: dict[str, Any] = {"version": 1, "reload_poll_s": 0} | options
    settings = Settings(
        bundle=folder / "m", provider="cpu", admin_keys_file=folder / "keys", **given
    )
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


def put(client: TestClient, kind: str, version: int, share: float | None = None) -> Any:
    body = {"version": version, "share": share}
    return client.post(f"/admin/{kind}", headers=KEY, json=body)


def asked(client: TestClient, number: int, query: str = "") -> int:
    headers = {"x-request-id": f"request-{number}"}
    version: int = client.post(f"/score{query}", json=BODY, headers=headers).json()["version"]
    return version


def wait_until(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < until, "not in time"
        time.sleep(0.01)


def metric(client: TestClient, name: str) -> float:
    """Its value; 0 where it is not there."""
    lines = client.get("/metrics").text.splitlines()
    return float(next((line.split()[-1] for line in lines if line.startswith(name + " ")), 0))


def test_a_share_is_chosen_by_the_request_id_and_grows_by_more_ids() -> None:
    scopes = [{"headers": [(b"x-request-id", b"%d" % number)]} for number in range(4000)]
    small, large = ([is_among(share, scope) for scope in scopes] for share in (0.1, 0.3))
    assert small == [is_among(0.1, scope) for scope in scopes]
    assert sum(small) == pytest.approx(400, rel=0.2)
    assert sum(large) == pytest.approx(1200, rel=0.2)
    assert all(later for early, later in zip(small, large, strict=True) if early)


def test_without_a_request_id_the_share_is_random() -> None:
    taken = [is_among(0.5, {"headers": []}) for _ in range(2000)]
    assert sum(taken) == pytest.approx(1000, rel=0.2)


def test_a_canary_answers_its_share_and_says_so(tmp_path: Path) -> None:
    with serving(tmp_path) as client:
        told = {"model": "m", "version": 1, "canary": {"version": 2, "share": 0.5}}
        assert put(client, "canary", 2, 0.5).json() == told
        assert client.get("/readyz").json()["canary"] == told["canary"]
        model = client.get("/v1/models").json()["models"][0]
        assert (model["version"], model["canary"]) == (1, told["canary"])
        assert [one["version"] for one in model["versions"]] == [1, 2]
        seen = [asked(client, number) for number in range(60)]
        assert set(seen) == {1, 2}
        assert seen == [asked(client, number) for number in range(60)]
        for version in (1, 2):
            name = f'deepfm_version_requests_total{{status="200",version="{version}"}}'
            assert metric(client, name) == 2 * seen.count(version)


def test_each_version_of_a_pair_can_be_picked_and_no_other(tmp_path: Path) -> None:
    with serving(tmp_path) as client:
        put(client, "canary", 2, 1.0)
        assert [asked(client, 0, f"?version={version}") for version in (1, 2)] == [1, 2]
        assert client.post("/score?version=3", json=BODY).status_code == 404
        assert asked(client, 0) == 2


def test_a_canary_answers_under_a_prefix_too(tmp_path: Path) -> None:
    with serving(tmp_path) as client:
        put(client, "canary", 2, 0.5)
        outer = TestClient(Starlette(routes=[Mount("/ctr", client.app)]))
        behind = TestClient(client.app, root_path="/ctr")  # as uvicorn's --root-path
        for number in range(20):
            expected = asked(client, number)
            headers = {"x-request-id": f"request-{number}"}
            for one in (outer, behind):
                answer = one.post("/ctr/score", json=BODY, headers=headers)
                assert answer.json()["version"] == expected


@pytest.mark.parametrize("way", ["delete", "share"])
def test_a_canary_ends_when_it_is_told_to(tmp_path: Path, way: str) -> None:
    with serving(tmp_path) as client:
        put(client, "canary", 2, 1.0)
        assert client.delete("/admin/shadow", headers=KEY).json()["canary"]["version"] == 2
        if way == "delete":
            answer = client.delete("/admin/canary", headers=KEY)
        else:
            answer = put(client, "canary", 2, 0)
        assert answer.json() == {"model": "m", "version": 1}
        assert {asked(client, number) for number in range(20)} == {1}
        assert client.post("/score?version=2", json=BODY).status_code == 404
        assert "deepfm_version_requests" not in client.get("/metrics").text


def test_promotion_switches_to_what_is_loaded_and_ends_the_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(tmp_path) as client:
        put(client, "canary", 2)
        monkeypatch.setattr("service.owner.load_model", lambda *_: 1 / 0)
        answer = client.post("/admin/reload", headers=KEY, json={"version": 2})
        assert answer.json() == {"model": "m", "version": 2}
        assert "canary" not in client.get("/readyz").json()
        assert {asked(client, number) for number in range(20)} == {2}


def test_a_second_version_stays_when_the_first_one_moves_on(tmp_path: Path) -> None:
    with serving(tmp_path, (SCHEMA, SCHEMA, SCHEMA)) as client:
        put(client, "canary", 2, 0.5)
        assert client.post("/admin/reload", headers=KEY, json={"version": 3}).is_success
        assert {asked(client, number) for number in range(40)} == {2, 3}
        assert client.get("/readyz").json()["canary"] == {"version": 2, "share": 0.5}


def test_polling_never_takes_a_version_that_somebody_tried(tmp_path: Path) -> None:
    with serving(tmp_path, version=None, canary=2, reload_poll_s=0.02) as client:
        wait_until(lambda: "canary" in client.get("/readyz").json())
        client.delete("/admin/canary", headers=KEY)
        time.sleep(0.2)
        assert client.get("/readyz").json()["version"] == 1
        write_bundle(tmp_path / "draft" / "m" / "3").rename(tmp_path / "m" / "3")
        wait_until(lambda: bool(client.get("/readyz").json()["version"] == 3))


@pytest.mark.parametrize("kind", ["canary", "shadow"])
def test_a_bad_second_version_is_refused_and_the_first_goes_on(tmp_path: Path, kind: str) -> None:
    with serving(tmp_path) as client:
        write_bundle(tmp_path / "m" / "3", shift=1e-3)
        put(client, kind, 2)
        answer = put(client, kind, 3)
        assert answer.status_code == 409
        assert "golden request" in answer.json()["detail"]
        ready = client.get("/readyz").json()
        assert (ready["version"], ready[kind]["version"]) == (1, 2)
        assert [one["version"] for one in ready["refused"]] == [3]
        assert put(client, kind, 9).status_code == 404
        assert put(client, kind, 1).status_code == 409


def test_a_bad_second_version_does_not_stop_a_start(tmp_path: Path) -> None:
    write_bundle(tmp_path / "m" / "3", shift=1e-3)
    with serving(tmp_path, shadow=3) as client:
        wait_until(lambda: "refused" in client.get("/readyz").json())
        assert asked(client, 0) == 1


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{}", "missing_key"),
        (b'{"version": 2, "share": 1.5}', "out_of_range"),
        (b'{"version": 2, "share": -1}', "out_of_range"),
        (b'{"version": 2, "share": "1"}', "wrong_type"),
        (b'{"version": 2, "part": 1}', "unknown_key"),
    ],
)
def test_a_wrong_wish_is_told_and_changes_nothing(tmp_path: Path, body: bytes, code: str) -> None:
    with serving(tmp_path) as client:
        answer = client.post("/admin/canary", headers=KEY, content=body)
        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, code)
        assert "canary" not in client.get("/readyz").json()


@pytest.mark.parametrize("path", ["/admin/canary", "/admin/shadow"])
def test_a_key_is_needed(tmp_path: Path, path: str) -> None:
    with serving(tmp_path) as client:
        assert client.post(path, json={"version": 2}).status_code == 401
        assert client.delete(path).status_code == 401


def test_a_shadow_is_compared_and_never_answers(tmp_path: Path) -> None:
    with serving(tmp_path) as client:
        assert put(client, "shadow", 2).json()["shadow"] == {"version": 2, "share": 1.0}
        assert {asked(client, number) for number in range(5)} == {1}
        for _ in range(3):
            assert client.post("/rank", json=RANKED).json()["version"] == 1
        compared = 'deepfm_shadow_requests_total{outcome="compared"}'
        wait_until(lambda: metric(client, compared) == 8)
        pair = 'first="1",second="2"'
        # All candidates of a ranking, not only those that were returned.
        assert metric(client, f"deepfm_shadow_score_difference_count{{{pair}}}") == 5 * 2 + 3 * 6
        assert metric(client, f"deepfm_shadow_score_difference_sum{{{pair}}}") > 0.01
        name = 'deepfm_shadow_rank_correlation_bucket{first="1",le="+Inf",second="2"}'
        assert metric(client, name) == 3
        same, other = (
            metric(client, f'deepfm_shadow_top1_total{{first="1",same="{word}",second="2"}}')
            for word in ("true", "false")
        )
        assert same + other == 3


def test_a_shadow_with_the_same_weights_differs_in_nothing(tmp_path: Path) -> None:
    with serving(tmp_path) as client:
        write_bundle(tmp_path / "m" / "3", seed=1)
        put(client, "shadow", 3)
        assert client.post("/rank", json=RANKED).is_success
        same = 'deepfm_shadow_top1_total{first="1",same="true",second="3"}'
        wait_until(lambda: metric(client, same) == 1)
        name = 'deepfm_shadow_score_difference_sum{first="1",second="3"}'
        assert metric(client, name) == 0


def test_a_shadow_of_another_schema_reads_the_body_by_its_own(tmp_path: Path) -> None:
    with serving(tmp_path, (SCHEMA, NO_CONTEXT, REJECTING)) as client:
        put(client, "shadow", 2)
        asked(client, 0)
        wait_until(lambda: metric(client, 'deepfm_shadow_requests_total{outcome="compared"}') == 1)
        put(client, "shadow", 3)
        asked(client, 0)
        wait_until(lambda: metric(client, 'deepfm_shadow_requests_total{outcome="refused"}') == 1)


def test_a_shadow_that_hangs_or_fails_delays_and_fails_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    monkeypatch.setattr(shadow, "MOST_DUE", 3)

    def hang(*_: object) -> None:
        assert go_on.wait(10)
        raise ZeroDivisionError

    monkeypatch.setattr(shadow.Shadow, "_compare", hang)
    with serving(tmp_path) as client:
        put(client, "shadow", 2)
        assert {asked(client, number) for number in range(20)} == {1}
        assert metric(client, 'deepfm_shadow_requests_total{outcome="dropped"}') >= 16
        go_on.set()
        wait_until(lambda: metric(client, 'deepfm_shadow_requests_total{outcome="failed"}') >= 3)
        assert asked(client, 0) == 1


def test_one_second_version_replaces_another_whatever_its_kind(tmp_path: Path) -> None:
    with serving(tmp_path) as client:
        put(client, "shadow", 2)
        put(client, "canary", 2, 1.0)
        ready = client.get("/readyz").json()
        assert "shadow" not in ready
        assert asked(client, 0) == 2
        wait_until(lambda: not any(one.name == "shadow" for one in threading.enumerate()))


def test_without_a_second_version_requests_go_the_short_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.second.Second.serve", lambda *_: 1 / 0)
    with serving(tmp_path) as client:
        assert asked(client, 0) == 1
