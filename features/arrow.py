"""Arrow columns -> canonical columns: the offline counterpart of `features.columns`.

Each distinct value of a batch is brought to its canonical text once, whatever the number of rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isnan
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.canonical import canonical_text
from features.columns import Coded, left_aligned
from features.errors import DataError, FeatureError
from features.log import Batch, ClickLog, Kind
from features.schema import CategoricalField, Field, Schema
from features.vocabulary import Vocabulary


@dataclass(frozen=True)
class Categories:
    """A column of categories, each distinct one once.

    Args:
        texts: Arrow strings, the canonical texts; two may be equal (1 and 1.0 of a mixed source).
        codes: `[values]` int32, position in `texts`, -1 where missing.
    """

    texts: pa.StringArray
    codes: NDArray[np.int32]

    def coded(self, seed: int) -> Coded:
        """The column as hashes of the distinct texts, and which of them each value is."""
        hashes = Vocabulary.of_arrow(self.texts).hashes(seed)
        return Coded(np.append(hashes, np.uint64(0)), self.codes)

    def hashes(self, seed: int) -> NDArray[np.uint64]:
        """`[values]` uint64, 0 where missing."""
        return self.coded(seed).expanded()


@dataclass(frozen=True)
class Lists:
    """A column of lists of categories, missing elements already dropped.

    Args:
        values: all elements, one list after another.
        lengths: `[rows]` int64, elements of each row's list.
    """

    values: Categories
    lengths: NDArray[np.int64]

    def first(self, width: int) -> Lists:
        """The lists cut to their first `width` elements."""
        ends = np.cumsum(self.lengths)
        place = np.arange(len(self.values.codes)) - np.repeat(ends - self.lengths, self.lengths)
        codes = self.values.codes[place < width]
        return Lists(Categories(self.values.texts, codes), np.minimum(self.lengths, width))


def numbers(batch: Batch, name: str) -> NDArray[np.float64]:
    """`[rows]` float64, NaN where missing.

    Raises:
        DataError: the column holds something other than numbers.
    """
    column = batch.table.column(name)
    kind = column.type
    if pa.types.is_null(kind):
        return np.full(len(column), np.nan)
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        raise DataError(f"{batch.path}: column '{name}' holds {kind}, expected numbers")
    result: NDArray[np.float64] = column.cast(pa.float64(), safe=False).to_numpy(
        zero_copy_only=False
    )
    return result


def categories(batch: Batch, name: str) -> Categories:
    """One category per row.

    Raises:
        DataError: the column holds something other than texts, numbers and booleans, or a number
            beyond 2^53 (naming the row).
    """
    return _categories(batch, name, batch.table.column(name), lambda position: position)


def lists(batch: Batch, name: str, separator: str) -> Lists:
    """A list of categories per row; a text column is split at `separator`.

    Raises:
        DataError: as `categories`, or the column of a Parquet file holds no lists.
    """
    column = batch.table.column(name)
    kind = column.type
    if pa.types.is_null(kind):
        none = Categories(pa.array([], pa.string()), np.empty(0, np.int32))
        return Lists(none, np.zeros(len(column), np.int64))
    if batch.is_text and pa.types.is_string(kind):
        column = pc.split_pattern(column, separator)
    elif not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        raise DataError(f"{batch.path}: column '{name}' holds {kind}, expected lists")
    parents = pc.list_parent_indices(column).to_numpy(zero_copy_only=False)
    values = _categories(batch, name, column.flatten(), lambda at: int(parents[at]))
    if batch.is_text:
        empty = np.flatnonzero(pc.equal(values.texts, "").to_numpy(zero_copy_only=False))
        codes = np.where(np.isin(values.codes, empty), np.int32(-1), values.codes)
        values = Categories(values.texts, codes)
    kept = values.codes >= 0
    lengths = np.bincount(parents[kept], minlength=len(column)).astype(np.int64)
    return Lists(Categories(values.texts, values.codes[kept]), lengths)


def canonical_columns(
    batch: Batch, fields: tuple[Field, ...], schema: Schema, separator: str
) -> tuple[dict[str, Any], dict[str, int]]:
    """Canonical columns of a batch, and for each multi field how many rows were truncated.

    Args:
        batch: rows; a field without a column is left out (all missing).
        fields: of one side.
        schema: the fields belong to.
        separator: between the values of a multi field in CSV and TSV.

    Raises:
        DataError: as `numbers`, `categories` and `lists`.
    """
    columns: dict[str, Any] = {}
    truncated: dict[str, int] = {}
    for member in fields:
        if member.name not in batch.table.schema.names:
            continue
        if not isinstance(member, CategoricalField):
            columns[member.name] = numbers(batch, member.name)
        elif member.multi:
            whole = lists(batch, member.name, separator)
            long = int((whole.lengths > member.max_values).sum())
            if long:
                truncated[member.name] = long
            cut = whole.first(member.max_values)
            hashes = cut.values.hashes(schema.text_seed(member))
            columns[member.name] = left_aligned(hashes, cut.lengths, member.max_values)
        else:
            columns[member.name] = categories(batch, member.name).coded(schema.text_seed(member))
    return columns, truncated


def field_log(location: str, fields: tuple[Field, ...], keep_others: bool = False) -> ClickLog:
    """Click log at `location` with the columns of the fields."""
    kinds: dict[str, Kind] = {
        member.name: "any" if isinstance(member, CategoricalField) else "number"
        for member in fields
    }
    return ClickLog(location, kinds, keep_others)


def _categories(batch: Batch, name: str, column: Any, row_of: Callable[[int], int]) -> Categories:
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    kind = encoded.type.value_type
    if not (_is_text(kind) or _is_plain_number(kind) or pa.types.is_null(kind)):
        raise DataError(
            f"{batch.path}: column '{name}' holds {kind}, expected texts, numbers or booleans"
        )
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
    if pa.types.is_string(kind) and not encoded.dictionary.null_count:
        return Categories(encoded.dictionary, codes)
    values = encoded.dictionary.to_pylist()
    if pa.types.is_floating(kind) and kind != pa.float64():
        # A float32 0.1 is the text "0.1", not the digits of its float64 neighbour.
        values = [float(str(value)) for value in encoded.dictionary.to_numpy(zero_copy_only=False)]
    texts = []
    for code, value in enumerate(values):
        if value is None or (isinstance(value, float) and isnan(value)):
            codes[codes == code] = -1
            texts.append("")
            continue
        try:
            texts.append(canonical_text(value))
        except FeatureError as error:
            at = np.flatnonzero(codes == code)
            place = batch.place(row_of(int(at[0]))) if len(at) else batch.path
            raise DataError(f"{place}: column '{name}': {error.message}") from error
    return Categories(pa.array(texts, pa.string()), codes)


def _is_text(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _is_plain_number(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    )
