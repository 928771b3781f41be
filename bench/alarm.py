"""A timer of microseconds for an event loop; asyncio's and uvloop's own count milliseconds."""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Callable

_CLOCK_MONOTONIC = 1
_ABSOLUTE = 1
_libc = ctypes.CDLL(None, use_errno=True)


class Alarm:
    """Calls back at times of `time.monotonic`, through Linux's timerfd.

    Args:
        loop: where it rings.
        ring: what is called; it sets the alarm anew or closes it, else it is called again at once.

    Raises:
        OSError: the system grants no timer.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self.loop = loop
        self.fd: int = _libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed")
        loop.add_reader(self.fd, ring)

    def set(self, at_s: float) -> None:
        """Ring once, at this time; at once if it is past."""
        seconds, nanoseconds = divmod(int(at_s * 1e9), 1_000_000_000)
        # struct itimerspec: the interval, then the time, each as seconds and nanoseconds.
        _libc.timerfd_settime(
            self.fd, _ABSOLUTE, (ctypes.c_long * 4)(0, 0, seconds, nanoseconds), None
        )

    def close(self) -> None:
        """Never ring again."""
        self.loop.remove_reader(self.fd)
        os.close(self.fd)
