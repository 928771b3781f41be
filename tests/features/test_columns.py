from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.errors import FeatureError
from features.schema import CategoricalField
from tests.features.encoding import encode, encoder_of, multi_field, weights
from tests.features.strategies import lists


def test_null_elements_are_dropped() -> None:
    encoded = encode(multi_field(), [[None, "a", None, "1", None]])
    assert encoded.index.tolist() == [[2, 3, 0]]
    assert weights(encoded) == [[0.5, 0.5, 0]]


def test_the_first_values_of_a_long_list_are_kept_and_counted() -> None:
    encoder = encoder_of(multi_field(max_values=2))
    rows = [["a", "1", "true"], ["a"], [None, "true", "1"], ["1", "a", "b", "c"]]
    columns, truncated = encoder.columns_from_values({"f": rows})
    assert truncated == {"f": 2}
    assert encoder.encode(columns, 4).index.tolist() == [[2, 3], [2, 0], [4, 3], [3, 2]]


@given(st.lists(lists, min_size=1, max_size=5), st.integers(1, 4))
def test_truncation_counts_the_rows_that_held_more(rows: list[Any], width: int) -> None:
    _, truncated = encoder_of(multi_field(max_values=width)).columns_from_values({"f": rows})
    long = sum(len([item for item in row or [] if item is not None]) > width for row in rows)
    assert truncated.get("f", 0) == long


def test_a_category_beyond_2_53_is_refused() -> None:
    with pytest.raises(FeatureError, match=r"2\^53") as caught:
        encode(CategoricalField(name="f", hash_buckets=3), [2**60])
    assert caught.value.code == "out_of_range"
