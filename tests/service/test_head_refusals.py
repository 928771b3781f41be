"""Requests that the protocol answers at their head (`service.protocol`)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.service.talks import PATIENCE_S, Talk, request, talk


def turning_away(**given: Any) -> Talk:
    """A connection on which `/busy` is refused at its head."""
    talk = Talk(**given)
    talk.turns[b"/busy"] = b"HTTP/1.1 429 Busy\r\ncontent-length: 1\r\n\r\n-"
    return talk


@pytest.mark.parametrize("size", [0, 5, 100_000])
def test_what_is_refused_at_its_head_is_answered_before_its_body_and_never_run(size: int) -> None:
    async def act() -> Talk:
        talk = turning_away()
        whole = request("/busy", b"x" * size)
        head = whole.index(b"\r\n\r\n") + 4
        await talk.say(whole[:head])
        assert talk.answers == [(429, b"-")]
        await talk.say(whole[head : head + size // 2], whole[head + size // 2 :], request("/next"))
        return talk

    found = talk(act)
    assert found.answers == [(429, b"-"), (200, b"/next")]
    assert found.run == ["/next"]
    assert not found.is_over


def test_a_refusal_at_the_head_waits_for_the_answers_before_it() -> None:
    async def act() -> Talk:
        talk = turning_away()
        await talk.say(request("/a") + request("/busy") + request("/busy") + request("/b"))
        return talk

    answers = talk(act).answers
    assert [answers[place] for place in (0, -1)] == [(200, b"/a"), (200, b"/b")]
    assert len(answers) == 4


@pytest.mark.parametrize("header", [b"connection: close", b"expect: 100-continue"])
def test_a_head_is_not_enough_where_the_connection_may_end_with_it(header: bytes) -> None:
    async def act() -> Talk:
        talk = turning_away()
        await talk.say(request("/busy", b"1", header))
        return talk

    assert talk(act).run == ["/busy"]


def test_a_body_that_breaks_after_a_refusal_gets_no_second_answer() -> None:
    async def act() -> Talk:
        talk = turning_away()
        head = b"POST /busy HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
        await talk.say(head, b"no chunk\r\n")
        return talk

    found = talk(act)
    assert (found.answers, found.is_over) == ([(429, b"-")], True)


def test_a_refusal_whose_body_does_not_arrive_ends_in_time_without_a_second_answer() -> None:
    async def act() -> Talk:
        talk = turning_away()
        await talk.say(request("/busy", b"12345")[:-2])
        await talk.wait(2.5)
        return talk

    found = talk(act)
    assert (found.answers, found.is_over) == ([(429, b"-")], True)


def test_after_a_refusal_an_idle_connection_is_closed_after_its_time() -> None:
    async def act() -> Talk:
        talk = turning_away(keep_alive_s=2 * PATIENCE_S)
        await talk.say(request("/busy", b"12345")[:-2], b"45")
        await talk.wait(1.2)
        assert not talk.is_over
        await talk.wait(1.5)
        return talk

    assert talk(act).is_over


def test_refusals_in_one_read_leave_one_time_behind() -> None:
    async def act() -> Talk:
        talk = turning_away(keep_alive_s=2 * PATIENCE_S)
        await talk.say(request("/busy") * 2)
        await talk.wait(1.2)
        await talk.say(request("/a"))
        await talk.wait(1.2)
        assert not talk.is_over
        return talk

    assert talk(act).answers == [(429, b"-"), (429, b"-"), (200, b"/a")]


def test_a_request_behind_a_refusal_has_all_the_time_of_its_answer() -> None:
    async def act() -> Talk:
        talk = turning_away(keep_alive_s=PATIENCE_S)
        talk.may_answer.clear()
        await talk.say(request("/busy") + request("/a"))
        await talk.wait(2.5)
        talk.may_answer.set()
        await talk.say()
        return talk

    assert talk(act).answers == [(429, b"-"), (200, b"/a")]


def test_half_a_request_behind_both_is_refused_once() -> None:
    async def act() -> Talk:
        talk = turning_away(keep_alive_s=PATIENCE_S)
        talk.may_answer.clear()
        await talk.say(request("/busy") + request("/a") + request("/c")[:9])
        await talk.wait(4)
        talk.may_answer.set()
        await talk.say()
        return talk

    found = talk(act)
    assert [status for status, _ in found.answers] == [429, 200, 408]
    assert found.refused == ["slow_request"]


def test_an_ending_server_closes_after_the_body_of_a_refusal() -> None:
    async def act() -> Talk:
        talk = turning_away()
        await talk.say(request("/busy", b"12345")[:-2])
        talk.protocol.server_state.default_headers = [(b"connection", b"close")]
        talk.protocol.shutdown()
        await talk.say(b"45")
        return talk

    found = talk(act)
    assert (found.answers, found.is_over) == ([(429, b"-")], True)
