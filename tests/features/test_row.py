"""A few rows value by value are encoded as many rows column by column."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.encode import Encoder
from features.errors import FeatureError
from features.schema import SIDES, BucketField, CategoricalField, Schema, ValueField
from features.vocabulary import Vocabulary
from tests.service.linear import REJECTING, SCHEMA

NUMBERS = Schema(
    (
        BucketField(name="a", boundaries=(-1.5, 0.0, 7.0), missing="zero"),
        ValueField(name="b", minimum=-5, maximum=1e9, transform="log1p"),
        ValueField(name="c", minimum=-5, maximum=9, transform="standard", mean=2.0, deviation=3.0),
        CategoricalField(name="d", hash_buckets=5, multi=True, max_values=2, pooling="sum"),
        CategoricalField(
            name="e", vocabulary=Vocabulary.of(("", "é", "1")), missing="zero", unknown="zero"
        ),
    )
)
NUMBER = st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-9, 99)
CATEGORY = (
    st.none()
    | st.booleans()
    | st.integers(-(2**54), 2**54)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3)
    | st.sampled_from(["Lyon", "Paris", "red", "7", "a", "b", "x", "y", 1, 7.0, "", "é"])
)


def rows_of(schema: Schema) -> st.SearchStrategy[list[dict[str, Any]]]:
    def values(member: Any) -> st.SearchStrategy[Any]:
        if not isinstance(member, CategoricalField):
            return NUMBER
        return st.none() | st.lists(CATEGORY, max_size=4) if member.multi else CATEGORY

    row = st.fixed_dictionaries({}, optional={f.name: values(f) for f in schema.fields})
    return st.lists(row, max_size=4)


def outcome(encode: Any) -> Any:
    try:
        rows, truncated = encode()
    except FeatureError as error:
        return error.code
    weight = None if rows.weight is None else rows.weight.tolist()
    return rows.index.tolist(), weight, truncated


@pytest.mark.parametrize("schema", [SCHEMA, REJECTING, NUMBERS])
@given(data=st.data())
def test_both_ways_agree(schema: Schema, data: st.DataObject) -> None:
    rows = data.draw(rows_of(schema))
    values = {f.name: [row.get(f.name) for row in rows] for f in schema.fields}
    for side in SIDES:
        encoder = Encoder(schema, side, schema.build_table())

        def by_column(encoder: Encoder = encoder) -> Any:
            columns, truncated = encoder.columns_from_values(values)
            return encoder.encode(columns, len(rows)), truncated

        few = outcome(lambda encoder=encoder: encoder.encode_values(values, len(rows)))
        many = outcome(by_column)
        if isinstance(few, str) or isinstance(many, str):
            # Which of several faults is met first may differ; the service names all of them.
            assert isinstance(few, str)
            assert isinstance(many, str)
        else:
            assert few == many


def test_many_rows_take_the_other_way() -> None:
    encoder = Encoder(SCHEMA, "candidate", SCHEMA.build_table())
    values: dict[str, list[Any]] = {"price": [5.0] * 100, "shop": ["a"] * 100}
    many, _ = encoder.encode_values(values, 100)
    one, _ = encoder.encode_values({name: column[:1] for name, column in values.items()}, 1)
    np.testing.assert_array_equal(many.index, np.repeat(one.index, 100, 0))
