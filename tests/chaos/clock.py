"""A wall clock that can be moved for the processes that are started with it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_SOURCE = Path(__file__).with_suffix(".c")


@dataclass(frozen=True)
class Clock:
    """What moves it.

    Args:
        file: holds the seconds to add.
        library: to be preloaded.
    """

    file: Path
    library: Path

    @property
    def variables(self) -> Mapping[str, str]:
        """Of the environment of a process that is to see it."""
        return {"LD_PRELOAD": str(self.library), "CHAOS_CLOCK": str(self.file)}

    def move(self, seconds: int) -> None:
        """Set it so far off, at once."""
        with self.file.open("r+b") as file:
            file.write(seconds.to_bytes(8, sys.byteorder, signed=True))


def build_clock(folder: Path) -> Clock | None:
    """One that is right; None where there is no C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    folder.mkdir()
    clock = Clock(folder / "seconds", folder / "clock.so")
    clock.file.write_bytes(bytes(8))
    command = [compiler, "-O1", "-shared", "-fPIC", "-o", str(clock.library), str(_SOURCE)]
    subprocess.run(command, check=True)
    return clock
