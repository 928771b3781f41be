"""The real server, as a process of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
_PATIENCE_S = 30


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def get(url: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data), timeout=10) as answer:
        return json.load(answer)


@contextmanager
def served(folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server's process and address, once it is ready."""
    port = free_port()
    command = [sys.executable, "-m", "cli", "serve", str(folder), "--port", str(port), *options]
    server = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(_PATIENCE_S * 10):
            assert server.poll() is None, server.stderr.read() if server.stderr else ""
            try:
                get(f"{address}/readyz")
                break
            except urllib.error.URLError:
                time.sleep(0.1)
        yield server, address
    finally:
        server.kill()
        server.communicate()


def test_serve_answers_and_ends_with_0_on_sigterm(bundle_path: Path) -> None:
    with served(bundle_path.parent) as (server, address):
        answer = get(f"{address}/rank", {"candidates": [{"id": "a", "features": {"item": 3}}]})
        assert answer["items"][0]["id"] == "a"
        server.send_signal(signal.SIGTERM)
        _, log = server.communicate(timeout=_PATIENCE_S)
        assert server.returncode == 0
        lines = [json.loads(line) for line in log.splitlines()]
        assert any(f"listening on {address}" in line["message"] for line in lines)


def test_a_worker_that_dies_is_replaced(bundle_path: Path) -> None:
    with served(bundle_path.parent, "--workers", "2") as (server, address):
        children = Path(f"/proc/{server.pid}/task/{server.pid}/children")
        if not children.exists():
            pytest.skip("needs /proc to find the workers")
        before = workers(children)
        os.kill(before[0], signal.SIGKILL)
        wait_for(lambda: len(workers(children)) == 2 and workers(children) != before)
        for _ in range(10):
            assert get(f"{address}/healthz") == {"status": "alive"}
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=_PATIENCE_S)
        assert server.returncode == 0


def workers(children: Path) -> list[int]:
    """Processes that serve; Python's resource tracker is a child too."""
    found = []
    for child in children.read_text().split():
        command = Path(f"/proc/{child}/cmdline").read_text(errors="replace")
        if "spawn_main" in command:
            found.append(int(child))
    return found


def wait_for(holds: Any) -> None:
    for _ in range(_PATIENCE_S * 10):
        if holds():
            return
        time.sleep(0.1)
    raise AssertionError("not in time")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--version", "9"], "no such version"),
        (["--provider", "cuda"], "provider cuda was asked for"),
        (["--port", "99999"], "DEEPFM_PORT"),
    ],
)
def test_what_cannot_be_served_is_said_in_a_sentence(
    bundle_path: Path, options: list[str], sentence: str
) -> None:
    command = [sys.executable, "-m", "cli", "serve", str(bundle_path.parent), *options]
    ended = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 2
    assert sentence in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_port_that_is_taken_is_said_in_a_sentence(bundle_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = str(holder.getsockname()[1])
        command = [sys.executable, "-m", "cli", "serve", str(bundle_path.parent), "--port", port]
        ended = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )
    assert ended.returncode == 2
    assert f"cannot listen on 127.0.0.1:{port}" in ended.stderr


def test_uvicorn_serves_the_factory_by_itself(bundle_path: Path) -> None:
    port = str(free_port())
    command = [sys.executable, "-m", "uvicorn", "--factory", "service.app:create_app"]
    environment = os.environ | {"DEEPFM_BUNDLE": str(bundle_path.parent)}
    with subprocess.Popen([*command, "--port", port], cwd=ROOT, env=environment) as server:
        try:
            wait_for(lambda: _is_ready(f"http://127.0.0.1:{port}/readyz"))
        finally:
            server.terminate()


def _is_ready(url: str) -> bool:
    try:
        return bool(get(url)["status"] == "ready")
    except urllib.error.URLError:
        return False
