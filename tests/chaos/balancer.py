"""A load balancer as small as one can be: `python -m tests.chaos.balancer PORT SERVER...`.

It looks at /readyz of its servers, sends each request to one that is ready, and sends it once more
where the connection was refused or ended before a byte of an answer: then no server has read it.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from itertools import count

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_POLL_S = 0.1
_TRIES = 10


class Balancer:
    """Passes requests on.

    Args:
        ports: of the servers, all on 127.0.0.1.
    """

    def __init__(self, ports: list[int]) -> None:
        self.ports = ports
        self.ready = set(ports)
        self.turn = count()

    async def watch(self, port: int) -> None:
        """Look whether a server is ready, for ever."""
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                is_ready = b" 200 " in await reader.readline()
                writer.close()
            except OSError:
                is_ready = False
            (self.ready.add if is_ready else self.ready.discard)(port)
            await asyncio.sleep(_POLL_S)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client, by connections of its own."""
        upstream: dict[int, Streams] = {}
        with suppress(OSError, asyncio.IncompleteReadError):  # the client has left
            while True:
                writer.write(await self.answer(await _message(reader), upstream))
                await writer.drain()
        for _, one in upstream.values():
            one.close()
        writer.close()

    async def answer(self, request: bytes, upstream: dict[int, Streams]) -> bytes:
        """A server's answer, from the first that gives one."""
        for _ in range(_TRIES):
            choice = sorted(self.ready) or self.ports
            port = choice[next(self.turn) % len(choice)]
            with suppress(ConnectionError):
                if port not in upstream:
                    upstream[port] = await asyncio.open_connection("127.0.0.1", port)
                reader, writer = upstream.pop(port)
                writer.write(request)
                answer = await _message(reader)
                if b"connection: close\r\n" in answer:
                    writer.close()
                    return answer.replace(b"connection: close\r\n", b"", 1)
                upstream[port] = reader, writer
                return answer
            self.ready.discard(port)
        return b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n"


async def _message(reader: asyncio.StreamReader) -> bytes:
    """A request or an answer.

    Raises:
        ConnectionError: nothing came.
        IncompleteReadError: half a message came, which nobody may ask for again.
    """
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        raise ConnectionResetError from error
    _, _, length = head.lower().partition(b"content-length: ")
    return head + await reader.readexactly(int(length.split(b"\r\n")[0] or b"0"))


async def main(port: int, servers: list[int]) -> None:
    """Serve until ended."""
    balancer = Balancer(servers)
    watching = [asyncio.create_task(balancer.watch(server)) for server in servers]
    server = await asyncio.start_server(balancer.serve, "127.0.0.1", port)
    async with server:
        await asyncio.gather(server.serve_forever(), *watching)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), [int(port) for port in sys.argv[2:]]))
