"""What requests without a task do to their connection, and what that does to them."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from service.routes import ScoreRoute
from service.scorer import Scorer
from tests.service.lines import ROW, Line, counted
from tests.service.talks import PATIENCE_S, request


def test_what_is_sent_behind_one_in_work_is_answered_in_its_turn(
    on_a_line: Callable[..., Line],
) -> None:
    async def act(line: Line) -> None:
        await line.say(
            request("/score", ROW) + b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n" + request("/rank")
        )

    line = on_a_line(act)
    assert line.statuses == [200, 200, 400]
    assert line.answers[1][1] == b'{"status":"alive"}'
    assert line.run == ["/healthz", "/rank"]


def test_the_next_request_on_the_connection_goes_the_direct_way_again(
    on_a_line: Callable[..., Line],
) -> None:
    async def act(line: Line) -> None:
        for _ in range(3):
            await line.say(request("/score", ROW), request("/score", b"{"))

    line = on_a_line(act)
    assert line.statuses == [200, 400] * 3
    assert not line.run


@pytest.mark.parametrize(
    "head",
    [
        request("/score", ROW, b"connection: close"),
        request("/score", ROW, b"expect: 100-continue"),
        request("/score", ROW, b"connection: keep-alive").replace(b"HTTP/1.1", b"HTTP/1.0"),
    ],
    ids=["close", "continue", "http-1.0"],
)
def test_whoever_asks_more_of_the_connection_becomes_a_task(
    on_a_line: Callable[..., Line], head: bytes
) -> None:
    line = on_a_line(lambda line: line.say(head))
    assert line.run == ["/score"]
    assert line.statuses[-1] == 200


def test_whoever_does_not_read_waits_for_the_next_answer(on_a_line: Callable[..., Line]) -> None:
    async def act(line: Line) -> None:
        line.protocol.pause_writing()
        await line.say(request("/score", ROW))
        assert not line.answers
        line.protocol.resume_writing()
        await line.say()

    assert on_a_line(act).statuses == [200]


@pytest.mark.parametrize("kept", [40, None], ids=["half-a-body", "whole"])
def test_a_client_that_left_is_counted_and_nothing_is_run(
    on_a_line: Callable[..., Line], monkeypatch: pytest.MonkeyPatch, kept: int | None
) -> None:
    monkeypatch.setattr(Scorer, "score", lambda *_: pytest.fail("it was run"))
    whole = request("/score", ROW)

    async def act(line: Line) -> None:
        line.protocol.data_received(whole[: len(whole) - len(ROW) + kept] if kept else whole)
        line.protocol.connection_lost(None)
        await line.say()

    line = on_a_line(act)
    requests, _, _, refused, _ = counted(line.service)
    assert (requests, refused) == ({("/score", 499): 1}, {"client_gone": 1})
    assert not line.answers


def test_a_body_that_does_not_arrive_in_time_is_a_408(on_a_line: Callable[..., Line]) -> None:
    async def act(line: Line) -> None:
        await line.say(request("/score", ROW)[:-5])
        await line.wait(2.5)

    line = on_a_line(act)
    assert (line.statuses, line.is_over) == ([408], True)


def test_an_idle_connection_is_closed_after_its_time(on_a_line: Callable[..., Line]) -> None:
    async def act(line: Line) -> None:
        await line.say(request("/score", ROW))
        await line.wait(2.5)

    line = on_a_line(act, keep_alive_s=PATIENCE_S)
    assert (line.statuses, line.is_over) == ([200], True)


@pytest.mark.parametrize("missing", [0, 5])
def test_an_ending_server_answers_what_has_begun_and_closes(
    on_a_line: Callable[..., Line], missing: int
) -> None:
    whole = request("/score", ROW)
    begun, rest = whole[: len(whole) - missing], whole[len(whole) - missing :]

    async def act(line: Line) -> None:
        line.protocol.data_received(begun)
        line.protocol.server_state.default_headers = [(b"connection", b"close")]
        line.protocol.shutdown()
        await line.say(*[rest][: len(rest)])

    line = on_a_line(act)
    assert (line.statuses, line.is_over) == ([200], True)
    assert b"\r\nconnection: close\r\n" in line.wire.told[0]


def test_an_answered_request_leaves_nothing_on_its_connection(
    on_a_line: Callable[..., Line], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Idle connections are many, and the collector hardly ever comes in a server."""
    rows: list[Any] = []
    prepare = ScoreRoute.prepare

    def noting(self: ScoreRoute, *given: Any) -> Any:
        found = prepare(self, *given)
        rows.append(weakref.ref(found.candidate.index))
        return found

    monkeypatch.setattr(ScoreRoute, "prepare", noting)

    async def act(line: Line) -> None:
        other = Line(line.service)
        connection = weakref.ref(other.protocol)
        gc.disable()
        try:
            for one in (ROW, b"{", ROW):
                await other.say(request("/score", one))
            assert other.statuses == [200, 400, 200]
            assert [one() for one in rows] == [None, None]
            other.protocol.connection_lost(None)
            await other.say()
            other.wire.protocol = None
            del other.protocol
            assert connection() is None
        finally:
            gc.enable()

    on_a_line(act)


def test_what_begins_once_the_server_ends_is_told_that_it_is_the_last(
    on_a_line: Callable[..., Line],
) -> None:
    async def act(line: Line) -> None:
        ending = [(b"connection", b"close")]
        line.protocol.server_state.default_headers = ending
        await line.say(request("/score", ROW))

    line = on_a_line(act)
    assert (line.statuses, line.is_over) == ([200], True)
    assert b"\r\nconnection: close\r\n" in line.wire.told[0]
