"""`POST /score` and `POST /rank` as bare ASGI applications: bytes in, bytes out.

A request's life, top to bottom: be admitted, read, decoded and encoded (in one compiled pass where
that can be done, `service.compiled`), scored, ordered, answered. The two stand in front of
FastAPI's router, whose own stack costs more than a whole small request. Most requests do not even
become a task (`service.exchange`): the steps are the same, another leads from one to the next.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any

import msgspec

from features.encode import Encoded
from features.errors import FeatureError
from service.bodies import BodyDecoder
from service.errors import Answer, ClientGone, Overloaded, ServiceError, answer_to, cut
from service.expected import ExpectedRows
from service.incoming import (
    Receive,
    Scope,
    arrival_of,
    client_of,
    deadline_of,
    end_of,
    length_of,
    read_body,
)
from service.model import Model
from service.prepared import Prepared
from service.problems import MOST_PAIRWISE
from service.ranking import best_first, items_in, win_probability
from service.scorer import Floats
from service.settings import Settings
from service.telemetry import Telemetry

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Pick = Callable[[bytes], Model]

MOST_WARNINGS = 20
_log = logging.getLogger("deepfm")
_encode = msgspec.json.Encoder().encode


class ScoreRoute:
    """`POST /score`: click probabilities of instances.

    Args:
        pick: the model that answers, by the query string.
        settings: limits.
        telemetry: counts.
    """

    name = "/score"

    def __init__(self, pick: Pick, settings: Settings, telemetry: Telemetry) -> None:
        self.pick, self.settings, self.telemetry = pick, settings, telemetry
        self.expected = ExpectedRows()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        started, rows = arrival_of(scope), 0
        try:
            model = self.pick(scope["query_string"])
            deadline = deadline_of(scope["headers"], started, self.settings.default_deadline_ms)
            request = await self._receive(model, scope, receive, deadline)
            scored = await model.batcher.score(
                request.context, request.candidate, deadline, client_of(scope), request.partial
            )
            answer, rows = self.answer(model, request, scored), len(scored[0])
        except Exception as error:
            answer = self.failed(error)
        status, headers, body = answer
        if status != ClientGone.status:
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body})
        self.observe(status, rows, started, end_of(scope))

    async def _receive(
        self, model: Model, scope: Scope, receive: Receive, deadline: float
    ) -> Prepared:
        """The request, admitted and read; its body, which is large, lives no longer than this.

        Raises:
            ServiceError: it cannot be had in time, or something in it is wrong.
        """
        length = length_of(scope["headers"])
        # Before the body is looked at, and again before it is decoded, for others came meanwhile:
        # a refusal is to cost next to nothing.
        model.batcher.admit(self.expected.of(length), deadline)
        body = await read_body(scope, receive, self.settings.max_body_bytes)
        return self.prepare(model, body, length, deadline)

    def prepare(self, model: Model, body: bytes, length: int, deadline: float) -> Prepared:
        """The request, admitted and read.

        Args:
            model: which answers.
            body: all of it.
            length: of the body, as the head named it; 0 where it did not.
            deadline: on the batcher's clock.

        Raises:
            ServiceError: it cannot be had in time, or something in it is wrong.
        """
        model.batcher.admit(self.expected.of(length), deadline)
        request = self.read(model, body)
        self.expected.learn(length, 1 if request.partial else request.rows)
        return request

    def read(self, model: Model, body: bytes) -> Prepared:
        """What a body asks for.

        Raises:
            RequestError: something in it is wrong.
        """
        return (model.reader and model.reader.score(body)) or self.read_any(model, body)

    def answer(self, model: Model, request: Prepared, scored: tuple[Floats, Floats]) -> Answer:
        """The answer to a request.

        Args:
            model: which scored it.
            request: what was asked.
            scored: logit and score, `[rows]` each; of the first ones, if partial.
        """
        document = {"model": model.name, "version": model.version, "scores": scored[1].tolist()}
        return _json(self._with_warnings(document, request))

    def failed(self, error: Exception) -> Answer:
        """The answer to a request that failed, which is counted, or logged; 499: to nobody."""
        if not isinstance(error, ServiceError):
            _log.error("%s failed", self.name, exc_info=error)
        else:
            self.telemetry.refuse(error.reason)
            if isinstance(error, ClientGone):
                return error.status, [], b""
        return answer_to(error)

    def observe(self, status: int, rows: int, arrived: float, ended: float) -> None:
        """Count an answer.

        Args:
            status: of it.
            rows: scored.
            arrived: when the request's head was there, on `time.perf_counter`.
            ended: when its last byte was.
        """
        # How long a body takes to arrive is no doing of ours.
        since = ended if status == Overloaded.status else arrived
        self.telemetry.observe(self.name, status, rows, time.perf_counter() - since)

    def read_any(self, model: Model, body: bytes) -> Prepared:
        """Any body, the Python way.

        Raises:
            RequestError: something in the body is wrong.
        """
        decoder = model.score_decoder
        request = decoder.decode(body)
        rows = request.rows
        self.bound_rows(rows, decoder, body)
        encoded = encode(model, request.values, request.values, (rows, rows), decoder, body)
        return Prepared(*encoded[:2], request.unknown, encoded[2])

    def bound_rows(self, rows: int, decoder: BodyDecoder[Any], body: bytes) -> None:
        """Refuse a request of too many rows.

        Raises:
            RequestError: there are more than the settings allow.
        """
        if rows > self.settings.max_rows:
            raise decoder.explain(body)

    def _with_warnings(
        self, document: dict[str, Any], request: Prepared, repeated: int = 0
    ) -> dict[str, Any]:
        if not (request.unknown or request.truncated or repeated):
            return document
        found = [("id", "duplicate_id", repeated)] if repeated else []
        found += [(cut(name), "unknown_field", count) for name, count in request.unknown.items()]
        found += [(name, "truncated", count) for name, count in request.truncated.items()]
        for _, code, count in found:
            self.telemetry.warned[code] += count
        # There may be as many unknown names as a body has room for.
        first = found[:MOST_WARNINGS]
        warnings = [{"field": name, "code": code, "count": count} for name, code, count in first]
        return document | {"warnings": warnings}


class RankRoute(ScoreRoute):
    """`POST /rank`: candidates in the order of their logits."""

    name = "/rank"

    def read(self, model: Model, body: bytes) -> Prepared:
        """As `ScoreRoute.read`."""
        request = (model.reader and model.reader.rank(body)) or self.read_any(model, body)
        rows = request.rows
        if request.pairwise and min(request.top_k or rows, rows) > MOST_PAIRWISE:
            raise model.rank_decoder.explain(body)
        return request

    def answer(self, model: Model, request: Prepared, scored: tuple[Floats, Floats]) -> Answer:
        """As `ScoreRoute.answer`; of the candidates scored in time, if that is what was asked."""
        logit, score = scored
        order = best_first(logit, request.top_k)
        items = items_in(order, request.ids, score)
        document = {"model": model.name, "version": model.version, "items": items}
        if request.pairwise:
            document["win_probability"] = win_probability(logit[order]).tolist()
        if request.partial:
            document["scored"] = len(logit)
        repeated = request.rows - len(set(request.ids))
        return _json(self._with_warnings(document, request, repeated))

    def read_any(self, model: Model, body: bytes) -> Prepared:
        """As `ScoreRoute.read_any`."""
        decoder = model.rank_decoder
        request = decoder.decode(body)
        rows = request.rows
        self.bound_rows(rows, decoder, body)
        encoded = encode(model, request.context, request.candidates, (1, rows), decoder, body)
        return Prepared(
            *encoded[:2],
            request.unknown,
            encoded[2],
            ids=request.ids,
            top_k=request.top_k,
            pairwise=request.pairwise,
            partial=request.partial,
        )


def encode(
    model: Model,
    context: Mapping[str, Sequence[Any]],
    candidates: Mapping[str, Sequence[Any]],
    rows: tuple[int, int],
    decoder: BodyDecoder[Any],
    body: bytes,
) -> tuple[Encoded, Encoded, dict[str, int]]:
    """Both sides encoded, and for each multi field how many lists were truncated.

    Raises:
        RequestError: a value is refused by its field.
    """
    encoders = model.scorer.encoders
    try:
        encoded, truncated = encoders["context"].encode_values(context, rows[0])
        candidate, more = encoders["candidate"].encode_values(candidates, rows[1])
    except FeatureError as error:
        raise decoder.explain(body) from error
    model.scorer.crosser.fill(encoded, candidate)
    return encoded, candidate, truncated | more


def _json(document: dict[str, Any]) -> Answer:
    body = _encode(document)
    length = str(len(body)).encode()
    return 200, [(b"content-type", b"application/json"), (b"content-length", length)], body
