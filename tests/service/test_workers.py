"""The real server, as a process of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.service.processes import (
    PATIENCE_S,
    ROOT,
    free_port,
    get,
    in_session,
    is_ready,
    needs_proc,
    served,
    wait_for,
    workers,
)


def test_serve_answers_and_ends_with_0_on_sigterm(bundle_path: Path) -> None:
    with served(bundle_path.parent) as (server, address):
        answer = get(f"{address}/rank", {"candidates": [{"id": "a", "features": {"item": 3}}]})
        assert answer["items"][0]["id"] == "a"
        server.send_signal(signal.SIGTERM)
        _, log = server.communicate(timeout=PATIENCE_S)
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
        wait_for(lambda: all(is_ready(f"{address}/readyz") for _ in range(10)))
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=PATIENCE_S)
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
            server.wait(PATIENCE_S / 3)
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
            wait_for(lambda: is_ready(f"http://127.0.0.1:{port}/readyz"))
        finally:
            server.terminate()


def test_sigterm_under_load_fails_no_request(bundle_path: Path) -> None:
    """A connection each; one that was refused before a byte of an answer is opened again."""
    with served(bundle_path.parent) as (server, address):
        port = int(address.rpartition(":")[2])
        statuses: list[bytes] = []
        ends_at = time.monotonic() + 2
        while time.monotonic() < ends_at:
            if len(statuses) == 200:
                server.send_signal(signal.SIGTERM)
            answer = ask_once(port)
            if answer is None:
                break
            statuses.append(answer)
        server.communicate(timeout=PATIENCE_S)
        assert server.returncode == 0
        assert len(statuses) > 200
        assert set(statuses) == {b"200"}


def ask_once(port: int) -> bytes | None:
    """Status of one request on a connection of its own; None where it was refused."""
    request = b'POST /score HTTP/1.1\r\nhost: x\r\ncontent-length: 16\r\n\r\n{"instances":[]}'
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(request)
            return connection.recv(4096)[9:12] or None
    except (ConnectionRefusedError, ConnectionResetError, BrokenPipeError):
        return None


def test_a_head_that_does_not_end_in_time_is_a_408(bundle_path: Path) -> None:
    with patience("1"), served(bundle_path.parent) as (_, address):
        port = int(address.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(b"POST /score HTTP/1.1\r\nhost: x\r\n")
            assert connection.recv(4096).startswith(b"HTTP/1.1 408 ")
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nx: " + b"y" * 100_000)
            assert connection.recv(4096).startswith(b"HTTP/1.1 431 ")


@contextmanager
def patience(seconds: str) -> Iterator[None]:
    os.environ["DEEPFM_READ_TIMEOUT_S"] = seconds
    try:
        yield
    finally:
        del os.environ["DEEPFM_READ_TIMEOUT_S"]
