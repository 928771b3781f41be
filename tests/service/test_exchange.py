"""Requests without a task, over the protocol: what they get is what those with one get."""

from __future__ import annotations

import asyncio
import gc
import json
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest

from service.app import App, create_app
from service.batcher import Batcher
from service.exchange import Exchange
from service.routes import ScoreRoute
from service.scorer import Scorer
from service.settings import Settings
from tests.service.talks import PATIENCE_S, Talk, request
from tests.service.test_corpus import FILES
from tests.service.test_routes import CONTEXT, ITEMS, RANK

ROW = json.dumps({"instances": [CONTEXT | ITEMS[0]]}).encode()
Act = Callable[["Line"], Awaitable[None]]


class Line(Talk):
    """A connection to the whole application."""

    def __init__(self, service: App, **given: Any) -> None:
        self.service = service
        super().__init__(**given)

    def at_head(self, method: bytes, target: bytes, scope: Any) -> Any:
        return self.service.at_head(method, target, scope)

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        self.run.append(scope["path"])
        await self.service(scope, receive, send)

    @property
    def statuses(self) -> list[int]:
        return [status for status, _ in self.answers]


@pytest.fixture
def on_a_line(scorer: Scorer, bundle_path: Any) -> Callable[..., Line]:
    """Lets a coroutine talk to the service, and returns the line when it is done."""

    def run(act: Act, **given: Any) -> Line:
        async def whole() -> Line:
            settings = Settings(bundle=bundle_path.parent, max_body_bytes=1 << 20, max_rows=200)
            service = create_app(settings, scorer)
            async with service.router.lifespan_context(service):
                line = Line(service, **given)
                await act(line)
                return line

        return asyncio.run(whole())

    return run


def chunked(path: str, body: bytes) -> bytes:
    """A request whose body comes in a chunk: it becomes a task."""
    head = b"POST %b HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" % path.encode()
    return head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


def counted(service: App) -> Any:
    """What was counted, without the times."""
    told = service.telemetry
    latency = {route: sum(one.buckets) for route, one in told.latency.items()}
    return dict(told.requests), dict(told.rows), dict(told.warned), dict(told.refused), latency


def test_every_body_gets_what_it_gets_as_a_task(on_a_line: Callable[..., Line]) -> None:
    asked = [(f"/{file.parent.name}", file.read_bytes()) for file in FILES]
    asked = [(path, body) for path, body in asked if body]

    async def directly(line: Line) -> None:
        for path, body in asked:
            await line.say(request(path, body))

    async def as_tasks(line: Line) -> None:
        for path, body in asked:
            await line.say(chunked(path, body))

    direct, long = on_a_line(directly), on_a_line(as_tasks)
    assert len(direct.wire.told) == len(asked)  # an answer is one write
    assert not direct.run
    assert len(long.run) == len(asked)
    assert direct.answers == long.answers
    told = [b"".join(data for data in line.wire.told) for line in (direct, long)]
    assert told[0] == told[1]  # the heads too
    assert counted(direct.service) == counted(long.service)


def test_a_body_may_arrive_in_pieces(on_a_line: Callable[..., Line]) -> None:
    body = json.dumps(RANK).encode()
    whole = request("/rank", body)

    async def act(line: Line) -> None:
        await line.say(whole)
        await line.say(*(whole[place : place + 97] for place in range(0, len(whole), 97)))

    line = on_a_line(act)
    assert line.statuses == [200, 200]
    assert line.answers[0] == line.answers[1]


def test_connections_that_ask_in_one_turn_share_a_run(
    on_a_line: Callable[..., Line], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[int] = []
    score = Scorer.score

    def noting(self: Scorer, *given: Any) -> Any:
        runs.append(len(given[2]))
        return score(self, *given)

    monkeypatch.setattr(Scorer, "score", noting)

    async def act(line: Line) -> None:
        others = [Line(line.service) for _ in range(4)]
        for one in (line, *others):
            one.protocol.data_received(request("/score", ROW))
        await line.say()
        assert len({one.answers[0] for one in (line, *others)}) == 1

    assert on_a_line(act).statuses == [200]
    assert runs == [5]


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


def test_a_failure_is_a_bare_500_and_harms_no_other(
    on_a_line: Callable[..., Line], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = ScoreRoute.answer

    def failing(self: Any, model: Any, asked: Any, scored: Any) -> Any:
        if asked.rows == 2:
            raise ValueError("secret")
        return answer(self, model, asked, scored)

    monkeypatch.setattr(ScoreRoute, "answer", failing)
    two = json.dumps({"instances": [CONTEXT] * 2}).encode()

    async def act(line: Line) -> None:
        other = Line(line.service)
        line.protocol.data_received(request("/score", two))
        other.protocol.data_received(request("/score", ROW))
        await line.say()
        assert other.statuses == [200]
        await line.say(request("/score", ROW))

    line = on_a_line(act)
    assert line.statuses == [500, 200]
    assert b"secret" not in line.answers[0][1]


def test_a_run_that_fails_answers_all_that_were_in_it(
    on_a_line: Callable[..., Line], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def act(line: Line) -> None:
        other = Line(line.service)
        with monkeypatch.context() as patch:
            patch.setattr(Scorer, "score", lambda *_: 1 / 0)
            for one in (line, other):
                one.protocol.data_received(request("/score", ROW))
            await line.say()
        assert other.statuses == [500]
        await line.say(request("/score", ROW))

    assert on_a_line(act).statuses == [500, 200]


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


def test_rows_expected_at_a_head_wait_once_their_body_is_there(
    on_a_line: Callable[..., Line], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Batcher, "is_busy", True)
    monkeypatch.setattr(Batcher, "_excess", lambda *_: None)

    async def act(line: Line) -> None:
        await line.say(request("/score", ROW))  # its rows are learned
        batcher = line.service.models.current.batcher  # type: ignore[union-attr]
        whole = request("/score", ROW)
        line.protocol.data_received(whole[:-5])
        assert (batcher.coming.rows, batcher.waiting) == (1, 0)
        line.protocol.data_received(whole[-5:])
        assert (batcher.coming.rows, batcher.waiting) == (0, 1)
        await line.say()

    assert on_a_line(act).statuses == [200, 200]


def test_an_answered_exchange_leaves_no_ring_behind(
    on_a_line: Callable[..., Line], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The collector hardly ever comes in a server: bodies and rows are to go with the answer."""
    left: list[Any] = []
    begin = Exchange.begin

    def noting(self: Exchange, *given: Any) -> None:
        begin(self, *given)
        left.append(self)

    monkeypatch.setattr(Exchange, "begin", noting)
    body = json.dumps({"columns": {"item": np.arange(100).tolist()}}).encode()

    async def act(line: Line) -> None:
        gc.disable()
        try:
            for one in (body, b"{", body):
                await line.say(request("/score", one))
            rows = weakref.ref(left[0].request.candidate.index)
            left.clear()
            assert rows() is None
        finally:
            gc.enable()

    assert on_a_line(act).statuses == [200, 400, 200]
