"""`deepfm serve`: one process, or several that share a port.

Each worker listens on a socket of its own with SO_REUSEPORT, so that the kernel spreads the
connections; on one shared socket they were seen to end up on one worker. A worker that dies is
replaced. SIGTERM and SIGINT drain all of them.

Their parent (service/supervisor.py) imports what serves, loads no model and only decides and
watches. On Linux workers are forked from it, so that the pages of what was imported are held once;
a session of the runtime, which no fork survives, each worker makes for itself.
"""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from features.errors import ConfigError
from service.logs import log_as_json
from service.settings import Settings
from service.supervisor import ENDING, Supervisor

if TYPE_CHECKING:
    from service.owner import Owner
    from service.server import Server

_SWITCH_S = 0.0005
_log = logging.getLogger("deepfm")


def serve(settings: Settings) -> None:
    """Serve until a signal ends it.

    Raises:
        BundleError: the bundle cannot be served.
        ConfigError: an option cannot be met, or the port is taken.
    """
    log_as_json()
    signal.signal(signal.SIGTERM, _leave)
    if settings.workers == 1:
        _import_all()
        from service.owner import OwnVersions  # noqa: PLC0415

        owner = OwnVersions(settings)
        server = _server(settings, owner)
        owner.load_first()
        with _listening(settings) as listeners:
            _run(server, listeners)
        return
    with _listening(settings) as placeholders:
        port = placeholders[0].getsockname()[1]
        settings = settings.model_copy(update={"port": port})
        Supervisor(settings, _context(), _work).run()


def _server(settings: Settings, owner: Owner) -> Server:
    """A server, made before the first version is loaded: that comes and goes, this stays."""
    from service.app import create_app  # noqa: PLC0415
    from service.server import Server  # noqa: PLC0415

    server = Server(create_app(settings, owner=owner), settings)
    _favour_the_loop()
    return server


def _run(server: Server, listeners: list[socket.socket]) -> None:
    for listener in listeners:
        host, port = listener.getsockname()[:2]
        _log.info("listening on http://%s:%d", f"[{host}]" if ":" in host else host, port)
    # For a signal that comes before uvicorn's own handler does, and because uvicorn raises the one
    # that ended it once more when all is answered: that is no failure.
    signal.signal(signal.SIGTERM, server.handle_exit)
    server.run(sockets=listeners)


def _favour_the_loop() -> None:
    """Keep the collector and other threads from holding up the event loop.

    A large body makes thousands of short-lived tuples, and so would make the collector run.
    Requests leave hardly a cycle behind, and what versions leave is collected when they are let
    go; with Python's own thresholds the collector took a tenth of a /rank of 1,000 candidates.
    What is there now is not looked at again: a whole collection holds the interpreter.

    A thread that loads a version gives the interpreter back once the loop has waited for so long;
    by Python's own setting it would be ten times as long, several times in a request.
    """
    gc.set_threshold(100_000, 50, 100)
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(_SWITCH_S)


@contextmanager
def _listening(settings: Settings) -> Iterator[list[socket.socket]]:
    """The public socket, and that of the admin port where there is one: every worker has both.

    Which path is on which of them is decided by `service.keys.Door`.
    """
    with ExitStack() as open_sockets:
        listeners = [_bound(settings.host, settings.port, settings.workers > 1)]
        open_sockets.enter_context(listeners[0])
        if settings.admin_port is not None:
            listeners.append(_bound(settings.admin_host, settings.admin_port, settings.workers > 1))
            open_sockets.enter_context(listeners[1])
        yield listeners


def _bound(host: str, port: int, is_shared: bool) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if is_shared:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return listener


def _leave(*_: object) -> None:
    sys.exit(0)


def _work(settings: Settings, version: int, connection: Connection) -> None:
    signal.signal(signal.SIGTERM, _leave)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    log_as_json()
    from service.link import Link  # noqa: PLC0415

    owner = Link(settings, connection)
    owner.tell_alive()
    server = _server(settings, owner)
    if owner.load_first(version):
        with _listening(settings) as listeners:
            _run(server, listeners)


def _end_with_parent() -> None:
    """A parent that was killed could not say so; nobody would ever end its workers."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


def _context() -> Any:
    """How workers are started: forked from this process, where that is safe, all imports done."""
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    _import_all()
    return multiprocessing.get_context("fork")


def _import_all() -> None:
    """Import what serves, before any version is loaded: versions come and go, this stays.

    Frozen, because the collector writes to all it visits. BLAS would start threads at its import,
    which a fork does not take along.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # FastAPI imports it when it makes a route, to see that nothing is of that version: 2 MB, which
    # each worker would have to itself.
    import pydantic.v1  # noqa: F401, PLC0415
    import uvloop  # noqa: F401, PLC0415

    import service.app  # noqa: PLC0415
    import service.link  # noqa: PLC0415
    import service.server  # noqa: F401, PLC0415

    gc.collect()
    gc.freeze()
