"""Scores requests by a second version in the background and compares with what was answered.

Rules:
- A thread of its own does it, one request after the other: the event loop is never held.
- What is due is bounded in requests and bytes; what finds no room, or a loop with more than one run
  waiting, is dropped and counted. Nothing here can fail or delay an answer.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, defaultdict, deque
from dataclasses import dataclass

import numpy as np

from features.encode import Encoded
from service.comparison import Comparison
from service.errors import RequestError
from service.model import Model, model_of
from service.prepared import Prepared
from service.routes import ScoreRoute
from service.scorer import Floats
from service.settings import Settings

MOST_DUE = 64
MOST_DUE_BYTES = 16 << 20
_log = logging.getLogger("deepfm")


@dataclass(frozen=True)
class Answered:
    """A request that the first version has scored.

    Args:
        route: which reads it.
        body: as it came.
        version: that has scored it.
        logit: `[rows]`; of the first candidates, if the answer was partial.
        score: `[rows]`.
    """

    route: ScoreRoute
    body: bytes
    version: int
    logit: Floats
    score: Floats


class Shadow:
    """Takes requests that have been answered, and compares; `end` it.

    Args:
        model: the second version.
        settings: of the process.
    """

    def __init__(self, model: Model, settings: Settings) -> None:
        self.outcomes: Counter[str] = Counter()
        self.comparisons: defaultdict[int, Comparison] = defaultdict(Comparison)
        self._model, self._settings = model, settings
        self._due: deque[Answered] = deque()
        self._bytes = 0
        self._has_ended = False
        self._changed = threading.Condition()
        threading.Thread(target=self._run, name="shadow", daemon=True).start()

    def has_room(self, first: Model) -> bool:
        """Whether one more may come; if not, it counts as dropped."""
        is_busy = first.batcher.waiting > self._settings.rows_per_run
        if is_busy or len(self._due) >= MOST_DUE or self._bytes >= MOST_DUE_BYTES:
            self.outcomes["dropped"] += 1
            return False
        return True

    def take(self, answered: Answered) -> None:
        """Compare this one as soon as those before it are done, if there is room."""
        with self._changed:
            if len(self._due) >= MOST_DUE or self._bytes + len(answered.body) > MOST_DUE_BYTES:
                self.outcomes["dropped"] += 1
                return
            self._due.append(answered)
            self._bytes += len(answered.body)
            self._changed.notify()

    def end(self) -> None:
        """Compare nothing more."""
        with self._changed:
            self._has_ended = True
            self._due.clear()
            self._changed.notify()

    def _run(self) -> None:
        # Readers belong to one thread: these share the scorer with those of the event loop.
        model = model_of(self._model.scorer, self._settings.limits)
        while (answered := self._next()) is not None:
            try:
                self._compare(model, answered)
                outcome = "compared"
            except RequestError:
                outcome = "refused"
            except Exception:
                _log.exception("version %d failed in the shadow", model.version)
                outcome = "failed"
            self.outcomes[outcome] += 1

    def _next(self) -> Answered | None:
        with self._changed:
            self._changed.wait_for(lambda: self._due or self._has_ended)
            if self._has_ended:
                return None
            answered = self._due.popleft()
            self._bytes -= len(answered.body)
            return answered

    def _compare(self, model: Model, answered: Answered) -> None:
        rows = len(answered.logit)
        request = answered.route.read(model, answered.body)
        logit, score = model.scorer.score(*_first_rows(request, rows))
        comparison = self.comparisons[answered.version]
        comparison.add_scores(answered.score, score)
        if request.ids and rows > 1:
            comparison.add_ranking(answered.logit, logit)


def _first_rows(
    request: Prepared, rows: int
) -> tuple[Encoded, Encoded, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """What a scorer takes, of the first rows of a request."""
    context, candidate = request.context, request.candidate
    index = candidate.index[:rows]
    weight = None if candidate.weight is None else candidate.weight[:rows]
    is_shared = len(context.index) == 1
    context_row = np.zeros(rows, np.int64) if is_shared else np.arange(rows)
    return context, Encoded(index, weight), context_row
