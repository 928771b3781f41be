"""The server that faults are injected into, and what can be done to it."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tests.service.processes import get, served, wait_for, workers

_KEY = "key"
_CONNECTIONS_TO_MEET_ALL = 16


@dataclass(frozen=True)
class Server:
    """A server that runs.

    Args:
        process: the parent, or the only process.
        address: `http://host:port`.
        folder: ROOT/NAME, that the versions lie in.
    """

    process: subprocess.Popen[str]
    address: str
    folder: Path

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def reload(self, version: int) -> tuple[int, Any]:
        """Status and document of the answer to a reload."""
        body = json.dumps({"version": version}).encode()
        headers = {"authorization": f"Bearer {_KEY}"}
        request = urllib.request.Request(f"{self.address}/admin/reload", body, headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def switch(self, version: int) -> None:
        """Switch to a version, which must succeed."""
        answer = self.reload(version)
        assert answer[0] == 200, f"the reload of version {version} was answered with {answer}"

    def told(self) -> list[dict[str, Any]]:
        """/readyz by many connections, so that each worker is among those that answer."""
        return [get(f"{self.address}/readyz") for _ in range(_CONNECTIONS_TO_MEET_ALL)]

    def is_ready(self) -> bool:
        """Whether every worker answers that it is ready."""
        try:
            return all(told["status"] == "ready" for told in self.told())
        except OSError:
            return False

    def replaced(self, pid: int, number: int) -> None:
        """Wait until a worker that ended has a successor, and all are ready."""
        wait_for(lambda: len(found := workers(self.process)) == number and pid not in found)
        wait_for(self.is_ready)

    def allow_descriptors(self, number: int) -> None:
        """Set the limit of every process."""
        for pid in (self.process.pid, *workers(self.process)):
            hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (number, hard))

    def descriptors(self) -> int:
        """The most that one process has open."""
        pids = (self.process.pid, *workers(self.process))
        return max(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)


@contextmanager
def started(
    folder: Path,
    workers: int = 2,
    log: int = subprocess.DEVNULL,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Server]:
    """A server of what lies in a folder, all its workers ready.

    Args:
        folder: ROOT/NAME.
        workers: its processes.
        log: descriptor that its log goes to.
        variables: of its environment.
    """
    keys = folder.parent / "keys"
    keys.write_text(f"{_KEY}\n")
    own = {"DEEPFM_ADMIN_KEYS_FILE": str(keys), "DEEPFM_RELOAD_POLL_S": "0.2"}
    own["DEEPFM_DRAIN_S"] = "1"  # as by default: there is a balancer
    options = ("--workers", str(workers), "--provider", "cpu")
    with served(folder, *options, log=log, **own, **variables) as (process, address):
        server = Server(process, address, folder)
        wait_for(server.is_ready)
        yield server


def ports_held(pid: int) -> set[int]:
    """The clients' ports of the connections that a process has accepted."""
    sockets = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            sockets.add(os.readlink(f"/proc/{pid}/fd/{name}"))
        except OSError:  # it has been closed meanwhile
            continue
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {int(row[2].rpartition(":")[2], 16) for row in rows if f"socket:[{row[9]}]" in sockets}
