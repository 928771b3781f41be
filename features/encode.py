"""Canonical columns -> index matrix (and weights): one set of rules for trainer and service.

`features.columns` says what a canonical column is; `features.kinds` encodes fields, kind by kind.
The slots of crosses hold each cross's first index until `features.crosser` fills them, which takes
both sides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from features.columns import ColumnReader, Columns
from features.kinds import MANY_ROWS, parts_of
from features.row import RowEncoder
from features.schema import CategoricalField, Schema, Side
from features.table import HashTable

# Up to so many rows, value by value is faster than column by column (measured with 39 fields).
FEW_ROWS = 4


@dataclass(frozen=True)
class Encoded:
    """Rows of one side, ready for the graph.

    Args:
        index: `[rows, slots]`, indices into the fused tables: int64, as the graph takes them, or
            the array that `Encoder.encode` was given to fill.
        weight: `[rows, slots]` float32, or None for a side whose weights are all 1.
    """

    index: NDArray[Any]
    weight: NDArray[np.float32] | None


class Encoder:
    """Encodes the rows of one side; immutable, safe to share between threads.

    Args:
        schema: the fields.
        side: which of them.
        table: of the same schema, from `Schema.build_table` or `load_schema`.
    """

    def __init__(self, schema: Schema, side: Side, table: HashTable) -> None:
        self.fields = schema.side(side)
        self.slots = schema.slots(side)
        self.is_weighted = schema.is_weighted(side)
        slots, crosses = schema.first_slots(side), schema.crosses_of(side)
        self._cross_slots = [slots[cross.name] for cross in crosses]
        self._cross_first = [schema.ranges[cross.name].start for cross in crosses]
        self._reader = ColumnReader(schema, side)
        self._table = table
        self._parts = parts_of(schema, side, table)
        self._row = RowEncoder(schema, side, table)

    def encode(
        self, columns: Columns, rows: int, index: NDArray[np.int32] | None = None
    ) -> Encoded:
        """Indices and weights of canonical columns; a column that is absent is all missing.

        Args:
            columns: of this side.
            rows: number of rows.
            index: `[rows, slots]`, filled with the indices; default: a new array.

        Raises:
            FeatureError: a value that its field's policy rejects (codes `missing_value`,
                `unknown_category`); `row` is the first such row.
        """
        # Field by field is also how many rows lie in memory: no write then touches all of it.
        order: Literal["C", "F"] = "F" if rows >= MANY_ROWS else "C"
        shape = rows, self.slots
        filled: NDArray[Any] = np.empty(shape, np.int64, order) if index is None else index
        if self._cross_slots:
            filled[:, self._cross_slots] = self._cross_first
        weight = np.ones(shape, np.float32) if self.is_weighted else None
        for part in self._parts:
            part.encode(columns, filled, weight)
        return Encoded(filled, weight)

    def encode_values(
        self, values: Mapping[str, Sequence[Any]], rows: int
    ) -> tuple[Encoded, dict[str, int]]:
        """Values as JSON gives them, encoded: the way of a request.

        Args:
            values: field name -> `[rows]` values; None, or no such name, where missing.
            rows: number of rows.

        Returns:
            The rows, and for each multi field how many of them held more than `max_values`.

        Raises:
            FeatureError: as `columns_from_values` and `encode`.
        """
        if rows <= FEW_ROWS:
            return self._encode_few(values, rows)
        columns, truncated = self._reader.read(values)
        return self.encode(columns, rows), truncated

    def _encode_few(
        self, values: Mapping[str, Sequence[Any]], rows: int
    ) -> tuple[Encoded, dict[str, int]]:
        columns = [values.get(name) for name in self._row.names]
        indices, weights = [], []
        truncated: dict[str, int] = {}
        for row in range(rows):
            given = [None if column is None else column[row] for column in columns]
            index, weight = self._row.encode(given)
            indices.append(index)
            weights.append(weight)
            for name in self._row.truncated(given):
                truncated[name] = truncated.get(name, 0) + 1
        shape = (rows, self.slots)
        index_array = np.array(indices, np.int64).reshape(shape)
        if not self.is_weighted:
            return Encoded(index_array, None), truncated
        return Encoded(index_array, np.array(weights, np.float32).reshape(shape)), truncated

    def columns_from_values(
        self, values: Mapping[str, Sequence[Any]]
    ) -> tuple[Columns, dict[str, int]]:
        """Canonical columns of values as JSON gives them: see `ColumnReader.read`."""
        return self._reader.read(values)

    def is_known(self, member: CategoricalField, column: Sequence[Any]) -> bool:
        """Whether no category in a column of JSON values is unknown to the field.

        Raises:
            FeatureError: a category is a number beyond 2^53.
        """
        columns, _ = self._reader.read({member.name: column})
        hashes = columns[member.name].ravel()
        found = self._table.find_all(hashes[hashes != 0])
        return member.hash_buckets is not None or bool((found >= 0).all())
