"""Servers as processes of their own, and what tests ask of them."""

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
PATIENCE_S = 30
_LOOK_S = 0.02
_LISTEN = "0A"  # in /proc/net/tcp
# No balancer looks at these servers before they end.
_QUICK = {"DEEPFM_DRAIN_S": "0.1"}
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
def served(
    folder: Path, *options: str, log: int = subprocess.PIPE, **variables: str
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server's process and address, once it is ready.

    Nobody reads its log meanwhile: when it is longer than a pipe holds, give it another `log`.
    """
    port = free_port()
    command = [sys.executable, "-m", "cli", "serve", str(folder), "--port", str(port), *options]
    server = subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | _QUICK | variables,
        stderr=log,
        text=True,
        start_new_session=True,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: server.poll() is not None or is_ready(f"{address}/readyz"))
        assert server.poll() is None, server.stderr.read() if server.stderr else ""
        yield server, address
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.communicate()


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
    for _ in range(int(PATIENCE_S / _LOOK_S)):  # not by the clock: this process may be suspended
        if holds():
            return
        time.sleep(_LOOK_S)
    raise AssertionError("not in time")


def listeners(address: str) -> int:
    """How many sockets listen at an address, one for each worker that serves."""
    wanted = f":{int(address.rpartition(':')[2]):04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[1].endswith(wanted) and row[3] == _LISTEN for row in rows)


def is_ready(url: str) -> bool:
    try:
        return bool(get(url)["status"] == "ready")
    except OSError:
        return False
