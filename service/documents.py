"""Body bytes -> any JSON document, or why they are none."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from itertools import islice
from typing import Any

import msgspec

from service.errors import MOST_PROBLEMS, Problem, RequestError, token
from service.limits import Limits
from service.nesting import is_deeper

_TOO_DEEP = "the body is nested too deeply"


def decode_json(body: bytes, most_depth: int = Limits.depth) -> Any:
    """Any JSON document.

    Args:
        body: the document's bytes.
        most_depth: most lists and objects inside each other.

    Raises:
        RequestError: it is none, or deeper (400); or a number is beyond float64 (422, naming each
            place).
    """
    try:
        document = msgspec.json.decode(body)
    except RecursionError as error:
        raise _invalid_json(_TOO_DEEP) from error
    except msgspec.ValidationError as error:
        raise RequestError(_beyond_float64(body)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _invalid_json(f"the body is not valid JSON: {_reason(error)}") from error
    if is_deeper([document], most_depth):
        raise _invalid_json(_TOO_DEEP)
    return document


def is_finite(value: float) -> bool:
    """Whether float64 holds a number."""
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer too large for a float
        return False


def _invalid_json(message: str) -> RequestError:
    return RequestError([Problem("", "invalid_json", message)], status=400)


def _reason(error: Exception) -> str:
    # msgspec's text says what and at which byte; a Unicode error's would repeat bytes.
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 at byte {error.start}"
    return str(error).removeprefix("JSON is malformed: ")


def _beyond_float64(body: bytes) -> list[Problem]:
    def walk(value: Any, pointer: str) -> Iterator[Problem]:
        if isinstance(value, dict):
            for key, item in value.items():
                yield from walk(item, f"{pointer}/{token(key)}")
        elif isinstance(value, list):
            for place, item in enumerate(value):
                yield from walk(item, f"{pointer}/{place}")
        elif isinstance(value, int | float) and not is_finite(value):
            message = "the number is beyond the range of float64"
            yield Problem(pointer, "out_of_range", message)

    try:
        # An integer of any length is read as a float here: infinite when beyond the range.
        found = list(islice(walk(json.loads(body, parse_int=float), ""), MOST_PROBLEMS))
    except (ValueError, RecursionError):
        found = []
    return found or [Problem("", "out_of_range", "a number is beyond the range of float64")]
