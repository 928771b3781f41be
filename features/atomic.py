"""Files and folders that appear whole or not at all: temporary name, fsync, rename."""

from __future__ import annotations

import os
import secrets
import shutil
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
        file = _beside(target)
        try:
            file.touch(exist_ok=False)
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
        folder = _beside(target)
        try:
            folder.mkdir()
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


def _beside(target: Path) -> Path:
    """A name that nothing has; known before anything is made, so that a signal leaves nothing."""
    return target.with_name(f".{target.name}.{secrets.token_hex(8)}")


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
