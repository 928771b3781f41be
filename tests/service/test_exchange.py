"""Requests without a task, over the protocol: what they get is what those with one get."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from service.batcher import Batcher
from service.errors import Overloaded
from service.routes import ScoreRoute
from service.scorer import Scorer
from tests.service.lines import ROW, Line, chunked, counted
from tests.service.talks import request
from tests.service.test_corpus import FILES
from tests.service.test_routes import CONTEXT, RANK


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


def test_deadline_and_wish_for_a_part_reach_the_batcher(
    on_a_line: Callable[..., Line], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    put = Batcher.put

    def noting(self: Batcher, *wanted: Any) -> None:
        given.append(wanted[3:])
        put(self, *wanted)

    monkeypatch.setattr(Batcher, "put", noting)
    partial = json.dumps(RANK | {"partial": True}).encode()

    async def act(line: Line) -> None:
        await line.say(request("/rank", partial, b"x-deadline-ms: 60000"))
        await line.say(request("/rank", json.dumps(RANK).encode()))
        for (deadline, client, is_partial), expected in zip(given, (True, False), strict=True):
            assert client is line.protocol.peer
            assert is_partial == expected
            assert (deadline > time.perf_counter() + 50) == expected  # by default 5 s

    line = on_a_line(act)
    assert line.statuses == [200, 200]
    assert [b'"scored":3' in body for _, body in line.answers] == [True, False]


def test_what_is_too_late_when_its_turn_comes_is_a_504(
    on_a_line: Callable[..., Line],
) -> None:
    async def act(line: Line) -> None:
        line.protocol.data_received(request("/score", ROW, b"x-deadline-ms: 9"))
        line.service.models.current.batcher._clock = lambda: time.perf_counter() + 0.01  # type: ignore[union-attr]
        await line.say()

    assert on_a_line(act).statuses == [504]


def test_a_refusal_behind_a_slow_body_is_counted_from_its_end(
    on_a_line: Callable[..., Line], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise Overloaded("queue_full")

    monkeypatch.setattr(Batcher, "admit", refuse)

    async def act(line: Line) -> None:
        whole = request("/score", ROW)
        line.protocol.data_received(whole[:-5])
        await asyncio.sleep(0.03)
        line.protocol.data_received(whole[-5:])

    line = on_a_line(act)
    assert line.statuses == [429]
    assert line.service.telemetry.refusal_latency.sum < 0.03


def test_a_length_may_begin_with_zeros(on_a_line: Callable[..., Line]) -> None:
    whole = request("/score", ROW).replace(b"length: ", b"length: " + b"0" * 900)
    assert on_a_line(lambda line: line.say(whole)).statuses == [200]
