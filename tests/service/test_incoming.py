from __future__ import annotations

import asyncio
from typing import Any

import pytest

from service.incoming import Copying


@pytest.mark.parametrize(
    ("pieces", "kept"),
    [([b"ab", b"c"], b"abc"), ([b"ab", b"cd"], b""), ([b"abcd", b"", b"e"], b""), ([], b"")],
    ids=["at-most", "one-too-many", "early", "none"],
)
def test_a_copy_holds_a_body_up_to_its_bound_and_all_is_passed_on(
    pieces: list[bytes], kept: bytes
) -> None:
    messages: list[Any] = [{"type": "http.request", "body": piece} for piece in pieces]
    messages.append({"type": "http.disconnect"})
    left = iter(messages)

    async def receive() -> Any:
        return next(left)

    async def passed_on(copying: Copying) -> list[Any]:
        return [await copying() for _ in messages]

    copying = Copying(receive, 3)
    assert asyncio.run(passed_on(copying)) == messages
    assert (copying.body, copying.length) == (kept, len(b"".join(pieces)))
