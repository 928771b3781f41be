"""Requests composed from the schema alone, for a bundle to prove itself with before it serves.

They visit every kind of value a field knows (its first and last categories, both sides of its
boundaries, unknown, missing, the open ends, empty and overlong lists) and never copy a row of the
log, which may be personal data.
"""

from __future__ import annotations

from itertools import cycle, islice, pairwise
from typing import Any

from features.schema import BucketField, CategoricalField, Field, Schema, ValueField

HUGE = 1e308
MOST_REQUESTS = 16
CANDIDATES = 8
_ENDS = 3


def golden_requests(schema: Schema) -> list[dict[str, Any]]:
    """/rank bodies, at most `MOST_REQUESTS`, that together use every probing value.

    Returns:
        `{"context": {...}, "candidates": [{"id", "features"}, ...]}` with `CANDIDATES` candidates
        each; fields take their values at different paces, so that values meet in many pairs.
    """
    context = {field.name: probing_values(field) for field in schema.side("context")}
    candidate = {field.name: probing_values(field) for field in schema.side("candidate")}
    longest = max(
        max((len(values) for values in context.values()), default=1),
        -(-max(len(values) for values in candidate.values()) // CANDIDATES),
    )
    count = min(longest, MOST_REQUESTS)
    contexts = _rows(context, count)
    features = _rows(candidate, count * CANDIDATES)
    return [
        {
            "context": contexts[request],
            "candidates": [
                {"id": place, "features": features[request * CANDIDATES + place]}
                for place in range(CANDIDATES)
            ],
        }
        for request in range(count)
    ]


def probing_values(field: Field) -> list[Any]:
    """JSON values that visit what the field can do; None is missing, where that is allowed."""
    if isinstance(field, BucketField):
        values: list[Any] = _around(field)
    elif isinstance(field, ValueField):
        values = [field.minimum, field.maximum, (field.minimum + field.maximum) / 2, HUGE, -HUGE]
    else:
        values = _categories(field)
        if field.multi:
            single = values
            values = [[value] for value in single]
            values += [single[:2], [*single, *single][: field.max_values], single * 2 + [None]]
            values += [[]] if field.missing != "reject" else []
    return values if field.missing == "reject" else [*values, None]


def _around(field: BucketField) -> list[Any]:
    cuts = field.boundaries
    ends = cuts if len(cuts) <= 2 * _ENDS else (*cuts[:_ENDS], *cuts[-_ENDS:])
    between = [low / 2 + high / 2 for low, high in pairwise(ends)]
    return [-HUGE, *ends, *between, HUGE, 0]


def _categories(field: CategoricalField) -> list[Any]:
    known = list(islice(field.vocabulary, 4))
    if len(field.vocabulary) > len(known):
        known.append(field.vocabulary.text_at(len(field.vocabulary) - 1))
    if field.hash_buckets:
        return ["", "a", "b", 7, 1.5, True]
    if field.unknown == "reject":
        return known
    return [*known, _unknown_text(field)]


def _unknown_text(field: CategoricalField) -> str:
    """A text outside the vocabulary."""
    known = set(field.vocabulary)
    return next(text for n in range(len(known) + 1) if (text := f"golden-{n}") not in known)


def _rows(values: dict[str, list[Any]], count: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [{} for _ in range(count)]
    for pace, (name, probing) in enumerate(values.items()):
        # Start each field elsewhere: fields with equally many values must not move in step.
        shifted = islice(cycle(probing), pace % len(probing), None)
        for row, value in zip(rows, shifted, strict=False):
            row[name] = value
    return rows
