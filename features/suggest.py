"""`deepfm init`: the text of a first spec, written by looking at the first rows of a click log."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.errors import ConfigError, DataError
from features.log import Batch, ClickLog, no_column
from features.survey import Column, is_shared, look_at, read_numbers

LOOK_ROWS = 200_000

_HEAD = """\
# A first spec, written by looking at {rows:,} rows of the data: read it and correct it.
# Set side = "context" on fields of the user and the request, which all candidates of a request
# share; fields of the item keep side = "candidate", the default.
"""


def suggest_spec(data: str, label: str, group: str | None = None) -> str:
    """TOML text that `features.spec.load_spec` accepts, wherever it is written.

    Args:
        data: file, folder, glob or fsspec URL of Parquet, CSV or TSV.
        label: column of 0 and 1.
        group: column that names a row's request or user; fields that hold one value within every
            group become context fields.

    Raises:
        ConfigError: there is no such label or group column.
        DataError: the data cannot be read, a label is not 0 or 1, or no column can be a field.
    """
    table, is_text = _first_rows(data, label, group)
    names = [name for name in table.column_names if name not in (label, group)]
    arrays = {name: table.column(name).combine_chunks() for name in names}
    columns = [look_at(name, values, is_text) for name, values in arrays.items()]
    fit = [column for column in columns if column.kind != "unfit"]
    if not fit:
        raise DataError(f"{data}: no column beside the label can be a field")
    groups = table.column(group).combine_chunks() if group else None
    shared = [c for c in fit if groups is not None and is_shared(arrays[c.name], groups)]
    if len(shared) == len(fit):
        # There must be something to rank.
        shared.remove(max(shared, key=lambda column: column.distinct))
    parts = [_head(data, label, group, table.num_rows), *map(_left_out, columns)]
    parts += [_field(column, column in shared) for column in fit]
    return "\n".join(part for part in parts if part)


def _first_rows(data: str, label: str, group: str | None) -> tuple[pa.Table, bool]:
    if group == label:
        raise ConfigError(f"'{label}' cannot be both the label and the group")
    batches = []
    for batch in ClickLog(data, {}, keep_others=True).batches(stop=LOOK_ROWS):
        _check_columns(batch, label, group)
        _check_labels(batch, label)
        batches.append(batch)
    if not batches:
        raise DataError(f"{data}: no row")
    try:
        table = pa.concat_tables(
            [pa.Table.from_batches([batch.table]) for batch in batches],
            promote_options="permissive",
        )
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(f"{data}: its files hold different columns: {error}") from error
    return table, batches[0].is_text


def _check_columns(batch: Batch, label: str, group: str | None) -> None:
    names = batch.table.schema.names
    for wanted in (label, group):
        if wanted is not None and wanted not in names:
            raise ConfigError(no_column(batch.path, wanted, names))


def _check_labels(batch: Batch, label: str) -> None:
    column = batch.table.column(label)
    if batch.is_text:
        numbers = read_numbers(column)
    elif pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        numbers = column.cast(pa.float64(), safe=False)
    else:
        raise DataError(f"{batch.path}: label '{label}' holds {column.type}, expected numbers")
    good = pc.is_in(numbers, pa.array([0.0, 1.0])).to_numpy(zero_copy_only=False)
    if not good.all():
        row = int(np.argmin(good))
        found = column[row].as_py()
        raise DataError(f"{batch.place(row)}: label '{label}' is {found!r}, expected 0 or 1")


def _head(data: str, label: str, group: str | None, rows: int) -> str:
    lines = [
        _HEAD.format(rows=rows),
        f"name = {_text(_model_name(data))}",
        "",
        "[data]",
        f"train = {_text(data if '://' in data else os.path.abspath(data))}",
        f"label = {_text(label)}",
    ]
    if group:
        lines.append(f"group = {_text(group)}")
    return "\n".join(lines) + "\n"


def _model_name(data: str) -> str:
    """The file's stem, of a glob the folder's."""
    parts: Sequence[str] = [
        part for part in PurePosixPath(data).parts if not any(letter in part for letter in "*?[")
    ]
    stem = re.sub(r"(\.(gz|bz2|zst|parquet|csv|tsv))+$", "", parts[-1], flags=re.I) if parts else ""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", stem).strip("_-") or "model"


def _left_out(column: Column) -> str:
    if column.kind != "unfit":
        return ""
    return f"# Left out: {_text(column.name)}: {column.note}.\n"


def _field(column: Column, is_context: bool) -> str:
    key = column.name if re.fullmatch("[A-Za-z0-9_-]+", column.name) else _text(column.name)
    lines = [f"[fields.{key}]", f"# {column.note}"]
    lines.append(f'type = "{"numeric" if column.kind == "numeric" else "categorical"}"')
    if is_context:
        lines.append('side = "context"')
    if column.kind == "numeric":
        lines.append("buckets = 32")
    if column.kind == "multi":
        lines += ["multi = true", f"max_values = {column.max_values}"]
    return "\n".join(lines) + "\n"


def _text(text: str) -> str:
    """A TOML string: JSON's escapes, and DEL, which JSON leaves as it is."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
