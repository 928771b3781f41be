"""The real server, as a process of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
_PATIENCE_S = 30
# Which processes a server has is Linux's to tell; the service itself runs elsewhere too (macOS).
needs_proc = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="finds processes by /proc"
)


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
    server = subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(_PATIENCE_S * 10):
            assert server.poll() is None, server.stderr.read() if server.stderr else ""
            try:
                get(f"{address}/readyz")
                break
            except OSError:
                time.sleep(0.1)
        yield server, address
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
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


@needs_proc
def test_a_worker_that_dies_is_replaced(bundle_path: Path) -> None:
    with served(bundle_path.parent, "--workers", "2") as (server, address):
        before = workers(server)
        os.kill(before[0], signal.SIGKILL)
        wait_for(lambda: len(workers(server)) == 2 and workers(server) != before)
        # What waited in the killed worker's queue is reset; after that all are answered.
        wait_for(lambda: all(_is_ready(f"{address}/readyz") for _ in range(10)))
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=_PATIENCE_S)
        assert server.returncode == 0


@needs_proc
def test_sigterm_ends_a_server_that_is_still_starting(bundle_path: Path) -> None:
    """At whatever moment; four servers at once, so that it takes one start's time."""
    command = [sys.executable, "-m", "cli", "serve", str(bundle_path.parent), "--workers", "2"]
    servers = [
        subprocess.Popen([*command, "--port", str(free_port())], cwd=ROOT, start_new_session=True)
        for _ in range(4)
    ]
    try:
        for server in servers:
            time.sleep(0.5)
            server.terminate()
        for server in servers:
            server.wait(_PATIENCE_S / 3)
            wait_for(lambda server=server: not in_session(server.pid))
    finally:
        for server in servers:
            with suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
            server.wait()


@needs_proc
def test_workers_end_with_a_parent_that_was_killed(bundle_path: Path) -> None:
    with served(bundle_path.parent, "--workers", "2") as (server, _):
        assert len(workers(server)) == 2
        server.kill()
        wait_for(lambda: not in_session(server.pid))


def workers(server: subprocess.Popen[str]) -> list[int]:
    """Processes that serve."""
    return [pid for pid in in_session(server.pid) if pid != server.pid]


def in_session(leader: int) -> list[int]:
    """Living processes of a session."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state, _, _, session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(session) == leader and state != "Z":
                found.append(int(folder.name))
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
        (["--version", "9", "--workers", "2"], "no such version"),
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
    except OSError:
        return False
