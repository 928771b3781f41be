"""The parent of several workers: replaces those that end, and owns the versions they serve.

It does one thing at a time, in one thread: what forks must not have threads. While it waits for its
workers it goes on reading what they say. A version goes through three steps: one worker loads it,
then all others do, then all switch; where a step before the last fails, nobody switches. A worker
that starts meanwhile begins with the version that answers.
"""

from __future__ import annotations

import logging
import multiprocessing
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from features.errors import ConfigError
from service.errors import ServiceError
from service.orders import Answer, Ask, Channel, Done, Drop, Load, Switch, ToParent, ToWorker
from service.settings import Settings
from service.versions import Versions

ENDING = (signal.SIGTERM, signal.SIGINT)
Work = Callable[[Settings, int, Connection], None]
_TICK_S = 0.2
_RESTART_PAUSE_S = 1.0
_PATIENCE_S = 300.0
_log = logging.getLogger("deepfm")


class Worker:
    """A process that serves, and the parent's end of its pipe."""

    def __init__(self, process: BaseProcess, connection: Connection) -> None:
        self.process = process
        self.channel: Channel[ToParent] = Channel(connection, ToParent)
        self.done: Done | None = None
        self.ended_at: float | None = None
        self._order = 0

    def order(self, order: Load | Switch) -> None:
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

    def receive(self) -> Ask | None:
        """Read a message; what somebody asks for, if that is what it is."""
        try:
            message = self.channel.receive()
        except (EOFError, OSError):
            self.end()
            return None
        if isinstance(message, Ask):
            return message
        if message.number == self._order:  # else it comes too late
            self.done = message
        return None

    def end(self) -> None:
        """It is no more."""
        self.ended_at = self.ended_at or time.monotonic()
        self.done = Done(self._order, "a worker ended while it loaded it")


class Supervisor:
    """Starts the workers and watches them until a signal ends it.

    Args:
        settings: of every worker.
        context: how processes are started.
        work: what a worker runs, given the version to begin with and its end of the pipe.
    """

    def __init__(self, settings: Settings, context: Any, work: Work) -> None:
        self._settings, self._context, self._work = settings, context, work
        self.versions = Versions(settings.bundle, settings.version)
        self.workers: list[Worker] = []
        self._asked: deque[tuple[Worker, Ask]] = deque()
        self._orders = 0
        self._stopping = threading.Event()

    def run(self) -> None:
        """Serve until a signal comes.

        Raises:
            BundleError: there is no version that passes every check.
            ConfigError: the execution provider cannot be had.
        """
        for number in ENDING:
            signal.signal(number, lambda *_: self._stopping.set())
        try:
            self._start_first()
            while len(self.workers) < self._settings.workers and not self._stopping.is_set():
                self.workers.append(self._start(self.versions.current or 0))
            self._watch()
        finally:
            self._end()

    def _start_first(self) -> None:
        """One worker alone: what no worker could serve is said once, and loaded by no other."""
        while not self._stopping.is_set() and self.versions.current is None:
            version = self.versions.due()
            if version is None:
                raise self.versions.nothing_served()
            self.workers = [self._start(version)]
            done = self._wait_for(self.workers)
            if done is None:
                self.versions.served(version)
            elif done.is_final:
                raise ConfigError(done.error)
            else:
                self.versions.refuse(version, done.error)

    def _watch(self) -> None:
        poll_s, polled_at = self._settings.reload_poll_s, time.monotonic()
        self._tell_all()
        while not self._stopping.is_set():
            self._tick()
            self._replace_ended()
            if self._asked:
                worker, ask = self._asked.popleft()
                worker.tell(self.answer(ask))
            elif poll_s and time.monotonic() - polled_at >= poll_s:
                polled_at = time.monotonic()
                version = self.versions.due()
                if version is not None:
                    with suppress(ServiceError):
                        self._roll_out(version)

    def _tick(self) -> None:
        """Read what workers have said, or wait a moment for it."""
        living = {w.channel.connection: w for w in self.workers if w.ended_at is None}
        for connection in wait(list(living), _TICK_S):
            worker = living[connection]  # type: ignore[index]
            ask = worker.receive()
            if ask is not None:
                self._asked.append((worker, ask))

    def answer(self, ask: Ask) -> Answer:
        """Bring the version that somebody asks for into all workers, unless it answers already."""
        try:
            version = self.versions.asked(ask.version)
            if version != self.versions.current:
                self._roll_out(version)
        except ServiceError as error:
            return Answer(ask.number, error=error.message, status=error.status)
        return Answer(ask.number, version)

    def _roll_out(self, version: int) -> None:
        """Bring a version into all workers.

        Raises:
            ReloadRefused: one of them has not loaded it; none has switched.
        """
        first, *others = self.workers
        failed = self._order(Load, [first], version) or self._order(Load, others, version)
        if failed is not None:
            for worker in self.workers:
                worker.tell(Drop())
            refusal = self.versions.refuse(version, failed.error)
            self._tell_all()
            raise refusal
        # Who ends instead is replaced, by one that begins with this version.
        self.versions.served(version)
        self._order(Switch, self.workers)
        self._tell_all()

    def _order(
        self, kind: type[Load] | type[Switch], workers: list[Worker], *version: int
    ) -> Done | None:
        """Give an order to workers and wait; the first failure."""
        self._orders += 1
        for worker in workers:
            worker.order(kind(self._orders, *version))
        return self._wait_for(workers)

    def _wait_for(self, workers: list[Worker]) -> Done | None:
        """Wait until all have carried out their order; the first failure."""
        until = time.monotonic() + _PATIENCE_S
        while any(worker.done is None for worker in workers):
            if self._stopping.is_set() or time.monotonic() > until:
                return Done(0, f"a worker was not ready within {_PATIENCE_S:.0f} s")
            self._tick()
        return next((w.done for w in workers if w.done is not None and w.done.error), None)

    def _tell_all(self) -> None:
        for worker in self.workers:
            worker.tell(self.versions.standing)

    def _replace_ended(self) -> None:
        for place, worker in enumerate(self.workers):
            if worker.ended_at is None or time.monotonic() < worker.ended_at + _RESTART_PAUSE_S:
                continue
            worker.process.join()
            worker.channel.connection.close()
            _log.warning("worker %s ended with %s", worker.process.pid, worker.process.exitcode)
            self.workers[place] = self._start(self.versions.current or 0)
            self.workers[place].tell(self.versions.standing)

    def _start(self, version: int) -> Worker:
        ours, theirs = multiprocessing.Pipe()
        process = self._context.Process(
            target=self._work, args=(self._settings, version, theirs), daemon=True
        )
        # Until the worker has its own handler, a signal waits.
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
        process.start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
        theirs.close()
        return Worker(process, ours)

    def _end(self) -> None:
        for worker in self.workers:
            worker.process.terminate()
        for worker in self.workers:
            worker.process.join(self._settings.drain_s + self._settings.grace_s + 1)
            if worker.process.is_alive():
                worker.process.kill()
