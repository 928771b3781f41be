"""Keys that open the service, and the door that asks for them before anything else is done.

A key travels as `Authorization: Bearer KEY`. What opens a path stands in one place, `Door`.
Liveness and readiness are for whoever starts the service; the page /docs is the same for everybody,
and asks for a key before it shows anything of the model; `/admin` takes admin keys, which its own
routes ask for; all else takes API keys, where there is a file of them.
"""

from __future__ import annotations

import hmac
import logging
import os
from pathlib import Path

from service.errors import NotFound, Unauthorized
from service.incoming import Scope
from service.openapi import NEEDS_NO_KEY
from service.settings import Settings

_ADMIN = "/admin/"
_SCHEME = b"bearer "
_log = logging.getLogger("deepfm")


class Keys:
    """Secrets in a file, one a line, read again when it has changed.

    Args:
        file: when it cannot be read, no key is right.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._seen: tuple[int, ...] | None = None
        self._keys: list[bytes] = []
        self._is_told = False

    def allow(self, authorization: bytes) -> bool:
        """Whether a header `Authorization` bears one of the keys.

        All are compared, each in a time that does not depend on where it differs.
        """
        given = authorization[len(_SCHEME) :].strip()
        matches = [hmac.compare_digest(given, key) for key in self._read()]
        return authorization[: len(_SCHEME)].lower() == _SCHEME and any(matches)

    def require(self, scope: Scope) -> None:
        """Refuse a request that bears none of the keys.

        Raises:
            Unauthorized: it does not.
        """
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(given) != 1 or not self.allow(given[0]):
            raise Unauthorized("a key is needed")

    def _read(self) -> list[bytes]:
        try:
            found = os.stat(self._file)
            seen = (found.st_mtime_ns, found.st_size, found.st_ino)
            if seen != self._seen:
                lines = self._file.read_bytes().splitlines()
                self._keys, self._seen = [key for key in map(bytes.strip, lines) if key], seen
            self._is_told = False
        except OSError as error:
            if not self._is_told:  # once, not for every request
                _log.warning("%s: the keys cannot be read: %s", self._file, error.strerror)
            self._keys, self._seen, self._is_told = [], None, True
        return self._keys


class Door:
    """Whether a request may go on.

    Args:
        keys: API keys; None asks for none.
        admin_port: where alone `/admin` is, and nothing else; None leaves it where all else is.
    """

    def __init__(self, keys: Keys | None, admin_port: int | None) -> None:
        self._keys, self._admin_port = keys, admin_port

    @classmethod
    def of(cls, settings: Settings) -> Door | None:
        """The door that the settings ask for; None stands open."""
        if settings.api_keys_file is None and settings.admin_port is None:
            return None
        keys = None if settings.api_keys_file is None else Keys(settings.api_keys_file)
        return cls(keys, settings.admin_port)

    def check(self, path: str, scope: Scope) -> None:
        """Let an HTTP request pass.

        Args:
            path: inside the application.
            scope: the rest of its head.

        Raises:
            NotFound: it came to the port where its path is not.
            Unauthorized: it needs a key.
        """
        is_admin = path.startswith(_ADMIN)
        # The port of the socket that took the connection, not what the client says of it.
        _, port = scope.get("server") or (None, None)
        if self._admin_port is not None and is_admin != (port == self._admin_port):
            raise NotFound("Not Found")
        if self._keys is not None and not is_admin and not _is_open(path):
            self._keys.require(scope)


def _is_open(path: str) -> bool:
    return path in NEEDS_NO_KEY or path.startswith("/docs/")
