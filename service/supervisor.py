"""The parent of several workers: owns the versions they serve, and keeps their number.

It does one thing at a time, in one thread: what forks must not have threads. While it waits for its
workers it goes on reading what they say. A version goes through three steps: one worker loads it,
then all others do, then all switch; where one refuses it before that, nobody switches. A worker
that ends meanwhile is replaced and the new one tries as well: it may have been killed from outside.
A version that goes on killing workers is refused. A worker that starts begins with the version that
answers, and the one that stands beside it.
"""

from __future__ import annotations

import logging
import multiprocessing
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from msgspec import structs

from features.errors import ConfigError
from service.crew import ENDED, Crew, Worker, memory_mb, refusal_of
from service.errors import ServiceError
from service.orders import Answer, Ask, AskBeside, Beside, Done, Drop, Load, Order, Switch
from service.owner import versions_of
from service.settings import Settings
from service.trial import Trial

ENDING = (signal.SIGTERM, signal.SIGINT)
Work = Callable[[Settings, int, Connection], None]
MOST_DEATHS = 3
_PATIENCE_S = 300.0
_MEMORY_LOOK_S = 5.0
_NEXT_TRY_S = 600.0
_log = logging.getLogger("deepfm")


class Supervisor:
    """Starts the workers and watches them until a signal ends it.

    Args:
        settings: of every worker.
        context: how processes are started.
        work: what a worker runs, given the version to begin with and its end of the pipe.
    """

    def __init__(self, settings: Settings, context: Any, work: Work) -> None:
        self._settings, self._context, self._work = settings, context, work
        self.versions = versions_of(settings)
        self.crew = Crew(self._replacement, settings.drain_s + settings.grace_s + 1)
        self._trial: Trial | None = None
        self._orders = 0
        self._versions_at = self._memory_at = 0.0
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
            while len(self.crew.workers) < self._settings.workers and not self._stopping.is_set():
                self.crew.workers.append(self._start(self.versions.current or 0))
            self._watch()
        finally:
            self.crew.end()

    def _start_first(self) -> None:
        """One worker alone: what no worker could serve is said once, and loaded by no other."""
        while not self._stopping.is_set() and self.versions.current is None:
            version = self.versions.due()
            if version is None:
                raise self.versions.nothing_served()
            refusal = self._begin_with(version)
            if refusal is None:
                self.versions.served(version)
            elif refusal.is_final:
                raise ConfigError(refusal.error)
            else:
                self.versions.refuse(version, refusal.error)

    def _begin_with(self, version: int) -> Done | None:
        for _ in range(MOST_DEATHS):
            self.crew.workers = [self._start(version)]
            refusal = self._wait_for(self.crew.workers)
            if refusal is not None or not self._ended(self.crew.workers):
                return refusal
            self.crew.workers[0].forget()
        return _DEADLY

    def _watch(self) -> None:
        self._tell_all()
        if self._settings.trial is not None:
            answer = self.answer(AskBeside(0, self._settings.trial))
            if answer.error:
                _log.error("no second version: %s", answer.error)
        while not self._stopping.is_set():
            self.crew.tick()
            self.crew.replace_ended()
            if self.crew.asked:
                worker, ask = self.crew.asked.popleft()
                worker.tell(self.answer(ask))
            else:
                self._look()

    def _look(self) -> None:
        """Look for a new version or a worker that has grown, when it is time to."""
        poll_s, now = self._settings.reload_poll_s, time.monotonic()
        if poll_s and now >= self._versions_at:
            self._versions_at = now + poll_s
            version = self.versions.due()
            if version is not None:
                with suppress(ServiceError):
                    self._roll_out(version)
        elif self._settings.max_worker_mb and now >= self._memory_at:
            self._memory_at = now + (
                _MEMORY_LOOK_S if self._recycle(self._settings.max_worker_mb) else _NEXT_TRY_S
            )

    def answer(self, ask: Ask | AskBeside) -> Answer:
        """Bring what somebody asks for into all workers, unless it is there already."""
        try:
            if isinstance(ask, AskBeside):
                self._put_beside(ask.trial)
                return Answer(ask.number)
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
        refusal = self._order_all(lambda number: Load(number, version))
        if refusal is not None:
            for worker in self.crew.workers:
                worker.tell(Drop())
            error = self.versions.refuse(version, refusal.error)
            self._tell_all()
            raise error
        # Who ends instead is replaced, by one that begins with this version.
        self.versions.served(version)
        if self._trial is not None and self._trial.version == version:
            self._trial = None
        self._order(self.crew.workers, Switch)
        self._tell_all()

    def _put_beside(self, trial: Trial | None) -> None:
        """Let a second version stand beside the one that answers, in all workers.

        Raises:
            NotFound: no such version lies on disk.
            ReloadRefused: one of them has not loaded it; what stood beside before goes on.
        """
        if trial is not None:
            self.versions.asked_beside(trial.version)
        refusal = self._order_all(lambda number: Beside(number, trial))
        if trial is not None and refusal is not None:
            self._order(self.crew.workers, lambda number: Beside(number, self._trial))
            error = self.versions.refuse(trial.version, refusal.error)
            self._tell_all()
            raise error
        self._trial = trial
        if trial is not None:
            self.versions.stands_beside(trial.version)
        self._tell_all()

    def _order_all(self, order: Callable[[int], Order]) -> Done | None:
        """Let one worker carry out an order, then all others; why one of them does not.

        Who ends meanwhile is replaced, and its successor gets the order too.
        """
        done: set[Worker] = set()
        deaths = 0
        self.crew.replace_ended(0)
        while missing := [worker for worker in self.crew.workers if worker not in done]:
            chosen = missing if done else missing[:1]
            refusal = self._order(chosen, order)
            if refusal is not None:
                return refusal
            ended = self._ended(chosen)
            deaths += len(ended)
            if deaths >= MOST_DEATHS:
                return _DEADLY
            done.update(worker for worker in chosen if worker not in ended)
            self.crew.replace_ended(0)
        return None

    def _order(self, workers: list[Worker], order: Callable[[int], Order]) -> Done | None:
        """Give an order to workers and wait; what the first one says against it."""
        self._orders += 1
        for worker in workers:
            worker.order(order(self._orders))
        return self._wait_for(workers)

    def _wait_for(self, workers: list[Worker]) -> Done | None:
        """Wait until all have carried out their order, or ended; what one says against it."""
        until = time.monotonic() + _PATIENCE_S
        while any(worker.done is None for worker in workers):
            if self._stopping.is_set():
                return Done(0, "the server is ending")
            if time.monotonic() > until:
                return Done(0, f"a worker was not ready within {_PATIENCE_S:.0f} s")
            self.crew.tick()
        return refusal_of(workers)

    def _ended(self, workers: list[Worker]) -> list[Worker]:
        """Those that ended before they had carried out their order."""
        return [w for w in workers if w.done is not None and w.done.error == ENDED]

    def _tell_all(self) -> None:
        for worker in self.crew.workers:
            worker.tell(self.versions.standing)

    def _recycle(self, most_mb: float) -> bool:
        """Let a worker that holds too much memory go, once another one has taken its place.

        Returns:
            Whether to go on so: false where a new worker would fare no better.
        """
        heavy = self.crew.beyond(most_mb)
        if heavy is None:
            return True
        try:
            fresh = self._replacement()
        except OSError as error:
            _log.error("no worker can be started: %s", error.strerror)
            return False
        self.crew.workers.append(fresh)
        refusal = self._wait_for([fresh])
        is_better = (
            refusal is None and not self._ended([fresh]) and memory_mb(fresh.process.pid) <= most_mb
        )
        leaving, staying = (heavy, fresh) if is_better else (fresh, heavy)
        text = "worker %s holds too much memory; %s stays, %s goes"
        _log.warning(text, heavy.process.pid, staying.process.pid, leaving.process.pid)
        leaving.tell(structs.replace(self.versions.standing, is_replaced=True))
        self.crew.dismiss(leaving)
        return is_better

    def _replacement(self) -> Worker:
        """A worker that begins with what is served now."""
        worker = self._start(self.versions.current or 0)
        worker.tell(self.versions.standing)
        if self._trial is not None:
            self._orders += 1
            worker.tell(Beside(self._orders, self._trial))
        return worker

    def _start(self, version: int) -> Worker:
        """A worker that begins with a version.

        Raises:
            OSError: the system has no room for another process.
        """
        ours, theirs = multiprocessing.Pipe()
        process = self._context.Process(
            target=self._work, args=(self._settings, version, theirs), daemon=True
        )
        # Until the worker has its own handler, a signal waits.
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
        try:
            process.start()
        except OSError:
            ours.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
            theirs.close()
        return Worker(process, ours)


_DEADLY = Done(0, f"{MOST_DEATHS} workers ended while they loaded it")
