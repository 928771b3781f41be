"""Every place where a request body is wrong, with a JSON Pointer: the slow way, for bad input only.

It walks the generically decoded body and accepts exactly what the structs of `service.messages`
accept (held equal by a property test). Messages never repeat a value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from features.canonical import LARGEST_EXACT
from features.encode import Encoder
from features.errors import FeatureError
from features.schema import CategoricalField, Field, Side
from service.documents import is_finite
from service.errors import MOST_PROBLEMS, Problem, token
from service.limits import Limits

MOST_PAIRWISE = 100
_RANK_KEYS = ("context", "candidates", "top_k", "pairwise", "partial")
_SIDE_OF_OTHER: dict[Side, Side] = {"context": "candidate", "candidate": "context"}


class ProblemFinder:
    """Finds what is wrong with bodies of one model.

    Args:
        encoders: of both sides.
        limits: of requests.
    """

    def __init__(self, encoders: Mapping[Side, Encoder], limits: Limits) -> None:
        self.encoders = encoders
        self.limits = limits
        self.fields: dict[str, tuple[Field, Side]] = {
            member.name: (member, side)
            for side, encoder in encoders.items()
            for member in encoder.fields
        }

    def score_problems(self, body: Any) -> list[Problem]:
        """Problems of a decoded `/score` body, the first `MOST_PROBLEMS`."""
        return list(islice(self._score(body), MOST_PROBLEMS))

    def rank_problems(self, body: Any) -> list[Problem]:
        """Problems of a decoded `/rank` body, the first `MOST_PROBLEMS`."""
        return list(islice(self._rank(body), MOST_PROBLEMS))

    def _score(self, body: Any) -> Iterator[Problem]:
        if not isinstance(body, dict):
            yield Problem("", "wrong_type", "the body must be an object")
            return
        yield from unknown_keys(body, ("instances", "columns"), "")
        if ("instances" in body) == ("columns" in body):
            code = "unknown_key" if "columns" in body else "missing_key"
            yield Problem("", code, "give either instances or columns")
            return
        if "instances" in body:
            rows = body["instances"]
            if not isinstance(rows, list):
                yield Problem("/instances", "wrong_type", "instances must be a list of objects")
                return
            yield from self._too_many(len(rows), "/instances")
            for place, row in enumerate(rows):
                yield from self._row(row, f"/instances/{place}", None)
        else:
            yield from self._columns(body["columns"], "/columns", None, None)

    def _rank(self, body: Any) -> Iterator[Problem]:
        if not isinstance(body, dict):
            yield Problem("", "wrong_type", "the body must be an object")
            return
        yield from unknown_keys(body, _RANK_KEYS, "")
        yield from self._options(body)
        if body.get("context") is not None:
            yield from self._row(body["context"], "/context", "context")
        elif self.encoders["context"].fields:
            yield from self._row({}, "/context", "context")
        if "candidates" not in body:
            yield Problem("/candidates", "missing_key", "candidates are missing")
        elif isinstance(body["candidates"], dict):
            yield from self._candidate_columns(body["candidates"])
        elif isinstance(body["candidates"], list):
            yield from self._too_many(len(body["candidates"]), "/candidates")
            for place, item in enumerate(body["candidates"]):
                yield from self._candidate(item, f"/candidates/{place}")
        else:
            message = "candidates must be a list of objects or an object of columns"
            yield Problem("/candidates", "wrong_type", message)

    def _options(self, body: dict[str, Any]) -> Iterator[Problem]:
        top_k = body.get("top_k", 1)
        if not _is_integer(top_k):
            yield Problem("/top_k", "wrong_type", "top_k must be an integer")
        elif top_k < 1:
            yield Problem("/top_k", "out_of_range", "top_k must be at least 1")
        if not isinstance(body.get("partial", False), bool):
            yield Problem("/partial", "wrong_type", "partial must be true or false")
        if not isinstance(body.get("pairwise", False), bool):
            yield Problem("/pairwise", "wrong_type", "pairwise must be true or false")
        elif body.get("pairwise"):
            found = body.get("candidates")
            ids = found.get("id") if isinstance(found, dict) else found
            returned = len(ids) if isinstance(ids, list) else 0
            if _is_integer(top_k) and "top_k" in body:
                returned = min(returned, top_k)
            if returned > MOST_PAIRWISE:
                message = f"pairwise returns at most {MOST_PAIRWISE} items; give a smaller top_k"
                yield Problem("/pairwise", "too_many", message)

    def _candidate(self, item: Any, pointer: str) -> Iterator[Problem]:
        if not isinstance(item, dict):
            yield Problem(pointer, "wrong_type", "a candidate must be an object")
            return
        yield from unknown_keys(item, ("id", "features"), pointer)
        if "id" not in item:
            yield Problem(f"{pointer}/id", "missing_key", "id is missing")
        else:
            yield from self._id(item["id"], f"{pointer}/id")
        yield from self._row(item.get("features", {}), f"{pointer}/features", "candidate")

    def _candidate_columns(self, found: dict[str, Any]) -> Iterator[Problem]:
        yield from unknown_keys(found, ("id", "features"), "/candidates")
        ids = found.get("id")
        if "id" not in found:
            yield Problem("/candidates/id", "missing_key", "id is missing")
            return
        if not isinstance(ids, list):
            yield Problem("/candidates/id", "wrong_type", "id must be a list")
            return
        yield from self._too_many(len(ids), "/candidates/id")
        for place, value in enumerate(ids):
            yield from self._id(value, f"/candidates/id/{place}")
        features = found.get("features", {})
        yield from self._columns(features, "/candidates/features", "candidate", len(ids))

    def _id(self, value: Any, pointer: str) -> Iterator[Problem]:
        if isinstance(value, str):
            yield from self._text(value, pointer)
        elif not _is_integer(value):
            yield Problem(pointer, "wrong_type", "id must be a string or an integer")

    def _text(self, value: str, pointer: str) -> Iterator[Problem]:
        if len(value) > self.limits.text:
            yield Problem(pointer, "too_long", f"at most {self.limits.text} characters")

    def _row(self, row: Any, pointer: str, side: Side | None) -> Iterator[Problem]:
        if not isinstance(row, dict):
            yield Problem(pointer, "wrong_type", "must be an object of fields")
            return
        yield from self._wrong_side(row, pointer, side)
        for member, _ in self._members(side):
            place = f"{pointer}/{token(member.name)}"
            yield from self._value(member, row.get(member.name), place)

    def _columns(
        self, columns: Any, pointer: str, side: Side | None, rows: int | None
    ) -> Iterator[Problem]:
        if not isinstance(columns, dict):
            yield Problem(pointer, "wrong_type", "must be an object of lists")
            return
        yield from self._wrong_side(columns, pointer, side)
        known = {
            member.name: (member, columns[member.name])
            for member, _ in self._members(side)
            if member.name in columns
        }
        lengths = {len(column) for _, column in known.values() if isinstance(column, list)}
        yield from self._lengths(lengths, pointer, rows, bool(known))
        for name, (member, column) in known.items():
            place = f"{pointer}/{token(name)}"
            if not isinstance(column, list):
                yield Problem(place, "wrong_type", "a column must be a list")
                continue
            for row, value in enumerate(column):
                yield from self._value(member, value, f"{place}/{row}")
        if max(lengths, default=rows or 0):
            for member, _ in self._members(side):
                if member.name not in columns:
                    yield from _missing(member, f"{pointer}/{token(member.name)}")

    def _lengths(
        self, lengths: set[int], pointer: str, rows: int | None, is_any: bool
    ) -> Iterator[Problem]:
        if rows is None and not is_any:
            yield Problem(pointer, "missing_key", "columns holds no field of the model")
        if len(lengths | ({rows} if rows is not None else set())) > 1:
            yield Problem(pointer, "unequal_lengths", "all columns must be equally long")
        if rows is None:
            yield from self._too_many(max(lengths, default=0), pointer)

    def _members(self, side: Side | None) -> Iterator[tuple[Field, Side]]:
        return (pair for pair in self.fields.values() if side in (None, pair[1]))

    def _wrong_side(
        self, names: Mapping[str, Any], pointer: str, side: Side | None
    ) -> Iterator[Problem]:
        for name in names:
            if side and name in self.fields and self.fields[name][1] != side:
                message = f"this is a {_SIDE_OF_OTHER[side]} field, not a {side} field"
                yield Problem(f"{pointer}/{token(name)}", "wrong_side", message)

    def _too_many(self, rows: int, pointer: str) -> Iterator[Problem]:
        if rows > self.limits.rows:
            yield Problem(pointer, "too_many", f"at most {self.limits.rows} rows in one request")

    def _value(self, member: Field, value: Any, pointer: str) -> Iterator[Problem]:
        if not isinstance(member, CategoricalField):
            yield from _number(member, value, pointer)
        elif member.multi:
            yield from self._list(member, value, pointer)
        else:
            yield from self._category(member, value, pointer)

    def _list(self, member: CategoricalField, value: Any, pointer: str) -> Iterator[Problem]:
        if value is not None and not isinstance(value, list):
            yield Problem(pointer, "wrong_type", "must be a list of categories or null")
            return
        if len(value or ()) > self.limits.elements:
            message = f"at most {self.limits.elements} elements in a list"
            yield Problem(pointer, "too_many", message)
        known = [(place, item) for place, item in enumerate(value or ()) if item is not None]
        if not known:
            yield from _missing(member, pointer)
        for kept, (place, item) in enumerate(known):
            # What lies beyond max_values is dropped unread, as the encoder does.
            is_kept = kept < member.max_values
            yield from self._category(member, item, f"{pointer}/{place}", is_kept)

    def _category(
        self, member: CategoricalField, value: Any, pointer: str, is_kept: bool = True
    ) -> Iterator[Problem]:
        if value is None:
            yield from _missing(member, pointer)
        elif not isinstance(value, str | int | float):
            message = "must be a string, a number, a boolean or null"
            yield Problem(pointer, "wrong_type", message)
        elif isinstance(value, str) and len(value) > self.limits.text:
            yield from self._text(value, pointer)
        elif not is_kept:
            return
        elif not isinstance(value, str) and not -LARGEST_EXACT <= value <= LARGEST_EXACT:
            message = "a number beyond 2^53 is no safe identifier; send it as a string"
            yield Problem(pointer, "out_of_range", message)
        elif member.unknown == "reject" and not self._is_known(member, value):
            yield Problem(pointer, "unknown_category", "this category is not known")

    def _is_known(self, member: CategoricalField, value: Any) -> bool:
        encoder = self.encoders[member.side]
        column = [[value]] if member.multi else [value]
        try:
            return encoder.is_known(member, column)
        except FeatureError:
            return False


def _number(member: Field, value: Any, pointer: str) -> Iterator[Problem]:
    if value is None:
        yield from _missing(member, pointer)
    elif isinstance(value, bool) or not isinstance(value, int | float):
        yield Problem(pointer, "wrong_type", "must be a number or null")
    elif not is_finite(value):
        yield Problem(pointer, "out_of_range", "the number is beyond the range of float64")


def _missing(member: Field, pointer: str) -> Iterator[Problem]:
    if member.missing == "reject":
        yield Problem(pointer, "missing_value", "this field must not be missing")


def unknown_keys(found: Mapping[str, Any], known: Sequence[str], pointer: str) -> Iterator[Problem]:
    """The keys of an object that are none of those known, one problem each."""
    for key in found:
        if key not in known:
            expected = ", ".join(known)
            yield Problem(
                f"{pointer}/{token(key)}", "unknown_key", f"unknown key; expected {expected}"
            )


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
