"""`deepfm serve`: one process, or several that share a port.

Each worker listens on a socket of its own with SO_REUSEPORT, so that the kernel spreads the
connections; on one shared socket they were seen to end up on one worker. A worker that dies is
replaced. SIGTERM and SIGINT drain all of them.

Their parent imports what serves, loads no model and only watches. On Linux workers are forked from
it, so that the pages of what was imported are held once; a session of the runtime, which no fork
survives, each worker makes for itself.
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
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any

from features.errors import BundleError, ConfigError
from service.logs import log_as_json
from service.settings import Settings

if TYPE_CHECKING:
    from service.scorer import Scorer

_log = logging.getLogger("deepfm")

_ENDING = (signal.SIGTERM, signal.SIGINT)
_POLL_S = 0.2
_RESTART_PAUSE_S = 1.0


def serve(settings: Settings) -> None:
    """Serve until a signal ends it.

    Raises:
        BundleError: the bundle cannot be served.
        ConfigError: an option cannot be met, or the port is taken.
    """
    log_as_json()
    signal.signal(signal.SIGTERM, _leave)
    if settings.workers == 1:
        scorer = _load(settings)
        with _listening(settings) as listener:
            _run(listener, settings, scorer)
        return
    with _listening(settings) as placeholder:
        port = placeholder.getsockname()[1]
        _supervise(settings.model_copy(update={"port": port}))


def _load(settings: Settings) -> Scorer:
    from service.models import load_scorer  # noqa: PLC0415

    return load_scorer(settings)


def _run(listener: socket.socket, settings: Settings, scorer: Scorer) -> None:
    import uvicorn  # noqa: PLC0415

    from service.app import create_app  # noqa: PLC0415
    from service.protocol import Protocol  # noqa: PLC0415

    config = uvicorn.Config(
        create_app(settings, scorer),
        loop="uvloop",
        http=Protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=settings.grace_s,
    )
    _spare_the_collector()
    host, port = listener.getsockname()[:2]
    _log.info("listening on http://%s:%d", f"[{host}]" if ":" in host else host, port)
    server = uvicorn.Server(config)
    # For a signal that comes before uvicorn's own handler does, and because uvicorn raises the one
    # that ended it once more when all is answered: that is no failure.
    signal.signal(signal.SIGTERM, server.handle_exit)
    server.run(sockets=[listener])


def _spare_the_collector() -> None:
    """A large body makes thousands of short-lived tuples, and so would make the collector run.

    What is loaded lives as long as the process, and requests leave hardly a cycle behind; with
    Python's own thresholds the collector took a tenth of a /rank of 1,000 candidates.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


def _listening(settings: Settings) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if settings.workers > 1:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror}"
        ) from error
    return listener


def _leave(*_: object) -> None:
    sys.exit(0)


def _work(settings: Settings, report: Connection | None) -> None:
    signal.signal(signal.SIGTERM, _leave)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    log_as_json()
    try:
        scorer = _load(settings)
    except (BundleError, ConfigError) as error:
        if report is None:
            raise
        report.send(error)
        return
    if report is not None:
        report.send(None)
    with _listening(settings) as listener:
        _run(listener, settings, scorer)


def _end_with_parent() -> None:
    """A parent that was killed could not say so; nobody would ever end its workers."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


def _supervise(settings: Settings) -> None:
    stopping = threading.Event()
    for number in _ENDING:
        signal.signal(number, lambda *_: stopping.set())
    context = _context()
    # The first one alone: what no worker could serve is said once, and no other process loads it.
    workers = [_start_first(context, settings)]
    workers += [_start(context, settings) for _ in range(settings.workers - 1)]
    while not stopping.wait(_POLL_S):
        for place, worker in enumerate(workers):
            if not worker.is_alive() and not stopping.wait(_RESTART_PAUSE_S):
                _log.warning("worker %s ended with code %s", worker.pid, worker.exitcode)
                workers[place] = _start(context, settings)
    for worker in workers:
        worker.terminate()
    for worker in workers:
        worker.join(settings.grace_s + 1)
        if worker.is_alive():
            worker.kill()


def _context() -> Any:
    """How workers are started: forked from this process, where that is safe, all imports done.

    Frozen, because the collector writes to all it visits. BLAS would start threads at its import,
    which a fork does not take along.
    """
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    import uvloop  # noqa: F401, PLC0415

    import service.app  # noqa: PLC0415
    import service.protocol  # noqa: F401, PLC0415

    gc.collect()
    gc.freeze()
    return multiprocessing.get_context("fork")


def _start(context: Any, settings: Settings, report: Connection | None = None) -> BaseProcess:
    worker: BaseProcess = context.Process(target=_work, args=(settings, report), daemon=True)
    # Until the worker has its own handler, a signal waits.
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    worker.start()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
    return worker


def _start_first(context: Any, settings: Settings) -> BaseProcess:
    """A worker that has loaded what it is to serve.

    Raises:
        BundleError, ConfigError: why it has not.
    """
    receiving, sending = context.Pipe(duplex=False)
    worker = _start(context, settings, sending)
    sending.close()
    try:
        error = receiving.recv()
    except EOFError:  # it ended without a word; its own log may say why
        worker.join()
        raise ConfigError(f"the first worker ended with code {worker.exitcode}") from None
    if error is not None:
        worker.join()
        raise error
    return worker
