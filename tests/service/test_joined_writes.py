from __future__ import annotations

import asyncio
from typing import Any

from service.joined_writes import JoinedWrites
from tests.service.talks import Sink


async def told_by(act: Any) -> list[Any]:
    sink = Sink()
    act(JoinedWrites(sink, asyncio.get_running_loop()))  # type: ignore[arg-type]
    before = list(sink.told)
    await asyncio.sleep(0)
    return [before, sink.told[len(before) :]]


def test_head_and_body_are_one_write() -> None:
    def act(transport: JoinedWrites) -> None:
        transport.write(b"head")
        transport.write(b"body")

    assert asyncio.run(told_by(act)) == [[b"headbody"], []]


def test_a_write_alone_waits_for_the_next_turn_of_the_loop_and_no_longer() -> None:
    assert asyncio.run(told_by(lambda transport: transport.write(b"head"))) == [[], [b"head"]]


def test_an_empty_body_sends_the_head() -> None:
    def act(transport: JoinedWrites) -> None:
        transport.write(b"head")
        transport.write(b"")

    assert asyncio.run(told_by(act)) == [[b"head"], []]


def test_closing_sends_what_is_held_first() -> None:
    def act(transport: JoinedWrites) -> None:
        transport.write(b"head")
        transport.close()

    assert asyncio.run(told_by(act)) == [[b"head", "close"], []]


def test_all_else_is_the_transports_own() -> None:
    def act(transport: JoinedWrites) -> None:
        transport.close()
        assert transport.is_closing()

    assert asyncio.run(told_by(act)) == [["close"], []]
