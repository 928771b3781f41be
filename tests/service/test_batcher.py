from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import weakref
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from features.encode import Encoded
from service.batcher import Batcher
from service.errors import ClientGone, Overloaded, ScoringTimeout
from service.waiting import Client

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


def test_a_full_queue_refuses_at_once() -> None:
    runs: Any = Runs()
    found = Batcher(runs, 2, 4)
    answers = asyncio.run(together(found, *[(rows(0), rows(n, n)) for n in (1, 2, 3)]))
    assert isinstance(answers[2], Overloaded)
    assert [answers[n][0].tolist() for n in (0, 1)] == [[1, 1], [2, 2]]
    assert found.waiting == 0


def test_past_its_deadline_or_without_its_client_nothing_is_run() -> None:
    found, runs = batcher()
    gone = Client()
    gone.is_gone = True

    async def main() -> list[Any]:
        late = found.score(rows(0), rows(1), deadline=0.0)
        left = found.score(rows(0), rows(2), client=gone)
        return list(await asyncio.gather(late, left, return_exceptions=True))

    late, left = asyncio.run(main())
    assert isinstance(late, ScoringTimeout)
    assert isinstance(left, ClientGone)
    assert (runs.rows, found.waiting) == ([], 0)


def test_rows_that_were_not_run_are_freed_without_the_collector() -> None:
    """It looks seldom: a load of such requests would grow without bound."""
    found, _ = batcher()
    gone = Client()
    gone.is_gone = True

    async def ask(deadline: float, client: Client) -> weakref.ref[Any]:
        candidate = rows(1)
        with contextlib.suppress(ScoringTimeout, ClientGone):
            await found.score(rows(0), candidate, deadline, client)
        return weakref.ref(candidate.index)

    async def main() -> list[Any]:
        left = [await ask(0.0, Client()), await ask(math.inf, gone)]
        await asyncio.sleep(0)  # until then the loop itself holds the last future
        return [ref() for ref in left]

    gc.disable()
    try:
        assert asyncio.run(main()) == [None, None]
    finally:
        gc.enable()


def timed() -> tuple[Batcher, Runs, list[float]]:
    """A batcher whose run of two rows takes a second of its own clock; its pace is known."""
    now, runs = [0.0], Runs()
    score = runs.score

    def slow(*given: Any) -> Arrays:
        now[0] += len(given[1].index) / 2
        return score(*given)

    scorer: Any = runs
    scorer.score = slow
    found = Batcher(scorer, 2, 100, lambda: now[0])
    asyncio.run(together(found, (rows(0), rows(1, 1))))
    return found, runs, now


@pytest.mark.parametrize("fitting", [1, 3, 4])
def test_a_partial_request_gets_the_scores_that_fit(fitting: int) -> None:
    """Also where they are no whole run."""
    found, _, now = timed()
    deadline = now[0] + fitting / 2 + 0.1
    score = found.score(rows(0), rows(*range(10)), deadline, is_partial=True)
    logit, _ = asyncio.run(score)
    assert logit.tolist() == list(range(fitting))
    assert found.waiting == 0


def test_a_pace_that_was_wrong_is_learnt_anew_by_partial_requests() -> None:
    found, _, now = timed()
    found._row_s = 1000.0  # the machine stood still

    def scored(within_s: float) -> int:
        deadline = now[0] + within_s
        score = found.score(rows(0), rows(*range(10)), deadline, is_partial=True)
        return len(asyncio.run(score)[0])

    assert scored(2.1) == 1
    for _ in range(99):
        scored(2.1)
    assert scored(2.1) == 4


@pytest.mark.parametrize(("deadline_s", "is_refused"), [(3.25, True), (3.35, False)])
def test_what_cannot_be_in_time_is_refused_at_the_door(deadline_s: float, is_refused: bool) -> None:
    """Two runs, its own the second, that may take 0.15 more time, and one to spare."""
    found, _, now = timed()

    async def main() -> list[Any]:
        calls = [found.score(rows(0), rows(n), deadline=now[0] + deadline_s) for n in (1, 2, 3)]
        return await asyncio.gather(*calls, return_exceptions=True)

    *before, last = asyncio.run(main())
    assert [logit.tolist() for logit, _ in before] == [[1], [2]]
    assert isinstance(last, Overloaded) == is_refused


@pytest.mark.parametrize(("waiting_rows", "is_run"), [(1, True), (2, False)])
def test_what_would_end_too_late_is_not_run_while_a_full_run_waits_behind_it(
    waiting_rows: int, is_run: bool
) -> None:
    found, runs, now = timed()

    async def main() -> list[Any]:
        late = found.score(rows(0), rows(7, 8), deadline=now[0] + 0.9)
        others = (found.score(rows(0), rows(n)) for n in range(waiting_rows))
        return await asyncio.gather(late, *others, return_exceptions=True)

    late, *others = asyncio.run(main())
    assert isinstance(late, ScoringTimeout) != is_run
    assert [logit.tolist() for logit, _ in others] == [[n] for n in range(waiting_rows)]
    assert sum(runs.rows) == 2 + 2 * is_run + waiting_rows  # two told the pace


@pytest.mark.parametrize(("deadline_s", "is_refused"), [(4.1, True), (4.3, False)])
def test_at_its_head_a_request_is_judged_by_one_run_more(
    deadline_s: float, is_refused: bool
) -> None:
    """And a run later it is let in all the same."""
    found, _, now = timed()

    async def main() -> bool:
        waiting = asyncio.create_task(found.score(rows(0), rows(1, 2)))
        await asyncio.sleep(0)
        deadline = now[0] + deadline_s
        if found.expect(2, deadline):
            return True
        now[0] += 0.99
        await found.score(rows(0), rows(3, 4), deadline)
        await waiting
        return False

    assert asyncio.run(main()) == is_refused


def test_behind_a_full_run_heads_are_judged_though_nothing_waits_yet() -> None:
    found, _, now = timed()

    async def main() -> tuple[list[bool], bool]:
        await found.score(rows(0), rows(1, 2))
        assert (found.waiting, found.is_busy) == (0, True)
        refused = [bool(found.expect(2, now[0] + 4.5)) for _ in range(4)]
        await found.score(rows(0), rows(1))
        return refused, found.is_busy

    # Two rows are a run: the first needs none before it, the second one and two to spare.
    assert asyncio.run(main()) == ([False, False, True, True], False)


def test_what_is_expected_in_one_turn_of_the_loop_counts_together() -> None:
    found, _, now = timed()

    async def main() -> list[int]:
        admitted: list[int] = []
        waiting = asyncio.create_task(found.score(rows(0), rows(1, 2)))
        await asyncio.sleep(0)
        for turn in range(2):
            admitted += [turn for _ in range(3) if not found.expect(2, now[0] + 5.5)]
            if not turn:
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                waiting = asyncio.create_task(found.score(rows(0), rows(1, 2)))
                await asyncio.sleep(0)
        await waiting
        return admitted

    assert asyncio.run(main()) == [0, 0, 1, 1]


def test_what_is_expected_is_forgotten_with_its_turn_and_not_before() -> None:
    found, _, _ = timed()

    async def main() -> list[int]:
        told = []
        found.expect(2, math.inf)
        found.coming.rows -= 2  # its body came at once
        await asyncio.sleep(0)
        found.expect(3, math.inf)
        for _ in range(3):
            told.append(found.coming.rows)
            await asyncio.sleep(0)
        return told

    assert asyncio.run(main())[-1] == 0


def test_a_future_that_fails_at_its_result_stops_no_other_run() -> None:
    found, _ = batcher()

    class Failing:
        def done(self) -> bool:
            return False

        def set_result(self, _: object) -> None:
            raise ValueError

        set_exception = set_result

    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda *_: None)
        found.put(rows(0), rows(1), Failing())
        await asyncio.sleep(0)
        logit, _ = await asyncio.wait_for(found.score(rows(0), rows(2)), 1)
        return list(logit)

    assert asyncio.run(main()) == [2]


def test_no_rows_are_an_answer() -> None:
    found, runs = batcher()
    ((logit, _),) = asyncio.run(together(found, (rows(0), rows())))
    assert (logit.tolist(), runs.rows) == ([], [])
