"""`POST /admin/reload`, and the keys that open it; without a file of keys there is no such path."""

from __future__ import annotations

import hmac
import logging
import os
from pathlib import Path
from typing import Any

from fastapi import Request
from starlette.exceptions import HTTPException

from service.errors import Problem, RequestError
from service.incoming import read_body
from service.problems import decode_json

_LARGEST_BODY_BYTES = 1024
_LARGEST_VERSION = 2**63 - 1
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

    def allow(self, authorization: bytes) -> bool:
        """Whether a header `Authorization` bears one of the keys.

        All are compared, each in a time that does not depend on where it differs.
        """
        given = authorization[len(_SCHEME) :].strip()
        matches = [hmac.compare_digest(given, key) for key in self._read()]
        return authorization[: len(_SCHEME)].lower() == _SCHEME and any(matches)

    def _read(self) -> list[bytes]:
        try:
            found = os.stat(self._file)
            seen = (found.st_mtime_ns, found.st_size, found.st_ino)
            if seen != self._seen:
                lines = self._file.read_bytes().splitlines()
                self._keys, self._seen = [key for key in map(bytes.strip, lines) if key], seen
        except OSError as error:
            _log.warning("%s: the keys cannot be read: %s", self._file, error.strerror)
            self._keys, self._seen = [], None
        return self._keys


class AdminRoutes:
    """What only a bearer of a key may ask for.

    Args:
        keys: who may.
    """

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    async def reload(self, request: Request) -> dict[str, Any]:
        """Switch to a version, and answer when it answers everywhere."""
        header = request.headers.get("authorization", "").encode("latin-1")
        if not self._keys.allow(header):
            raise HTTPException(401, "a key is needed", {"WWW-Authenticate": "Bearer"})
        body = await read_body(request.scope, request.receive, _LARGEST_BODY_BYTES)
        version = await request.app.owner.reload(_wanted(body))
        return {"model": request.app.models.current.name, "version": version}


def _wanted(body: bytes) -> int | None:
    """The version that a body names.

    Raises:
        RequestError: it is not as it must be.
    """
    document = decode_json(body) if body.strip() else {}
    if not isinstance(document, dict):
        raise RequestError([Problem("", "wrong_type", "must be an object")])
    if document.keys() - {"version"}:
        raise RequestError([Problem("", "unknown_key", "unknown key; expected version")])
    wanted = document.get("version")
    if wanted is not None and type(wanted) is not int:
        raise RequestError([Problem("/version", "wrong_type", "must be an integer or null")])
    if wanted is not None and not 1 <= wanted <= _LARGEST_VERSION:
        text = f"must be from 1 to {_LARGEST_VERSION}"
        raise RequestError([Problem("/version", "out_of_range", text)])
    return wanted
