"""Files and folders that appear whole or not at all: temporary name, fsync, rename."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from features.errors import OutputError


@contextmanager
def new_file(target: Path) -> Iterator[Path]:
    """A temporary path beside `target` that becomes `target` when the block ends well.

    Raises:
        OutputError: it cannot be written; what stood at `target` before still stands.
    """
    with _reported(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        os.close(handle)
        file = Path(name)
        try:
            yield file
            file.chmod(0o644)
            _fsync(file)
            file.replace(target)
            _fsync(target.parent)
        finally:
            file.unlink(missing_ok=True)


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A temporary folder beside `target` that becomes `target` when the block ends well.

    Raises:
        OutputError: `target` exists already, or cannot be written.
    """
    if target.exists():
        raise OutputError(f"{target} exists already; it is never overwritten")
    with _reported(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            yield folder
            folder.chmod(0o755)
            for file in folder.iterdir():
                file.chmod(0o644)
                _fsync(file)
            _fsync(folder)
            folder.rename(target)
            _fsync(target.parent)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _reported(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"{target}: cannot be written: {error.strerror or error}") from error


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
