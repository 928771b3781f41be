"""What a request says beside its features: version, deadline, client, the bytes of its body."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any
from urllib.parse import parse_qs

from service.errors import ClientGone, HeaderError, Problem, RequestError
from service.waiting import NOBODY, Client

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Headers = Sequence[tuple[bytes, bytes]]

_MOST_DIGITS = 9
_DISCARD_FACTOR = 4
_DISCARD_S = 5.0


def deadline_of(headers: Headers, now: float, default_ms: int) -> float:
    """When the answer loses its worth, on the clock of `now`; infinite if never.

    Args:
        headers: of the request, their names in lower case.
        now: when it arrived, in seconds.
        default_ms: without the header `X-Deadline-Ms`; 0 for none.

    Raises:
        HeaderError: the header is no positive integer, or the body is compressed.
    """
    given = None
    for name, value in headers:
        if name == b"x-deadline-ms":
            given = value
        elif name == b"content-encoding" and value.lower() != b"identity":
            message = "bodies are taken as they are: send this one without Content-Encoding"
            raise HeaderError(message, 415, reason="compressed")
    if given is None:
        return now + default_ms / 1000 if default_ms else math.inf
    if not given.isdigit() or len(given) > _MOST_DIGITS or not int(given):
        raise HeaderError(
            "the header X-Deadline-Ms must be an integer of milliseconds, at least 1 and of at "
            f"most {_MOST_DIGITS} digits"
        )
    return now + int(given) / 1000


def arrival_of(scope: Scope) -> float:
    """When a request's head was there, on `time.perf_counter`; now where no server tells."""
    arrived: float | None = scope.get("state", {}).get("arrived")
    return time.perf_counter() if arrived is None else arrived


def end_of(scope: Scope) -> float:
    """When a request's last byte was there, on `time.perf_counter`; now where it is not yet."""
    ended: float | None = scope.get("state", {}).get("ended")
    return time.perf_counter() if ended is None else ended


def length_of(headers: Headers) -> int:
    """Bytes of the body as its head names them; 0 where it does not."""
    for name, value in headers:
        if name == b"content-length":
            return int(value.lstrip(b"0") or b"0")  # the parser takes any number of zeros
    return 0


def version_of(query: bytes) -> str | None:
    """The version that a query string names; None for none."""
    if not query:
        return None
    values = parse_qs(query.decode("latin-1"), keep_blank_values=True).get("version")
    return values[-1] if values else None


def path_of(scope: Scope) -> str:
    """The path inside the application, which may stand under a prefix."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def client_of(scope: Scope) -> Client:
    """Who sent a request; nobody in particular where the server does not tell."""
    client: Client = scope.get("state", {}).get("client", NOBODY)
    return client


class Copying:
    """A `Receive` that keeps what it passes on.

    Args:
        receive: gives the pieces of a body.
        most_bytes: of a longer body nothing is kept.
    """

    def __init__(self, receive: Receive, most_bytes: int) -> None:
        self._receive, self._most_bytes = receive, most_bytes
        self._parts: list[bytes] = []
        self.length = 0

    async def __call__(self) -> MutableMapping[str, Any]:
        """The next message."""
        message = await self._receive()
        piece: bytes = message.get("body", b"")
        self.length += len(piece)
        self._parts.append(piece)
        if self.length > self._most_bytes:
            self._parts.clear()
        return message

    @property
    def body(self) -> bytes:
        """What was passed on; empty where that was too much."""
        return b"".join(self._parts)


async def read_body(scope: Scope, receive: Receive, most_bytes: int) -> bytes:
    """The request's body, its bytes counted as they arrive.

    Raises:
        RequestError: there are too many (413). The rest is read and thrown away for a while, so
            that the client gets to read the answer.
        ClientGone: the connection was closed before the body's end.
    """
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGone("the client went away")
    body: bytes = message.get("body", b"")
    if message.get("more_body"):
        parts, length = [body], len(body)
        while message.get("more_body") and length <= most_bytes:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone("the client went away")
            parts.append(message.get("body", b""))
            length += len(parts[-1])
        body = b"".join(parts)
    if len(body) > most_bytes:
        await _discard(message, receive, most_bytes)
        text = f"the body is larger than {most_bytes} bytes"
        raise RequestError([Problem("", "too_long", text)], status=413)
    return body


async def _discard(message: MutableMapping[str, Any], receive: Receive, most_bytes: int) -> None:
    left = most_bytes * _DISCARD_FACTOR
    try:
        async with asyncio.timeout(_DISCARD_S):
            while message.get("more_body") and left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
    except TimeoutError:
        return
