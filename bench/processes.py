"""Servers that benchmarks start, and what /proc says of their processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
_READY_S = 60
_TICKS = os.sysconf("SC_CLK_TCK")
_UVICORN = [sys.executable, "-m", "uvicorn", "--log-level", "warning", "--no-access-log"]


@dataclass(frozen=True)
class Server:
    """A server that answers on 127.0.0.1."""

    pid: int
    port: int


@dataclass(frozen=True)
class Use:
    """What a process tree holds; memory in MB.

    `largest_private` is that of the process with the most: one worker, where there are several.
    """

    resident: float
    proportional: float
    private: float
    largest_private: float
    descriptors: int
    threads: int


def commands(bundle: Path, workers: int) -> dict[str, list[str]]:
    """Commands of the servers, ours first; `started` adds the port."""
    serve = [sys.executable, "-m", "cli", "serve", str(bundle.parent), "--provider", "cpu"]
    return {
        "deepfm": [*serve, "--workers", str(workers)],
        "tutorial": [*_UVICORN, "bench.tutorial_server:app", "--workers", str(workers)],
        "trivial": [*_UVICORN, "bench.trivial_server:app"],
    }


@contextmanager
def started(command: list[str], bundle: Path, **variables: str) -> Iterator[Server]:
    """A server on a port of its own, with variables of its environment; ended afterwards.

    Two servers with SO_REUSEPORT on one port would share its connections without a word, so no
    port is written down anywhere.
    """
    port = _free_port()
    environment = os.environ | {"BENCH_BUNDLE": str(bundle)} | variables
    command = [*command, "--port", str(port)]
    with subprocess.Popen(command, cwd=ROOT, env=environment) as server:
        try:
            _wait_until_ready(server, port)
            time.sleep(2)  # the other workers
            yield Server(server.pid, port)
        finally:
            server.terminate()
            server.wait(30)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def _wait_until_ready(server: subprocess.Popen[bytes], port: int) -> None:
    until = time.monotonic() + _READY_S
    while server.poll() is None and time.monotonic() < until:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz"):
                return
        except urllib.error.URLError:  # it does not listen yet, or answers 503
            time.sleep(0.1)
    raise SystemExit(f"the server did not become ready on port {port}")


def processes(pid: int) -> list[int]:
    """A process and all that descend from it."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            children = (task / "children").read_text()
        except OSError:  # a thread that has ended meanwhile has none
            continue
        for child in children.split():
            found += processes(int(child))
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of a process tree so far."""
    total = 0
    for one in processes(pid):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / _TICKS


def use(pid: int) -> Use:
    """What a process tree holds now."""
    pids = processes(pid)
    memory = [_memory(one) for one in pids]
    private = [one["Private_Clean"] + one["Private_Dirty"] for one in memory]
    return Use(
        resident=sum(one["Rss"] for one in memory),
        proportional=sum(one["Pss"] for one in memory),
        private=sum(private),
        largest_private=max(private),
        descriptors=sum(len(os.listdir(f"/proc/{one}/fd")) for one in pids),
        threads=sum(len(os.listdir(f"/proc/{one}/task")) for one in pids),
    )


def _memory(pid: int) -> dict[str, float]:
    """Lines of smaps_rollup by name, in MB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {name[:-1]: int(kb) / 1024 for name, kb, *_ in map(str.split, lines)}
