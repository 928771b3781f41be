"""Body bytes -> request, the fast way first; what it refuses is explained or learned from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Generic, TypeVar

import msgspec

from features.names import needs_escape
from features.schema import Schema
from service.documents import decode_json
from service.errors import Problem, RequestError
from service.messages import (
    LONGEST_LEARNED,
    MOST_LEARNED,
    Counts,
    RankMessages,
    RankRequest,
    ScoreMessages,
    ScoreRequest,
)
from service.problems import ProblemFinder

R = TypeVar("R", ScoreRequest, RankRequest)


class BodyDecoder(Generic[R]):
    """Decodes bodies of one route for one model; one per event loop.

    Args:
        build: structs for a tuple of learned names, strict or not.
        find_problems: of a generically decoded body.
        find_rows: the field objects inside a decoded, faultless body; true for columns.
        is_field: whether a name belongs to the model.
        most_depth: most lists and objects inside each other.
    """

    def __init__(
        self,
        build: Callable[[tuple[str, ...], bool], Any],
        find_problems: Callable[[Any], list[Problem]],
        find_rows: Callable[[Any], Iterator[tuple[dict[str, Any], bool]]],
        is_field: Callable[[str], bool],
        most_depth: int,
    ) -> None:
        self._build = build
        self._find_problems = find_problems
        self._find_rows = find_rows
        self._is_field = is_field
        self._most_depth = most_depth
        self._learned: tuple[str, ...] = ()
        self._messages = build((), True)

    def decode(self, body: bytes) -> R:
        """Request of a body.

        Raises:
            RequestError: it is no JSON, or something in it is wrong.
        """
        try:
            request: R = self._messages.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return self._decode_slowly(body)
        return request

    def explain(self, body: bytes) -> RequestError:
        """The error of a body that the encoder refused."""
        problems = self._find_problems(decode_json(body, self._most_depth))
        if not problems:
            raise RuntimeError("the encoder refused a body in which no problem is found")
        return RequestError(problems)

    def _decode_slowly(self, body: bytes) -> R:
        document = decode_json(body, self._most_depth)
        problems = self._find_problems(document)
        if problems:
            raise RequestError(problems)
        lenient = self._build((), False)
        request: R = lenient.request(msgspec.convert(document, lenient.body))
        unknown = self._unknown(document, request.rows)
        self._learn(unknown)
        return replace(request, unknown=unknown)

    def _unknown(self, document: Any, rows: int) -> Counts:
        counts: Counter[str] = Counter()
        for names, is_columns in self._find_rows(document):
            for name in names:
                if not self._is_field(name):
                    counts[name] += rows if is_columns else 1
        return dict(+counts)  # without those in no row

    def _learn(self, names: Counts) -> None:
        new = [name for name in names if name not in self._learned and _can_be_learned(name)]
        room = MOST_LEARNED - len(self._learned)
        if new and room > 0:
            self._learned += tuple(new[:room])
            self._messages = self._build(self._learned, True)


def score_decoder(schema: Schema, finder: ProblemFinder) -> BodyDecoder[ScoreRequest]:
    """Decoder of `/score` bodies."""
    return BodyDecoder(
        lambda learned, is_strict: ScoreMessages(schema, learned, is_strict, finder.limits),
        finder.score_problems,
        _score_rows,
        finder.fields.__contains__,
        finder.limits.depth,
    )


def rank_decoder(schema: Schema, finder: ProblemFinder) -> BodyDecoder[RankRequest]:
    """Decoder of `/rank` bodies."""
    return BodyDecoder(
        lambda learned, is_strict: RankMessages(schema, learned, is_strict, finder.limits),
        finder.rank_problems,
        _rank_rows,
        finder.fields.__contains__,
        finder.limits.depth,
    )


def _can_be_learned(name: str) -> bool:
    """Whether a struct may have a member of this name, and should."""
    return len(name) <= LONGEST_LEARNED and not needs_escape(name)


def _score_rows(body: Any) -> Iterator[tuple[dict[str, Any], bool]]:
    for row in body.get("instances", ()):
        yield row, False
    yield body.get("columns", {}), True


def _rank_rows(body: Any) -> Iterator[tuple[dict[str, Any], bool]]:
    yield body.get("context") or {}, False
    found = body["candidates"]
    if isinstance(found, dict):
        yield found.get("features", {}), True
    else:
        for item in found:
            yield item.get("features", {}), False
