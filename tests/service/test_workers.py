"""The real server, as a process of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
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
            time.sleep(0.25)
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


def test_sigterm_under_load_loses_no_request(bundle_path: Path) -> None:
    """Threads that open a connection for each request, until they are refused one."""
    with served(bundle_path.parent, DEEPFM_DRAIN_S="1") as (server, address):
        port = int(address.rpartition(":")[2])
        with ThreadPoolExecutor(8) as clients:
            asked = [clients.submit(ask_until_refused, port) for _ in range(8)]
            time.sleep(1)
            signalled = time.monotonic()
            server.send_signal(signal.SIGTERM)
            answered = [moment for one in asked for moment in one.result(PATIENCE_S)]
        server.communicate(timeout=PATIENCE_S)
        assert server.returncode == 0
        assert sum(signalled - 1 < moment < signalled + 2 for moment in answered) >= 300
        assert sum(moment > signalled for moment in answered) >= 50


def ask_until_refused(port: int) -> list[float]:
    """When each answer came; every request that was taken has a whole and right one.

    A connection that is reset before a byte of an answer never reached the server, for a request
    that is in the server's hands is always answered: it is opened again, as any client does.
    """
    answered: list[float] = []
    while True:
        try:
            connection = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        except ConnectionRefusedError:
            return answered
        with connection:
            answer = exchange(connection)
        if answer is None:
            continue
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), answer
        assert len(json.loads(body)["scores"]) == 1, answer
        answered.append(time.monotonic())


def exchange(connection: socket.socket) -> bytes | None:
    """The answer to one request, up to the connection's end; None where the server never read."""
    body = b'{"instances":[{"age":31}]}'
    head = b"POST /score HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
    answer = b""
    try:
        connection.sendall(head % len(body) + body)
        while piece := connection.recv(4096):
            answer += piece
    except (ConnectionResetError, BrokenPipeError):
        assert not answer
        return None
    assert answer, "closed without an answer"
    return answer
