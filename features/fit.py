"""Training rows -> schema: one pass that counts values, then bucket boundaries and vocabularies."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.arrow import Categories, categories, lists, numbers
from features.boundaries import Boundaries, log_boundaries, quantile_boundaries
from features.canonical import canonical_text
from features.counts import NumberCounts, TextCounts
from features.cross import CrossField
from features.errors import DataError, SchemaError
from features.field_spec import CategoricalSpec, FieldSpec, LogBuckets, NumericSpec
from features.log import Batch
from features.parallel import ordered_map
from features.schema import (
    BucketField,
    CategoricalField,
    Field,
    Schema,
    ValueField,
)
from features.spec import Spec
from features.vocabulary import Vocabulary

DEFAULT_BUCKETS = 32
DEFAULT_MIN_COUNT = 2
DEFAULT_MAX_VALUES = 8
_SEEDS = 100
_LARGEST_VALUE = float(np.finfo(np.float32).max)


def fit_schema(spec: Spec, batches: Iterable[Batch]) -> Schema:
    """Schema of the spec's fields, learned from the training rows.

    Args:
        spec: the fields as written.
        batches: the rows to learn from, with a column for every field.

    Raises:
        DataError: a column does not hold what its field says, or there is no row.
    """
    learners = [_learner(field, spec) for field in spec.fields]
    rows = 0

    def counted(batch: Batch) -> tuple[int, list[Any]]:
        return batch.table.num_rows, [learner.count(batch) for learner in learners]

    for batch_rows, counts in ordered_map(counted, batches):
        rows += batch_rows
        for learner, count in zip(learners, counts, strict=True):
            learner.learn(count)
    if rows == 0:
        raise DataError(f"{spec.data.location(spec.data.train)}: no training row")
    fields = tuple(ordered_map(lambda learner: learner.field(), learners))
    return _without_collision(fields, _crosses(spec, fields))


def _crosses(spec: Spec, fields: tuple[Field, ...]) -> tuple[CrossField, ...]:
    candidates = {field.name for field in fields if field.side == "candidate"}
    return tuple(
        CrossField(
            name=cross.name,
            side="context" if candidates.isdisjoint(cross.of) else "candidate",
            of=cross.of,
            hash_buckets=cross.hash_buckets,
            embedding=cross.embedding,
        )
        for cross in spec.crosses
    )


def _without_collision(fields: tuple[Field, ...], crosses: tuple[CrossField, ...]) -> Schema:
    for seed in range(_SEEDS):
        schema = Schema(fields, seed, crosses)
        try:
            schema.build_table()
        except SchemaError as error:
            if error.code != "hash_collision":
                raise
        else:
            return schema
    raise SchemaError(f"none of {_SEEDS} hash seeds keeps all categories apart")


class _NumericLearner:
    """The finite values of a number and how often each occurs."""

    def __init__(self, spec: NumericSpec) -> None:
        self.spec = spec
        self.counts = NumberCounts()

    def count(self, batch: Batch) -> NumberCounts:
        """Of one batch; changes nothing, so batches may be counted side by side."""
        column = numbers(batch, self.spec.name)
        return NumberCounts() if self.spec.boundaries is not None else NumberCounts.of(column)

    def learn(self, counts: NumberCounts) -> None:
        """Take in what one batch held."""
        self.counts.add(counts)

    def field(self) -> Field:
        spec = self.spec
        values, counts = self.counts.merged()
        if spec.encoding == "value":
            return _value_field(spec, values, counts)
        return BucketField(
            name=spec.name,
            side=spec.side,
            missing=spec.missing,
            boundaries=self.boundaries(values, counts),
        )

    def boundaries(self, values: NDArray[np.float64], counts: NDArray[np.int64]) -> Boundaries:
        """Given, logarithmic or learned."""
        if self.spec.boundaries is not None:
            return self.spec.boundaries
        if isinstance(self.spec.buckets, LogBuckets):
            if not len(values):
                return ()
            return log_boundaries(float(values[0]), float(values[-1]), self.spec.buckets.log)
        return quantile_boundaries(values, counts, self.spec.buckets or DEFAULT_BUCKETS)


def _value_field(
    spec: NumericSpec, values: NDArray[np.float64], counts: NDArray[np.int64]
) -> ValueField:
    if not len(values):
        raise DataError(f"column '{spec.name}': no finite number to learn a value field from")
    # The network multiplies in float32, where a larger number would be infinite.
    values = np.clip(values, -_LARGEST_VALUE, _LARGEST_VALUE)
    mean = float(np.average(values, weights=counts))
    deviation = float(np.sqrt(np.average((values - mean) ** 2, weights=counts)))
    if values[0] == values[-1]:
        # Rounding of the mean would otherwise leave a deviation of 1e-17.
        mean, deviation = float(values[0]), 1.0
    return ValueField(
        name=spec.name,
        side=spec.side,
        missing=spec.missing,
        transform=spec.transform or "none",
        minimum=float(values[0]),
        maximum=float(values[-1]),
        mean=mean,
        deviation=deviation or 1.0,
    )


class _CategoricalLearner:
    """How often each category occurs."""

    def __init__(self, spec: CategoricalSpec, separator: str) -> None:
        self.spec = spec
        self.separator = separator
        self.max_values = (spec.max_values or DEFAULT_MAX_VALUES) if spec.multi else 1
        self.counts = TextCounts()

    def count(self, batch: Batch) -> TextCounts:
        """Of one batch; changes nothing, so batches may be counted side by side."""
        column: Categories
        if self.spec.multi:
            column = lists(batch, self.spec.name, self.separator).first(self.max_values).values
        else:
            column = categories(batch, self.spec.name)
        if self.spec.vocabulary is not None or self.spec.hash_buckets is not None:
            return TextCounts()
        return TextCounts.of(column.texts, column.codes)

    def learn(self, counts: TextCounts) -> None:
        """Take in what one batch held."""
        self.counts.add(counts)

    def field(self) -> Field:
        spec = self.spec
        return CategoricalField(
            name=spec.name,
            side=spec.side,
            missing=spec.missing,
            unknown=spec.unknown or "bucket",
            vocabulary=self.vocabulary(),
            hash_buckets=spec.hash_buckets,
            multi=spec.multi,
            max_values=self.max_values,
            pooling=spec.pooling or "mean",
        )

    def vocabulary(self) -> Vocabulary:
        """Given, or by count descending, then by text; the rarer ones are trained as unknown."""
        spec = self.spec
        if spec.vocabulary is not None:
            return Vocabulary.of(canonical_text(value) for value in spec.vocabulary)
        default = 1 if spec.unknown == "reject" else DEFAULT_MIN_COUNT
        return self.counts.most_frequent(spec.min_count or default, spec.max_size)


def _learner(field: FieldSpec, spec: Spec) -> _NumericLearner | _CategoricalLearner:
    if isinstance(field, NumericSpec):
        return _NumericLearner(field)
    return _CategoricalLearner(field, spec.data.list_separator)
