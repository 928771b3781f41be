"""The second version in this process: which requests it gets, and what is counted of both.

`App` sends every request for a score through `Second.serve` while there is one; without one the
hot path does not know of it. What is counted lasts as long as the version stands here.
"""

from __future__ import annotations

import random
import time
from collections import Counter, defaultdict
from collections.abc import MutableMapping
from copy import copy
from dataclasses import replace
from typing import Any, cast

import xxhash

from service.batcher import Batcher
from service.errors import ServiceError
from service.incoming import Copying, Receive, Scope, version_of
from service.model import Model
from service.routes import Pick, ScoreRoute, Send
from service.scorer import Floats
from service.settings import Settings
from service.shadow import Answered, Shadow
from service.telemetry import Histogram
from service.trial import Trial

_HASHES = 2.0**64


class Second:
    """A version beside the one that answers.

    Args:
        trial: what it does.
        model: the version, loaded.
        pick: the model that a request would get without it, by the query string.
        settings: of the process.
    """

    def __init__(self, trial: Trial, model: Model, pick: Pick, settings: Settings) -> None:
        self.model = model
        self.requests: Counter[tuple[int, int]] = Counter()
        self.latency: defaultdict[int, Histogram] = defaultdict(Histogram)
        self.shadow: Shadow | None = None
        self._pick, self._settings = pick, settings
        self.turn_to(trial)

    def turn_to(self, trial: Trial) -> None:
        """Do something else with the same version; what was counted of requests stays."""
        self.trial = trial
        if trial.kind == "shadow":
            self.shadow = self.shadow or Shadow(self.model, self._settings)
        else:
            self._end_shadow()

    def end(self) -> None:
        """Stand beside no more; requests that have begun are answered."""
        self._end_shadow()

    async def serve(self, route: ScoreRoute, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request by one of the two versions, and count it."""
        started, status = time.perf_counter(), 0
        try:
            model = self._pick(scope["query_string"])
        except ServiceError:
            await route(scope, receive, send)  # which refuses it itself
            return

        async def noting(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        if version_of(scope["query_string"]) or not is_among(self.trial.share, scope):
            await _with(route, model)(scope, receive, noting)
        elif self.shadow is None:
            model = self.model
            await _with(route, model)(scope, receive, noting)
        else:
            await self._serve_watched(self.shadow, model, route, (scope, receive, noting))
        if status:  # else nobody waited for it
            self._count(model.version, status, time.perf_counter() - started)

    async def _serve_watched(
        self, shadow: Shadow, first: Model, route: ScoreRoute, exchange: tuple[Scope, Receive, Send]
    ) -> None:
        """Answer by the first version, then let the second one score the same."""
        if not shadow.has_room(first):
            await _with(route, first)(*exchange)
            return
        scope, receive, send = exchange
        # A longer body is refused: it is read to its end, but not to be kept.
        copying = Copying(receive, self._settings.max_body_bytes)
        watch = _Watch(first.batcher)
        watched = replace(first, batcher=cast(Batcher, watch))
        await _with(route, watched)(scope, copying, send)
        if watch.scored is not None and len(watch.scored[0]):
            shadow.take(Answered(route, copying.body, first.version, *watch.scored))

    def _count(self, version: int, status: int, seconds: float) -> None:
        self.requests[version, status] += 1
        self.latency[version].add(seconds)

    def _end_shadow(self) -> None:
        if self.shadow is not None:
            self.shadow.end()
            self.shadow = None


class _Watch:
    """Stands for the batcher in one request, and keeps what that was given."""

    def __init__(self, batcher: Batcher) -> None:
        self._batcher = batcher
        self.scored: tuple[Floats, Floats] | None = None

    def admit(self, rows: int, deadline: float) -> None:
        """As `Batcher.admit`."""
        self._batcher.admit(rows, deadline)

    async def score(self, *wanted: Any) -> tuple[Floats, Floats]:
        """As `Batcher.score`."""
        self.scored = await self._batcher.score(*wanted)
        return self.scored


def is_among(share: float, scope: Scope) -> bool:
    """Whether a request is among a share: always the same answer for the same id.

    The id is the header X-Request-Id; without one it is as if it had a fresh random id. What a
    small share takes, a larger one takes too.
    """
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            return bool(xxhash.xxh3_64_intdigest(value) / _HASHES < share)
    return random.random() < share


def _with(route: ScoreRoute, model: Model) -> ScoreRoute:
    """A route for one request, which answers by this model."""
    own = copy(route)
    own.pick = lambda _: model
    return own
