"""uvicorn's server, with an end that loses no request.

Once it is told to end, a server is not ready, and each answer says `Connection: close`; clients and
balancers go elsewhere meanwhile, and whoever does not is still served. Then what waits in the
listener's backlog is accepted, the listener is closed, and all that has begun is finished. (Closing
a listener resets the connections in its backlog: they must be out of it.)
"""

from __future__ import annotations

import asyncio
import functools
import socket

import uvicorn

from service.app import App
from service.protocol import ConnectionLimits, Protocol
from service.settings import Settings

# A connection accepted last of all has so long to send its request.
_LAST_REQUEST_S = 0.2


class Server(uvicorn.Server):
    """One worker's server.

    Args:
        app: what it serves.
        settings: of the process.
    """

    def __init__(self, app: App, settings: Settings) -> None:
        limits = ConnectionLimits(
            connections=settings.max_connections,
            header_bytes=settings.max_header_bytes,
            headers=settings.max_headers,
            read_s=settings.read_timeout_s,
            refuse=app.telemetry.refuse,
            at_head=app.at_head,
        )
        protocol = functools.partial(Protocol, limits)
        config = uvicorn.Config(
            app,
            loop="uvloop",
            http=protocol,  # type: ignore[arg-type] # only ever called
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_keep_alive=settings.keep_alive_s,  # type: ignore[arg-type] # only waited for
            timeout_graceful_shutdown=settings.grace_s,
        )
        super().__init__(config)
        self._app = app
        self._drain_s = settings.drain_s

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End; called by uvicorn once a signal came."""
        self._app.is_ending = True
        self.server_state.default_headers = [(b"connection", b"close")]
        await asyncio.sleep(self._drain_s)
        backlogs = [listener.dup() for listener in sockets or ()]
        for server in self.servers:
            server.close()  # the loop accepts no more; the duplicate keeps the backlog
        for backlog in backlogs:
            await self._accept_all(backlog)
            backlog.close()
        await asyncio.sleep(_LAST_REQUEST_S)
        await super().shutdown(sockets)

    async def _accept_all(self, backlog: socket.socket) -> None:
        """Take every connection that is complete; returns when there is none."""
        backlog.setblocking(False)
        loop = asyncio.get_running_loop()
        accepted = []
        while True:
            try:
                accepted.append(backlog.accept()[0])
            except OSError:  # none is left, or there are too many open files
                break
        for connection in accepted:
            connection.setblocking(False)
            await loop.connect_accepted_socket(self._protocol, connection)

    def _protocol(self) -> Protocol:
        made: Protocol = self.config.http_protocol_class(  # type: ignore[assignment, call-arg]
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
            _loop=asyncio.get_running_loop(),
        )
        return made
