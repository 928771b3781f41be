"""Click logs -> encoded rows in memory, and the split into training and validation rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.arrow import canonical_columns, categories, numbers
from features.crosser import Crosser
from features.encode import Encoder
from features.errors import DataError, FeatureError
from features.fit import fit_schema
from features.log import Batch, ClickLog, Kind
from features.schema import SIDES, Schema
from features.spec import NumericSpec, Spec
from features.table import HashTable

VALIDATION_SHARE = 0.1
_GROUP_SEED = 0


@dataclass(frozen=True)
class Rows:
    """Encoded rows of a click log, context slots first, then candidate slots.

    Args:
        index: `[rows, slots]` int32.
        weight: `[rows, slots]` float32, or None when both sides are unweighted.
        label: `[rows]` float32, 0 or 1.
        group: `[rows]` int64, equal inside a group; None without a group column.
        row_weight: `[rows]` float32; None without a weight column.
    """

    index: NDArray[np.int32]
    weight: NDArray[np.float32] | None
    label: NDArray[np.float32]
    group: NDArray[np.int64] | None
    row_weight: NDArray[np.float32] | None

    def __len__(self) -> int:
        return len(self.label)

    def take(self, rows: NDArray[np.int64]) -> Rows:
        """The given rows, in that order."""
        chosen: list[Any] = [None if part is None else part[rows] for part in self.parts()]
        return Rows(*chosen)

    def counts(self, size: int) -> NDArray[np.int64]:
        """How many rows hold each of `size` indices; padding and zero weights are not counted."""
        held = self.index if self.weight is None else self.index[self.weight != 0]
        return np.bincount(held.ravel(), minlength=size)

    def fingerprint(self) -> str:
        """SHA-256, in hex, of all of it."""
        digest = hashlib.sha256()
        for part in self.parts():
            digest.update(b"none" if part is None else np.ascontiguousarray(part).data)
        return digest.hexdigest()

    def parts(self) -> tuple[Any, ...]:
        """The arrays in the order of the arguments."""
        return self.index, self.weight, self.label, self.group, self.row_weight


@dataclass(frozen=True)
class Split:
    """The three parts of the data, encoded with a schema fitted on `train` alone."""

    schema: Schema
    table: HashTable
    train: Rows
    valid: Rows
    test: Rows | None


def read_split(spec: Spec) -> Split:
    """Fit the schema on the training rows and encode all parts.

    Raises:
        DataError: a file cannot be read, a row breaks the spec's promise, or a part that needs
            both labels lacks one.
    """
    data = spec.data
    log = training_log(spec, data.train)
    cut = None if data.valid else _cut(log, spec)
    schema = fit_schema(spec, log.batches(stop=cut))
    table = schema.build_table()
    train = encode_log(spec, schema, table, log.batches(stop=cut))
    rest = log.batches(start=cut or 0)
    held = training_log(spec, data.valid).batches() if data.valid else rest
    valid = encode_log(spec, schema, table, held)
    test = None
    if data.test:
        test = encode_log(spec, schema, table, training_log(spec, data.test).batches())
    for name, rows in (("training", train), ("validation", valid), ("test", test)):
        if rows is not None and not 0 < rows.label.sum() < len(rows):
            raise DataError(
                f"the {name} rows ({len(rows):,}) need both labels 0 and 1 in '{data.label}'"
            )
    return Split(schema, table, train, valid, test)


def training_log(spec: Spec, path: str) -> ClickLog:
    """Click log of one `[data]` path with every column that training reads."""
    data = spec.data
    columns: dict[str, Kind] = {data.label: "number"}
    if data.group:
        columns[data.group] = "any"
    if data.weight:
        columns[data.weight] = "number"
    for field in spec.fields:
        columns[field.name] = "number" if isinstance(field, NumericSpec) else "any"
    return ClickLog(data.location(path), columns)


def encode_log(spec: Spec, schema: Schema, table: HashTable, batches: Iterator[Batch]) -> Rows:
    """All rows of some batches, encoded.

    Raises:
        DataError: a label is not 0 or 1, a row weight is negative or missing, a group is missing,
            or a value is refused by its field's policy; names file and row.
    """
    encoders, crosser = [Encoder(schema, side, table) for side in SIDES], Crosser(schema)
    parts = [_encode_batch(spec, schema, encoders, crosser, batch) for batch in batches]
    if not parts:
        slots = sum(encoder.slots for encoder in encoders)
        return Rows(np.empty((0, slots), np.int32), None, np.empty(0, np.float32), None, None)
    columns = zip(*(part.parts() for part in parts), strict=True)
    joined: list[Any] = [None if one[0] is None else np.concatenate(one) for one in columns]
    return Rows(*joined)


def _encode_batch(
    spec: Spec, schema: Schema, encoders: list[Encoder], crosser: Crosser, batch: Batch
) -> Rows:
    data, rows = spec.data, batch.table.num_rows
    encoded = []
    for encoder in encoders:
        columns, _ = canonical_columns(batch, encoder.fields, schema, data.list_separator)
        try:
            encoded.append(encoder.encode(columns, rows))
        except FeatureError as error:
            raise DataError(f"{batch.place(error.row or 0)}: {error.message}") from error
    crosser.fill(encoded[0], encoded[1])
    weight = None
    if any(part.weight is not None for part in encoded):
        ones = [np.ones(part.index.shape, np.float32) for part in encoded]
        weights = [o if p.weight is None else p.weight for p, o in zip(encoded, ones, strict=True)]
        weight = np.concatenate(weights, 1)
    return Rows(
        np.concatenate([part.index for part in encoded], 1, dtype=np.int32, casting="same_kind"),
        weight,
        _labels(batch, data.label),
        _groups(batch, data.group) if data.group else None,
        _row_weights(batch, data.weight) if data.weight else None,
    )


def _labels(batch: Batch, name: str) -> NDArray[np.float32]:
    label = numbers(batch, name)
    _refuse(batch, (label != 0) & (label != 1), f"label '{name}' must be 0 or 1")
    return label.astype(np.float32)


def _row_weights(batch: Batch, name: str) -> NDArray[np.float32]:
    weight = numbers(batch, name)
    bad = ~np.isfinite(weight) | (weight < 0)
    _refuse(batch, bad, f"weight '{name}' must be a number that is not negative")
    return weight.astype(np.float32)


def _groups(batch: Batch, name: str) -> NDArray[np.int64]:
    hashes = categories(batch, name).hashes(_GROUP_SEED)
    _refuse(batch, hashes == 0, f"group '{name}' must not be missing")
    return hashes.view(np.int64)


def _refuse(batch: Batch, bad: NDArray[np.bool_], message: str) -> None:
    if bad.any():
        raise DataError(f"{batch.place(int(bad.argmax()))}: {message}")


def _cut(log: ClickLog, spec: Spec) -> int:
    """First row of the last tenth, moved on to the next group boundary."""
    column = spec.data.group or spec.data.label
    parts = [
        _groups(batch, column) if spec.data.group else np.zeros(batch.table.num_rows, np.int64)
        for batch in ClickLog(log.location, {column: log.columns[column]}).batches()
    ]
    group = np.concatenate([np.empty(0, np.int64), *parts])
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
