"""HTTP/1.1 as uvicorn speaks it over httptools, with what uvicorn leaves out.

- A request's head is bounded in bytes and in headers. So is what stands around the pieces of a
  chunked body, counted from the first read in which no head or piece ends; nothing of it is kept.
- Another version of HTTP, no Host or two, and a transfer coding beside chunked are refused.
- A request that does not arrive in time is ended, and so is an answer that nobody reads.
- Whoever is refused after requests that are still being answered gets those answers first.
- Connections beyond a number are refused.
- What the application takes or refuses at its head becomes no task (`service.exchange`), and its
  answer is one write.
- Whoever waits for a run learns that the connection is gone, by a flag (`service.waiting.Client`).

What is in the way of a request that arrives in one piece is kept to a few comparisons; there is one
timer for each connection, not for each request.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service.errors import CLOSE, problem_answer, response_to
from service.exchange import Exchange
from service.incoming import Scope
from service.waiting import Client

MOST_PIPELINED = 256
# Takes trailers and keeps none: they were not there when the request was judged.
_DROPPED: Any = deque(maxlen=0)
_TOLD = {
    400: "this is not a request in HTTP/1.1, with one Host and no transfer coding but chunked",
    408: "the request did not arrive in time",
    429: "too many requests wait on this connection",
    431: "the head of the request is too large",
    503: "too many connections",
    505: "the version of HTTP must be 1.1 or 1.0",
}
_REASONS = {
    400: "not_http",
    408: "slow_request",
    429: "pipelined",
    431: "large_head",
    503: "connections",
    505: "not_http",
}


@dataclass(frozen=True)
class ConnectionLimits:
    """Bounds of a worker's connections.

    Args:
        connections: most that are open.
        header_bytes: most bytes of a head, of trailers and of a chunk's extensions.
        headers: most headers.
        read_s: within which a request must have arrived.
        refuse: counts a refusal under its reason.
        at_head: what the application makes of a request at its head, by method, target and
            scope, which has all but these two: an exchange or the answer of a refusal; None for
            one that is to be a task.
    """

    connections: int
    header_bytes: int
    headers: int
    read_s: float
    refuse: Callable[[str], None]
    at_head: Callable[[bytes, bytes, Scope], Exchange | bytes | None]


class Protocol(HttpToolsProtocol):
    """One connection.

    Args:
        limits: of all connections.
        given: as uvicorn gives them.
    """

    def __init__(self, limits: ConnectionLimits, **given: Any) -> None:
        super().__init__(**given)
        self.limits = limits
        self.peer = Client()
        # uvicorn copies this into every scope as `state`.
        self.app_state = self.app_state | {"client": self.peer}
        self.whole: Any = None  # scope of the last request that arrived to its end
        self.arriving: Exchange | None = None  # without a task, and its body is not there yet
        self.turned_away: object = object()  # scope of the last request refused at its head
        self.since: float | None = None  # when a request began to arrive that has not ended yet
        self.quiet_since = 0.0  # when a request or an answer ended last
        self.closing_since: float | None = None  # when it was first seen that it is to be closed
        self.unread_since: float | None = None  # when the client had left too much unread
        self.stray = 0  # bytes since the last whole head or piece of a body
        self.refused_with = 0
        self.owed = 0  # status of a refusal that waits for the answers before it
        self.timer: asyncio.TimerHandle | None = None
        # No later than what it looks for can be due: it need not be set anew by each request.
        self.look_s = min(limits.read_s, self.timeout_keep_alive)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin; called by the loop."""
        super().connection_made(transport)
        self.since = self.loop.time()
        self.timer = self.loop.call_later(self.look_s, self._watch)
        if len(self.connections) > self.limits.connections:
            self._refuse(503)

    def connection_lost(self, exc: Exception | None) -> None:
        """End; called by the loop."""
        self.peer.is_gone = True
        if self.arriving is not None:
            self.arriving.lose()
            self.arriving = None
        if self.timer is not None:
            self.timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take a piece of what the client sends."""
        if self.is_refused:  # the rest is of no interest
            return
        whole = self.whole
        self.stray += len(data)
        super().data_received(data)
        if self.whole is not whole:  # a request ended, and perhaps the next began
            self.since = None if self.whole is self.scope else self.loop.time()
        elif self.since is None and self.whole is not self.scope:
            self.since = self.loop.time()
        if self.stray > self.limits.header_bytes and not self.is_refused:
            self._refuse(431)

    def on_headers_complete(self) -> None:
        """Begin a request; called by the parser."""
        limits = self.limits
        if len(self.pipeline) >= MOST_PIPELINED:
            self.refused_with = 429
        elif len(self.headers) > limits.headers or (
            self.stray > limits.header_bytes and self._head_bytes() > limits.header_bytes
        ):
            self.refused_with = 431
        elif self.parser.should_upgrade() and self._has_body():
            # The parser ends such a request with its head: its body would be the next request.
            self.refused_with = 400
        else:
            self.refused_with = self._fault()
        if self.refused_with:
            raise ValueError(self.refused_with)  # to the parser, which stops
        self.stray = 0
        begun = self._at_head()
        if begun is None:
            self.scope["state"]["arrived"] = time.perf_counter()
            super().on_headers_complete()
        elif isinstance(begun, bytes):
            self.turned_away = self.scope
            self.transport.write(begun)
        else:
            begun.begin(self, self.scope)  # type: ignore[arg-type]
            self.arriving = begun
            self.cycle = begun  # type: ignore[assignment]
        self.headers = _DROPPED

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body; called by the parser."""
        self.stray = 0
        if self.arriving is not None:
            self.arriving.pieces.append(body)
        elif self.turned_away is not self.scope:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request; called by the parser."""
        self.whole = self.scope
        self.quiet_since = self.loop.time()
        if self.arriving is not None:
            whole, self.arriving = self.arriving, None
            whole.complete()
        elif self.turned_away is not self.scope:
            self.scope["state"]["ended"] = time.perf_counter()
            super().on_message_complete()
        elif self.server_state.default_headers:  # the server ends, and this was the last
            self.transport.close()

    def on_response_complete(self) -> None:
        """Go on to the next request, or refuse it; called when a request has been answered.

        As uvicorn's, which starts a timer for each: that takes as long as the answer's write.
        """
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self.owed:
            self._write_refusal(self.owed)
            self.transport.close()
        self.quiet_since = self.loop.time()

    def send(self, exchange: Exchange, answer: bytes) -> None:
        """Write the answer of an exchange, and go on to the next request."""
        if self.transport.is_closing():
            return
        self.transport.write(answer)
        if not exchange.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what the parser did not take; called by uvicorn."""
        self._refuse(self.refused_with or 400)

    def shutdown(self) -> None:
        """Close as soon as nothing is on its way; called by uvicorn when the server ends."""
        if self.whole is self.scope:
            super().shutdown()
        elif self.cycle is not None:  # half a request: its answer is the last, or the timer ends it
            self.cycle.keep_alive = False

    def pause_writing(self) -> None:
        """Note that nobody reads; called by the transport when it holds too much."""
        self.unread_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        """Note that somebody reads again; called by the transport."""
        self.unread_since = None
        super().resume_writing()

    @property
    def is_refused(self) -> bool:
        """Whether nothing more is taken of what the client sends."""
        return bool(self.owed) or self.transport.is_closing()

    @property
    def _is_answered(self) -> bool:
        """Whether no answer is due."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is None or cycle.response_complete

    def _fault(self) -> int:
        """The status that RFC 9112 wants for a head that the parser took; 0 for none.

        §3.2: one Host, or none in HTTP/1.0. §6.1: chunked is the one transfer coding known here,
        and HTTP/1.0 has none.
        """
        version = self.parser.get_http_version()
        names = [name for name, _ in self.headers]
        if version != "1.1":
            if version != "1.0":
                return 505
            if b"transfer-encoding" in names:
                return 400
        if names.count(b"host") != 1 and (version == "1.1" or b"host" in names):
            return 400
        if b"transfer-encoding" in names:
            given = [value for name, value in self.headers if name == b"transfer-encoding"]
            return 0 if len(given) == 1 and given[0].strip().lower() == b"chunked" else 400
        return 0

    def _at_head(self) -> Exchange | bytes | None:
        """What the application makes of a request at its head, where it may be asked.

        No answer may be due before it, and the connection must stay and be read from: whoever
        closes it, or waits for leave to send the body, is on the long way.
        """
        is_last = bool(self.server_state.default_headers) or not self.parser.should_keep_alive()
        if not self._is_answered or is_last or self.expect_100_continue or self.flow.write_paused:
            return None
        if self.parser.get_http_version() != "1.1":  # 1.0 keeps only what the answer says is kept
            return None
        scope: Any = self.scope
        return self.limits.at_head(self.parser.get_method(), self.url, scope)

    def _has_body(self) -> bool:
        return any(
            name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0"))
            for name, value in self.headers
        )

    def _head_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _watch(self) -> None:
        """End a request that arrives too slowly, and a connection that is idle or not read from."""
        now, patience = self.loop.time(), self.limits.read_s
        if self.closing_since is None and self.transport.is_closing():
            self.closing_since = now
        if any(
            since is not None and now >= since + patience
            for since in (self.unread_since, self.closing_since)
        ):
            self.transport.abort()
            return
        left = self.look_s
        if self.closing_since is not None:
            left = min(left, self.closing_since + patience - now)
        elif self.since is not None:
            left = min(left, self.since + patience - now)
        elif self._is_answered:
            left = min(left, self.quiet_since + self.timeout_keep_alive - now)
        if left <= 0:
            self._end_slow()
            left = self.look_s
        self.timer = self.loop.call_later(left, self._watch)

    def _end_slow(self) -> None:
        if self.scope is self.whole:  # nothing of a request arrived: there is nothing to answer
            self.transport.close()
        else:
            self._refuse(408)

    def _refuse(self, status: int) -> None:
        """Answer, where an answer is still due, and close; in its turn, if others come first."""
        self.limits.refuse(_REASONS[status])
        cycle: RequestResponseCycle | None = self.cycle
        is_begun = cycle is not None and cycle.scope is self.scope
        is_next = is_begun or cycle is None or cycle.response_complete
        if is_begun and self.pipeline:
            self.pipeline.popleft()  # itself: it will not be run
            is_next = False
        if not is_next:
            self.owed, self.since = status, None
            return
        is_answered = self.turned_away is self.scope
        if cycle is not None and is_begun:
            is_answered = cycle.response_started
        if not is_answered:
            self._write_refusal(status)
        self.transport.close()

    def _write_refusal(self, status: int) -> None:
        self.transport.write(response_to(problem_answer(status, _TOLD[status]), CLOSE))
