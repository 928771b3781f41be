"""What the columns of a click log hold, judged by its first rows: the eyes of `deepfm init`.

Rules:
- A column of whole numbers is a category when it looks like a name for something: few distinct
  values, a name such as `user_id`, or a dense numbering; otherwise it is a number.
- A CSV or TSV column counts as numbers only if every cell is one and none begins with a spare 0.
- What training could not read or learn from is unfit: dates, structs, nothing but gaps, another
  text on every row.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.canonical import LARGEST_EXACT
from features.names import RULE, needs_escape

# With no more values than buckets, each would get a bucket of its own anyway.
FEW_VALUES = 32
MANY_VALUES = 1000
LIST_SEPARATOR = "|"
_LONG_LIST_QUANTILE = 0.99
_LIST_SHARE = 0.01
_DENSE = 0.5
_INTEGER = r"^-?(0|[1-9][0-9]*)$"
_NUMBER = r"^-?(0|[1-9][0-9]*)(\.[0-9]*)?([eE][+-]?[0-9]+)?$"
_NAMING_WORDS = {"id", "ids", "uid", "uuid", "key", "code", "zip", "hash", "user", "item", "city"}

Kind = Literal["numeric", "categorical", "multi", "unfit"]


@dataclass(frozen=True)
class Column:
    """One column as it looks.

    Args:
        kind: the field it makes; `unfit` if none.
        note: what was seen, or why it is unfit.
        distinct: values other than missing.
        max_values: for a multi field, how many values all but the longest lists hold.
    """

    name: str
    kind: Kind
    note: str
    distinct: int = 0
    max_values: int = 1


def look_at(name: str, values: pa.Array, is_text: bool) -> Column:
    """Judge one column.

    Args:
        name: of the column.
        values: its first rows.
        is_text: whether they come from CSV or TSV, where every cell is text.
    """
    plain = _plain(values, is_text)
    kind = plain.type
    if reason := _why_unfit(name, plain):
        return Column(name, "unfit", reason)
    if _is_list(kind):
        return _look_at_lists(name, plain)
    distinct = pc.count_distinct(plain).as_py()
    note = f"{_counted(distinct)}, {_share(plain.null_count / len(plain))}"
    if _is_number(kind) and not pa.types.is_dictionary(values.type):
        return _look_at_numbers(name, values.type, plain, distinct, note)
    return _category(name, plain, distinct, note)


def is_shared(values: pa.Array, groups: pa.Array) -> bool | None:
    """Whether a column holds one value (or gap) within every group of at least two rows.

    Args:
        values: `[rows]` of any kind that `look_at` finds fit.
        groups: `[rows]` what the rows are grouped by.

    Returns:
        None when no group has two rows.
    """
    codes, group = _codes(values), _codes(groups)
    order = np.argsort(group, kind="stable")
    same_group = group[order][1:] == group[order][:-1]
    same_value = codes[order][1:] == codes[order][:-1]
    return bool(same_value[same_group].all()) if same_group.any() else None


def read_numbers(text: pa.Array) -> pa.Array:
    """Float64 of the cells of a CSV column, null where a cell is no number."""
    trimmed = pc.utf8_trim_whitespace(text)
    good = pc.match_substring_regex(trimmed, _NUMBER)
    return pc.if_else(good, trimmed, pa.scalar(None, pa.string())).cast(pa.float64())


def _plain(values: pa.Array, is_text: bool) -> pa.Array:
    """The values without dictionaries, decimals and NaN; cells of CSV as numbers if all are."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        return _plain(values.dictionary_decode(), is_text)
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        numbers = values.cast(pa.float64(), safe=False)
        return pc.if_else(pc.is_nan(numbers), pa.scalar(None, pa.float64()), numbers)
    if is_text and _is_text(kind):
        if _all_match(values, _INTEGER) and pc.max(pc.utf8_length(values)).as_py() < 16:
            return values.cast(pa.int64())
        if _all_match(values, _NUMBER) and not _all_match(values, _INTEGER):
            return values.cast(pa.float64())
        lists = pc.mean(pc.match_substring(values, LIST_SEPARATOR).cast(pa.float64())).as_py()
        if lists and lists > _LIST_SHARE:
            return pc.split_pattern(values, LIST_SEPARATOR)
    return values


def _all_match(values: pa.Array, pattern: str) -> bool:
    return pc.all(pc.match_substring_regex(values, pattern)).as_py() is True


def _why_unfit(name: str, plain: pa.Array) -> str:
    kind = plain.type
    elements = _plain(plain.flatten(), is_text=False) if _is_list(kind) else plain
    if not name:
        return "the column has no name"
    if needs_escape(name):
        return RULE
    if elements.null_count == len(elements):
        return "no value in the rows looked at"
    if not (_is_number(elements.type) or _is_text(elements.type) or _is_boolean(elements.type)):
        return f"holds {kind}; derive numbers or categories from it"
    if _is_text(kind) and _holds_dates(plain):
        return "holds dates; derive hour, weekday or age from them"
    return ""


def _look_at_lists(name: str, lists: pa.Array) -> Column:
    elements = _plain(lists.flatten(), is_text=False)
    if _is_beyond_exact(elements):
        return _too_large(name)
    lengths = pc.list_value_length(lists).fill_null(0).to_numpy()
    filled = lengths[lengths > 0]
    distinct = pc.count_distinct(elements).as_py()
    most = int(np.quantile(filled, _LONG_LIST_QUANTILE, method="higher"))
    missing = _share(1 - len(filled) / len(lists))
    note = f"{_counted(distinct)} in lists of up to {filled.max()}, {missing}"
    return Column(name, "multi", note, distinct, most)


def _look_at_numbers(
    name: str, stored: pa.DataType, numbers: pa.Array, distinct: int, note: str
) -> Column:
    # A category may not be stored as a decimal, and 1.0 of a CSV would be the text "1.0".
    is_countable = pa.types.is_integer(numbers.type) or pa.types.is_floating(stored)
    if is_countable and _names_something(name, numbers, distinct):
        return _category(name, numbers, distinct, note)
    least, most = (pc.min_max(numbers)[key].as_py() for key in ("min", "max"))
    return Column(name, "numeric", f"{note}, from {least:g} to {most:g}", distinct)


def _names_something(name: str, numbers: pa.Array, distinct: int) -> bool:
    found = numbers.drop_null().to_numpy(zero_copy_only=False)
    if not (found == np.floor(found)).all() or not np.isfinite(found).all():
        return False
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)
    if distinct <= FEW_VALUES or (words and words[-1].lower() in _NAMING_WORDS):
        return True
    width = float(found.max()) - float(found.min()) + 1
    return distinct > MANY_VALUES and distinct / width > _DENSE


def _category(name: str, values: pa.Array, distinct: int, note: str) -> Column:
    if _is_beyond_exact(values):
        return _too_large(name)
    if distinct > MANY_VALUES and distinct == len(values) - values.null_count:
        return Column(name, "unfit", "another value on every row: nothing to learn")
    return Column(name, "categorical", note, distinct)


def _is_beyond_exact(values: pa.Array) -> bool:
    if not _is_number(values.type):
        return False
    bounds = pc.min_max(values)
    return bool(max(-bounds["min"].as_py(), bounds["max"].as_py()) > LARGEST_EXACT)


def _too_large(name: str) -> Column:
    return Column(name, "unfit", "holds identifiers beyond 2^53; store them as text")


def _holds_dates(texts: pa.Array) -> bool:
    try:
        texts.cast(pa.timestamp("us"))
    except pa.ArrowInvalid:
        return False
    return True


def _codes(values: pa.Array) -> Any:
    """`[rows]` int64, equal where the values are; missing is a value too."""
    kind = values.type
    if _is_list(kind):
        # Arrow has no dictionary of lists: one text per list stands for it.
        values = pc.binary_join(values.cast(pa.list_(pa.string())), "\0")
    elif pa.types.is_dictionary(kind):
        values = values.dictionary_decode()
    return values.dictionary_encode("encode").indices.to_numpy(zero_copy_only=False)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _is_boolean(kind: pa.DataType) -> bool:
    return bool(pa.types.is_boolean(kind))


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _counted(distinct: int) -> str:
    return "1 distinct value" if distinct == 1 else f"{distinct:,} distinct values"


def _share(missing: float) -> str:
    return f"{missing:.1%} missing"
