"""A disk that is full."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_BLOCK = bytes(4096)


@contextmanager
def full_disk(folder: Path) -> Iterator[Path | None]:
    """A file system without a free byte, mounted at `folder`; None where that is not allowed."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        yield None
        return
    try:
        (folder / "log").touch()
        fill(folder / "filler")
        yield folder
    finally:
        # Lazily: what still has a file open there must not keep the mount.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(path: Path) -> None:
    """Write until nothing more can be written."""
    with path.open("wb", buffering=0) as file:
        while True:
            try:
                file.write(_BLOCK)
            except OSError:
                return
