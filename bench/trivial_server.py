"""The floor: a uvicorn app that reads the body and answers the same bytes each time."""

from __future__ import annotations

from typing import Any

_ANSWER = b'{"scores":[0.5]}'
_START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(_ANSWER)).encode()),
    ],
}
_BODY = {"type": "http.response.body", "body": _ANSWER}


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer one request."""
    if scope["type"] == "lifespan":
        return
    while (await receive()).get("more_body"):
        pass
    await send(_START)
    await send(_BODY)
