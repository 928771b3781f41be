"""The page, and that no other origin may use the service; a browser's own word on it is slow."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.service.processes import served

CHROMIUM = shutil.which("chromium")
PAGE = ("/docs", "/docs/start.js", "/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css")


@pytest.mark.parametrize("path", PAGE)
def test_the_page_forbids_other_origins_frames_and_guessing(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"


def test_no_script_stands_inside_the_page(client: TestClient) -> None:
    page = client.get("/docs").text
    assert re.findall(r"<script[^>]*>(.*?)</script>", page, re.DOTALL) == ["", ""]
    assert not re.search(r"\son\w+=|javascript:|style=", page)


def test_only_files_of_the_page_are_served(client: TestClient) -> None:
    assert client.get("/docs/LICENSE").status_code == 404
    assert client.get("/docs/docs.html").status_code == 404


@pytest.mark.parametrize("path", ["/score", "/rank", "/healthz", "/docs"])
def test_other_origins_are_allowed_nothing(client: TestClient, path: str) -> None:
    asked = {
        "origin": "https://elsewhere.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type",
    }
    preflight = client.options(path, headers=asked)
    assert preflight.status_code == 405
    for answer in (preflight, client.get(path, headers=asked), client.post(path, headers=asked)):
        assert not [name for name in answer.headers if name.startswith("access-control-")]


# A browser is no Python package: nothing that the project installs brings one.
@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_a_browser_shows_the_page_and_its_policy_stops_nothing(
    bundle_path: Path, tmp_path: Path
) -> None:
    with served(bundle_path.parent) as (_, address):
        shown = subprocess.run(
            [
                str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
                "--no-first-run", "--disable-background-networking",
                "--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path}",
                "--enable-logging=stderr", "--virtual-time-budget=20000", "--dump-dom",
                f"{address}/docs",
            ],
            capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
    assert 'id="operations-default-score"' in shown.stdout
    assert "Content Security Policy" not in shown.stderr
    assert "Refused to" not in shown.stderr
