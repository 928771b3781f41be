"""Errors only a server knows, and the one place where an error becomes an answer.

DeepFMError
└── ServiceError
    ├── RequestError    the request is at fault: its problems, each with a pointer (400, 413, 422)
    ├── HeaderError     a header cannot be met (400, 415)
    ├── Unauthorized    a key is needed (401, WWW-Authenticate)
    ├── NotFound        no such path or version (404)
    ├── NotReady        no model is being served yet, or no longer (503, Retry-After)
    ├── Overloaded      too much waits, or too much for the deadline (429, Retry-After)
    ├── ScoringTimeout  the deadline would pass before the answer (504)
    └── ClientGone      nobody waits for the answer any more (499 in the counters; not sent)

Anything else is a bug: logged with its traceback, answered as a bare 500. Bodies are RFC 9457
problem documents; they never repeat a value of the request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from typing import Any, Literal

import msgspec

from features.errors import DeepFMError

CONTENT_TYPE = b"application/problem+json"
MOST_PROBLEMS = 20
LARGEST_BODY_BYTES = 8000
LONGEST_NAME = 200
RETRY_AFTER_S = 1
CLOSE = (b"connection", b"close")
"""The header of a last answer."""
Excess = Literal["queue_full", "deadline"]
"""What too much work would exceed: the most rows that may wait, or the time that is left."""
_TOLD: Mapping[Excess, str] = {
    "queue_full": "too many rows are waiting",
    "deadline": "the deadline would pass before the answer",
}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a request body.

    Args:
        pointer: JSON Pointer (RFC 6901) to the place.
        code: one of the documented words.
        message: a sentence for a person, without the value that was found.
    """

    pointer: str
    code: str
    message: str


class ServiceError(DeepFMError):
    """Base of what only a server raises.

    Args:
        message: shown to the client as `detail`.
        status: of the answer.
        reason: under which the refusal is counted.
    """

    status = 500
    reason = ""

    def __init__(self, message: str, status: int | None = None, reason: str = "") -> None:
        super().__init__(message)
        if status is not None:
            self.status = status
        if reason:
            self.reason = reason


class RequestError(ServiceError):
    """The request is at fault; the client corrects it.

    Args:
        problems: what is wrong and where; at most `MOST_PROBLEMS` are told.
        status: 400 for what is no JSON, 413 for too many bytes, 422 for wrong content.
    """

    def __init__(self, problems: Sequence[Problem], status: int = 422) -> None:
        super().__init__(problems[0].message, status)
        self.problems = tuple(problems[:MOST_PROBLEMS])


class HeaderError(ServiceError):
    """A header asks for what is not done; the client corrects it."""

    status = 400


class Unauthorized(ServiceError):
    """A key is needed, and none of the right ones was given; the client gives one."""

    status = 401
    reason = "no_key"


class NotFound(ServiceError):
    """No such path or version; the client asks for another."""

    status = 404


class NotReady(ServiceError):
    """No model is being served; the client tries again later."""

    status = 503


class Overloaded(ServiceError):
    """More work is waiting than may wait; the client tries again later.

    Args:
        reason: what would be exceeded.
    """

    status = 429

    def __init__(self, reason: Excess) -> None:
        super().__init__(_TOLD[reason], reason=reason)


class ScoringTimeout(ServiceError):
    """The deadline would pass before the answer; the client gives more time, or asks for less."""

    status = 504
    reason = "expired"


class ClientGone(ServiceError):
    """The connection was closed before the answer; nobody reads one."""

    status = 499
    reason = "client_gone"


Answer = tuple[int, list[tuple[bytes, bytes]], bytes]
"""Status, headers and body."""


def problem_answer(status: int, detail: str, problems: Sequence[Problem] = ()) -> Answer:
    """Status, headers and body of a problem document, the body under 8 kB."""
    document: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "errors": [vars(problem) for problem in problems],
    }
    if not problems:
        del document["errors"]
    body = msgspec.json.encode(document)
    while len(body) > LARGEST_BODY_BYTES and document.get("errors"):
        document["errors"].pop()
        body = msgspec.json.encode(document)
    headers = [(b"content-type", CONTENT_TYPE), (b"content-length", str(len(body)).encode())]
    if status in (429, 503):
        headers.append((b"retry-after", str(RETRY_AFTER_S).encode()))
    if status == 415:  # RFC 9110 §15.5.16: it is the coding that is not taken, not the media type
        headers.append((b"accept-encoding", b"identity"))
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    return status, headers, body


def response_to(answer: Answer, *more: tuple[bytes, bytes]) -> bytes:
    """An answer as HTTP/1.1 sends it, with more headers."""
    status, headers, body = answer
    lines = [b"%b: %b" % header for header in (*headers, *more)]
    return b"\r\n".join((_status_line(status), *lines, b"", body))


@cache
def _status_line(status: int) -> bytes:
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}".encode()


@cache  # under overload most answers are one of these
def overload_response(reason: Excess) -> bytes:
    """What is sent where a request is refused at its head."""
    return response_to(answer_to(Overloaded(reason)))


def cut(name: str) -> str:
    """A name that the client made up, as an answer may repeat it: an answer does not grow by it."""
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def token(name: str) -> str:
    """A name as a part of a pointer (RFC 6901); an absurdly long one is cut."""
    return cut(name).replace("~", "~0").replace("/", "~1")


def answer_to(error: Exception) -> Answer:
    """The answer to any exception; the text of one that is not ours stays inside."""
    if isinstance(error, RequestError):
        return problem_answer(error.status, error.message, error.problems)
    if isinstance(error, ServiceError):
        return problem_answer(error.status, error.message)
    return problem_answer(500, "The server failed at this request; the failure has been logged.")
