"""Constant load, every answer checked."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from itertools import count, cycle
from types import TracebackType
from typing import NamedTuple

from tests.chaos.questions import Question

CONNECTIONS = 8
PAUSE_S = 0.004
PATIENCE_S = 20.0
_REOPENED_AFTER = 50
_BACK_OFF_S = 0.1


class Failure(NamedTuple):
    """A request without a 200: the client's port, and what came instead."""

    port: int
    told: str


class Client(threading.Thread):
    """Asks on one connection after another, and waits for each answer.

    Args:
        load: that it belongs to.
        first: question that it begins with.
    """

    def __init__(self, load: Load, first: int) -> None:
        super().__init__(daemon=True)
        self.load = load
        self.questions = cycle([*load.questions[first:], *load.questions[:first]])
        self.port = 0
        self.requests = 0
        self.worst_s = 0.0
        self.failed: list[Failure] = []
        self.wrong: list[str] = []

    def run(self) -> None:
        while not self.load.stopping.is_set():
            connection = http.client.HTTPConnection(self.load.host, timeout=PATIENCE_S)
            with closing(connection):
                try:
                    connection.connect()
                except OSError as error:
                    if self.load.until_refused:
                        return
                    self.requests += 1
                    self._fail(Failure(0, repr(error)))
                else:
                    self._converse(connection)

    def _converse(self, connection: http.client.HTTPConnection) -> None:
        self.port = port = connection.sock.getsockname()[1]
        for number in count():
            if self.load.stopping.is_set():
                return
            if number >= _REOPENED_AFTER and self.load.reopens.is_set():
                return
            try:
                ends = self._ask(connection, port)
            except (OSError, http.client.HTTPException) as error:
                if number or not self.load.until_refused or not _was_reset(error):
                    self._fail(Failure(port, repr(error)))
                return
            if ends:
                return
            time.sleep(self.load.pause_s)

    def _fail(self, failure: Failure) -> None:
        """Note it, and wait a moment before the next connection.

        A process that is killed closes its sockets one after the other: who comes back at once may
        meet its listener, which is closed next.
        """
        self.failed.append(failure)
        time.sleep(_BACK_OFF_S)

    def _ask(self, connection: http.client.HTTPConnection, port: int) -> bool:
        """Ask once; whether the server closes the connection after it."""
        question = next(self.questions)
        self.requests += 1
        began = time.perf_counter()
        connection.request("POST", question.path, question.body)
        answer = connection.getresponse()
        body = answer.read()
        self.worst_s = max(self.worst_s, time.perf_counter() - began)
        if answer.status != 200:
            self.failed.append(Failure(port, f"{answer.status} {body[:300]!r}"))
        elif not question.is_right(body):
            self.wrong.append(f"{question.path}: {body[:300]!r}")
        return answer.will_close


def _was_reset(error: Exception) -> bool:
    """Whether the server never read: it is no failure to close the door, but to hang up is."""
    is_reset = isinstance(error, ConnectionResetError | BrokenPipeError)
    return is_reset and not isinstance(error, http.client.RemoteDisconnected)


class Load:
    """Clients that ask while this context is open.

    Args:
        address: of the server.
        questions: that are asked in turn.
        pause_s: of each client between an answer and its next request.
        until_refused: whether a client leaves when it is refused a connection, which is a failure
            else.
    """

    def __init__(
        self,
        address: str,
        questions: Sequence[Question],
        pause_s: float = PAUSE_S,
        until_refused: bool = False,
    ) -> None:
        self.host = address.removeprefix("http://")
        self.questions = questions
        self.pause_s, self.until_refused = pause_s, until_refused
        self.stopping, self.reopens = threading.Event(), threading.Event()
        self.reopens.set()
        self.clients = [Client(self, number) for number in range(CONNECTIONS)]

    def __enter__(self) -> Load:
        for client in self.clients:
            client.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stopping.set()
        self.wait()

    def wait(self) -> None:
        """Wait until every client has left."""
        for client in self.clients:
            client.join(2 * PATIENCE_S)

    @property
    def ports(self) -> set[int]:
        """Of the clients' present connections."""
        return {client.port for client in self.clients}

    @property
    def requests(self) -> int:
        return sum(client.requests for client in self.clients)

    @property
    def failed(self) -> list[Failure]:
        return [failure for client in self.clients for failure in client.failed]

    @property
    def wrong(self) -> list[str]:
        return [wrong for client in self.clients for wrong in client.wrong]

    @property
    def worst_s(self) -> float:
        return max(client.worst_s for client in self.clients)
