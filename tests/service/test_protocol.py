from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from service.protocol import MOST_PIPELINED
from tests.service.talks import PATIENCE_S, Talk, request, said, talk


def test_requests_on_one_connection_are_answered_each_in_its_turn() -> None:
    found = talk(lambda: said(request("/a", b"1"), request("/b", b"22")))
    assert found.answers == [(200, b"/a1"), (200, b"/b22")]
    assert not found.is_over


@pytest.mark.parametrize(
    "pieces",
    [(b"POST /a HTTP/1.1\r\nhost: x\r\n",), (request(body=b"12345")[:-2],), (b"P",)],
    ids=["head", "body", "byte"],
)
def test_what_does_not_arrive_in_time_is_a_408(pieces: tuple[bytes, ...]) -> None:
    found = talk(lambda: said(*pieces, patiences=2))
    (status, body), *more = found.answers
    assert (status, json.loads(body)["status"], more) == (408, 408, [])
    assert found.is_over
    assert found.refused == ["slow_request"]
    assert found.run == []


def test_a_client_that_drips_is_ended_too() -> None:
    async def act() -> Talk:
        talk = Talk()
        for byte in request(body=b"x" * 200):
            if talk.is_over:
                break
            await talk.say(bytes([byte]))
            await talk.wait(0.05)
        return talk

    found = talk(act)
    assert [status for status, _ in found.answers] == [408]


def test_each_request_has_its_own_time() -> None:
    async def act() -> Talk:
        talk = Talk()
        for _ in range(4):
            whole = request(body=b"1")
            await talk.say(whole[:9])
            await talk.wait(0.5)
            await talk.say(whole[9:])
        whole = request(body=b"1")
        for _ in range(4):  # the end of one and the beginning of the next arrive together
            await talk.say(whole[9:] + whole[:9] if talk.protocol.since else whole[:9])
            await talk.wait(0.5)
        return talk

    assert [status for status, _ in talk(act).answers] == [200] * 7


def test_an_answer_that_takes_long_is_not_a_slow_request() -> None:
    async def act() -> Talk:
        talk = Talk()
        talk.may_answer.clear()
        await talk.say(request())
        await talk.wait(2.5)
        talk.may_answer.set()
        await talk.say()
        return talk

    assert talk(act).answers == [(200, b"/a")]


@pytest.mark.parametrize(
    "pieces",
    [
        (request("/a", b"", *[b"x: y"] * 20),),
        (request("/a", b"", b"x: " + b"y" * 1000),),
        (request("/" + "a" * 1000),),
        (b"POST /", *[b"a" * 100] * 11),
        (b"POST / HTTP/1.1\r\n", *[b"x: " + b"y" * 100 + b"\r\n"] * 11),
    ],
    ids=["headers", "header", "url", "url-in-pieces", "headers-in-pieces"],
)
def test_a_large_head_is_a_431(pieces: tuple[bytes, ...]) -> None:
    found = talk(lambda: said(*pieces))
    (status, body), *more = found.answers
    assert (status, json.loads(body)["status"], more) == (431, 431, [])
    assert found.is_over
    assert found.refused == ["large_head"]
    assert found.run == []


def test_a_head_at_its_limits_is_taken() -> None:
    found = talk(lambda: said(request("/a", b"", *[b"x: y"] * 8)))  # beside Host and the length
    assert found.answers == [(200, b"/a")]
    head = request("/a", b"", b"x: ")
    found = talk(lambda: said(request("/a", b"", b"x: " + b"y" * (1000 - len(head)))))
    assert found.answers == [(200, b"/a")]


def test_a_body_is_not_bounded_by_what_bounds_heads() -> None:
    whole = request(body=b"z" * 9000)
    pieces = [whole[begin : begin + 500] for begin in range(0, len(whole), 500)]
    assert talk(lambda: said(*pieces)).answers == [(200, b"/a" + b"z" * 9000)]


CHUNKED = b"POST /a HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"


def test_trailers_are_read_and_bounded() -> None:
    found = talk(lambda: said(CHUNKED, b"2\r\nab\r\n0\r\nx: y\r\n\r\n", request("/b")))
    assert found.answers == [(200, b"/aab"), (200, b"/b")]
    pieces = [b"x: " + b"y" * 100 + b"\r\n"] * 11
    found = talk(lambda: said(CHUNKED, b"2\r\nab\r\n0\r\n", *pieces))
    assert [status for status, _ in found.answers] == [431]
    assert found.is_over


def test_a_trailer_is_no_header() -> None:
    """A proxy in front has judged the headers alone, and so has whoever asks for a key."""

    async def act() -> Talk:
        return await said(CHUNKED + b"0\r\nauthorization: Bearer key\r\n\r\n")

    assert [name for name, _ in talk(act).headers] == [b"host", b"transfer-encoding"]


@pytest.mark.parametrize(
    "broken",
    [
        b"\x16\x03\x01 this is TLS",
        b"POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 1x\r\n\r\n",
        b"POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        b"POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        b"POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        CHUNKED + b"zz\r\n",
    ],
    ids=["tls", "no-number", "negative", "two-lengths", "length-and-chunks", "chunk"],
)
def test_what_is_not_http_is_a_400(broken: bytes) -> None:
    found = talk(lambda: said(broken))
    (status, body), *more = found.answers
    assert (status, json.loads(body)["status"], more) == (400, 400, [])
    assert found.is_over
    assert found.refused == ["not_http"]
    assert found.run == []


@pytest.mark.parametrize(
    ("line", "headers"),
    [
        (b"POST /a HTTP/1.1", []),
        (b"POST /a HTTP/1.1", [b"host: x", b"Host: x"]),
        (b"POST /a HTTP/1.0", [b"host: x", b"host: y"]),
        (b"POST /a HTTP/1.1", [b"host: x", b"transfer-encoding: gzip, chunked"]),
        (b"POST /a HTTP/1.1", [b"host: x"] + [b"transfer-encoding: chunked"] * 2),
        (b"POST /a HTTP/1.0", [b"host: x", b"transfer-encoding: chunked"]),
    ],
    ids=["no-host", "two-hosts", "two-hosts-1.0", "two-codings", "chunked-twice", "chunked-1.0"],
)
def test_a_head_that_the_rfc_forbids_is_a_400(line: bytes, headers: list[bytes]) -> None:
    found = talk(lambda: said(b"\r\n".join([line, *headers, b"", b"0\r\n\r\n"])))
    assert [status for status, _ in found.answers] == [400]
    assert found.is_over
    assert (found.refused, found.run) == (["not_http"], [])


@pytest.mark.parametrize("version", [b"2.0", b"0.9"])
def test_another_version_of_http_is_a_505(version: bytes) -> None:
    found = talk(lambda: said(b"POST /a HTTP/" + version + b"\r\nhost: x\r\n\r\n"))
    (status, body), *more = found.answers
    assert (status, json.loads(body)["status"], more) == (505, 505, [])
    assert found.is_over
    assert (found.refused, found.run) == (["not_http"], [])


@pytest.mark.parametrize("headers", [b"", b"host: x\r\n"], ids=["no-host", "host"])
def test_http_1_0_needs_no_host(headers: bytes) -> None:
    found = talk(lambda: said(b"POST /a HTTP/1.0\r\n" + headers + b"content-length: 1\r\n\r\n1"))
    assert found.answers == [(200, b"/a1")]


@pytest.mark.parametrize("coding", [b"chunked", b"Chunked "])
def test_a_chunked_body_is_taken_however_it_is_written(coding: bytes) -> None:
    head = b"POST /a HTTP/1.1\r\nhost: x\r\ntransfer-encoding: " + coding + b"\r\n\r\n"
    assert talk(lambda: said(head, b"1\r\n1\r\n0\r\n\r\n")).answers == [(200, b"/a1")]


def test_an_expectation_that_is_not_known_is_ignored() -> None:
    assert talk(lambda: said(request("/a", b"1", b"expect: more"))).answers == [(200, b"/a1")]


def test_a_request_arrives_with_its_head_and_ends_with_its_body() -> None:
    async def act() -> Talk:
        talk = Talk()
        began = time.perf_counter()
        await talk.say(b"POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\n")
        head = time.perf_counter()
        await asyncio.sleep(0.01)
        talk.may_answer.clear()
        await talk.say(b"x")
        body = time.perf_counter()
        await asyncio.sleep(0.01)
        talk.may_answer.set()
        await talk.say()
        assert began <= talk.arrived[0] <= head <= talk.ended[0] <= body
        return talk

    assert talk(act).answers == [(200, b"/ax")]


def test_a_body_longer_than_its_length_gets_no_answer_of_another_request() -> None:
    found = talk(lambda: said(request(body=b"ab"), b"cd\r\n\r\n"))
    assert found.answers[0] == (200, b"/aab")
    assert [status for status, _ in found.answers[1:]] == [400]
    assert found.is_over


@pytest.mark.parametrize("bodies", [1, 3])
def test_what_came_before_a_bad_request_in_the_same_read_is_answered_first(bodies: int) -> None:
    """A body longer than its length is such a case: the rest begins another request."""
    whole = b"".join(request(body=b"%d" % number) for number in range(bodies))
    found = talk(lambda: said(whole + b"cd\r\n\r\n" + request("/after")))
    *before, last = found.answers
    assert before == [(200, b"/a%d" % number) for number in range(bodies)]
    assert last[0] == 400
    assert found.is_over
    assert found.refused == ["not_http"]


def test_a_pipelined_request_whose_body_is_broken_is_refused_in_its_turn() -> None:
    found = talk(lambda: said(request() + CHUNKED + b"zz\r\n"))
    assert [status for status, _ in found.answers] == [200, 400]
    assert found.run == ["/a"]
    assert found.is_over


def test_half_a_request_behind_one_in_work_is_a_408_after_the_answer() -> None:
    async def act() -> Talk:
        talk = Talk()
        talk.may_answer.clear()
        await talk.say(request() + request()[:9])
        await talk.wait(2.5)
        assert talk.refused == ["slow_request"]
        talk.may_answer.set()
        await talk.say()
        return talk

    found = talk(act)
    assert [status for status, _ in found.answers] == [200, 408]
    assert found.is_over


def test_half_a_request_and_the_end_are_no_request() -> None:
    async def act() -> Talk:
        talk = await said(request(body=b"12345")[:-2])
        talk.wire.lose()
        await talk.say()
        assert talk.protocol.peer.is_gone
        return talk

    found = talk(act)
    assert (found.answers, found.run) == ([], [])
    assert found.is_over


def test_pipelined_requests_are_answered_in_their_order() -> None:
    async def act() -> Talk:
        talk = Talk()
        talk.may_answer.clear()
        await talk.say(b"".join(request(f"/{number}") for number in range(5)))
        talk.may_answer.set()
        for _ in range(5):
            await talk.say()
        return talk

    assert talk(act).answers == [(200, b"/%d" % number) for number in range(5)]


def test_more_pipelined_requests_than_the_bound_end_the_connection() -> None:
    async def act() -> Talk:
        talk = Talk()
        talk.may_answer.clear()
        await talk.say(request() * (MOST_PIPELINED + 1))
        assert talk.refused == []
        await talk.say(request() * 2)
        assert talk.refused == ["pipelined"]
        talk.may_answer.set()
        while not talk.is_over:
            await talk.say(request())
        return talk

    found = talk(act)
    *before, last = [status for status, _ in found.answers]
    assert (before, last) == ([200] * (MOST_PIPELINED + 1), 429)
    assert found.refused == ["pipelined"]


def test_a_connection_beyond_the_limit_is_a_503() -> None:
    async def act() -> Talk:
        connections: set[Any] = set()
        first = Talk(connections, most=1)
        second = Talk(connections, most=1)
        await second.say(request())
        await first.say(request())
        assert first.answers == [(200, b"/a")]
        await Talk(connections, most=2).say()
        return second

    found = talk(act)
    (status, body), *more = found.answers
    assert (status, json.loads(body)["status"], more) == (503, 503, [])
    assert b"retry-after: 1\r\n" in found.wire.told[0]
    assert found.refused == ["connections"]
    assert found.is_over


def test_a_connection_on_which_nothing_comes_is_closed() -> None:
    found = talk(lambda: said(patiences=2))
    assert (found.answers, found.is_over) == ([], True)


def test_an_idle_connection_is_closed_after_its_time() -> None:
    async def act() -> Talk:
        talk = Talk(keep_alive_s=2 * PATIENCE_S)
        await talk.say(request())
        await talk.wait(1.2)
        assert not talk.is_over
        await talk.wait(1.5)
        return talk

    found = talk(act)
    assert (found.answers, found.is_over) == ([(200, b"/a")], True)


def test_a_closed_connection_whose_client_does_not_read_is_aborted() -> None:
    async def act() -> Talk:
        talk = Talk()
        talk.wire.is_stuck = True
        await talk.say(request("/a", b"", b"connection: close"))
        assert talk.wire.is_closing()
        assert not talk.is_over
        await talk.wait(2.5)
        return talk

    found = talk(act)
    assert "abort" in found.wire.told
    assert found.is_over


def test_a_client_that_asks_on_and_does_not_read_is_aborted() -> None:
    async def act() -> Talk:
        talk = Talk()
        talk.protocol.pause_writing()
        await talk.say(request())
        assert talk.answers == []
        await talk.wait(2.5)
        return talk

    found = talk(act)
    assert "abort" in found.wire.told
    assert found.is_over


def test_a_client_that_reads_slowly_but_reads_is_kept() -> None:
    async def act() -> Talk:
        talk = Talk()
        for _ in range(4):
            talk.protocol.pause_writing()
            await talk.say(request())
            await talk.wait(0.5)
            talk.protocol.resume_writing()
            await talk.say()
        return talk

    assert talk(act).answers == [(200, b"/a")] * 4


def test_an_ending_server_closes_idle_connections_and_answers_what_has_begun() -> None:
    async def act() -> Talk:
        idle = await said(request())
        half = await said(request(body=b"12345")[:-2])
        for one in (idle, half):
            one.protocol.shutdown()
            await one.say()
        assert idle.is_over
        await half.say(b"45")
        return half

    found = talk(act)
    assert (found.answers, found.is_over) == ([(200, b"/a12345")], True)
