"""The direct way of a request for a score: no task, and none of ASGI's messages.

It is judged when its head is there, decoded and queued when its body is, and answered when the
batcher has its scores, each by whoever holds the event loop just then. The long way is a task that
`service.routes` leads. It is for whoever waits behind another request of the connection, wants to
close it, or sends a body in chunks, and for requests that are logged or seen by a second version.
"""

from __future__ import annotations

import asyncio
import time
import typing
from dataclasses import dataclass, field
from typing import ClassVar

from service.batcher import Coming
from service.errors import (
    CLOSE,
    Answer,
    ClientGone,
    HeaderError,
    Overloaded,
    overload_response,
    response_to,
)
from service.incoming import Headers, Scope, deadline_of, length_of
from service.model import Model
from service.prepared import Prepared
from service.routes import ScoreRoute
from service.scorer import Floats
from service.waiting import Client


class Connection(typing.Protocol):
    """Where a request came from and its answer goes."""

    peer: Client

    def send(self, exchange: Exchange, answer: bytes) -> None:
        """Write the answer."""


@dataclass(slots=True, eq=False)
class Exchange:
    """One request and its answer; to the batcher, the future that gets the scores.

    Args:
        route: answers it.
        model: scores it.
        length: bytes of the body.
        expected: rows, by that length.
        coming: counts these rows until the body is whole; None where they are not counted.
        arrived: when the head was there, on the batcher's clock.
        deadline: when the answer loses its worth, on the same.
    """

    route: ScoreRoute
    model: Model
    length: int
    expected: int
    coming: Coming | None
    arrived: float
    deadline: float
    pieces: list[bytes] = field(default_factory=list)  # of the body, as they arrive
    completed: float = 0.0  # when the body's last byte was there
    connection: Connection = field(init=False)
    request: Prepared = field(init=False)
    # In the place of uvicorn's cycle of request and answer: what its protocol asks of one, or sets.
    scope: Scope = field(init=False)
    keep_alive: bool = True
    disconnected: bool = False
    response_complete: bool = False
    message_event: ClassVar[asyncio.Event] = asyncio.Event()  # nobody waits for it

    @property
    def response_started(self) -> bool:
        """Whether it was answered: that is one write."""
        return self.response_complete

    def begin(self, connection: Connection, scope: Scope) -> None:
        """Stand on a connection."""
        self.connection, self.scope = connection, scope

    def complete(self) -> None:
        """Decode what was asked and queue it: the body is whole."""
        self.completed = time.perf_counter()
        body = b"".join(self.pieces)
        self.pieces.clear()
        if self.coming is not None:  # from here on they wait
            self.coming.rows -= self.expected
        try:
            request = self.route.prepare(self.model, body, self.length, self.deadline)
            self.request = request
            self.model.batcher.put(
                request.context,
                request.candidate,
                self,
                self.deadline,
                self.connection.peer,
                request.partial,
            )
        except Exception as error:
            self.set_exception(error)

    def lose(self) -> None:
        """The client left before the end of its body."""
        self.set_exception(ClientGone("the client went away"))

    def done(self) -> bool:
        """Whether it was answered."""
        return self.response_complete

    def set_result(self, scored: tuple[Floats, Floats]) -> None:
        """Answer with the scores, `[rows]` each."""
        try:
            answer = self.route.answer(self.model, self.request, scored)
        except Exception as error:
            self.set_exception(error)
        else:
            self._send(answer, len(scored[0]))

    def set_exception(self, error: Exception) -> None:
        """Answer with an error."""
        self._send(self.route.failed(error), 0)

    def _send(self, answer: Answer, rows: int) -> None:
        self.response_complete = True
        status = answer[0]
        if status != ClientGone.status:
            more = () if self.keep_alive else (CLOSE,)
            self.connection.send(self, response_to(answer, *more))
        self.route.observe(status, rows, self.arrived, self.completed)
        # The connection holds this until its next request, or for ever if that would be a ring:
        # it is to hold no rows, no version, and not itself.
        self.connection = self.model = self.request = None  # type: ignore[assignment]


def exchange_of(route: ScoreRoute, model: Model, headers: Headers) -> Exchange | bytes | None:
    """A request whose head is there, or the answer that refuses it; None: it goes the long way.

    Args:
        route: that it asks.
        model: which answers.
        headers: of the request, their names in lower case.
    """
    arrived, length = time.perf_counter(), length_of(headers)
    try:
        deadline = deadline_of(headers, arrived, route.settings.default_deadline_ms)
    except HeaderError:  # which the long way refuses
        return None
    expected, coming = route.expected.of(length), None
    # Before the length is looked at: whatever way it would go, it is not let in in vain.
    if model.batcher.is_busy:
        excess = model.batcher.expect(expected, deadline)
        if excess is not None:
            route.telemetry.refuse(excess)
            route.observe(Overloaded.status, 0, arrived, arrived)
            return overload_response(excess)
        coming = model.batcher.coming
    if not 0 < length <= route.settings.max_body_bytes:
        return None
    return Exchange(route, model, length, expected, coming, arrived, deadline)
