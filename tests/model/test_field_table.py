from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from features.schema import BucketField, CategoricalField, Field, Schema, ValueField
from features.vocabulary import Vocabulary
from model.field_table import MOST_BARS, FieldRow, field_rows

ABC = Vocabulary.of(["a", "b", "c"])


def row_of(field: Field, counts: list[int], rows: int) -> FieldRow:
    return field_rows(Schema((field,)), np.array(counts), rows)[0]


def test_shares_of_missing_and_unknown_are_those_of_the_counts() -> None:
    row = row_of(CategoricalField(name="x", vocabulary=ABC), [20, 8, 40, 30, 2], 100)
    assert row.missing == 0.2
    assert row.unknown == pytest.approx(0.1)  # of the 80 values
    assert row.size == 3


def test_values_of_a_multi_field_are_counted_apart_from_its_rows() -> None:
    field = CategoricalField(name="x", vocabulary=ABC, multi=True, max_values=4)
    row = row_of(field, [10, 30, 200, 60, 10], 100)
    assert row.missing == 0.1
    assert row.unknown == pytest.approx(0.1)


def test_missing_under_zero_is_what_the_counts_lack() -> None:
    bucket = BucketField(name="x", boundaries=(1.0,), missing="zero")
    assert row_of(bucket, [60, 30], 100).missing == pytest.approx(0.1)
    category = CategoricalField(name="x", vocabulary=ABC, missing="zero")
    assert row_of(category, [5, 40, 30, 15], 100).missing == pytest.approx(0.1)


def test_unknown_under_zero_is_what_the_counts_lack() -> None:
    row = row_of(CategoricalField(name="x", vocabulary=ABC, unknown="zero"), [20, 30, 20, 10], 100)
    assert row.missing == 0.2
    assert row.unknown == pytest.approx(0.25)


def test_what_the_counts_cannot_tell_is_none() -> None:
    both = CategoricalField(name="x", vocabulary=ABC, missing="zero", unknown="zero")
    assert row_of(both, [1, 1, 1], 10).missing is None
    assert row_of(both, [1, 1, 1], 10).unknown is None
    value = ValueField(
        name="x", minimum=0, maximum=9, missing="zero"
    )  # a value of 0 counts as none
    assert row_of(value, [7], 10).missing is None


def test_what_is_refused_never_occurs() -> None:
    field = CategoricalField(name="x", vocabulary=ABC, missing="reject", unknown="reject")
    row = row_of(field, [5, 4, 1], 10)
    assert (row.missing, row.unknown) == (0.0, 0.0)


def test_numbers_and_hashed_categories_have_no_unknown() -> None:
    hashed = CategoricalField(name="x", hash_buckets=2)
    for field in (hashed, BucketField(name="x", boundaries=(1.0,))):
        assert row_of(field, [0, 5, 5], 10).unknown is None
    assert row_of(ValueField(name="x", minimum=0, maximum=9), [1, 9], 10).unknown is None


def test_all_missing_is_no_division_by_zero() -> None:
    for unknown in ("bucket", "zero"):
        field = CategoricalField(name="x", vocabulary=ABC, unknown=unknown)
        assert row_of(field, [10] + [0] * (field.size - 1), 10).unknown is None


def test_bars_are_named_after_buckets_and_categories() -> None:
    row = row_of(BucketField(name="x", boundaries=(1.0, 2.5)), [1, 2, 3, 4], 10)
    labels = [(bar.label, bar.share, bar.is_reserved) for bar in row.bars]
    assert labels == [
        ("missing", 0.1, True), ("-∞ to 1", 0.2, False), ("1 to 2.5", 0.3, False),
        ("2.5 to ∞", 0.4, False),
    ]  # fmt: skip
    row = row_of(CategoricalField(name="x", vocabulary=ABC), [0, 0, 5, 3, 2], 10)
    assert [bar.label for bar in row.bars] == ["missing", "unknown", "a", "b", "c"]
    row = row_of(ValueField(name="x", minimum=0, maximum=9, missing="zero"), [9], 10)
    assert [bar.label for bar in row.bars] == ["0 to 9"]


def test_bars_of_a_policy_without_an_index_are_left_out() -> None:
    row = row_of(CategoricalField(name="x", vocabulary=ABC, missing="zero"), [1, 1, 1, 1], 4)
    assert [bar.label for bar in row.bars] == ["unknown", "a", "b", "c"]


@pytest.mark.parametrize("size", [31, 32, 33, 1000])
def test_neighbours_are_joined_where_they_are_many(size: int) -> None:
    counts: NDArray[np.int64] = np.arange(size + 1)
    schema = Schema((CategoricalField(name="x", hash_buckets=size),))
    bars = field_rows(schema, counts, 10)[0].bars[1:]
    assert len(bars) == min(size, MOST_BARS)
    assert sum(bar.share for bar in bars) == pytest.approx(1)
    assert bars[-1].label.endswith(f"to {size:,}")
