"""An open loop: requests leave at times drawn beforehand, however long the answers take.

Arrivals are a Poisson process of a fixed seed, as in the server scenario of MLPerf (Reddi et al.,
arXiv:1911.02549). A latency counts from the moment at which its request was due: waiting for a free
connection, or for this generator, is part of it, so that a server that stalls cannot hide its stall
by holding back the questions (coordinated omission).

The generator is a process of its own, `python -m bench.open_loop`: a `Plan` on stdin, one `Window`
a line on stdout. It shares the machine with the server and is therefore cheap: requests are made
beforehand, little is read of an answer, and nothing is logged.
"""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import time
from collections import deque
from collections.abc import Generator, Iterator
from itertools import takewhile
from pathlib import Path

import msgspec
import numpy as np
import uvloop

from bench.alarm import Alarm
from bench.connection import Connection, Job

_HOST = "127.0.0.1"
_FIRST_CONNECTIONS = 64
_MOST_CONNECTIONS = 512
_MOST_WAITING = 4096
_MOST_AT_ONCE = 64
# uvicorn closes a connection that was idle for 5 s; no request should meet the closing.
_STALE_S = 2.0
_DRAIN_S = 20.0
_BLOCK = 4096


class Shape(msgspec.Struct, frozen=True):
    """Requests of one kind: the lines of a file in turn.

    Args:
        name: of the kind.
        path: that they are posted to.
        bodies: the file.
        rate: so many a second.
        status: that is expected.
        deadline_ms: that each request names; 0 for none.
        refusals: statuses that are no error either.
    """

    name: str
    path: str
    bodies: str
    rate: float
    status: int = 200
    deadline_ms: int = 0
    refusals: tuple[int, ...] = ()


class Plan(msgspec.Struct, frozen=True):
    """What to send to a port of this machine for how long, reported in equal windows.

    Args:
        port: that listens.
        shapes: of the requests.
        seconds: for which requests are due.
        windows: how many.
        seed: of the arrivals.
        is_awake: never sleep between requests. Waking a process up is paid for by whoever sends
            to it, the server here; for cores that only the generator uses.
    """

    port: int
    shapes: tuple[Shape, ...]
    seconds: float
    windows: int = 1
    seed: int = 0
    is_awake: bool = False


class Window(msgspec.Struct):
    """What happened since the window before.

    Attributes:
        at_s: when it ended, in seconds since the beginning.
        latency_us: of each shape's expected answers, from the time at which they were due.
        refused_us: the same of refusals that the shape allows, by their status.
        late_us: by how much the generator itself was late, of each request.
        errors: how often each kind of error was met.
        samples: of each shape, the line number of one body and its answer.
        connections: how many are open.
        cpu_s: processor time of the generator.
    """

    latency_us: dict[str, list[int]]
    at_s: float = 0.0
    refused_us: dict[int, list[int]] = {}
    late_us: list[int] = []
    errors: dict[str, int] = {}
    samples: dict[str, tuple[int, bytes]] = {}
    connections: int = 0
    cpu_s: float = 0.0


def windows(plan: Plan) -> Generator[Window, None, None]:
    """A plan carried out in another process; the last window waits for the last answer.

    Raises:
        SystemExit: the generator failed.
    """
    with subprocess.Popen(
        [sys.executable, "-m", "bench.open_loop"],
        cwd=Path(__file__).parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as generator:
        assert generator.stdin is not None
        assert generator.stdout is not None
        try:
            generator.stdin.write(msgspec.json.encode(plan))
            generator.stdin.close()
            for line in generator.stdout:
                yield msgspec.json.decode(line, type=Window)
        except BaseException:  # whoever listened left: nobody waits for the end of the plan
            generator.kill()
            raise
    if generator.returncode:
        raise SystemExit(f"the load generator ended with code {generator.returncode}")


def arrivals(rates: list[float], seed: int) -> Iterator[tuple[float, int]]:
    """Endless times in seconds, each with the number of the rate that it belongs to.

    Poisson processes together are one of the sum of their rates, in which the kind of each arrival
    is drawn by its share.
    """
    random = np.random.default_rng(seed)
    total, last = sum(rates), 0.0
    while True:
        times = last + np.cumsum(random.exponential(1 / total, _BLOCK))
        kinds = random.choice(len(rates), _BLOCK, p=np.array(rates) / total)
        last = float(times[-1])
        yield from zip(times.tolist(), kinds.tolist(), strict=True)


class _OpenLoop:
    """A plan that is being carried out; times are seconds since its beginning."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.requests = [_requests(shape) for shape in plan.shapes]
        self.turn = [0] * len(plan.shapes)
        drawn = arrivals([shape.rate for shape in plan.shapes], plan.seed)
        self.schedule = takewhile(lambda one: one[0] <= plan.seconds, drawn)
        self.next = next(self.schedule, None)
        self.connections: set[Connection] = set()
        self.opening: set[asyncio.Task[None]] = set()
        self.idle: deque[Connection] = deque()
        self.waiting: deque[Job] = deque()
        self.unanswered = 0
        self.done = asyncio.Event()
        self.began = self.cpu = 0.0
        self.window = self._new_window()

    async def run(self) -> None:
        """Send all that is due, wait for the answers, report."""
        for _ in range(_FIRST_CONNECTIONS):
            self._open()
        await asyncio.gather(*self.opening)
        gc.freeze()
        gc.disable()  # requests leave no cycles behind
        self.began, self.cpu = time.monotonic(), time.process_time()
        self.alarm = Alarm(asyncio.get_running_loop(), self._send_due)
        self.alarm.set(self.began)
        if self.plan.is_awake:
            self._stay_awake()
        length = self.plan.seconds / self.plan.windows
        for number in range(1, self.plan.windows):
            await asyncio.sleep(number * length - self._now())
            # Elsewhere: whoever reads may take a while.
            await asyncio.to_thread(_write, self._end_window())
        try:
            async with asyncio.timeout(self.plan.seconds + _DRAIN_S - self._now()):
                await self.done.wait()
        except TimeoutError:
            self._count("no answer in time", self.unanswered)
        _write(self._end_window())

    def free(self, connection: Connection) -> None:
        """Give a connection what waits, or let it wait; the longest idle is the first to be used.

        So all take turns, and with them the server's workers that accepted them.
        """
        self.connections.add(connection)
        if self.waiting:
            connection.send(self.waiting.popleft())
        else:
            connection.idle_since = self._now()
            self.idle.append(connection)

    def answered(self, job: Job, status: int, body: memoryview) -> None:
        """Count an answer."""
        shape = self.plan.shapes[job.kind]
        latency_us = int((self._now() - job.due) * 1e6)
        if status in shape.refusals:
            self.window.refused_us.setdefault(status, []).append(latency_us)
        elif status == shape.status:
            self.window.latency_us[shape.name].append(latency_us)
            if shape.name not in self.window.samples:
                self.window.samples[shape.name] = (job.place, bytes(body))
        else:
            self._count(f"{shape.name}: status {status}")
        self._end_one()

    def lost(self, connection: Connection) -> None:
        """Count a request that died with its connection."""
        self.connections.discard(connection)
        if connection.job is not None:
            self._count("connection closed before a whole answer")
            self._end_one()
        elif connection in self.idle:
            self.idle.remove(connection)
        if self.waiting:
            self._open()

    def _now(self) -> float:
        return time.monotonic() - self.began

    def _count(self, error: str, times: int = 1) -> None:
        self.window.errors[error] = self.window.errors.get(error, 0) + times

    def _end_one(self) -> None:
        self.unanswered -= 1
        if self.next is None and not self.unanswered:
            self.done.set()

    def _send_due(self) -> None:
        # Not without end: where sending takes longer than the gaps, answers must be read too.
        for _ in range(_MOST_AT_ONCE):
            if self.next is None:
                break
            (due, kind), now = self.next, self._now()
            if due > now:
                break
            self.window.late_us.append(int((now - due) * 1e6))
            self.unanswered += 1
            place = self.turn[kind]
            self.turn[kind] = (place + 1) % len(self.requests[kind])
            self._send(Job(due, kind, place, self.requests[kind][place]), now)
            self.next = next(self.schedule, None)
        if self.next is not None:
            self.alarm.set(self.began + self.next[0])
            return
        self.alarm.close()
        if not self.unanswered:
            self.done.set()

    def _stay_awake(self) -> None:
        # A loop with something left to call looks for what arrived, and does not wait for it.
        if not self.done.is_set():
            asyncio.get_running_loop().call_soon(self._stay_awake)

    def _send(self, job: Job, now: float) -> None:
        while self.idle:
            connection = self.idle.popleft()
            if now - connection.idle_since < _STALE_S:
                connection.send(job)
                return
            connection.transport.close()
        if len(self.waiting) == _MOST_WAITING:
            self._count("not sent: too many wait")
            self._end_one()
            return
        self.waiting.append(job)
        if len(self.connections) + len(self.opening) < _MOST_CONNECTIONS:
            self._open()

    def _open(self) -> None:
        task = asyncio.get_running_loop().create_task(self._connect())
        self.opening.add(task)
        task.add_done_callback(self.opening.discard)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: Connection(self), _HOST, self.plan.port)
        except OSError as error:
            self._count(f"cannot connect: {type(error).__name__}")

    def _new_window(self) -> Window:
        return Window({shape.name: [] for shape in self.plan.shapes})

    def _end_window(self) -> Window:
        ended, self.window = self.window, self._new_window()
        ended.at_s, ended.connections = self._now(), len(self.connections)
        before, self.cpu = self.cpu, time.process_time()
        ended.cpu_s = self.cpu - before
        return ended


def _requests(shape: Shape) -> list[bytes]:
    head = f"POST {shape.path} HTTP/1.1\r\nhost: {_HOST}\r\ncontent-type: application/json\r\n"
    if shape.deadline_ms:
        head += f"x-deadline-ms: {shape.deadline_ms}\r\n"
    return [
        f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
        for body in Path(shape.bodies).read_bytes().splitlines()
    ]


def _write(window: Window) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(window) + b"\n")
    sys.stdout.buffer.flush()


def main() -> None:
    """Carry out the plan on stdin."""
    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=Plan)
    uvloop.run(_OpenLoop(plan).run())


if __name__ == "__main__":
    main()
