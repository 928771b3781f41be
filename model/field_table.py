"""What the training rows hold of every field: shares of missing and unknown, and a histogram."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from features.description import schema_summary
from features.schema import BucketField, CategoricalField, Field, Schema, ValueField
from model.charts import Bar

# Fields with more indices are drawn in so many groups of neighbouring ones.
MOST_BARS = 32


@dataclass(frozen=True)
class FieldRow:
    """One line of the report's table.

    Args:
        name: of the field.
        side: context or candidate.
        kind: how it is encoded.
        size: how many categories or buckets it has, missing and unknown left out.
        missing: share of the training rows, 0 to 1; None where counts cannot tell.
        unknown: share of the field's values, 0 to 1; None where it has no such thing.
        bars: the histogram over all its indices.
    """

    name: str
    side: str
    kind: str
    size: int
    missing: float | None
    unknown: float | None
    bars: tuple[Bar, ...]


def field_rows(schema: Schema, counts: NDArray[np.int64], rows: int) -> list[FieldRow]:
    """One entry per field, in the order of the spec.

    Args:
        schema: the fields.
        counts: `[schema.size]`, training rows per index.
        rows: number of training rows, at least 1.
    """
    table = []
    # The summary goes on with the crosses, whose million buckets no histogram shows.
    for field, summary in zip(schema.fields, schema_summary(schema), strict=False):
        owned = schema.ranges[field.name]
        own = counts[owned.start : owned.stop]
        table.append(
            FieldRow(
                name=field.name,
                side=field.side,
                kind=summary["kind"],
                size=field.size - field.reserved,
                missing=_missing(field, own, rows),
                unknown=_unknown(field, own, rows),
                bars=tuple(_bars(field, own)),
            )
        )
    return table


def _missing(field: Field, own: NDArray[np.int64], rows: int) -> float | None:
    if field.missing == "bucket":
        return float(own[0]) / rows
    if field.missing == "reject":
        return 0.0
    # Under `zero` what is missing is not counted: told by what lacks, where nothing else can lack.
    is_single = isinstance(field, BucketField) or (
        isinstance(field, CategoricalField) and not field.multi and not _is_unknown_zero(field)
    )
    return 1 - float(own.sum()) / rows if is_single else None


def _unknown(field: Field, own: NDArray[np.int64], rows: int) -> float | None:
    if not isinstance(field, CategoricalField) or field.hash_buckets is not None:
        return None
    if field.unknown == "reject":
        return 0.0
    held = own[int(field.missing == "bucket") :].sum()
    if field.unknown_index is not None:
        return float(own[field.unknown_index] / held) if held else None
    if field.multi or field.missing == "zero":
        return None
    present = rows - (own[0] if field.missing == "bucket" else 0)
    return float(1 - held / present) if present else None


def _is_unknown_zero(field: CategoricalField) -> bool:
    return field.unknown == "zero" and field.hash_buckets is None


def _bars(field: Field, own: NDArray[np.int64]) -> Iterator[Bar]:
    total = max(int(own.sum()), 1)
    names = ["missing"] if field.missing == "bucket" else []
    names += ["unknown"] if field.reserved > len(names) else []
    for name, count in zip(names, own, strict=False):
        yield Bar(float(count) / total, name, is_reserved=True)
    regular = own[field.reserved :]
    cuts = np.unique(np.linspace(0, len(regular), min(len(regular), MOST_BARS) + 1).astype(int))
    for start, stop in pairwise(cuts.tolist()):
        yield Bar(float(regular[start:stop].sum()) / total, _label(field, start, stop))


def _label(field: Field, start: int, stop: int) -> str:
    """What the field's indices from `start` up to `stop` behind the reserved ones stand for."""
    if isinstance(field, CategoricalField) and len(field.vocabulary):
        if stop == start + 1:
            return field.vocabulary.text_at(start)
        return f"categories {start + 1:,} to {stop:,}"
    if isinstance(field, BucketField):
        edges = ("-∞", *(f"{boundary:g}" for boundary in field.boundaries), "∞")
        return f"{edges[start]} to {edges[stop]}"
    if isinstance(field, ValueField):
        return f"{field.minimum:g} to {field.maximum:g}"
    return f"hash buckets {start + 1:,} to {stop:,}"
