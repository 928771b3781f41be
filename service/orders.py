"""What a parent and its workers say to each other, and the pipe they say it through.

MessagePack with declared types, so that nothing is unpickled that a request has touched.
"""

from __future__ import annotations

import threading
from multiprocessing.connection import Connection
from typing import Any, Generic, TypeVar

import msgspec

from service.trial import Trial
from service.versions import Standing


class Load(msgspec.Struct, frozen=True, tag=True):
    """To a worker: load a version beside the one that answers, say `Done`."""

    number: int
    version: int


class Switch(msgspec.Struct, frozen=True, tag=True):
    """To a worker: let what was loaded answer, say `Done`."""

    number: int


class Beside(msgspec.Struct, frozen=True, tag=True):
    """To a worker: let a second version stand beside the one that answers, or none; say `Done`."""

    number: int
    trial: Trial | None


class Drop(msgspec.Struct, frozen=True, tag=True):
    """To a worker: forget what was loaded."""


class Answer(msgspec.Struct, frozen=True, tag=True):
    """To a worker: what came of its `Ask`."""

    number: int
    version: int = 0
    error: str = ""
    status: int = 500


class Done(msgspec.Struct, frozen=True, tag=True):
    """To the parent: an order was carried out, or why not.

    Args:
        number: of the order; 0 is the first load, which nobody orders.
        error: empty when all went well.
        is_final: no other version would have fared better.
    """

    number: int
    error: str = ""
    is_final: bool = False


class Ask(msgspec.Struct, frozen=True, tag=True):
    """To the parent: somebody wants a version, None for what the rules give; say `Answer`."""

    number: int
    version: int | None


class AskBeside(msgspec.Struct, frozen=True, tag=True):
    """To the parent: somebody wants a second version beside, None for none; say `Answer`."""

    number: int
    trial: Trial | None


class Alive(msgspec.Struct, frozen=True, tag=True):
    """To the parent, every second: whoever says nothing any more has been stopped, or hangs."""


Order = Load | Switch | Beside
ToWorker = Order | Drop | Answer | Standing
ToParent = Done | Ask | AskBeside | Alive
M = TypeVar("M")


class Channel(Generic[M]):
    """One end of a pipe.

    Args:
        connection: carries whole messages.
        received: the type of what comes in.
    """

    def __init__(self, connection: Connection, received: Any) -> None:
        self.connection = connection
        self._decode = msgspec.msgpack.Decoder(received).decode
        self._sending = threading.Lock()

    def send(self, message: ToWorker | ToParent) -> None:
        """Send a message.

        Raises:
            OSError: the other side has ended.
        """
        with self._sending:
            self.connection.send_bytes(msgspec.msgpack.encode(message))

    def receive(self) -> M:
        """Wait for a message.

        Raises:
            EOFError, OSError: the other side has ended.
        """
        message: M = self._decode(self.connection.recv_bytes())
        return message
