"""Workers that hang or grow, as processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, cast
from unittest.mock import Mock

import pytest

from service import crew
from service.crew import Crew, Worker, memory_mb
from service.orders import Alive, Channel, ToWorker
from tests.service.linear import write_bundle
from tests.service.processes import ROOT, free_port, get, is_ready, needs_proc, wait_for, workers

_SERVER = """
import sys
from pathlib import Path
from service import crew, link, supervisor
from service.settings import Settings
from service.workers import serve

crew.SILENCE_S, link._BEAT_S = 2.0, 0.2
supervisor._MEMORY_LOOK_S = 0.2
heavy = Path(sys.argv[3])
weigh = lambda pid: 2000.0 if heavy.exists() and heavy.read_text() in ("all", str(pid)) else 1.0
crew.memory_mb = supervisor.memory_mb = weigh
serve(Settings(bundle=sys.argv[1], port=sys.argv[2], workers=2, provider="cpu", drain_s=0.1,
               max_worker_mb=1000, reload_poll_s=0.2))
"""


class Running:
    """A server of two workers, whose patience is short and whose memory is what a file says."""

    def __init__(self, folder: Path) -> None:
        write_bundle(folder / "m" / "1", seed=1)
        self.folder, self.heavy, port = folder / "m", folder / "heavy", free_port()
        self.address = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-c", _SERVER, str(self.folder), str(port), str(self.heavy)]
        self.log = (folder / "log").open("w+")
        self.process = subprocess.Popen(
            command, cwd=ROOT, text=True, stderr=self.log, start_new_session=True
        )

    def logged(self, words: str) -> int:
        return Path(self.log.name).read_text().count(words)


@pytest.fixture
def running(tmp_path: Path) -> Any:
    server = Running(tmp_path)
    try:
        wait_for(lambda: is_ready(f"{server.address}/readyz"))
        wait_for(lambda: len(workers(server.process)) == 2)
        wait_for(lambda: server.logged("listening on") == 2)
        yield server
    finally:
        os.killpg(server.process.pid, signal.SIGKILL)
        server.process.wait()
        server.log.close()


@needs_proc
def test_a_stopped_worker_is_replaced_and_holds_no_reload_up(running: Running) -> None:
    before = workers(running.process)
    os.kill(before[0], signal.SIGSTOP)
    write_bundle(running.folder.parent / "draft" / "m" / "2", seed=2).rename(running.folder / "2")
    wait_for(lambda: before[0] not in workers(running.process))
    wait_for(lambda: running.logged("version 2 answers") >= 1)
    wait_for(lambda: running.logged("listening on") == 3)
    assert all(get(f"{running.address}/readyz")["version"] == 2 for _ in range(12))
    assert before[1] in workers(running.process)
    assert running.logged("is refused") == 0


@needs_proc
def test_a_heavy_worker_is_replaced_without_a_lost_request(running: Running) -> None:
    before, answered, stopping = workers(running.process), [0], threading.Event()
    failed: list[str] = []

    def ask() -> None:
        while not stopping.is_set():
            try:
                get(f"{running.address}/score", {"instances": [{"price": 3}]})
                answered[0] += 1
            except OSError as error:
                failed.append(repr(error))

    client = threading.Thread(target=ask)
    client.start()
    try:
        running.heavy.write_text(str(before[0]))
        wait_for(lambda: before[0] not in workers(running.process))
        wait_for(lambda: len(workers(running.process)) == 2)
    finally:
        stopping.set()
        client.join()
    assert failed == []
    assert answered[0] > 20
    assert before[1] in workers(running.process)


@needs_proc
def test_where_a_new_worker_is_as_heavy_the_old_ones_stay(running: Running) -> None:
    before = workers(running.process)
    running.heavy.write_text("all")
    wait_for(lambda: running.logged("holds too much memory") == 1)
    wait_for(lambda: sorted(workers(running.process)) == sorted(before))
    time.sleep(0.5)
    assert running.logged("holds too much memory") == 1


def played() -> tuple[Worker, Channel[ToWorker]]:
    ours, theirs = multiprocessing.Pipe()
    return Worker(cast(Any, Mock()), ours), Channel(theirs, ToWorker)


def test_where_all_are_silent_nobody_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "SILENCE_S", 0.3)
    found = Crew(Mock(), 1)
    pairs = [played() for _ in range(2)]
    found.workers = [worker for worker, _ in pairs]
    for _ in range(4):
        found.tick()
    kills = [cast(Mock, worker.process.kill) for worker in found.workers]
    assert not any(kill.called for kill in kills)
    pairs[1][1].send(cast(Any, Alive()))
    found.tick()
    assert [kill.called for kill in kills] == [True, False]


def test_where_no_worker_can_be_started_the_others_go_on_and_it_is_tried_again() -> None:
    pairs = [played() for _ in range(3)]
    ended, other, fresh = (worker for worker, _ in pairs)
    found = Crew(Mock(side_effect=[OSError(12, "Cannot allocate memory"), fresh]), 1)
    found.workers = [ended, other]
    pairs[0][1].connection.close()
    found.tick()
    found.replace_ended(0)
    found.tick()
    assert found.workers == [ended, other]
    found.replace_ended()  # not before a pause
    assert found.workers == [ended, other]
    found.replace_ended(0)
    assert found.workers == [fresh, other]


def test_workers_that_hang_are_waited_for_together(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("service.crew.time.monotonic", lambda: clock[0])

    def hang(patience_s: float) -> None:
        clock[0] += patience_s

    found = Crew(Mock(), 30)
    found.workers = [played()[0] for _ in range(3)]
    for worker in found.workers:
        cast(Mock, worker.process.join).side_effect = hang
    found.end()
    assert clock[0] == 30
    assert all(cast(Mock, worker.process.kill).called for worker in found.workers)


@needs_proc
def test_memory_of_a_process_is_what_no_file_backs() -> None:
    before = memory_mb(os.getpid())
    block = b"x" * (64 << 20)
    assert 55 < memory_mb(os.getpid()) - before < 80
    del block
    assert memory_mb(None) == 0
