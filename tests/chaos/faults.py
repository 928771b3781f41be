"""Faults of the processes and of the machine; each is injected under load and gives a row."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import cycle
from pathlib import Path
from types import MappingProxyType

from tests.chaos.clock import build_clock
from tests.chaos.disk import full_disk
from tests.chaos.load import PAUSE_S, Load
from tests.chaos.questions import VERSIONS, Question
from tests.chaos.row import Row
from tests.chaos.server import Server, ports_held, started
from tests.service.processes import PATIENCE_S, ROOT, free_port, wait_for, workers

WORKERS = 2
_STOPPED_S = 3.0
_IDLE_CONNECTIONS = 300
_HELD_S = 2.0
_DAY_S = 86_400


@dataclass(frozen=True)
class Scene:
    """What every fault needs.

    Args:
        folder: ROOT/NAME with the versions 1 to 5.
        questions: to ask.
        is_short: whether to inject a few times only.
    """

    folder: Path
    questions: Sequence[Question]
    is_short: bool

    def times(self, short: int, long: int) -> int:
        return short if self.is_short else long

    def load(self, address: str, pause_s: float = PAUSE_S, until_refused: bool = False) -> Load:
        return Load(address, self.questions, pause_s, until_refused)


def killed_workers(scene: Scene, server: Server) -> Row:
    """Only what the killed worker had in hand may fail: one request of each of its connections."""
    times = scene.times(2, 10)
    row = Row("worker killed", f"{times} SIGKILL")
    owned: set[int] = set()
    with scene.load(server.address) as load:
        for turn in range(times):
            time.sleep(0.5)
            load.reopens.clear()  # so that nobody waits in the queue of the one that is killed
            time.sleep(0.5)
            victim = workers(server.process)[turn % WORKERS]
            held = ports_held(victim) & load.ports
            os.kill(victim, signal.SIGKILL)
            owned |= held
            row.allowed += len(held)
            time.sleep(0.2)
            load.reopens.set()
            server.replaced(victim, WORKERS)
    row.add(load)
    others = [failure for failure in load.failed if failure.port not in owned]
    if others:
        row.broken.append(f"on connections of others: {others}")
    return row


def stopped_workers(scene: Scene, server: Server) -> Row:
    """Its requests wait, and are answered when it goes on."""
    times = scene.times(1, 5)
    row = Row("worker stopped", f"{times} SIGSTOP of {_STOPPED_S:.0f} s")
    with scene.load(server.address) as load:
        for turn in range(times):
            time.sleep(0.5)
            victim = workers(server.process)[turn % WORKERS]
            os.kill(victim, signal.SIGSTOP)
            try:
                time.sleep(_STOPPED_S)
            finally:
                os.kill(victim, signal.SIGCONT)
            wait_for(server.is_ready)
    row.add(load)
    return row


def descriptors_exhausted(scene: Scene, server: Server) -> Row:
    """Connections that are open are served, and new ones again once there is room."""
    times = scene.times(1, 5)
    row = Row("descriptors exhausted", f"{times} x {_IDLE_CONNECTIONS} idle connections")
    limit = server.descriptors() + 20
    with scene.load(server.address) as load:
        time.sleep(0.5)
        load.reopens.clear()  # there is no room for a new one: that is the fault
        server.allow_descriptors(limit)
        for _ in range(times):
            with ExitStack() as idle:
                for _ in range(_IDLE_CONNECTIONS):
                    idle.enter_context(closing(_opened(server.port)))
                time.sleep(_HELD_S)
                if server.descriptors() < limit - 1:
                    row.broken.append("the descriptors were not exhausted")
            wait_for(server.is_ready)
        load.reopens.set()
        time.sleep(0.5)
    row.add(load)
    return row


def _opened(port: int) -> socket.socket:
    connection = socket.socket()
    connection.setblocking(False)
    connection.connect_ex(("127.0.0.1", port))
    return connection


def sigterm_alone(scene: Scene) -> Row:
    """All that was read is answered, and then the process ends with 0."""
    times = scene.times(1, 3)
    row = Row("SIGTERM, one process", f"{times} SIGTERM")
    for _ in range(times):
        with started(scene.folder, workers=1) as server:
            load = scene.load(server.address, 0.0, until_refused=True)
            with load:
                time.sleep(2)
                before = load.requests
                server.process.send_signal(signal.SIGTERM)
                load.wait()
            if load.requests == before:
                row.broken.append("nothing was asked after the signal")
            _expect_end(server, row)
        row.add(load)
    return row


def sigterm_behind_balancer(scene: Scene) -> Row:
    """Two servers take turns to end, and a balancer in front hides it."""
    times = scene.times(1, 3)
    row = Row("SIGTERM, one of two servers", f"{times} SIGTERM")
    for _ in range(times):
        with ExitStack() as stack:
            servers = [stack.enter_context(started(scene.folder, workers=1)) for _ in range(2)]
            port = free_port()
            command = [sys.executable, "-m", "tests.chaos.balancer", str(port)]
            balancer = stack.enter_context(
                subprocess.Popen([*command, *(str(one.port) for one in servers)], cwd=ROOT)
            )
            stack.callback(balancer.terminate)
            wait_for(lambda port=port: _listens(port))
            with scene.load(f"http://127.0.0.1:{port}", 0.0) as load:
                time.sleep(2)
                servers[0].process.send_signal(signal.SIGTERM)
                _expect_end(servers[0], row)
                time.sleep(1)
            row.add(load)
    return row


def _listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def _expect_end(server: Server, row: Row) -> None:
    ended = server.process.wait(PATIENCE_S)
    if ended != 0:
        row.broken.append(f"the server ended with {ended}")


def moved_clock(scene: Scene) -> Row:
    """Nothing but the log tells the time of day: nobody waits longer, or shorter, when it jumps."""
    times = scene.times(2, 10)
    row = Row("clock moved", f"{times} x a day ahead, a day back, right again")
    clock = build_clock(scene.folder.parent / "clock")
    if clock is None:
        row.injected = "not possible here: there is no C compiler"
        return row
    log = clock.file.with_name("log")
    with (
        log.open("w") as file,
        started(scene.folder, WORKERS, file.fileno(), clock.variables) as server,
    ):
        with scene.load(server.address) as load:
            for days, version in zip((1, -1, 0) * times, cycle(VERSIONS), strict=False):
                clock.move(days * _DAY_S)
                server.switch(version)
                time.sleep(0.3)
        row.add(load)
    today = datetime.now(UTC).date()
    for days in (1, -1):
        if f'{{"time": "{today + timedelta(days)}T' not in log.read_text():
            row.broken.append(f"the clock was not moved by {days} days")
    return row


def no_room_for_logs(scene: Scene) -> Row:
    """What cannot be logged is lost, and nothing else."""
    row = Row("log to a full device", "all of stderr to /dev/full")
    with open("/dev/full", "w") as full:
        _switch_and_end(scene, row, full.fileno())
    return row


def no_room_on_disk(scene: Scene) -> Row:
    """Neither for the log nor for temporary files."""
    row = Row("full disk", "log, TMPDIR and HOME")
    with full_disk(scene.folder.parent / "full") as folder:
        if folder is None:
            row.injected = "not possible here: mount was refused"
            return row
        with (folder / "log").open("a") as log:
            _switch_and_end(scene, row, log.fileno(), {"TMPDIR": str(folder), "HOME": str(folder)})
    return row


def _switch_and_end(
    scene: Scene, row: Row, log: int, variables: Mapping[str, str] = MappingProxyType({})
) -> None:
    with started(scene.folder, log=log, variables=variables) as server:
        with scene.load(server.address) as load:
            for version in VERSIONS:
                server.switch(version)
                time.sleep(0.2)
            if server.reload(99)[0] != 404:
                row.broken.append("a version that is nowhere was not a 404")
        row.add(load)
        server.process.send_signal(signal.SIGTERM)
        _expect_end(server, row)
