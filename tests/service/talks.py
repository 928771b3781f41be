"""Conversations with the protocol over a transport that is none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from uvicorn import Config
from uvicorn.server import ServerState

from service.incoming import arrival_of, end_of
from service.protocol import ConnectionLimits, Protocol

PATIENCE_S = 0.05


class Sink:
    """A transport that remembers what was asked of it."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def write(self, data: bytes) -> None:
        if not self.is_closing():  # what comes later is never sent
            self.told.append(data)

    def close(self) -> None:
        self.told.append("close")

    def is_closing(self) -> bool:
        return "close" in self.told


class Wire(Sink):
    """A transport to a client; it is closed once the client has read all, unless it is stuck."""

    def __init__(self) -> None:
        super().__init__()
        self.protocol: Protocol | None = None
        self.is_stuck = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def pause_reading(self) -> None:
        """No test sends so much that it matters."""

    resume_reading = pause_reading

    def close(self) -> None:
        if not self.is_closing() and not self.is_stuck:
            self.lose()
        super().close()

    def abort(self) -> None:
        self.told.append("abort")
        self.lose()

    def lose(self) -> None:
        assert self.protocol is not None
        asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)


class Talk:
    """A connection to an application that answers with the path and the body.

    Args:
        connections: of the same server.
        most: of those.
        keep_alive_s: seconds that an idle one is kept.
    """

    def __init__(
        self, connections: set[Any] | None = None, most: int = 9, keep_alive_s: float = 9
    ) -> None:
        self.run: list[str] = []
        self.arrived: list[float] = []
        self.ended: list[float] = []
        self.turns: dict[bytes, bytes] = {}  # targets that are refused at their head
        self.headers: list[tuple[bytes, bytes]] = []
        self.refused: list[str] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        limits = ConnectionLimits(
            most,
            1000,
            10,
            PATIENCE_S,
            self.refused.append,
            self.at_head,
        )
        config = Config(self.app, interface="asgi3", ws="none", log_config=None, access_log=False)
        config.timeout_keep_alive = keep_alive_s  # type: ignore[assignment]
        state = ServerState()
        state.connections = connections if connections is not None else set()
        loop = asyncio.get_running_loop()
        self.protocol = Protocol(
            limits, config=config, server_state=state, app_state={}, _loop=loop
        )
        self.tasks = state.tasks
        self.wire = Wire()
        self.wire.protocol = self.protocol
        self.protocol.connection_made(self.wire)  # type: ignore[arg-type]

    def at_head(self, method: bytes, target: bytes, scope: Any) -> Any:
        return self.turns.get(target)

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        body, message = b"", {"more_body": True}
        while message.get("more_body"):
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message["body"]
        await self.may_answer.wait()
        self.run.append(scope["path"])
        self.arrived.append(arrival_of(scope))
        self.ended.append(end_of(scope))
        self.headers = scope["headers"]
        answer = scope["path"].encode() + body
        length = (b"content-length", str(len(answer)).encode())
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": answer})

    async def say(self, *pieces: bytes) -> None:
        """Send pieces, each in turns of its own of the loop."""
        for piece in pieces:
            self.protocol.data_received(piece)
            await asyncio.sleep(0)
        for _ in range(20):
            await asyncio.sleep(0)

    async def wait(self, patiences: float) -> None:
        await asyncio.sleep(PATIENCE_S * patiences)

    @property
    def answers(self) -> list[tuple[int, bytes]]:
        """Status and body of what was sent."""
        sent = b"".join(data for data in self.wire.told if isinstance(data, bytes))
        parts = [part.partition(b"\r\n\r\n") for part in sent.split(b"HTTP/1.1 ")[1:]]
        return [(int(head[:3]), body) for head, _, body in parts]

    @property
    def is_over(self) -> bool:
        return self.protocol not in self.protocol.connections


def talk(act: Callable[[], Coroutine[Any, Any, Talk]]) -> Talk:
    """What came of a conversation; no task and no timer may outlive a connection that is over."""

    async def whole() -> Talk:
        talk = await act()
        if talk.is_over:
            assert not talk.tasks
            assert talk.protocol.timer is not None
            assert talk.protocol.timer.cancelled()
        return talk

    return asyncio.run(whole())


def request(path: str = "/a", body: bytes = b"", *headers: bytes) -> bytes:
    length = b"content-length: %d" % len(body)
    lines = [f"POST {path} HTTP/1.1".encode(), b"host: x", length, *headers, b"", body]
    return b"\r\n".join(lines)


async def said(*pieces: bytes, patiences: float = 0) -> Talk:
    talk = Talk()
    await talk.say(*pieces)
    await talk.wait(patiences)
    return talk
