"""The compiled pass: a plain body straight to indices, where the compiled module was built.

`service/_bodies.c` says what a plain body is. Everything else, and every body where the module is
not there (it is optional: no compiler, no module), goes the Python way; a property test holds the
two equal.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from features.cross import CrossField
from features.crosser import Crosser
from features.encode import Encoded
from features.row import NUMPY_ONLY
from features.schema import SIDES, BucketField, CategoricalField, Field, Schema, ValueField
from features.table import HashTable
from service.limits import MOST_AROUND, Limits
from service.prepared import Prepared

try:
    from service._bodies import Reader
except ImportError:
    IS_THERE = False
else:
    IS_THERE = True

_BUCKET, _VALUE, _CATEGORY, _MULTI, _CROSS = range(5)
_POLICIES = {"bucket": 0, "zero": 1, "reject": 2}


class PlainReader:
    """Reads plain bodies of one schema; one per event loop.

    Args:
        schema: the fields.
        table: of the same schema.
        limits: a body that goes beyond them is not plain.
    """

    def __init__(self, schema: Schema, table: HashTable, limits: Limits) -> None:
        self._max_rows = limits.rows
        self._crosser = Crosser(schema)
        self._slots = [schema.slots(side) for side in SIDES]
        self._reader = Reader(
            table.slots.data,
            table.homes,
            (schema.is_weighted("context"), schema.is_weighted("candidate")),
            [_described(schema, member) for side in SIDES for member in schema.members(side)],
            (limits.text, limits.elements, limits.depth - MOST_AROUND),
        )

    @classmethod
    def of(cls, schema: Schema, table: HashTable, limits: Limits) -> PlainReader | None:
        """A reader, or None where there is no compiled module or it cannot do the schema."""
        if not IS_THERE or any(_needs_numpy(member) for member in schema.fields):
            return None
        return cls(schema, table, limits)

    def score(self, body: bytes) -> Prepared | None:
        """A plain body of `/score`, or None."""
        answer = self._reader.score(body, self._max_rows)
        return None if answer is None else self._prepared(answer)

    def rank(self, body: bytes) -> Prepared | None:
        """A plain body of `/rank`, or None."""
        answer = self._reader.rank(body, self._max_rows)
        return None if answer is None else self._prepared(*answer)

    def _prepared(self, answer: Any, *ranking: Any) -> Prepared:
        context = _encoded(answer[0], self._slots[0])
        candidate = _encoded(answer[1], self._slots[1])
        self._crosser.fill(context, candidate)
        return Prepared(context, candidate, *answer[2:], *ranking)


def _encoded(side: Any, slots: int) -> Encoded:
    rows, index, weight = side
    shape = (rows, slots)
    return Encoded(
        np.ndarray(shape, np.int64, index),
        None if weight is None else np.ndarray(shape, np.float32, weight),
    )


def _needs_numpy(member: Field) -> bool:
    return isinstance(member, ValueField) and member.transform in NUMPY_ONLY


def _described(schema: Schema, member: Field | CrossField) -> tuple[object, ...]:
    """What `_bodies.Reader` takes for a field or cross."""
    kind, missing, unknown, unknown_index, seed, buckets = _BUCKET, "bucket", "bucket", 0, 0, 0
    boundaries, numbers, is_mean = b"", (0.0, 0.0, 0.0, 1.0), False
    base = first = schema.ranges[member.name].start
    if not isinstance(member, CrossField):
        missing, base = member.missing, first + member.reserved
    match member:
        case CrossField():
            kind = _CROSS
        case BucketField():
            boundaries = np.array(member.boundaries, np.float64).tobytes()
        case ValueField():
            kind = _VALUE
            is_standard = member.transform == "standard"
            moved = (member.mean, member.deviation) if is_standard else (0.0, 1.0)
            numbers = (member.minimum, member.maximum, *moved)
        case CategoricalField():
            kind = _MULTI if member.multi else _CATEGORY
            unknown, buckets = member.unknown, member.hash_buckets or 0
            unknown_index = first + (member.unknown_index or 0)
            seed, is_mean = schema.text_seed(member), member.pooling == "mean"
    return (
        member.name,
        SIDES.index(member.side),
        kind,
        member.slots,
        _POLICIES[missing],
        _POLICIES[unknown],
        first,
        base,
        unknown_index,
        seed,
        buckets,
        boundaries,
        *numbers,
        is_mean,
    )
