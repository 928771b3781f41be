"""Requests that wait for their run: their rows, until when they are wanted, and by whom."""

from __future__ import annotations

import math
import typing
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from features.encode import Encoded
from service.errors import ScoringTimeout
from service.scorer import Floats


class Client:
    """Whoever sent a request; the connection says when it is gone."""

    __slots__ = ("is_gone",)

    def __init__(self) -> None:
        self.is_gone = False


NOBODY = Client()
"""Stands for clients of which nothing is known: they never leave."""


class Future(typing.Protocol):
    """Gets the scores of a request, or an error; asyncio's is one."""

    def done(self) -> bool:
        """Whether it has either."""

    def set_result(self, scored: tuple[Floats, Floats], /) -> None:
        """Take logit and score, `[rows]` each."""

    def set_exception(self, error: Exception, /) -> None:
        """Take an error."""


@dataclass(slots=True, eq=False)
class Member:
    """One request's rows, and how many of them went into a run.

    Args:
        context: one row for all candidates, or one for each.
        candidate: `[rows]`.
        future: gets the logits and scores.
        rows: of the request.
        deadline: when the answer loses its worth, on the batcher's clock.
        client: who waits.
        is_partial: scores of the first rows are an answer too.
    """

    context: Encoded
    candidate: Encoded
    future: Future
    rows: int
    deadline: float = math.inf
    client: Client = NOBODY
    is_partial: bool = False
    taken: int = 0
    scored: list[tuple[Floats, Floats]] = field(default_factory=list)

    @property
    def left(self) -> int:
        """How many rows went into no run yet."""
        return self.rows - self.taken

    def take(self, rows: int) -> tuple[Encoded, Encoded]:
        """Context and candidate of the next `rows` rows."""
        chosen = slice(self.taken, self.taken + rows)
        self.taken += rows
        is_shared = len(self.context.index) == 1
        return (self.context if is_shared else _part(self.context, chosen)), _part(
            self.candidate, chosen
        )

    def end(self) -> None:
        """Take no more rows; those taken are a partial answer, as soon as they are scored."""
        if not (self.is_partial and self.taken):
            self.fail(ScoringTimeout("the deadline would pass before the answer"))
            return
        self.rows = self.taken
        if sum(len(logit) for logit, _ in self.scored) == self.taken:
            self.answer()

    def add(self, logit: Floats, score: Floats) -> None:
        """Keep the scores of the rows taken last; answer when they were the last."""
        self.scored.append((logit, score))
        if self.taken == self.rows:
            self.answer()

    def answer(self) -> None:
        """Answer with what is scored."""
        if self.future.done():
            return
        if len(self.scored) == 1:
            self.future.set_result(self.scored[0])
        else:
            logits, scores = zip(*self.scored, strict=True)
            self.future.set_result((np.concatenate(logits), np.concatenate(scores)))

    def fail(self, error: Exception) -> None:
        """Answer with an error."""
        if not self.future.done():
            self.future.set_exception(error)


class Queue:
    """Members in the order of their arrival; `rows` is how many of theirs wait."""

    def __init__(self) -> None:
        self.members: deque[Member] = deque()
        self.rows = 0

    def append(self, member: Member) -> None:
        """Put a member at the end."""
        self.members.append(member)
        self.rows += member.rows

    def take(self, rows: int) -> tuple[Member, tuple[Encoded, Encoded]]:
        """The first member and its next rows; with its last ones it leaves."""
        member = self.members[0]
        self.rows -= rows
        if rows == member.left:
            self.members.popleft()
        return member, member.take(rows)

    def drop(self) -> Member:
        """Remove the first member with all its rows."""
        member = self.members.popleft()
        self.rows -= member.left
        return member


def _part(rows: Encoded, chosen: slice) -> Encoded:
    if chosen.start == 0 and chosen.stop >= len(rows.index):
        return rows
    return Encoded(rows.index[chosen], None if rows.weight is None else rows.weight[chosen])
