"""A client's connection: one request at a time in HTTP/1.1, with the least work for an answer."""

from __future__ import annotations

import asyncio
import os
from typing import NamedTuple, Protocol, cast


class Head(NamedTuple):
    """Of an answer: its status, where its body begins and ends, whether the connection stays."""

    status: int
    start: int
    end: int
    stays: bool


class Job(NamedTuple):
    """A request: when it was due, which shape it has, which body of that shape, all its bytes."""

    due: float
    kind: int
    place: int
    request: bytes


class Owner(Protocol):
    """Who hands out the requests of a connection."""

    def free(self, connection: Connection) -> None:
        """It can take a request."""

    def answered(self, job: Job, status: int, body: memoryview) -> None:
        """A request has its answer; the body is gone afterwards."""

    def lost(self, connection: Connection) -> None:
        """It is closed; its job, if any, has no answer."""


class Connection(asyncio.Protocol):
    """A connection that belongs to a generator of load."""

    def __init__(self, owner: Owner) -> None:
        self.owner = owner
        self.job: Job | None = None
        self.idle_since = 0.0
        self._buffer = bytearray()
        self._needed = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for a request."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's own is no subclass
        self._descriptor: int = transport.get_extra_info("socket").fileno()
        self.owner.free(self)

    def send(self, job: Job) -> None:
        """Send a request; the one before must have its answer."""
        self.job = job
        # Past uvloop, which would write only in a further turn of its loop.
        try:
            sent = os.write(self._descriptor, job.request)
        except BlockingIOError:
            sent = 0
        except OSError:  # closed by the server; the loop will tell
            return
        if sent < len(job.request):
            self.transport.write(job.request[sent:])

    def data_received(self, data: bytes) -> None:
        """Take a piece of the answer."""
        self._buffer += data
        if len(self._buffer) < self._needed:
            return
        try:
            head = read_head(self._buffer)
        except ValueError:
            self.transport.abort()
            return
        if head is None:
            return
        self._needed = head.end
        if len(self._buffer) >= head.end:
            self._end(head)

    def _end(self, head: Head) -> None:
        job, buffer = self.job, self._buffer
        if job is None or len(buffer) > head.end:  # nobody asked for that
            self.transport.abort()
            return
        self.job, self._buffer, self._needed = None, bytearray(), 0
        self.owner.answered(job, head.status, memoryview(buffer)[head.start :])
        if head.stays:
            self.owner.free(self)
        else:
            self.transport.close()

    def connection_lost(self, _: Exception | None) -> None:
        """Tell the owner."""
        self.owner.lost(self)


def read_head(data: bytes | bytearray) -> Head | None:
    """The head of an answer; None while it is not complete.

    Raises:
        ValueError: this is no answer of HTTP/1.1 that says its length.
    """
    start = data.find(b"\r\n\r\n") + 4
    if start == 3:
        return None
    head = bytes(data[:start]).lower()
    place = head.find(b"\r\ncontent-length:")
    if not head.startswith(b"http/1.1 ") or place < 0:
        raise ValueError("not an answer of HTTP/1.1 that says its length")
    place += len(b"\r\ncontent-length:")
    length = int(head[place : head.index(b"\r", place)])
    return Head(int(head[9:12]), start, start + length, b"\r\nconnection: close" not in head)
