"""Joins requests that are already waiting into one run of the model; nothing waits for company.

A request's rows are queued and a run is scheduled for the loop's next turn: all requests whose
bytes had arrived by then are in it, up to so many rows. Requests of more rows than a run holds have
a queue of their own, and while both queues hold something the runs take turns: a request of one
row waits for the run it finds and for no other of a request of a thousand. Rows do not see each
other in the model: company changes no score.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from features.encode import Encoded
from service.scorer import Floats, Scorer


@dataclass
class _Member:
    """One request's rows, and how many of them have been scored.

    Args:
        context: one row for all candidates, or one for each.
        candidate: `[rows]`.
        future: gets the logits and scores.
    """

    context: Encoded
    candidate: Encoded
    future: asyncio.Future[tuple[Floats, Floats]]
    done: int = 0
    logits: list[Floats] = field(default_factory=list)
    scores: list[Floats] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return len(self.candidate.index)

    @property
    def left(self) -> int:
        """How many rows have not been scored."""
        return self.rows - self.done

    def take(self, rows: int) -> tuple[Encoded, Encoded]:
        """Context and candidate of the next `rows` rows."""
        chosen = slice(self.done, self.done + rows)
        is_shared = len(self.context.index) == 1
        return (self.context if is_shared else _part(self.context, chosen)), _part(
            self.candidate, chosen
        )

    def add(self, logit: Floats, score: Floats) -> None:
        """Keep the scores of the rows taken last; answer when they were the last."""
        self.done += len(logit)
        self.logits.append(logit)
        self.scores.append(score)
        if self.done == self.rows and not self.future.done():
            joined = [
                parts[0] if len(parts) == 1 else np.concatenate(parts)
                for parts in (self.logits, self.scores)
            ]
            self.future.set_result((joined[0], joined[1]))

    def fail(self, error: Exception) -> None:
        """Answer with an error."""
        if not self.future.done():
            self.future.set_exception(error)


class Batcher:
    """Runs one scorer for all requests of an event loop.

    Args:
        scorer: of one version.
        rows_per_run: most rows of one run.
    """

    def __init__(self, scorer: Scorer, rows_per_run: int) -> None:
        self._scorer = scorer
        self._rows_per_run = rows_per_run
        self._short: deque[_Member] = deque()
        self._long: deque[_Member] = deque()
        self._turn = self._long
        self._is_scheduled = False

    async def score(self, context: Encoded, candidate: Encoded) -> tuple[Floats, Floats]:
        """Logit and score of every candidate, `[rows]` each.

        Args:
            context: one row for all candidates, or one for each.
            candidate: the rows.
        """
        loop = asyncio.get_running_loop()
        if not len(candidate.index):
            return np.empty(0, np.float32), np.empty(0, np.float32)
        member = _Member(context, candidate, loop.create_future())
        (self._short if member.rows <= self._rows_per_run else self._long).append(member)
        if not self._is_scheduled:
            self._is_scheduled = True
            loop.call_soon(self._run)
        return await member.future

    def _run(self) -> None:
        other = self._short if self._turn is self._long else self._long
        self._turn = other or self._turn
        chosen = self._take(self._turn)
        try:
            self._score(chosen)
        except Exception as error:
            self._score_apart(chosen, error)
        self._is_scheduled = bool(self._short or self._long)
        if self._is_scheduled:
            # One turn of the loop later: what arrived during this run is to be in the next.
            loop = asyncio.get_running_loop()
            loop.call_soon(loop.call_soon, self._run)

    def _take(self, queue: deque[_Member]) -> list[tuple[_Member, int]]:
        """The first members of a queue and how many rows of each fit into one run."""
        chosen: list[tuple[_Member, int]] = []
        room = self._rows_per_run
        while queue and room > 0:
            member = queue[0]
            if member.future.done():  # its client went away, or it failed
                queue.popleft()
                continue
            rows = min(member.left, room)
            if rows == member.left:
                queue.popleft()
            chosen.append((member, rows))
            room -= rows
        return chosen

    def _score(self, chosen: list[tuple[_Member, int]]) -> None:
        parts = [member.take(rows) for member, rows in chosen]
        if not parts:
            return
        context_row = _context_rows(parts)
        context, candidate = (_joined([part[side] for part in parts]) for side in (0, 1))
        logit, score = self._scorer.score(context, candidate, context_row)
        begin = 0
        for member, rows in chosen:
            member.add(logit[begin : begin + rows], score[begin : begin + rows])
            begin += rows

    def _score_apart(self, chosen: list[tuple[_Member, int]], error: Exception) -> None:
        """One failing member harms nobody: each is run alone, and fails alone."""
        for member, rows in chosen:
            if len(chosen) == 1:
                member.fail(error)
                continue
            try:
                self._score([(member, rows)])
            except Exception as own:
                member.fail(own)


def _context_rows(parts: list[tuple[Encoded, Encoded]]) -> NDArray[np.int64]:
    rows, begin = [], 0
    for context, candidate in parts:
        count = len(candidate.index)
        if len(context.index) == 1:
            rows.append(np.full(count, begin, np.int64))
        else:
            rows.append(np.arange(begin, begin + count))
        begin += len(context.index)
    return rows[0] if len(rows) == 1 else np.concatenate(rows)


def _joined(parts: list[Encoded]) -> Encoded:
    if len(parts) == 1:
        return parts[0]
    index = np.concatenate([part.index for part in parts])
    weights = [part.weight for part in parts if part.weight is not None]
    return Encoded(index, np.concatenate(weights) if weights else None)


def _part(rows: Encoded, chosen: slice) -> Encoded:
    if chosen.start == 0 and chosen.stop >= len(rows.index):
        return rows
    return Encoded(rows.index[chosen], None if rows.weight is None else rows.weight[chosen])
