from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice, takewhile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from bench.open_loop import Plan, Shape, arrivals, windows

ANSWER = b"HTTP/1.1 %d OK\r\ncontent-length: 2\r\n\r\nok"
STALL_S = 0.3


class Answering(asyncio.Protocol):
    """Answers every request; stalls at one of them, or hangs up after so many."""

    answers = 0
    open: ClassVar[list[Any]] = []

    def __init__(self, status: int, stall_at: int, most: int) -> None:
        self.status, self.stall_at, self.most = status, stall_at, most

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        Answering.open.append(transport)

    def data_received(self, data: bytes) -> None:
        Answering.answers += 1
        if Answering.answers == self.stall_at:
            time.sleep(STALL_S)
        if Answering.answers > self.most:
            self.transport.abort()
        else:
            self.transport.write(ANSWER % self.status)


@contextmanager
def answering(status: int = 200, stall_at: int = 0, most: int = 10_000) -> Iterator[int]:
    """Port of a server in a thread."""
    Answering.answers = 0
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(
        loop.create_server(lambda: Answering(status, stall_at, most), "127.0.0.1", 0)
    )
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        for transport in Answering.open:
            transport.abort()
        Answering.open.clear()
        loop.run_until_complete(asyncio.sleep(0))  # the sockets are closed on the loop's next turn
        loop.run_until_complete(server.wait_closed())
        loop.close()


def test_the_schedule_follows_from_the_seed() -> None:
    first, again, other = (list(islice(arrivals([5.0], seed), 9000)) for seed in (1, 1, 2))
    assert first == again != other
    assert first == sorted(first)


def test_arrivals_are_a_poisson_process_of_each_rate() -> None:
    drawn = list(takewhile(lambda one: one[0] < 1000, arrivals([30.0, 10.0], 0)))
    for kind, rate in enumerate((30, 10)):
        gaps = np.diff([at for at, one in drawn if one == kind])
        assert 1 / gaps.mean() == pytest.approx(rate, rel=0.05)
        assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)  # as of exponential gaps


@pytest.mark.parametrize("is_awake", [False, True])
def test_a_latency_counts_from_when_the_request_was_due(tmp_path: Path, is_awake: bool) -> None:
    """A server that stalls once delays all that come meanwhile, not only the one it has."""
    with answering(stall_at=100) as port:
        asked = Plan(port, (shape(tmp_path, rate=200.0),), seconds=1.0, is_awake=is_awake)
        (window,) = windows(asked)
    assert not window.errors
    latency = window.latency_us["one"]
    assert len(latency) == len(window.late_us)
    late = sum(one > STALL_S / 3 * 1e6 for one in latency)
    assert late > 200 * STALL_S / 3


def test_another_status_is_an_error(tmp_path: Path) -> None:
    with answering(status=500) as port:
        (window,) = windows(Plan(port, (shape(tmp_path, rate=100.0),), seconds=0.3))
    assert window.errors == {"one: status 500": len(window.late_us)}
    assert window.latency_us == {"one": []}


def test_a_server_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with answering(most=10) as port:
        (window,) = windows(Plan(port, (shape(tmp_path, rate=100.0),), seconds=0.3))
    assert len(window.latency_us["one"]) == 10
    assert sum(window.errors.values()) > 0


def test_windows_cut_the_run_and_bring_a_sample_each(tmp_path: Path) -> None:
    with answering() as port:
        cut = list(windows(Plan(port, (shape(tmp_path, rate=100.0),), seconds=0.6, windows=3)))
    assert len(cut) == 3
    for window, due in zip(cut, (0.2, 0.4), strict=False):
        assert window.at_s > due - 0.05
    assert all(window.samples["one"][1] == b"ok" for window in cut)
    assert {window.samples["one"][0] for window in cut} <= {0, 1}


def test_nobody_waits_for_a_plan_that_nobody_listens_to(tmp_path: Path) -> None:
    began = time.monotonic()
    with answering() as port:
        running = windows(Plan(port, (shape(tmp_path, rate=50.0),), seconds=600.0, windows=6000))
        next(running)
        running.close()
    assert time.monotonic() - began < 60


def shape(folder: Path, rate: float) -> Shape:
    (folder / "bodies").write_bytes(b"{}\n[]")
    return Shape("one", "/score", str(folder / "bodies"), rate)
