"""Joins requests that are already waiting into one run of the model; nothing waits for company.

A request's rows are queued and a run is scheduled for the loop's next turn: all requests whose
bytes had arrived by then are in it, up to so many rows. Requests of more rows than a run holds have
a queue of their own, and while both queues hold something the runs take turns: a request of one
row waits for the run it finds and for no other of a request of a thousand. Rows do not see each
other in the model: company changes no score.

What cannot be answered in time is refused before it costs anything: each queue is bounded in rows,
and a request is admitted only if the rows before it and its own can be run by its deadline. That
is judged by the pace of recent full runs: where less than one run waits, nothing is refused, so
there is always one to measure. Nothing is run after its deadline, or for a client that left; nor,
while others could have its place, what has become too late to end in time.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.encode import Encoded
from service.errors import ClientGone, Excess, Overloaded
from service.scorer import Floats, Scorer
from service.waiting import NOBODY, Client, Future, Member, Queue

_NEWEST_SHARE = 0.2
# Runs that may be in the way beside those before it: some take longer than the mean, and at a
# request's head one that went on, it may be, while it arrived and nobody saw it. What was let in
# there is so seldom refused later, when it has cost something.
_SPARE_RUNS, _SPARE_RUNS_AT_HEAD = 1, 2
# The pace may change while something waits, the more the longer that is.
_SLOWER = 1.15
# Of a partial answer: sorting and writing it take their time after the last row.
_ANSWER_S = 0.001
_Chosen = list[tuple[Member, tuple[Encoded, Encoded]]]


@dataclass(slots=True)
class Coming:
    """Rows of requests whose heads the loop has read, and which do not wait yet."""

    rows: int = 0


class Batcher:
    """Runs one scorer for all requests of an event loop.

    Args:
        scorer: of one version.
        rows_per_run: most rows of one run.
        max_queued_rows: most rows that wait in either queue, when more than one run does.
        clock: seconds; deadlines are on it.
    """

    def __init__(
        self,
        scorer: Scorer,
        rows_per_run: int,
        max_queued_rows: int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._scorer = scorer
        self._rows_per_run = rows_per_run
        self._max_queued_rows = max_queued_rows
        self._clock = clock
        self._short = Queue()
        self._long = Queue()
        self._turn = self._long
        self._is_scheduled = False
        self._was_full = False
        self._ended: float | None = None  # the run before, if another was to follow at once
        self.coming = Coming()
        self._will_forget = False
        self._row_s = 0.0  # seconds of a row in recent full runs; 0 before the first

    @property
    def waiting(self) -> int:
        """Rows in both queues."""
        return self._short.rows + self._long.rows

    @property
    def is_busy(self) -> bool:
        """Whether a full run waits, or did when the last one began; else nothing is refused."""
        return self._was_full or max(self._short.rows, self._long.rows) >= self._rows_per_run

    def expect(self, rows: int, deadline: float) -> Excess | None:
        """What a request would exceed, judged at its head; without that, its rows are expected.

        They will come in the loop's next turn. Until then they count as waiting for whoever is
        expected after it: what the loop reads in one turn would else be admitted as if each were
        alone.
        """
        excess = self._excess(rows, deadline, self.coming.rows, _SPARE_RUNS_AT_HEAD)
        if excess is None:
            if not self._will_forget:
                self._will_forget = True
                loop = asyncio.get_running_loop()
                loop.call_soon(loop.call_soon, self._forget_coming)
            self.coming.rows += rows
        return excess

    def _forget_coming(self) -> None:
        self.coming, self._will_forget = Coming(), False

    def admit(self, rows: int, deadline: float) -> None:
        """Refuse so many more rows where they cannot be scored in time.

        Args:
            rows: of the request; 1 while they are not known.
            deadline: on the batcher's clock.

        Raises:
            Overloaded: too much waits before them.
        """
        excess = self._excess(rows, deadline, 0, _SPARE_RUNS)
        if excess is not None:
            raise Overloaded(excess)

    def _excess(self, rows: int, deadline: float, coming: int, spare_runs: int) -> Excess | None:
        """What so many more rows would exceed.

        Args:
            rows: of a request.
            deadline: on the batcher's clock.
            coming: rows that will wait before them, beside those that wait.
            spare_runs: that may come before them, beside those of the rows that wait.
        """
        own, other = self._short, self._long
        if rows > self._rows_per_run:
            own, other = other, own
        before = own.rows + coming
        if before < self._rows_per_run:
            return None
        if before + rows > self._max_queued_rows:
            return "queue_full"
        if deadline < math.inf:
            # Whole runs: those of its queue, the other queue's turns, and some to spare.
            runs = self._runs(before + rows)
            runs += min(self._runs(other.rows), runs)
            needed_s = (runs * _SLOWER + spare_runs) * self._rows_per_run * self._row_s
            if self._clock() + needed_s > deadline:
                return "deadline"
        return None

    def _runs(self, rows: int) -> int:
        return -(-rows // self._rows_per_run)

    async def score(
        self,
        context: Encoded,
        candidate: Encoded,
        deadline: float = math.inf,
        client: Client = NOBODY,
        is_partial: bool = False,
    ) -> tuple[Floats, Floats]:
        """Logit and score of every candidate, `[rows]` each; of the first ones, if partial.

        Args:
            context: one row for all candidates, or one for each.
            candidate: the rows.
            deadline: on the batcher's clock.
            client: for whom; once it is gone, nothing is run.
            is_partial: score in the given order as many as fit the deadline.

        Raises:
            Overloaded: too much waits.
            ScoringTimeout: the deadline would pass before the answer, or before any part of it.
            ClientGone: nobody waits for the answer.
        """
        future: asyncio.Future[tuple[Floats, Floats]] = asyncio.get_running_loop().create_future()
        self.put(context, candidate, future, deadline, client, is_partial)
        try:
            return await future
        finally:
            # An error's traceback holds this frame, the frame the future, that the error: a ring
            # with all rows in it, which only the collector would free.
            del future

    def put(
        self,
        context: Encoded,
        candidate: Encoded,
        future: Future,
        deadline: float = math.inf,
        client: Client = NOBODY,
        is_partial: bool = False,
    ) -> None:
        """As `score`, whose result and later errors the future gets; at once, if there is no row.

        Raises:
            Overloaded: too much waits.
        """
        rows = len(candidate.index)
        if not rows:
            future.set_result((np.empty(0, np.float32), np.empty(0, np.float32)))
            return
        self.admit(1 if is_partial else rows, deadline)
        member = Member(context, candidate, future, rows, deadline, client, is_partial)
        (self._short if rows <= self._rows_per_run else self._long).append(member)
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        other = self._short if self._turn is self._long else self._long
        self._turn = other if other.members else self._turn
        began, rows = self._clock(), 0
        self._was_full = self._turn.rows >= self._rows_per_run
        try:
            rows = self._run_of(self._take(self._turn, began))
        finally:  # whatever a future does with its result, the next run comes
            self._is_scheduled = bool(self._short.members or self._long.members)
            self._learn(rows, began)
            if self._is_scheduled:
                # One turn of the loop later: what arrived during this run is to be in the next.
                loop = asyncio.get_running_loop()
                loop.call_soon(loop.call_soon, self._run)

    def _run_of(self, chosen: _Chosen) -> int:
        """Score members together, or each alone where that fails; how many rows were together."""
        try:
            return self._score(chosen)
        except Exception as error:
            self._score_apart(chosen, error)
            return 0

    def _take(self, queue: Queue, now: float) -> _Chosen:
        """The first members of a queue with as many rows of each as fit into one run."""
        chosen: _Chosen = []
        room = self._rows_per_run
        while queue.members and room > 0:
            rows = self._wanted(queue, now, room)
            if rows:
                chosen.append(queue.take(rows))
                room -= rows
            else:
                queue.drop().end()
        return chosen

    def _wanted(self, queue: Queue, now: float, room: int) -> int:
        """Rows of the first member to run now; 0 if it is not to be run any more."""
        member = queue.members[0]
        if member.future.done():  # it failed, or its task was cancelled
            return 0
        if member.client.is_gone:
            member.fail(ClientGone("the client went away"))
            return 0
        rows = min(member.left, room)
        in_run = self._rows_per_run - room
        if member.is_partial and self._row_s and member.deadline < math.inf:
            left_s = member.deadline - _ANSWER_S - now
            # A first row at least, unless others make the run: of none no pace would be learnt.
            least = int(left_s > 0 and not in_run and not member.taken)
            rows = max(least, min(rows, int(left_s / self._row_s) - in_run))
        elif now >= member.deadline or self._is_late(queue, now + in_run * self._row_s):
            rows = 0
        return rows

    def _is_late(self, queue: Queue, begin: float) -> bool:
        """Whether the first member would end too late, and a full run behind it could go instead.

        Never without that: a pace that is wrong would let nothing run, and stay wrong.
        """
        first = queue.members[0]
        behind = queue.rows - first.left
        return behind >= self._rows_per_run and begin + first.left * self._row_s > first.deadline

    def _score(self, chosen: _Chosen) -> int:
        """Run what was chosen; how many rows that was."""
        if not chosen:
            return 0
        parts = [part for _, part in chosen]
        context_row = _context_rows(parts)
        context, candidate = (_joined([part[side] for part in parts]) for side in (0, 1))
        logit, score = self._scorer.score(context, candidate, context_row)
        begin = 0
        for member, (_, rows) in chosen:
            end = begin + len(rows.index)
            member.add(logit[begin:end], score[begin:end])
            begin = end
        return begin

    def _score_apart(self, chosen: _Chosen, error: Exception) -> None:
        """One failing member harms nobody: each is run alone, and fails alone."""
        for one in chosen:
            if len(chosen) == 1:
                one[0].fail(error)
                continue
            try:
                self._score([one])
            except Exception as own:
                one[0].fail(own)

    def _learn(self, rows: int, began: float) -> None:
        """Keep the pace of a full run, with what the loop did since the one right before it.

        A row of a smaller run takes longer: where it was faster, the pace is too slow.
        """
        ended = self._clock()
        since = began if self._ended is None else self._ended
        row_s = (ended - since) / rows if rows else math.inf
        if rows == self._rows_per_run or row_s < self._row_s:
            share = _NEWEST_SHARE if self._row_s else 1.0
            self._row_s += share * (row_s - self._row_s)
        self._ended = ended if self._is_scheduled else None


def _context_rows(parts: list[tuple[Encoded, Encoded]]) -> NDArray[np.int64]:
    """For each candidate of all parts the row of its context among those of all parts."""
    rows = [len(candidate.index) for _, candidate in parts]
    contexts = [len(context.index) for context, _ in parts]
    if contexts == rows:  # each has its own
        return np.arange(sum(rows))
    first = 0
    found = []
    for own, count in zip(contexts, rows, strict=True):
        found.append(np.full(count, first) if own == 1 else np.arange(first, first + count))
        first += own
    return found[0] if len(found) == 1 else np.concatenate(found)


def _joined(parts: list[Encoded]) -> Encoded:
    if len(parts) == 1:
        return parts[0]
    index = np.concatenate([part.index for part in parts])
    weights = [part.weight for part in parts if part.weight is not None]
    return Encoded(index, np.concatenate(weights) if weights else None)
