from __future__ import annotations

import hmac
import logging
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from features.errors import ConfigError
from service.app import App, create_app
from service.keys import Keys
from service.scorer import Scorer
from service.settings import Settings, load_settings
from tests.service.bearers import KEY, OTHER, bearer, write_keys
from tests.service.processes import free_port, needs_proc, served

ADMIN = "the-admin's-key"
ROW: dict[str, Any] = {"instances": [{}]}


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    return write_keys(tmp_path)


@pytest.fixture
def admin_file(tmp_path: Path) -> Path:
    file = tmp_path / "admin-keys"
    file.write_text(f"{ADMIN}\n")
    return file


@pytest.fixture
def guarded(scorer: Scorer, bundle_path: Path, keys_file: Path) -> Iterator[TestClient]:
    settings = Settings(bundle=bundle_path.parent, api_keys_file=keys_file)
    with TestClient(create_app(settings, scorer)) as client:
        yield client


def test_an_empty_file_holds_no_key(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("\n \n")
    assert not Keys(tmp_path / "keys").allow(b"Bearer ")


def test_every_key_is_compared_in_constant_time(
    keys_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = []

    def compare(given: bytes, key: bytes) -> bool:
        compared.append(key.decode())
        return given == key

    monkeypatch.setattr(hmac, "compare_digest", compare)
    assert Keys(keys_file).allow(f"Bearer {KEY}".encode())
    assert compared == [KEY, OTHER]


def test_without_settings_there_is_no_door(client: TestClient) -> None:
    assert cast(App, client.app).door is None


@pytest.mark.parametrize("key", [KEY, OTHER])
@pytest.mark.parametrize("path", ["/score", "/rank"])
def test_each_key_opens_what_scores(guarded: TestClient, path: str, key: str) -> None:
    body = ROW if path == "/score" else {"candidates": []}
    assert guarded.post(path, json=body, headers=bearer(key)).status_code == 200


@pytest.mark.parametrize(
    "headers", [{}, bearer(""), bearer("wrong"), bearer(KEY[:-1]), {"authorization": KEY}]
)
def test_a_wrong_or_missing_key_is_a_401_problem(
    guarded: TestClient, headers: dict[str, str]
) -> None:
    answer = guarded.post("/score", json=ROW, headers=headers)
    assert answer.status_code == answer.json()["status"] == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["www-authenticate"] == "Bearer"


def test_two_authorization_headers_open_nothing(guarded: TestClient) -> None:
    """A proxy may have judged the other one."""
    twice = [("authorization", f"Bearer {KEY}"), ("authorization", "Bearer wrong")]
    assert guarded.post("/score", json=ROW, headers=twice).status_code == 401


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/healthz", 200),
        ("/readyz", 200),
        ("/docs", 200),
        ("/docs/start.js", 200),
        ("/metrics", 401),
        ("/v1/models", 401),
        ("/openapi.json", 401),
        ("/docs/../metrics", 401),
        ("/docs/%2e%2e/metrics", 404),
        ("//metrics", 401),
        ("/nope", 401),
        ("/admin/reload", 404),
    ],
)
def test_without_a_key_only_health_and_the_page_are_open(
    guarded: TestClient, path: str, status: int
) -> None:
    assert guarded.get(path).status_code == status


def test_a_mounted_application_is_guarded_alike(guarded: TestClient) -> None:
    outer = TestClient(Starlette(routes=[Mount("/ctr", guarded.app)]))
    assert outer.get("/ctr/healthz").status_code == 200
    assert outer.post("/ctr/score", json=ROW).status_code == 401
    assert outer.post("/ctr/score", json=ROW, headers=bearer(KEY)).status_code == 200


def test_changed_keys_count_without_a_restart(guarded: TestClient, keys_file: Path) -> None:
    keys_file.write_text("another-key\n")
    assert guarded.post("/score", json=ROW, headers=bearer(KEY)).status_code == 401
    assert guarded.post("/score", json=ROW, headers=bearer("another-key")).status_code == 200


def test_refused_keys_are_counted(guarded: TestClient) -> None:
    guarded.post("/score", json=ROW)
    text = guarded.get("/metrics", headers=bearer(KEY)).text
    assert 'deepfm_refused_total{reason="no_key"} 1.0' in text


def test_an_unreadable_file_is_told_of_once_and_no_key_of_it_is(
    guarded: TestClient, keys_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keys_file.unlink()
    caplog.set_level(logging.DEBUG)
    for key in (KEY, "wrong-key"):
        assert guarded.post("/score", json=ROW, headers=bearer(key)).status_code == 401
    assert caplog.text.count("the keys cannot be read") == 1
    assert not any(key in caplog.text for key in (KEY, OTHER, "wrong-key"))


def test_an_admin_key_does_not_score_and_an_api_key_does_not_reload(
    scorer: Scorer, bundle_path: Path, keys_file: Path, admin_file: Path
) -> None:
    settings = Settings(
        bundle=bundle_path.parent, api_keys_file=keys_file, admin_keys_file=admin_file
    )
    with TestClient(create_app(settings, scorer)) as client:
        assert client.post("/score", json=ROW, headers=bearer(ADMIN)).status_code == 401
        assert client.post("/admin/reload", headers=bearer(KEY)).status_code == 401
        assert client.post("/admin/reload", headers=bearer(ADMIN)).status_code == 200


def test_openapi_speaks_of_keys_only_where_there_are_some(
    client: TestClient, guarded: TestClient
) -> None:
    document = guarded.get("/openapi.json", headers=bearer(KEY)).json()
    assert document["components"]["securitySchemes"] == {
        "key": {"type": "http", "scheme": "bearer"}
    }
    assert "401" in document["paths"]["/score"]["post"]["responses"]
    assert "401" not in document["paths"]["/healthz"]["get"]["responses"]
    assert document["paths"]["/healthz"]["get"]["security"] == []
    plain = client.get("/openapi.json").text
    assert "securitySchemes" not in plain
    assert '"401"' not in plain


def test_with_an_admin_port_each_port_has_its_own_paths(
    scorer: Scorer, bundle_path: Path, admin_file: Path
) -> None:
    settings = Settings(
        bundle=bundle_path.parent, admin_keys_file=admin_file, admin_port=9000, port=8000
    )
    app = create_app(settings, scorer)
    private = TestClient(app, "http://x:9000")
    with TestClient(app, "http://x:8000") as public:
        assert public.post("/admin/reload", headers=bearer(ADMIN)).status_code == 404
        assert public.post("/score", json=ROW).status_code == 200
        assert private.post("/score", json=ROW).status_code == 404
        assert private.post("/admin/reload").status_code == 401
        assert private.post("/admin/reload", headers=bearer(ADMIN)).status_code == 200


@needs_proc
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_real_server_has_admin_on_its_own_port_whatever_the_host_header_says(
    bundle_path: Path, admin_file: Path, workers: str
) -> None:
    port = free_port()
    with served(
        bundle_path.parent,
        "--workers",
        workers,
        DEEPFM_ADMIN_PORT=str(port),
        DEEPFM_ADMIN_KEYS_FILE=str(admin_file),
    ) as (_, address):
        lying = bearer(ADMIN) | {"host": f"127.0.0.1:{port}"}
        assert post(f"{address}/admin/reload", lying) == 404
        assert post(f"http://127.0.0.1:{port}/admin/reload", bearer(ADMIN)) == 200
        assert post(f"http://127.0.0.1:{port}/score", {}) == 404


def post(url: str, headers: dict[str, str]) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, b"", headers), timeout=10) as found:
            return int(found.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"admin_port": 9000}, "it needs admin_keys_file"),
        ({"admin_port": 8000, "admin_keys_file": __file__}, "another port"),
        ({"api_keys_file": "/nowhere/keys"}, "DEEPFM_API_KEYS_FILE"),
    ],
)
def test_keys_and_ports_that_cannot_be_are_refused_at_the_start(
    tmp_path: Path, given: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        load_settings(bundle=tmp_path, **given)
