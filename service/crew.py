"""The workers of a parent: what they say, and what becomes of those that end, hang or grow.

Rules:
- Who ends is replaced.
- Who says nothing for `SILENCE_S`, while another one does, is killed: it has been stopped, or
  hangs. Only time in which the parent itself ran is counted.
- Who holds too much memory is replaced first, and only then told to drain and end; one at a time.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from service.orders import Ask, AskBeside, Channel, Done, Order, ToParent, ToWorker

ENDED = "a worker ended while it loaded it"
SILENCE_S = 10.0
_TICK_S = 0.2
_LONGEST_TICK_S = 1.0
_RESTART_PAUSE_S = 1.0
_log = logging.getLogger("deepfm")


class Worker:
    """A process that serves, and the parent's end of its pipe."""

    def __init__(self, process: BaseProcess, connection: Connection) -> None:
        self.process = process
        self.channel: Channel[ToParent] = Channel(connection, ToParent)
        self.done: Done | None = None
        self.ended_at: float | None = None
        self.silent_s = 0.0
        self._order = 0

    def order(self, order: Order) -> None:
        """Give an order; `done` is its outcome, None until there is one."""
        self._order, self.done = order.number, None
        if self.ended_at is None:
            self.tell(order)
        else:
            self.end()

    def tell(self, message: ToWorker) -> None:
        """Send a message; that a worker has ended is seen when it is read from."""
        with suppress(OSError):
            self.channel.send(message)

    def receive(self) -> Ask | AskBeside | None:
        """Read a message; what somebody asks for, if that is what it is."""
        try:
            message = self.channel.receive()
        except (EOFError, OSError):
            self.end()
            return None
        self.silent_s = 0.0
        if isinstance(message, Ask | AskBeside):
            return message
        if isinstance(message, Done) and message.number == self._order:  # else it comes too late
            self.done = message
        return None

    def end(self) -> None:
        """It is no more; what it said before counts."""
        self.ended_at = self.ended_at or time.monotonic()
        self.done = self.done or Done(self._order, ENDED)

    def forget(self) -> None:
        """Free what is left of one that has ended."""
        self.process.join()
        self.channel.connection.close()


class Crew:
    """All workers of a parent.

    Args:
        start: a new one, which begins with what is served now.
        leave_s: how long one that has been told to end may take.
    """

    def __init__(self, start: Callable[[], Worker], leave_s: float) -> None:
        self.workers: list[Worker] = []
        self.asked: deque[tuple[Worker, Ask | AskBeside]] = deque()
        self._start, self._leave_s = start, leave_s
        self._leaving: dict[Worker, float] = {}
        self._ticked_at = time.monotonic()

    @property
    def everyone(self) -> list[Worker]:
        """Those that serve and those that are leaving."""
        return [*self.workers, *self._leaving]

    def tick(self) -> None:
        """Read what workers have said, or wait a moment for it."""
        living = {w.channel.connection: w for w in self.everyone if w.ended_at is None}
        for connection in wait(list(living), _TICK_S):
            worker = living[connection]  # type: ignore[index]
            ask = worker.receive()
            if ask is not None:
                self.asked.append((worker, ask))
        self._end_silent()
        self._see_off()

    def replace_ended(self, pause_s: float = _RESTART_PAUSE_S) -> None:
        """Start a worker for each that ended so long ago."""
        for place, worker in enumerate(self.workers):
            if worker.ended_at is None or time.monotonic() < worker.ended_at + pause_s:
                continue
            worker.forget()
            _log.warning("worker %s ended with %s", worker.process.pid, worker.process.exitcode)
            try:
                self.workers[place] = self._start()
            except OSError as error:  # no memory or process is left: again after the pause
                _log.error("no worker can be started: %s", error.strerror)
                worker.ended_at = time.monotonic()

    def beyond(self, most_mb: float) -> Worker | None:
        """One that holds more memory, unless one is leaving just now."""
        if self._leaving:
            return None
        living = [w for w in self.workers if w.ended_at is None]
        return next((w for w in living if memory_mb(w.process.pid) > most_mb), None)

    def dismiss(self, worker: Worker) -> None:
        """Let a worker answer what it has, and end; it is one of the crew no more."""
        self.workers.remove(worker)
        self._leaving[worker] = time.monotonic() + self._leave_s
        worker.process.terminate()

    def end(self) -> None:
        """Let all drain and end; kill those that do not."""
        everyone, until = self.everyone, time.monotonic() + self._leave_s
        for worker in everyone:
            worker.process.terminate()
        for worker in everyone:
            worker.process.join(max(0, until - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()

    def _end_silent(self) -> None:
        now = time.monotonic()
        passed, self._ticked_at = min(now - self._ticked_at, _LONGEST_TICK_S), now
        living = [w for w in self.workers if w.ended_at is None]
        for worker in living:
            worker.silent_s += passed
        silent = [w for w in living if w.silent_s > SILENCE_S]
        # Where all are silent, it is the machine that stands still.
        if silent and any(w.silent_s < SILENCE_S / 2 for w in living):
            _log.warning("worker %s is silent, and killed", silent[0].process.pid)
            silent[0].process.kill()

    def _see_off(self) -> None:
        for worker, until in list(self._leaving.items()):
            if worker.ended_at is not None:
                worker.forget()
                del self._leaving[worker]
            elif time.monotonic() > until:
                worker.process.kill()


def memory_mb(pid: int | None) -> float:
    """Memory of a process that no file backs, in MB; 0 where the system does not tell."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon:")) / 1024


def refusal_of(workers: Sequence[Worker]) -> Done | None:
    """What a living worker said against its order, of one of these; None for nothing."""
    said = [w.done for w in workers if w.done is not None]
    return next((done for done in said if done.error and done.error != ENDED), None)
