"""When a connection on which nothing is due ends: by the one timer that it has."""

from __future__ import annotations

from typing import Any

from tests.service.talks import PATIENCE_S, Talk, request, talk

EMPTY = (b"content-length", b"0")


def test_a_connection_answered_before_its_body_came_is_idle_too() -> None:
    async def refusing(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 404, "headers": [EMPTY]})
        await send({"type": "http.response.body", "body": b""})

    async def act() -> Talk:
        talk = Talk(keep_alive_s=PATIENCE_S)
        talk.protocol.app = refusing
        await talk.say(request("/a", b"12345")[:-2], b"45")
        await talk.wait(2.5)
        return talk

    found = talk(act)
    assert (found.answers, found.is_over) == ([(404, b"")], True)


def test_an_idle_connection_on_which_line_ends_drip_is_closed() -> None:
    async def act() -> Talk:
        talk = Talk(keep_alive_s=2 * PATIENCE_S)
        await talk.say(request())
        for _ in range(5):
            await talk.say(b"\r\n")
            await talk.wait(0.5)
        return talk

    assert talk(act).is_over


def test_a_line_end_behind_a_request_in_work_costs_no_answer() -> None:
    async def act() -> Talk:
        talk = Talk()
        talk.may_answer.clear()
        await talk.say(request(), b"\r\n")
        await talk.wait(2.5)
        talk.may_answer.set()
        await talk.say()
        return talk

    assert talk(act).answers == [(200, b"/a")]


def test_what_is_closed_may_be_read_for_a_while_however_short_idle_ones_are_kept() -> None:
    async def act() -> Talk:
        talk = Talk(keep_alive_s=PATIENCE_S / 5)
        talk.wire.is_stuck = True
        await talk.say(request("/a", b"", b"connection: close"))
        await talk.wait(0.7)
        assert "abort" not in talk.wire.told
        await talk.wait(1)
        return talk

    assert "abort" in talk(act).wire.told
