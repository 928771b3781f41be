"""`POST /admin/reload`, and the keys that open it; without a file of keys there is no such path."""

from __future__ import annotations

from typing import Any

from fastapi import Request

from service.errors import Problem, RequestError
from service.incoming import read_body
from service.keys import Keys
from service.problems import decode_json

_LARGEST_BODY_BYTES = 1024
_LARGEST_VERSION = 2**63 - 1


class AdminRoutes:
    """What only a bearer of a key may ask for.

    Args:
        keys: who may.
    """

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    async def reload(self, request: Request) -> dict[str, Any]:
        """Switch to a version, and answer when it answers everywhere."""
        self._keys.require(request.scope)
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
