"""What an operator asks for under `/admin`, and the keys that open it.

Without a file of keys there is no such path.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import Request

from service.documents import decode_json
from service.errors import NotReady, Problem, RequestError
from service.incoming import read_body
from service.keys import Keys
from service.models import Models
from service.problems import unknown_keys
from service.trial import Kind, Trial

_LARGEST_BODY_BYTES = 1024
_LARGEST_VERSION = 2**63 - 1
Answering = Callable[[Request], Awaitable[dict[str, Any]]]


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
        wanted = _version_of(await _document_of(request, "version"))
        version = await request.app.owner.reload(wanted)
        return {"model": request.app.models.current.name, "version": version}

    def beside(self, kind: Kind) -> Answering:
        """The route that lets a second version stand beside the one that answers, or ends that.

        One route for both methods: so a 405 allows both. What stands beside as another kind stays.
        """

        async def beside(request: Request) -> dict[str, Any]:
            self._keys.require(request.scope)
            return await (self._begin if request.method == "POST" else self._end)(kind, request)

        return beside

    async def _begin(self, kind: Kind, request: Request) -> dict[str, Any]:
        document = await _document_of(request, "version", "share")
        version = _version_of(document)
        if version is None:
            raise RequestError([Problem("/version", "missing_key", "version is missing")])
        share = _share_of(document, getattr(request.app.settings, f"{kind}_share"))
        if not share:
            return await self._end(kind, request)
        await request.app.owner.put_beside(Trial(version, kind, share))
        return _told(request)

    async def _end(self, kind: Kind, request: Request) -> dict[str, Any]:
        second = request.app.models.second
        if second is not None and second.trial.kind == kind:
            await request.app.owner.put_beside(None)
        return _told(request)


def _told(request: Request) -> dict[str, Any]:
    models: Models = request.app.models
    current = models.current
    if current is None:
        raise NotReady("no model is being served yet")
    return {"model": current.name, "version": current.version} | models.told_beside()


async def _document_of(request: Request, *keys: str) -> dict[str, Any]:
    """The object in a body; none is an empty one.

    Raises:
        RequestError: it is no such object.
    """
    body = await read_body(request.scope, request.receive, _LARGEST_BODY_BYTES)
    document = decode_json(body) if body else {}
    if not isinstance(document, dict):
        raise RequestError([Problem("", "wrong_type", "must be an object")])
    unknown = list(unknown_keys(document, keys, ""))
    if unknown:
        raise RequestError(unknown)
    return document


def _share_of(document: dict[str, Any], usual: float) -> float:
    """The share that a body names, 0 to 1; the usual one where it names none.

    Raises:
        RequestError: it is not as it must be.
    """
    share = document.get("share")
    if share is None:
        return usual
    if type(share) not in (int, float):
        raise RequestError([Problem("/share", "wrong_type", "must be a number or null")])
    if not 0 <= share <= 1:
        raise RequestError([Problem("/share", "out_of_range", "must be from 0 to 1")])
    return float(share)


def _version_of(document: dict[str, Any]) -> int | None:
    """The version that a body names.

    Raises:
        RequestError: it is not as it must be.
    """
    wanted = document.get("version")
    if wanted is not None and type(wanted) is not int:
        raise RequestError([Problem("/version", "wrong_type", "must be an integer or null")])
    if wanted is not None and not 1 <= wanted <= _LARGEST_VERSION:
        text = f"must be from 1 to {_LARGEST_VERSION}"
        raise RequestError([Problem("/version", "out_of_range", text)])
    return wanted
