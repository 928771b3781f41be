"""Random schemas with every field kind and policy, and values as a request may hold them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from features.canonical import LARGEST_EXACT, canonical_text
from features.cross import CrossField
from features.schema import (
    SIDES,
    BucketField,
    CategoricalField,
    Field,
    Policy,
    Schema,
    Side,
    ValueField,
)
from features.vocabulary import Vocabulary

ODD: list[str | int | float] = ["", "a", "1", "true", "é", 1, 1.0, -0.0, True, False, 0.5]
numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**60), 2**60)
categories: st.SearchStrategy[str | int | float] = (
    st.sampled_from(ODD)
    | st.text(max_size=5)
    | st.integers(-LARGEST_EXACT, LARGEST_EXACT)
    | st.floats(-1e15, 1e15)
    | st.booleans()
)
lists = st.none() | st.lists(st.none() | categories, max_size=6)
policies: st.SearchStrategy[Policy] = st.sampled_from(["bucket", "zero", "reject"])
vocabularies = st.lists(categories.map(canonical_text), max_size=6, unique=True)


@st.composite
def bucket_fields(draw: st.DrawFn, name: str, side: Side) -> BucketField:
    finite = st.floats(allow_nan=False, allow_infinity=False).map(lambda x: x + 0.0)
    cuts = draw(st.lists(finite, max_size=6, unique=True))
    return BucketField(
        name=name, side=side, missing=draw(policies), boundaries=tuple(sorted(set(cuts)))
    )


@st.composite
def value_fields(draw: st.DrawFn, name: str, side: Side) -> ValueField:
    ends = st.floats(-1e30, 1e30).map(lambda x: x + 0.0)  # -0.0 as an upper end is no range
    low, high = sorted(draw(st.tuples(ends, ends)))
    return ValueField(
        name=name,
        side=side,
        missing=draw(policies),
        transform=draw(st.sampled_from(["none", "log1p", "standard"])),
        minimum=low,
        maximum=high,
        mean=draw(st.floats(low, high)),
        deviation=max(high - low, 1.0),
    )


@st.composite
def categorical_fields(draw: st.DrawFn, name: str, side: Side) -> CategoricalField:
    hash_buckets = draw(st.none() | st.integers(1, 5))
    missing, unknown = draw(policies), draw(policies)
    vocabulary = draw(vocabularies) if hash_buckets is None else []
    if hash_buckets is None and "bucket" not in (missing, unknown) and not vocabulary:
        vocabulary = ["a"]
    multi = draw(st.booleans())
    return CategoricalField(
        name=name,
        side=side,
        missing=missing,
        unknown=unknown if hash_buckets is None else "bucket",
        vocabulary=Vocabulary.of(vocabulary),
        hash_buckets=hash_buckets,
        multi=multi,
        max_values=draw(st.integers(1, 4)) if multi else 1,
        pooling=draw(st.sampled_from(["mean", "sum"])),
    )


@st.composite
def schemas(draw: st.DrawFn) -> Schema:
    """One to six fields, the first on the candidate side."""
    fields: list[Field] = []
    for place in range(draw(st.integers(1, 6))):
        name, side = f"field{place}", draw(st.sampled_from(SIDES)) if place else "candidate"
        kinds = bucket_fields(name, side), value_fields(name, side), categorical_fields(name, side)
        fields.append(draw(st.one_of(*kinds)))
    return Schema(tuple(fields))


def without_reject(member: Field) -> Field:
    """The field with policies under which any value can be encoded."""
    if isinstance(member, CategoricalField) and member.unknown == "reject":
        member = replace(member, unknown="zero" if member.vocabulary else "bucket")
    return replace(member, missing="bucket") if member.missing == "reject" else member


@st.composite
def crossed_schemas(draw: st.DrawFn) -> Schema:
    """Two to four fields that can be crossed, maybe others, and one to four crosses."""
    count = draw(st.integers(2, 4))
    fields: list[Field] = []
    for place in range(count):
        name, side = f"part{place}", draw(st.sampled_from(SIDES)) if place else "candidate"
        single = categorical_fields(name, side).map(
            lambda field: replace(field, multi=False, max_values=1)
        )
        fields.append(draw(bucket_fields(name, side) | single))
    fields += draw(schemas()).fields
    names = [f"part{place}" for place in range(count)]
    candidates = {field.name for field in fields if field.side == "candidate"}
    crosses = []
    for place in range(draw(st.integers(1, 4))):
        of = tuple(draw(st.permutations(names))[: draw(st.integers(2, 3))])
        side = "context" if candidates.isdisjoint(of) else "candidate"
        size, embedding = draw(st.sampled_from([1, 7, 1 << 20])), draw(st.booleans())
        crosses.append(
            CrossField(
                name=f"cross{place}", side=side, of=of, hash_buckets=size, embedding=embedding
            )
        )
    return Schema(tuple(map(without_reject, fields)), crosses=tuple(crosses))


def values_of(member: Field) -> st.SearchStrategy[Any]:
    """What one row of a request may hold for a field; None where missing."""
    if not isinstance(member, CategoricalField):
        return st.none() | numbers
    return lists if member.multi else st.none() | categories


@st.composite
def columns_of(draw: st.DrawFn, schema: Schema, rows: int) -> dict[str, list[Any]]:
    """JSON values of all fields but those that are absent."""
    return {
        member.name: draw(st.lists(values_of(member), min_size=rows, max_size=rows))
        for member in schema.fields
        if draw(st.integers(0, 4))
    }


def is_missing(value: Any) -> bool:
    """Whether a value of one row is missing under the rules of the encoder."""
    if isinstance(value, list):
        return all(item is None for item in value)
    return value is None or (isinstance(value, float) and math.isnan(value))
