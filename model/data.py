"""Click logs -> encoded rows on disk, and the split into training and validation rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
from numpy.typing import NDArray

from features.arrow import canonical_columns, categories, numbers
from features.crosser import Crosser
from features.encode import Encoder
from features.errors import DataError, FeatureError
from features.field_spec import FieldSpec, NumericSpec
from features.fit import fit_schema
from features.log import Batch, ClickLog, Kind
from features.parallel import ordered_map
from features.schema import SIDES, Schema
from features.spec import Spec
from features.spool import Spool
from features.table import HashTable
from model.rows import Rows
from model.store import RowStore

VALIDATION_SHARE = 0.1
_GROUP_SEED = 0
_ROWS_TURNED = 1024


@dataclass(frozen=True)
class Split:
    """The three parts of the data, encoded with a schema fitted on `train` alone."""

    schema: Schema
    table: HashTable
    train: Rows
    valid: Rows
    test: Rows | None


def read_split(spec: Spec, folder: Path | None = None) -> Split:
    """Fit the schema on the training rows and encode all parts.

    Args:
        spec: where the rows lie and what their fields are.
        folder: where temporary files lie, without a name; default: the system's place for them.

    Raises:
        OSError: there is no room for them.
        DataError: a file cannot be read, a row breaks the spec's promise, or a part that needs
            both labels lacks one.
    """
    data = spec.data
    log = training_log(spec, data.train)
    with TemporaryFile(dir=folder) as file:
        split = _encoded(spec, Spool(log, file), folder)
    parts = {"training": split.train, "validation": split.valid, "test": split.test}
    for name, rows in parts.items():
        if rows is not None and not 0 < rows.label.sum() < len(rows):
            path = {"validation": data.valid, "test": data.test}.get(name) or data.train
            raise DataError(
                f"{data.location(path)}: the {name} rows ({len(rows):,}) need both labels 0 and 1 "
                f"in '{data.label}'"
            )
    return split


def _encoded(spec: Spec, log: Spool, folder: Path | None) -> Split:
    data = spec.data
    cut = None if data.valid else _cut(log, spec)
    schema = fit_schema(spec, log.batches(stop=cut))
    table = schema.build_table()

    def encoded(batches: Iterator[Batch]) -> Rows:
        return encode_log(spec, schema, table, batches, folder)

    train = encoded(log.batches(stop=cut))
    held = training_log(spec, data.valid).batches() if data.valid else log.batches(start=cut or 0)
    valid = encoded(held)
    test = encoded(training_log(spec, data.test).batches()) if data.test else None
    return Split(schema, table, train, valid, test)


def training_log(spec: Spec, path: str) -> ClickLog:
    """Click log of one `[data]` path with every column that training reads."""
    data = spec.data
    columns: dict[str, Kind] = {data.label: "number"}
    if data.group:
        columns[data.group] = "category"
    if data.weight:
        columns[data.weight] = "number"
    for field in spec.fields:
        columns[field.name] = _kind(field)
    return ClickLog(data.location(path), columns)


def encode_log(
    spec: Spec,
    schema: Schema,
    table: HashTable,
    batches: Iterator[Batch],
    folder: Path | None = None,
) -> Rows:
    """All rows of some batches, encoded, mapped from temporary files in `folder`.

    Raises:
        DataError: a label is not 0 or 1, a row weight is negative or missing, a group is missing,
            or a value is refused by its field's policy; names file and row.
        OSError: there is no room for the files.
    """
    encoders, crosser = [Encoder(schema, side, table) for side in SIDES], Crosser(schema)
    with TemporaryFile(dir=folder) as index, TemporaryFile(dir=folder) as weight:
        store = RowStore(index, weight)
        encoded = ordered_map(
            lambda batch: _encode_batch(spec, schema, encoders, crosser, batch), batches
        )
        for rows in encoded:
            store.append(rows)
        return store.rows()


def _encode_batch(
    spec: Spec, schema: Schema, encoders: list[Encoder], crosser: Crosser, batch: Batch
) -> Rows:
    data, rows = spec.data, batch.table.num_rows
    # One slot after the other, as they are encoded.
    index = np.empty((sum(encoder.slots for encoder in encoders), rows), np.int32).T
    parts = np.split(index, [encoders[0].slots], 1)
    encoded = []
    for encoder, part in zip(encoders, parts, strict=True):
        columns, _ = canonical_columns(batch, encoder.fields, schema, data.list_separator)
        try:
            encoded.append(encoder.encode(columns, rows, part))
        except FeatureError as error:
            raise DataError(f"{batch.place(error.row or 0)}: {error.message}") from error
    crosser.fill(encoded[0], encoded[1])
    weight = None
    if any(part.weight is not None for part in encoded):
        ones = [np.ones(part.index.shape, np.float32) for part in encoded]
        weights = [o if p.weight is None else p.weight for p, o in zip(encoded, ones, strict=True)]
        weight = np.concatenate(weights, 1)
    return Rows(
        _row_by_row(index),
        weight,
        _labels(batch, data.label),
        _groups(batch, data.group) if data.group else None,
        _row_weights(batch, data.weight) if data.weight else None,
    )


def _row_by_row(index: NDArray[np.int32]) -> NDArray[np.int32]:
    """In the order of training; few rows at a time, so that they stay in a core's cache."""
    turned = np.empty(index.shape, np.int32)
    for low in range(0, len(turned), _ROWS_TURNED):
        turned[low : low + _ROWS_TURNED] = index[low : low + _ROWS_TURNED]
    return turned


def _labels(batch: Batch, name: str) -> NDArray[np.float32]:
    label = numbers(batch, name)
    _refuse(batch, (label != 0) & (label != 1), f"label '{name}' must be 0 or 1")
    return label.astype(np.float32)


def _row_weights(batch: Batch, name: str) -> NDArray[np.float32]:
    weight = numbers(batch, name)
    good = (weight >= 0) & (weight <= np.finfo(np.float32).max)
    _refuse(batch, ~good, f"weight '{name}' must be a number from 0 to 3.4e38")
    return weight.astype(np.float32)


def _groups(batch: Batch, name: str) -> NDArray[np.int64]:
    hashes = categories(batch, name).hashes(_GROUP_SEED)
    _refuse(batch, hashes == 0, f"group '{name}' must not be missing")
    return hashes.view(np.int64)


def _refuse(batch: Batch, bad: NDArray[np.bool_], message: str) -> None:
    if bad.any():
        raise DataError(f"{batch.place(int(bad.argmax()))}: {message}")


def _kind(field: FieldSpec) -> Kind:
    if isinstance(field, NumericSpec):
        return "number"
    return "any" if field.multi else "category"


def _cut(log: Spool, spec: Spec) -> int:
    """First row of the last tenth, moved on to the next group boundary."""
    group = np.zeros(log.rows, np.int64)
    if spec.data.group:
        parts = [_groups(batch, spec.data.group) for batch in log.batches()]
        group = np.concatenate([group[:0], *parts])
    cut = round(len(group) * (1 - VALIDATION_SHARE))
    if spec.data.group and 0 < cut < len(group):
        boundaries = np.flatnonzero(group[cut:] != group[cut - 1 : -1])
        cut = cut + int(boundaries[0]) if len(boundaries) else len(group)
    if not 0 < cut < len(group):
        raise DataError(
            f"{log.location}: {len(group):,} rows cannot be split into training and validation "
            "rows; give data.valid"
        )
    return cut
