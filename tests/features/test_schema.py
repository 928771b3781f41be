from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given

from features.cross import CrossField
from features.errors import SchemaError
from features.schema import (
    LARGEST_TABLE,
    SIDES,
    BucketField,
    CategoricalField,
    Field,
    Schema,
    Side,
    ValueField,
)
from features.vocabulary import Vocabulary
from tests.features.strategies import schemas

PLAIN = BucketField(name="plain", boundaries=(1.0,))


@given(schemas())
def test_fields_share_the_tables_without_gap_or_overlap(schema: Schema) -> None:
    owned = [index for member in schema.fields for index in schema.ranges[member.name]]
    assert sorted(owned) == list(range(schema.size))
    assert all(len(schema.ranges[member.name]) == member.size for member in schema.fields)


@given(schemas())
def test_slots_are_one_per_field_and_max_values_per_multi_field(schema: Schema) -> None:
    for side in SIDES:
        expected = sum(getattr(member, "max_values", 1) for member in schema.side(side))
        assert schema.slots(side) == expected


def test_ranges_and_slots_of_fields_without_an_embedding_come_last() -> None:
    wide = CategoricalField(name="wide", hash_buckets=5, embedding=False)
    schema = Schema((wide, PLAIN))
    assert schema.ranges == {"plain": range(3), "wide": range(3, 9)}
    assert (schema.size, schema.embedding_size) == (9, 3)
    assert [member.name for member in schema.side("candidate")] == ["plain", "wide"]


def test_crosses_come_behind_the_fields_and_those_without_an_embedding_last() -> None:
    item = CategoricalField(name="item", hash_buckets=4)
    crosses = [
        CrossField(
            name=name, side="candidate", of=("plain", "item"), hash_buckets=10, embedding=embedding
        )
        for name, embedding in (("linear", False), ("embedded", True))
    ]
    schema = Schema((PLAIN, item), crosses=tuple(crosses))
    ranges = {
        "plain": range(3), "item": range(3, 8), "embedded": range(8, 18), "linear": range(18, 28)
    }  # fmt: skip
    assert schema.ranges == ranges
    assert (schema.size, schema.embedding_size, schema.slots("candidate")) == (28, 18, 4)
    assert schema.first_slots("candidate") == {"plain": 0, "item": 1, "embedded": 2, "linear": 3}
    assert [member.name for member in schema.side("candidate")] == ["plain", "item"]
    assert not schema.is_weighted("candidate")


@pytest.mark.parametrize(
    ("of", "side", "message"),
    [
        (("plain", "nothing"), "candidate", "its parts must be"),
        (("plain", "value"), "candidate", "its parts must be"),
        (("plain", "list"), "candidate", "its parts must be"),
        (("plain", "x"), "candidate", "its parts must be"),
        (("plain", "other"), "context", "on another side than its parts"),
        (("other", "third"), "candidate", "on another side than its parts"),
    ],
)
def test_a_cross_that_does_not_fit_the_fields_is_refused(
    of: tuple[str, str], side: Side, message: str
) -> None:
    fields = (
        PLAIN,
        ValueField(name="value", minimum=0, maximum=1),
        CategoricalField(name="list", hash_buckets=2, multi=True),
        CategoricalField(name="other", side="context", hash_buckets=2),
        CategoricalField(name="third", side="context", hash_buckets=2),
    )
    with pytest.raises(SchemaError, match=f"cross 'x': .*{message}"):
        Schema(fields, crosses=(CrossField(name="x", side=side, of=of, hash_buckets=5),))


def test_a_cross_cannot_have_the_name_of_a_field() -> None:
    fields = (PLAIN, CategoricalField(name="item", hash_buckets=4))
    cross = CrossField(name="item", side="candidate", of=("plain", "item"), hash_buckets=5)
    with pytest.raises(SchemaError, match="'item' is empty or used twice"):
        Schema(fields, crosses=(cross,))


def test_reserved_indices_are_missing_then_unknown() -> None:
    field = CategoricalField(name="f", vocabulary=Vocabulary.of(("a",)))
    assert (field.reserved, field.unknown_index, field.size) == (2, 1, 3)
    field = CategoricalField(name="f", vocabulary=Vocabulary.of(("a",)), missing="zero")
    assert (field.reserved, field.unknown_index, field.size) == (1, 0, 2)


def test_a_hashed_field_has_no_unknown() -> None:
    field = CategoricalField(name="f", hash_buckets=4)
    assert (field.reserved, field.unknown_index, field.size) == (1, None, 5)


@pytest.mark.parametrize(
    ("field", "weighted"),
    [
        (PLAIN, False),
        (BucketField(name="f", boundaries=(), missing="zero"), True),
        (ValueField(name="f", minimum=0, maximum=1), True),
        (CategoricalField(name="f", hash_buckets=2), False),
        (CategoricalField(name="f", hash_buckets=2, multi=True), True),
        (CategoricalField(name="f", missing="zero"), True),
        (CategoricalField(name="f", unknown="zero"), True),
        (CategoricalField(name="f", unknown="zero", hash_buckets=2), False),
    ],
)
def test_a_side_is_weighted_when_a_weight_can_differ_from_1(field: Field, weighted: bool) -> None:
    assert Schema((field,)).is_weighted("candidate") == weighted
    assert not Schema((field,)).is_weighted("context")


def test_the_table_maps_each_category_to_its_own_index() -> None:
    fields = [
        CategoricalField(name=name, vocabulary=Vocabulary.of(("a", "b"))) for name in ("x", "y")
    ]
    schema = Schema((fields[0], PLAIN, fields[1]))
    table = schema.build_table()
    hashes = [field.vocabulary.hashes(schema.text_seed(field)) for field in fields]
    assert table.find_all(np.concatenate(hashes)).tolist() == [2, 3, 9, 10]


NAN = float("nan")


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (BucketField, {"boundaries": (2.0, 1.0)}, "strictly increasing"),
        (BucketField, {"boundaries": (1.0, 1.0)}, "strictly increasing"),
        (BucketField, {"boundaries": (1.0, NAN)}, "finite"),
        (ValueField, {"minimum": 2, "maximum": 1}, "minimum at most maximum"),
        (ValueField, {"minimum": NAN, "maximum": 1}, "finite"),
        (ValueField, {"minimum": 0, "maximum": 1, "deviation": 0}, "deviation above 0"),
        (CategoricalField, {"max_values": 2}, "or more if multi"),
        (CategoricalField, {"max_values": 0, "multi": True}, "max_values must be 1"),
        (CategoricalField, {"hash_buckets": 0}, "at least 1"),
        (CategoricalField, {"hash_buckets": 2, "vocabulary": Vocabulary.of("a")}, "excludes"),
        (CategoricalField, {"missing": "zero", "unknown": "reject"}, "nothing to learn"),
    ],
)
def test_a_field_that_contradicts_itself_cannot_be_built(
    kind: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(SchemaError, match=message):
        kind(name="f", **options)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ((), "nothing to rank"),
        ((BucketField(name="f", side="context", boundaries=()),), "nothing to rank"),
        ((PLAIN, PLAIN), "'plain' is empty or used twice"),
        ((BucketField(name="", boundaries=()),), "'' is empty or used twice"),
        ((BucketField(name="a\nb", boundaries=()),), r"'a\\nb': a name holds no"),
        ((CategoricalField(name="f", hash_buckets=LARGEST_TABLE),), "more than a table can hold"),
    ],
)
def test_a_schema_that_contradicts_itself_cannot_be_built(
    fields: tuple[Field, ...], message: str
) -> None:
    with pytest.raises(SchemaError, match=message):
        Schema(fields)


def test_a_category_listed_twice_is_refused() -> None:
    schema = Schema((CategoricalField(name="f", vocabulary=Vocabulary.of(("a", "a"))),))
    with pytest.raises(SchemaError, match="same 64-bit hash"):
        schema.build_table()
