from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from features.encode import Encoded
from service.batcher import Batcher

Arrays = tuple[NDArray[np.float32], NDArray[np.float32]]


class Runs:
    """A scorer that adds context and candidate, and remembers what it was given."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def score(self, context: Encoded, candidate: Encoded, context_row: NDArray[np.int64]) -> Arrays:
        self.rows.append(len(candidate.index))
        if (candidate.index == 13).any():
            raise ValueError("unlucky")
        logit = (context.index[context_row] + candidate.index).sum(1).astype(np.float32)
        if candidate.weight is not None:
            logit = logit * candidate.weight.sum(1)
        return logit, logit / 10


def batcher(rows_per_run: int = 1024) -> tuple[Batcher, Runs]:
    runs: Any = Runs()
    return Batcher(runs, rows_per_run, 10**6), runs


def rows(*values: int) -> Encoded:
    return Encoded(np.array(values, np.int64).reshape(-1, 1), None)


async def together(found: Batcher, *requests: tuple[Encoded, Encoded]) -> list[Any]:
    calls = [found.score(context, candidate) for context, candidate in requests]
    return await asyncio.gather(*calls, return_exceptions=True)


def test_waiting_requests_run_together_and_each_gets_its_own() -> None:
    found, runs = batcher()
    requests = [(rows(100), rows(1, 2)), (rows(10, 20), rows(1, 2)), (rows(1000), rows(5))]
    answers = asyncio.run(together(found, *requests))
    assert [logit.tolist() for logit, _ in answers] == [[101, 102], [11, 22], [1005]]
    assert runs.rows == [5]


def test_a_lone_request_runs_at_once() -> None:
    found, runs = batcher()
    ((logit, score),) = asyncio.run(together(found, (rows(1), rows(2))))
    assert (logit.tolist(), runs.rows) == ([3], [1])
    assert score.tolist() == pytest.approx([0.3])


def test_a_failing_request_harms_nobody() -> None:
    found, _ = batcher()
    requests = [(rows(0), rows(1)), (rows(0), rows(13)), (rows(0), rows(2))]
    answers = asyncio.run(together(found, *requests))
    assert isinstance(answers[1], ValueError)
    assert [answers[0][0].tolist(), answers[2][0].tolist()] == [[1], [2]]


def test_short_and_long_requests_take_turns() -> None:
    """Neither waits for more than one run of the other."""
    found, runs = batcher(rows_per_run=4)
    order = []

    async def ask(name: str, count: int) -> None:
        values = range(100, 100 + count)
        logit, _ = await found.score(rows(0), rows(*values))
        assert logit.tolist() == list(values)
        order.append((name, len(runs.rows)))

    async def main() -> None:
        first, second = (asyncio.create_task(ask(name, 10)) for name in ("first", "second"))
        await asyncio.sleep(0)
        shorts = [asyncio.create_task(ask(f"short {n}", 3)) for n in range(3)]
        await asyncio.gather(first, second, *shorts)

    asyncio.run(main())
    assert runs.rows == [4, 4, 4, 4, 4, 1, 4, 4]
    names = [name for name, _ in order]
    assert names[:1] == ["short 0"]
    assert names.index("short 2") < names.index("second")
    assert names.index("first") < names.index("second")


def test_a_run_is_bounded_in_rows() -> None:
    found, runs = batcher(rows_per_run=3)
    requests = [(rows(0), rows(1, 2)), (rows(0), rows(3, 4)), (rows(5, 6, 7), rows(5, 6, 7))]
    answers = asyncio.run(together(found, *requests))
    assert [logit.tolist() for logit, _ in answers] == [[1, 2], [3, 4], [10, 12, 14]]
    assert max(runs.rows) == 3


def test_a_request_whose_client_went_away_is_not_run() -> None:
    found, runs = batcher()

    async def main() -> Any:
        gone = asyncio.create_task(found.score(rows(0), rows(1, 2, 3)))
        stays = asyncio.create_task(found.score(rows(0), rows(4)))
        await asyncio.sleep(0)
        gone.cancel()
        return await stays

    assert asyncio.run(main())[0].tolist() == [4]
    assert runs.rows == [1]


def test_weights_travel_with_their_rows() -> None:
    found, _ = batcher()
    heavy = Encoded(np.array([[3]]), np.array([[2]], np.float32))
    light = Encoded(np.array([[3]]), np.array([[1]], np.float32))
    answers = asyncio.run(together(found, (rows(0), heavy), (rows(0), light)))
    assert [logit.tolist() for logit, _ in answers] == [[6], [3]]


def test_no_rows_are_an_answer() -> None:
    found, runs = batcher()
    ((logit, _),) = asyncio.run(together(found, (rows(0), rows())))
    assert (logit.tolist(), runs.rows) == ([], [])
