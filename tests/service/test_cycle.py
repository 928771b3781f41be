"""What a cycle writes, and in how many writes; over the protocol, as everywhere."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.service.talks import Talk, request, talk

Send = Callable[[dict[str, Any]], Awaitable[None]]
LENGTH = (b"content-length", b"4")
TYPE = (b"content-type", b"text/plain")


def start(*headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {"type": "http.response.start", "status": 200, "headers": headers}


def body(data: bytes = b"body", more_body: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more_body}


def told(*messages: dict[str, Any], head: bytes = b"", fails: bool = False) -> list[Any]:
    """What the transport was asked to do by an application that sends these messages."""

    async def app(scope: Any, receive: Any, send: Send) -> None:
        for message in messages:
            await send(message)
        if fails:
            raise ValueError

    async def act() -> Talk:
        talk = Talk()
        talk.protocol.app = app
        await talk.say(head or request())
        return talk

    return talk(act).wire.told


def test_head_and_body_are_one_write() -> None:
    expected = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\ncontent-type: text/plain\r\n\r\nbody"
    assert told(start(LENGTH, TYPE), body()) == [expected]


@pytest.mark.parametrize(
    "messages",
    [
        (start(LENGTH, (b"x-other", b"1")), body()),
        (start(LENGTH), body(b"bo", more_body=True), body(b"dy")),
        (start(), body()),
    ],
)
def test_what_is_more_goes_uvicorns_way(messages: tuple[dict[str, Any], ...]) -> None:
    found = told(*messages)
    assert found[0].startswith(b"HTTP/1.1 200 OK\r\n")
    assert found[0].endswith(b"\r\n\r\n")
    assert b"body" in b"".join(found).replace(b"4\r\n", b"")


def test_the_last_answer_says_so_and_closes() -> None:
    found = told(start(LENGTH), body(), head=request("/a", b"", b"connection: close"))
    assert b"connection: close\r\n" in found[0]
    assert found[1:3] == [b"body", "close"]


def test_the_answer_to_head_has_no_body() -> None:
    head = b"HEAD /a HTTP/1.1\r\nhost: x\r\n\r\n"
    assert b"".join(told(start(LENGTH), body(), head=head)).endswith(b"content-length: 4\r\n\r\n")


def test_a_body_of_another_length_than_it_names_ends_the_connection() -> None:
    found = told(start(LENGTH), body(b"too long"))
    assert found[-1] == "close"
    assert b"too long" not in found


@pytest.mark.parametrize("sent", [0, 1])
def test_an_application_that_fails_before_the_body_is_a_500(sent: int) -> None:
    found = told(*[start(LENGTH)][:sent], fails=True)
    assert found[0].startswith(b"HTTP/1.1 500 ")


def test_an_answer_waits_for_a_client_that_does_not_read() -> None:
    async def act() -> Talk:
        talk = Talk()
        talk.protocol.pause_writing()
        await talk.say(request())
        assert not talk.wire.told
        talk.protocol.resume_writing()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return talk

    assert talk(act).answers == [(200, b"/a")]


def test_an_answer_that_waited_until_the_server_ended_closes() -> None:
    async def act() -> Talk:
        talk = Talk()
        talk.protocol.pause_writing()
        await talk.say(request())
        talk.protocol.shutdown()
        talk.protocol.resume_writing()
        await talk.say()
        return talk

    found = talk(act)
    assert (found.answers, found.is_over) == ([(200, b"/a")], True)


@pytest.mark.parametrize(
    "messages",
    [
        ({"type": "http.response.start", "status": 204}, {"type": "http.response.body"}),
        (start((b"content-length", b"0")), {"type": "http.response.body"}),
    ],
)
def test_headers_and_body_may_be_left_out(messages: tuple[dict[str, Any], ...]) -> None:
    assert told(*messages)[0].startswith((b"HTTP/1.1 204 ", b"HTTP/1.1 200 "))


def test_a_client_that_is_gone_gets_nothing() -> None:
    async def act() -> Talk:
        talk = Talk()
        talk.may_answer.clear()
        await talk.say(request())
        talk.protocol.connection_lost(None)
        talk.may_answer.set()
        await talk.say()
        return talk

    assert not [told for told in talk(act).wire.told if told != "close"]
