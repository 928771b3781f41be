"""Memory of a version that goes: its mapped files, and what the C library keeps of its own."""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path

_MAPS = Path("/proc/self/maps")
_madvise = ctypes.CDLL(None, use_errno=True).madvise
_madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
# Of glibc alone; called without the interpreter's lock, like all of a CDLL.
_malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)


def release(folder: Path) -> None:
    """Give the pages of a folder's files back to the system, where it is Linux; they stay mapped.

    Nothing is lost: whoever still reads one gets it from the file again, and nobody has written to
    one. Unmapping takes the kernel as long as there are pages, and whoever drops a mapping in
    Python, or in the runtime, holds the interpreter meanwhile. Here that is given up.
    """
    if not _MAPS.exists():
        return
    inside = f"{os.path.realpath(folder)}/"
    for line in _MAPS.read_text().splitlines():
        place, *_, path = line.split(maxsplit=5)
        if path.startswith(inside):
            begin, end = (int(address, 16) for address in place.split("-"))
            _madvise(begin, end - begin, mmap.MADV_DONTNEED)


def trim() -> None:
    """Give back to the system what was freed, where the C library does so on request.

    It keeps whole pages for whoever asks next, in a pool of each thread: a version is loaded by a
    thread of its own, so each one would leave some behind.
    """
    if _malloc_trim is not None:
        _malloc_trim(0)
