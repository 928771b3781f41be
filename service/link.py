"""A worker's side: its parent decides which version answers, the worker loads it and switches."""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection

from features.errors import BundleError, ConfigError
from service.errors import ServiceError
from service.model import Model, load_model
from service.models import Models
from service.orders import (
    Alive,
    Answer,
    Ask,
    AskBeside,
    Beside,
    Channel,
    Done,
    Drop,
    Load,
    Switch,
    ToWorker,
)
from service.owner import loaded, put_beside
from service.settings import Settings
from service.trial import Trial
from service.versions import Standing

_BEAT_S = 1.0
_log = logging.getLogger("deepfm")


class Link:
    """An `Owner` that passes on what the parent decides.

    Args:
        settings: of the process.
        connection: to the parent.
    """

    def __init__(self, settings: Settings, connection: Connection) -> None:
        self.standing = Standing()
        self._settings = settings
        self._channel: Channel[ToWorker] = Channel(connection, ToWorker)
        self._models = Models()
        self._staged: Model | None = None
        self._numbers = itertools.count()
        self._asked: dict[int, asyncio.Future[Answer]] = {}

    def load_first(self, version: int) -> bool:
        """Load what this worker begins with, and tell the parent; false when it is refused."""
        try:
            self._staged = load_model(self._settings, version)
        except (BundleError, ConfigError) as error:
            self._channel.send(Done(0, error.message, is_final=isinstance(error, ConfigError)))
            return False
        self._channel.send(Done(0))
        return True

    def tell_alive(self) -> None:
        """Say every second that this process runs, until the parent ends."""
        threading.Thread(target=self._tell_alive, daemon=True).start()

    def _tell_alive(self) -> None:
        with suppress(OSError):
            while True:
                self._channel.send(Alive())
                time.sleep(_BEAT_S)

    async def start(self, models: Models) -> None:
        """As `Owner.start`."""
        self._models, self._loop = models, asyncio.get_running_loop()
        self._switch()
        threading.Thread(target=self._obey, daemon=True).start()

    async def follow(self) -> None:
        """As `Owner.follow`: a thread of its own does it."""

    async def reload(self, wanted: int | None) -> int:
        """As `Owner.reload`."""
        return await self._ask(Ask(next(self._numbers), wanted))

    async def put_beside(self, trial: Trial | None) -> None:
        """As `Owner.put_beside`."""
        await self._ask(AskBeside(next(self._numbers), trial))

    async def _ask(self, ask: Ask | AskBeside) -> int:
        number = ask.number
        self._asked[number] = self._loop.create_future()
        try:
            self._channel.send(ask)
            answer = await self._asked[number]
        finally:
            del self._asked[number]
        if answer.error:
            raise ServiceError(answer.error, answer.status)
        return answer.version

    def _obey(self) -> None:
        """Carry out orders, one after the other, until the parent or this process ends."""
        # A loop that has closed raises RuntimeError; its process is ending.
        with suppress(EOFError, OSError, RuntimeError):
            while True:
                self._carry_out(self._channel.receive())

    def _carry_out(self, order: ToWorker) -> None:
        match order:
            case Load():
                self._channel.send(Done(order.number, self._stage(order.version)))
            case Switch():
                self._on_loop(self._switch)
                self._channel.send(Done(order.number))
            case Beside():
                self._channel.send(Done(order.number, self._put_beside(order.trial)))
            case Drop():
                self._staged = None
            case Answer():
                self._on_loop(lambda: self._pass_on(order))
            case Standing():
                self.standing = order

    def _stage(self, version: int) -> str:
        """Load a version; why it is refused, empty when it is not."""
        self._staged = None
        model = self._models.loaded.get(version) or loaded(self._settings, version)
        if isinstance(model, str):
            return model
        self._staged = model
        return ""

    def _put_beside(self, trial: Trial | None) -> str:
        """Let a second version stand beside; why it is refused, empty when it is not."""
        if trial is not None:
            refusal = self._stage(trial.version)
            if refusal:
                _log.error("version %d does not stand beside: %s", trial.version, refusal)
                return refusal
        model, self._staged = self._staged, None
        self._on_loop(lambda: put_beside(self._models, trial, model, self._settings))
        return ""

    def _switch(self) -> None:
        if self._staged is not None:
            self._models.switch(self._staged)
        self._staged = None

    def _pass_on(self, answer: Answer) -> None:
        future = self._asked.get(answer.number)
        if future is not None and not future.done():
            future.set_result(answer)

    def _on_loop(self, act: Callable[[], None]) -> None:
        """Do something in one step of the event loop, and wait until it is done."""
        is_done = threading.Event()

        def step() -> None:
            act()
            is_done.set()

        self._loop.call_soon_threadsafe(step)
        is_done.wait()
