"""An optional log of a share of the requests, as JSON lines; without it no log holds request data.

Rules:
- Of a body only the fields that were named are kept: what nobody thought of stays out.
- A request waits for nothing here. A thread parses and writes; what it has no room for, or cannot
  write (a full disk), is lost and counted, and the request is answered all the same.
- Requests with an `X-Request-Id` are chosen by it: services that keep the same share keep the same.
"""

from __future__ import annotations

import logging
import os
import queue
import random
import threading
import time
import zlib
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from service.documents import decode_json
from service.errors import RequestError
from service.incoming import Copying, Receive, Scope, path_of
from service.settings import Settings

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Route = Callable[[Scope, Receive, Send], Awaitable[None]]
_MOST_WAITING = 64
# A larger body is logged without its content: parsing it would hold the interpreter's lock.
_LARGEST_LOGGED_BYTES = 256 << 10
_LONGEST_ID = 128
_END_S = 1.0
_log = logging.getLogger("deepfm")


class RequestLog(Collector):
    """Writes what it is given on a thread of its own.

    Args:
        file: is opened anew when it was moved away (logrotate); `-` is stdout.
        share: of the requests, 0 to 1.
        fields: whose values are kept; `id` keeps the candidates' ids.
    """

    def __init__(self, file: Path, share: float, fields: frozenset[str]) -> None:
        self._file, self._share, self._fields = file, share, fields
        self._waiting: queue.Queue[tuple[dict[str, Any], bytes] | None] = queue.Queue(_MOST_WAITING)
        self._thread = threading.Thread(target=self._work, name="request-log", daemon=True)
        self._out: int | None = None
        self.written = 0
        self.lost = 0

    @classmethod
    def of(cls, settings: Settings) -> RequestLog | None:
        """The log that the settings ask for, or None."""
        if settings.request_log is None:
            return None
        fields = frozenset(settings.request_log_fields)
        return cls(settings.request_log, settings.request_log_share, fields)

    def start(self) -> None:
        """Begin to write; after the last fork."""
        self._thread.start()

    def stop(self) -> None:
        """Write what waits, for a while."""
        try:
            self._waiting.put(None, timeout=_END_S)
        except queue.Full:
            return
        self._thread.join(_END_S)

    def collect(self) -> Iterator[Metric]:
        """The metrics as prometheus-client exposes them."""
        lines = CounterMetricFamily("deepfm_request_log", "Logged requests", labels=["outcome"])
        lines.add_metric(["written"], self.written)
        lines.add_metric(["lost"], self.lost)
        yield lines

    async def answer(self, route: Route, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a route answer, and log it if it is chosen."""
        if not self.chooses(scope):
            await route(scope, receive, send)
            return
        request_id = _request_id(scope)
        copying = Copying(receive, _LARGEST_LOGGED_BYTES)
        status, started = 499, time.perf_counter()

        async def sending(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        await route(scope, copying, sending)
        entry = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "request_id": request_id,
            "route": path_of(scope),
            "status": status,
            "ms": round((time.perf_counter() - started) * 1000, 3),
            "bytes": copying.length,
        }
        self._give(entry, copying.body)

    def chooses(self, scope: Scope) -> bool:
        """Whether a request is logged; asked again of the same, it says the same."""
        state = scope.setdefault("state", {})
        if "is_logged" not in state:
            state["is_logged"] = self._draws(_request_id(scope))
        is_logged: bool = state["is_logged"]
        return is_logged

    def _draws(self, request_id: str | None) -> bool:
        if request_id is None:
            return random.random() < self._share
        return zlib.crc32(request_id.encode()) < self._share * 2**32

    def _give(self, entry: dict[str, Any], body: bytes) -> None:
        try:
            self._waiting.put_nowait((entry, body))
        except queue.Full:
            self.lost += 1

    def _work(self) -> None:
        while (given := self._waiting.get()) is not None:
            entry, body = given
            entry["body"] = kept(body, self._fields)
            try:
                self._write(msgspec.json.encode(entry) + b"\n")
                self.written += 1
            except OSError as error:
                if not self.lost:
                    _log.warning("%s: the request log fails: %s", self._file, error.strerror)
                self.lost += 1
        if self._out is not None and self._out != 1:
            os.close(self._out)

    def _write(self, line: bytes) -> None:
        """One line in one call, so that those of several workers stay whole.

        Raises:
            OSError: it could not be written.
        """
        out = self._opened()
        written = os.write(out, line)
        if written < len(line):  # a disk that is just full: the rest would be half a line
            os.write(out, b"\n")
            raise OSError(0, "only a part of a line fitted")

    def _opened(self) -> int:
        if str(self._file) == "-":
            return 1
        if self._out is not None:
            try:
                found, held = os.stat(self._file), os.fstat(self._out)
                if (found.st_dev, found.st_ino) == (held.st_dev, held.st_ino):
                    return self._out
            except FileNotFoundError:
                pass
            os.close(self._out)
            self._out = None
        self._out = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        return self._out


def kept(body: bytes, fields: frozenset[str]) -> Any:
    """A body without the values of other fields; None if no route takes it, or none is kept."""
    if not fields:
        return None
    try:
        document = decode_json(body)
    except RequestError:
        return None
    if not isinstance(document, dict):
        return None
    return {
        name: _pruned(document[name], fields)
        for name in ("instances", "columns", "context", "candidates")
        if name in document
    }


def _pruned(value: Any, fields: frozenset[str]) -> Any:
    """Rows, or columns, or a candidate, of which only named fields are left."""
    if isinstance(value, list):
        return [_pruned(row, fields) for row in value if isinstance(row, dict)]
    if not isinstance(value, dict):
        return None
    inner = value.get("features")
    own = {name: item for name, item in value.items() if name in fields and name != "features"}
    return own | {"features": _pruned(inner, fields)} if isinstance(inner, dict) else own


def _request_id(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            text: str = value.decode("latin-1")
            return text[:_LONGEST_ID]
    return None
