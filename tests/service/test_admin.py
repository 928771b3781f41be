from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from features.errors import ConfigError
from service.app import create_app
from service.settings import Settings, load_settings
from tests.service.bearers import KEY, OTHER, bearer, write_keys
from tests.service.linear import write_bundle


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    return write_keys(tmp_path)


@pytest.fixture
def admin(tmp_path: Path, keys_file: Path) -> Iterator[TestClient]:
    folder = tmp_path / "m"
    for version in (1, 2):
        write_bundle(folder / str(version), seed=version)
    settings = Settings(bundle=folder, provider="cpu", reload_poll_s=0, admin_keys_file=keys_file)
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


def test_without_a_file_of_keys_there_is_no_admin(client: TestClient) -> None:
    assert client.post("/admin/reload", headers=bearer(KEY)).status_code == 404


def test_admin_stands_in_no_public_description(admin: TestClient) -> None:
    assert "/admin/reload" not in admin.get("/openapi.json").json()["paths"]


@pytest.mark.parametrize("key", [KEY, OTHER])
def test_each_key_opens(admin: TestClient, key: str) -> None:
    answer = admin.post("/admin/reload", headers=bearer(key), json={"version": 1})
    assert (answer.status_code, answer.json()) == (200, {"model": "m", "version": 1})


@pytest.mark.parametrize(
    "headers",
    [
        {},
        bearer(""),
        bearer("wrong"),
        bearer(KEY[:-1]),
        bearer(f"{KEY}\xe9"),
        {"authorization": f"Basic {KEY}"},
        {"authorization": KEY},
    ],
)
def test_a_wrong_or_missing_key_is_401_and_changes_nothing(
    admin: TestClient, headers: dict[str, str]
) -> None:
    raw = {name: value.encode("latin-1") for name, value in headers.items()}
    answer = admin.post("/admin/reload", headers=raw, json={"version": 1})
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["www-authenticate"] == "Bearer"
    assert admin.get("/readyz").json()["version"] == 2


def test_keys_are_read_again_when_they_change(admin: TestClient, keys_file: Path) -> None:
    keys_file.write_text("another-key\n")
    assert admin.post("/admin/reload", headers=bearer(KEY)).status_code == 401
    assert admin.post("/admin/reload", headers=bearer("another-key")).status_code == 200


def test_without_the_file_no_key_is_right(admin: TestClient, keys_file: Path) -> None:
    keys_file.unlink()
    assert admin.post("/admin/reload", headers=bearer(KEY)).status_code == 401


def test_a_missing_file_of_keys_ends_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="DEEPFM_ADMIN_KEYS_FILE"):
        load_settings(bundle=tmp_path, admin_keys_file=tmp_path / "none")


def test_no_key_is_logged(
    admin: TestClient, keys_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    admin.post("/admin/reload", headers=bearer(KEY), json={"version": 1})
    admin.post("/admin/reload", headers=bearer("wrong-key"))
    keys_file.unlink()
    admin.post("/admin/reload", headers=bearer(KEY))
    assert not any(key in caplog.text for key in (KEY, OTHER, "wrong-key"))


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "invalid_json"),
        (b"\xff", 400, "invalid_json"),
        (b"\n", 400, "invalid_json"),
        (b"\x0b", 400, "invalid_json"),
        (b"[" * 1000, 400, "invalid_json"),
        (b'{"version": 1e999}', 422, "out_of_range"),
        (b'{"version": 18446744073709551615}', 422, "out_of_range"),
        (b"[]", 422, "wrong_type"),
        (b'{"version": "1"}', 422, "wrong_type"),
        (b'{"version": true}', 422, "wrong_type"),
        (b'{"version": 0}', 422, "out_of_range"),
        (b'{"version": 1e300}', 422, "wrong_type"),
        (b'{"versions": 1}', 422, "unknown_key"),
        (b" " * 2000, 413, "too_long"),
    ],
)
def test_a_wrong_body_is_told_and_changes_nothing(
    admin: TestClient, body: bytes, status: int, code: str
) -> None:
    answer = admin.post("/admin/reload", headers=bearer(KEY), content=body)
    assert answer.status_code == status, answer.text
    assert answer.json()["errors"][0]["code"] == code
    assert admin.get("/readyz").json()["version"] == 2


def test_an_unknown_key_of_a_body_is_named(admin: TestClient) -> None:
    answer = admin.post("/admin/reload", headers=bearer(KEY), json={"versions": 1})
    assert answer.json()["errors"][0]["pointer"] == "/versions"


@pytest.mark.parametrize("body", [b"", b"{}", b'{"version": null}'])
def test_a_body_without_a_version_asks_for_the_newest(admin: TestClient, body: bytes) -> None:
    assert admin.post("/admin/reload", headers=bearer(KEY), json={"version": 1}).is_success
    answer = admin.post("/admin/reload", headers=bearer(KEY), content=body)
    assert answer.json()["version"] == 2


def test_a_version_that_does_not_lie_on_disk_is_404(admin: TestClient) -> None:
    answer = admin.post("/admin/reload", headers=bearer(KEY), json={"version": 9})
    assert answer.status_code == 404
    assert admin.get("/readyz").json()["version"] == 2


@pytest.mark.parametrize("kind", ["canary", "shadow"])
def test_a_405_allows_both_methods(admin: TestClient, kind: str) -> None:
    allowed = admin.put(f"/admin/{kind}", headers=bearer(KEY)).headers["allow"]
    assert set(allowed.split(", ")) == {"POST", "DELETE"}
