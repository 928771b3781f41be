"""Fields of one kind, encoded together: a thousand rows of forty fields cost a few numpy calls.

No index can leave its field's range: a known category's index comes from the table built with the
schema, everything else is computed inside the range.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from features.columns import Coded, Columns
from features.errors import FeatureError
from features.schema import BucketField, CategoricalField, Field, Schema, Side, ValueField
from features.table import HashTable

# From so many rows on, every boundary of a field is compared with all of them.
MANY_ROWS = 4096


class Part(Protocol):
    """Some fields of one kind, and where their slots lie."""

    def encode(
        self, columns: Columns, index: NDArray[Any], weight: NDArray[np.float32] | None
    ) -> None:
        """Fill the fields' slots, `[rows, slots]`; weights are all 1 before.

        Raises:
            FeatureError: as `features.encode.Encoder.encode`.
        """


def parts_of(schema: Schema, side: Side, table: HashTable) -> list[Part]:
    """All fields of one side, by kind."""
    parts: list[Part] = []
    buckets: list[tuple[BucketField, int, int]] = []
    single: list[tuple[CategoricalField, int, int]] = []
    slots = schema.first_slots(side)
    for member in schema.side(side):
        slot = slots[member.name]
        first = schema.ranges[member.name].start
        if isinstance(member, BucketField):
            buckets.append((member, slot, first))
        elif isinstance(member, ValueField):
            parts.append(_Value(member, slot, first))
        elif member.multi:
            parts.append(_Multi(member, slot, first, table))
        else:
            single.append((member, slot, first))
    if buckets:
        parts.append(_Buckets(buckets))
    if single:
        parts.append(_Singles(single, table))
    return parts


def _reject(member: Field, bad: NDArray[np.bool_], code: str, found: str) -> None:
    if bad.any():
        raise FeatureError(f"field '{member.name}' {found}", code, int(bad.argmax()))


class _Buckets:
    """All bucketed numbers, one row of a matrix each."""

    def __init__(self, fields: Sequence[tuple[BucketField, int, int]]) -> None:
        self.members = [member for member, _, _ in fields]
        self.slots = [slot for _, slot, _ in fields]
        self.boundaries = [np.array(member.boundaries, np.float64) for member in self.members]
        self.first = np.array([first for _, _, first in fields])[:, None]
        self.base = self.first + np.array([[member.reserved] for member in self.members])

    def encode(
        self, columns: Columns, index: NDArray[Any], weight: NDArray[np.float32] | None
    ) -> None:
        if len(index) >= MANY_ROWS:
            self._encode_many(columns, index, weight)
            return
        numbers = np.full((len(self.members), len(index)), np.nan)
        found = np.empty(numbers.shape, np.int64)
        for row, (member, boundaries) in enumerate(zip(self.members, self.boundaries, strict=True)):
            column = columns.get(member.name)
            if column is not None:
                numbers[row] = column
            found[row] = buckets_of(numbers[row], boundaries)
        missing = np.isnan(numbers)
        index[:, self.slots] = np.where(missing, self.first, found + self.base).T
        for row, member in enumerate(self.members):
            if member.missing == "reject":
                _reject(member, missing[row], "missing_value", "is missing and must not be")
            elif member.missing == "zero" and weight is not None:
                weight[missing[row], self.slots[row]] = 0

    def _encode_many(
        self, columns: Columns, index: NDArray[Any], weight: NDArray[np.float32] | None
    ) -> None:
        """One field after the other: what it needs meanwhile fits into a core's cache."""
        absent = np.full(len(index), np.nan)
        for row, (member, slot) in enumerate(zip(self.members, self.slots, strict=True)):
            numbers = columns.get(member.name, absent)
            missing = np.isnan(numbers)
            found = buckets_of(numbers, self.boundaries[row])
            np.add(found, self.base[row], index[:, slot], casting="same_kind")
            if missing.any():
                index[missing, slot] = self.first[row]
            if member.missing == "reject":
                _reject(member, missing, "missing_value", "is missing and must not be")
            elif member.missing == "zero" and weight is not None:
                weight[missing, slot] = 0


def buckets_of(
    numbers: NDArray[np.float64], boundaries: NDArray[np.float64]
) -> NDArray[np.int64] | NDArray[np.uint8]:
    """How many boundaries are at most each number, `[rows]`; of NaN anything.

    Many rows are compared with one boundary after the other: with 31 boundaries that takes a sixth
    of the time of a binary search, whose branches no processor foresees.
    """
    if len(numbers) < MANY_ROWS or len(boundaries) > np.iinfo(np.uint8).max:
        return np.searchsorted(boundaries, numbers, "right")
    found = np.zeros(len(numbers), np.uint8)
    above = np.empty(len(numbers), bool)
    for boundary in boundaries.tolist():
        np.greater_equal(numbers, boundary, out=above)
        found += above.view(np.uint8)
    return found


class _Value:
    """One number that multiplies its embedding."""

    def __init__(self, member: ValueField, slot: int, first: int) -> None:
        self.member, self.slot, self.first = member, slot, first

    def encode(
        self, columns: Columns, index: NDArray[Any], weight: NDArray[np.float32] | None
    ) -> None:
        member, column = self.member, columns.get(self.member.name)
        if column is None:
            column = np.full(len(index), np.nan)
        missing = np.isnan(column)
        index[:, self.slot] = self.first + member.reserved
        assert weight is not None  # a side with a value field is weighted
        weight[:, self.slot] = np.where(missing, 1, transform(member, column))
        if missing.any():
            if member.missing == "reject":
                _reject(member, missing, "missing_value", "is missing and must not be")
            index[missing, self.slot] = self.first
            if member.missing == "zero":
                weight[missing, self.slot] = 0


def transform(member: ValueField, column: NDArray[np.float64]) -> NDArray[np.float64]:
    """Clipped and transformed values `[rows]`: finite for every number; NaN stays NaN."""
    clipped = np.clip(column, member.minimum, member.maximum)
    if member.transform == "log1p":
        return np.sign(clipped) * np.log1p(np.abs(clipped))
    if member.transform == "standard":
        return (clipped - member.mean) / member.deviation
    return clipped


class _Categories:
    """Hashes of one or several fields -> fused indices."""

    def __init__(self, members: Sequence[tuple[CategoricalField, int]], table: HashTable) -> None:
        self.table = table
        self.members = [member for member, _ in members]
        first = np.array([first for _, first in members])[:, None]
        self.missing = first
        self.unknown = first + np.array([[m.unknown_index or 0] for m in self.members])
        self.hashed = [
            (row, np.uint64(member.hash_buckets), first + member.reserved)
            for row, (member, first) in enumerate(members)
            if member.hash_buckets
        ]

    def find(self, hashes: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Indices `[fields, values]` and which values are unknown; where missing: anything."""
        found = self.table.find_all(hashes.ravel()).reshape(hashes.shape)
        for row, buckets, first in self.hashed:
            found[row] = (hashes[row] % buckets).view(np.int64) + first
        unknown = found < 0
        return np.where(unknown, self.unknown, found), unknown

    def zeros(self, missing: NDArray[np.bool_], unknown: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which values contribute nothing; rejects those that must not occur.

        Raises:
            FeatureError: as `Encoder.encode`.
        """
        zero = np.zeros(missing.shape, bool)
        for row, member in enumerate(self.members):
            if member.missing == "reject":
                _reject(member, missing[row], "missing_value", "is missing and must not be")
            if member.unknown == "reject":
                _reject(member, unknown[row], "unknown_category", "holds an unknown category")
            if member.missing == "zero":
                zero[row] |= missing[row]
            if member.unknown == "zero":
                zero[row] |= unknown[row]
        return zero


class _Singles:
    """All single-valued categorical fields, looked up in one probe."""

    def __init__(self, fields: Sequence[tuple[CategoricalField, int, int]], table: HashTable):
        self.names = [member.name for member, _, _ in fields]
        self.slots = [slot for _, slot, _ in fields]
        self.categories = _Categories([(member, first) for member, _, first in fields], table)
        self.each = [_Categories([(member, first)], table) for member, _, first in fields]
        self.plain = all(
            member.missing == "bucket" and member.unknown == "bucket" for member, _, _ in fields
        )

    def encode(
        self, columns: Columns, index: NDArray[Any], weight: NDArray[np.float32] | None
    ) -> None:
        if any(isinstance(columns.get(name), Coded) for name in self.names):
            self._encode_coded(columns, index, weight)
            return
        hashes = np.zeros((len(self.names), len(index)), np.uint64)
        for row, name in enumerate(self.names):
            if name in columns:
                hashes[row] = columns[name]
        missing = hashes == 0
        found, unknown = self.categories.find(hashes)
        index[:, self.slots] = np.where(missing, self.categories.missing, found).T
        if not self.plain:
            zero = self.categories.zeros(missing, unknown & ~missing)
            if weight is not None:
                weight[:, self.slots] = ~zero.T

    def _encode_coded(
        self, columns: Columns, index: NDArray[Any], weight: NDArray[np.float32] | None
    ) -> None:
        """Looks every distinct hash up once; the rows copy what was found."""
        absent = Coded(np.zeros(1, np.uint64), np.full(len(index), -1, np.int32))
        for name, slot, one in zip(self.names, self.slots, self.each, strict=True):
            column = columns.get(name, absent)
            missing = column.hashes == 0
            found, unknown = one.find(column.hashes[None])
            known = np.where(missing, one.missing, found)[0].astype(index.dtype)
            known.take(column.codes, out=index[:, slot], mode="wrap")  # -1: the last one
            if not self.plain:
                gaps, strangers = missing[column.codes], (unknown[0] & ~missing)[column.codes]
                zero = one.zeros(gaps[None], strangers[None])[0]
                if weight is not None:
                    weight[:, slot] = ~zero


class _Multi:
    """One multi-valued field: several slots, pooled by their weights."""

    def __init__(self, member: CategoricalField, slot: int, first: int, table: HashTable) -> None:
        self.member, self.first = member, first
        self.slots = slice(slot, slot + member.slots)
        self.categories = _Categories([(member, first)], table)

    def encode(
        self, columns: Columns, index: NDArray[Any], weight: NDArray[np.float32] | None
    ) -> None:
        member, shape = self.member, (len(index), self.member.slots)
        hashes = columns.get(member.name, np.zeros(shape, np.uint64))
        filled = hashes != 0
        lengths = filled.sum(1)
        found, unknown = self.categories.find(hashes.reshape(1, -1))
        unknown = unknown.reshape(shape) & filled
        index[:, self.slots] = np.where(filled, found.reshape(shape), self.first)
        missing = lengths == 0
        zero = self.categories.zeros(missing[None], unknown.any(1)[None])[0] & missing
        share = 1 / np.maximum(lengths, 1) if member.pooling == "mean" else np.ones(len(index))
        kept = filled & ~unknown if member.unknown == "zero" else filled
        assert weight is not None  # a side with a multi field is weighted
        weight[:, self.slots] = kept * share[:, None]
        weight[missing & ~zero, self.slots.start] = 1
