"""Conversations with the whole application over the protocol."""

from __future__ import annotations

import json
from typing import Any

from service.app import App
from tests.service.talks import Talk
from tests.service.test_routes import CONTEXT, ITEMS

ROW = json.dumps({"instances": [CONTEXT | ITEMS[0]]}).encode()


class Line(Talk):
    """A connection to the whole application."""

    def __init__(self, service: App, **given: Any) -> None:
        self.service = service
        super().__init__(**given)

    def at_head(self, method: bytes, target: bytes, scope: Any) -> Any:
        return self.service.at_head(method, target, scope)

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        self.run.append(scope["path"])
        await self.service(scope, receive, send)

    @property
    def statuses(self) -> list[int]:
        return [status for status, _ in self.answers]


def chunked(path: str, body: bytes) -> bytes:
    """A request whose body comes in a chunk: it becomes a task."""
    head = b"POST %b HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" % path.encode()
    return head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


def counted(service: App) -> Any:
    """What was counted, without the times."""
    told = service.telemetry
    latency = {route: sum(one.buckets) for route, one in told.latency.items()}
    return dict(told.requests), dict(told.rows), dict(told.warned), dict(told.refused), latency
