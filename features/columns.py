"""JSON values -> canonical columns: the online counterpart of `features.arrow`.

A canonical column is
- of a number: float64 `[rows]`, NaN where missing;
- of a category: uint64 `[rows]`, `features.canonical.hash_text` of each value, 0 where missing;
- of a multi field: uint64 `[rows, max_values]`, values first, 0 behind them.

A long column of categories may come as `Coded`: each distinct hash once.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from features.canonical import canonical_text
from features.schema import CategoricalField, Schema, Side


@dataclass(frozen=True)
class Coded:
    """A column of categories in which a hash stands once, however often it occurs.

    Args:
        hashes: `[distinct + 1]` uint64, the last one 0.
        codes: `[rows]` int32, position in `hashes`, -1 where missing.
    """

    hashes: NDArray[np.uint64]
    codes: NDArray[np.int32]

    def expanded(self) -> NDArray[np.uint64]:
        """The hash of every row."""
        return self.hashes[self.codes]


# Field name -> array or, of a single category, `Coded`.
Columns = Mapping[str, Any]


class ColumnReader:
    """Brings the values of one side to canonical columns; immutable.

    Args:
        schema: the fields.
        side: which of them.
    """

    def __init__(self, schema: Schema, side: Side) -> None:
        self.fields = schema.side(side)
        self._seeds = {
            member.name: schema.text_seed(member)
            for member in self.fields
            if isinstance(member, CategoricalField)
        }

    def read(self, values: Mapping[str, Sequence[Any]]) -> tuple[Columns, dict[str, int]]:
        """Canonical columns of values as JSON gives them, None where missing.

        Args:
            values: field name -> `[rows]` numbers, categories or, for multi fields, lists.

        Returns:
            The columns, and for each multi field how many rows held more than `max_values`.

        Raises:
            FeatureError: a category is a number beyond 2^53 (code `out_of_range`).
        """
        columns: dict[str, NDArray[Any]] = {}
        truncated: dict[str, int] = {}
        for member in self.fields:
            column = values.get(member.name)
            if column is None:
                continue
            if not isinstance(member, CategoricalField):
                columns[member.name] = np.array(column, np.float64)
            elif member.multi:
                lists = [_known_values(items) for items in column]
                long = sum(len(items) > member.max_values for items in lists)
                if long:
                    truncated[member.name] = long
                columns[member.name] = self._hash_lists(member, lists)
            else:
                columns[member.name] = _hashes(column, self._seeds[member.name])
        return columns, truncated

    def _hash_lists(
        self, member: CategoricalField, lists: Sequence[Sequence[Any]]
    ) -> NDArray[np.uint64]:
        width = member.max_values
        kept = [items[:width] for items in lists]
        lengths = np.array([len(items) for items in kept], np.int64)
        flat = _hashes([item for items in kept for item in items], self._seeds[member.name])
        return left_aligned(flat, lengths, width)


def left_aligned(
    flat: NDArray[np.uint64], lengths: NDArray[np.int64], width: int
) -> NDArray[np.uint64]:
    """`[rows, width]` with row i's `lengths[i]` (at most `width`) hashes first and 0 behind."""
    column = np.zeros((len(lengths), width), np.uint64)
    column[np.arange(width) < lengths[:, None]] = flat
    return column


def _known_values(items: Sequence[Any] | None) -> Sequence[Any]:
    if items is None:
        return ()
    return [item for item in items if item is not None] if None in items else items


def _hashes(values: Sequence[Any], seed: int) -> NDArray[np.uint64]:
    digest = xxhash.xxh3_64_intdigest
    # `or 1`: as canonical.hash_text, written out here because a call per value costs as much
    # as the hash itself.
    hashes = [
        0
        if value is None
        else digest((value if value.__class__ is str else canonical_text(value)).encode(), seed)
        or 1
        for value in values
    ]
    # Through an array: numpy takes twice as long to turn a list of large integers into one.
    return np.frombuffer(array("Q", hashes), np.uint64)
