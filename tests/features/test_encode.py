from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.columns import Columns
from features.encode import Encoded, Encoder
from features.errors import FeatureError
from features.field_spec import NumericSpec
from features.fit import fit_schema
from features.log import ClickLog, Kind
from features.schema import SIDES, BucketField, CategoricalField, Field, Schema, ValueField
from features.spec import load_spec
from tests.features.encoding import (
    VOCABULARY,
    encode,
    encode_numbers,
    encoder_of,
    indices,
    multi_field,
    weights,
)
from tests.features.strategies import (
    bucket_fields,
    categorical_fields,
    columns_of,
    is_missing,
    numbers,
    schemas,
    value_fields,
)


def test_the_seed_example_of_the_contract(tmp_path: Path) -> None:
    """[male, Tuesday, student, 50, 200] is index [0, 3, 9, 11, 12], value [1, 1, 1, 50, 200]."""
    categorical = 'type = "categorical"\nmissing = "zero"\nunknown = "zero"\n'
    value = 'type = "numeric"\nencoding = "value"\nmissing = "zero"\n'
    (tmp_path / "spec.toml").write_text(
        '[data]\ntrain = "log.parquet"\nlabel = "clicked"\n'
        f'[fields.sex]\n{categorical}vocabulary = ["male", "female"]\n'
        f"[fields.weekday]\n{categorical}vocabulary = "
        '["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]\n'
        f'[fields.job]\n{categorical}vocabulary = ["student", "worker"]\n'
        f"[fields.weight]\n{value}[fields.wage]\n{value}"
    )
    text = pa.array(["male", "female"])
    log = {"sex": text, "weekday": text, "job": text, "weight": [40, 90], "wage": [0.5, 900]}
    pq.write_table(pa.table(log), tmp_path / "log.parquet")
    spec = load_spec(tmp_path / "spec.toml")
    kinds: dict[str, Kind] = {
        field.name: "number" if isinstance(field, NumericSpec) else "any" for field in spec.fields
    }
    schema = fit_schema(spec, ClickLog(str(tmp_path / "log.parquet"), kinds).batches())
    assert schema.size == 13

    encoder = Encoder(schema, "candidate", schema.build_table())
    row = {"sex": "male", "weekday": "Tuesday", "job": "student", "weight": 50, "wage": 200}
    columns, _ = encoder.columns_from_values({name: [value] for name, value in row.items()})
    encoded = encoder.encode(columns, 1)
    assert encoded.index.tolist() == [[0, 3, 9, 11, 12]]
    assert weights(encoded) == [[1, 1, 1, 50, 200]]


@given(schemas().flatmap(lambda s: st.tuples(st.just(s), columns_of(s, 4))))
def test_no_value_can_leave_its_fields_range(drawn: tuple[Schema, dict[str, list[Any]]]) -> None:
    """For every kind and policy: inside the range, or rejected by a policy that says so."""
    schema, values = drawn
    table = schema.build_table()
    for side in SIDES:
        encoder = Encoder(schema, side, table)
        columns, _ = encoder.columns_from_values(values)
        encoded = attempt(encoder, columns, 4)
        if isinstance(encoded, FeatureError):
            assert encoded.row in range(4)
            assert any(rejects(member) for member in encoder.fields)
        else:
            assert_inside(schema, side, encoded)


def attempt(encoder: Encoder, columns: Columns, rows: int) -> Encoded | FeatureError:
    try:
        return encoder.encode(columns, rows)
    except FeatureError as error:
        return error


def rejects(member: Field) -> bool:
    return "reject" in (member.missing, getattr(member, "unknown", "bucket"))


def assert_inside(schema: Schema, side: Any, encoded: Encoded) -> None:
    slot = 0
    for member in schema.side(side):
        owned = encoded.index[:, slot : slot + member.slots]
        inside = schema.ranges[member.name]
        assert ((owned >= inside.start) & (owned < inside.stop)).all()
        slot += member.slots
    assert slot == encoded.index.shape[1]
    if encoded.weight is not None:
        assert np.isfinite(encoded.weight).all()


@given(
    categorical_fields("f", "candidate"),
    st.lists(st.lists(st.integers(0, 2**64 - 1), max_size=4), min_size=1, max_size=5),
)
def test_no_hash_can_leave_its_fields_range(
    member: CategoricalField, rows: list[list[int]]
) -> None:
    schema = Schema((member,))
    column = np.zeros((len(rows), member.slots), np.uint64)
    for row, hashes in enumerate(rows):
        column[row, : len(hashes)] = hashes[: member.slots]
    encoder = Encoder(schema, "candidate", schema.build_table())
    given_column = column if member.multi else column[:, 0]
    encoded = attempt(encoder, {"f": given_column}, len(rows))
    if isinstance(encoded, FeatureError):
        assert rejects(member)
    else:
        assert_inside(schema, "candidate", encoded)


@given(bucket_fields("f", "candidate"), numbers)
def test_a_finite_number_lands_in_exactly_one_bucket(member: BucketField, x: float) -> None:
    number = float(x)
    cuts = (-math.inf, *member.boundaries, math.inf)
    holding = [k for k in range(len(cuts) - 1) if cuts[k] <= number < cuts[k + 1]]
    assert len(holding) == 1
    assert indices(encode(member, [x])) == [member.reserved + holding[0]]


@given(bucket_fields("f", "candidate"))
def test_infinity_and_absurd_numbers_land_in_the_end_buckets(member: BucketField) -> None:
    cut = BucketField(name="f", missing=member.missing, boundaries=(-5.0, 1.5, 7.0))
    found = indices(encode_numbers(cut, [-math.inf, -1e308, 1e308, math.inf]))
    assert found == [cut.reserved] * 2 + [cut.size - 1] * 2
    found = indices(encode_numbers(member, [-math.inf, math.inf]))
    assert found == [member.reserved, member.size - 1]


def test_a_boundary_belongs_to_the_bucket_above_it() -> None:
    member = BucketField(name="f", missing="zero", boundaries=(1.0, 2.0))
    values = [np.nextafter(1.0, 0), 1.0, np.nextafter(2.0, 0), 2.0]
    assert indices(encode(member, values)) == [0, 1, 1, 2]


@given(value_fields("f", "candidate"), st.floats(allow_nan=False))
def test_a_value_stays_finite_whatever_is_sent(member: ValueField, x: float) -> None:
    encoded = encode_numbers(member, [x])
    assert indices(encoded) == [member.reserved]
    assert np.isfinite(weights(encoded)).all()


def fields_with(missing: Any) -> list[Field]:
    """One field of every kind with a policy for missing."""
    return [
        BucketField(name="f", missing=missing, boundaries=(1.0,)),
        ValueField(name="f", missing=missing, minimum=0, maximum=5),
        CategoricalField(name="f", missing=missing, vocabulary=VOCABULARY),
        CategoricalField(name="f", missing=missing, hash_buckets=3),
        CategoricalField(
            name="f", missing=missing, vocabulary=VOCABULARY, multi=True, max_values=2
        ),
    ]


def absences(field: Field) -> list[Encoded]:
    """One row in which the field is missing, in every way that there is."""
    absent = encoder_of(field).encode({}, 1)
    ways = [absent, encode(field, [None])]
    if not isinstance(field, CategoricalField):
        ways.append(encode_numbers(field, [math.nan]))
    elif field.multi:
        ways += [encode(field, [[]]), encode(field, [[None, None]])]
    return ways


@pytest.mark.parametrize("kind", range(5))
def test_absent_null_nan_and_empty_select_the_missing_index(kind: int) -> None:
    field = fields_with("bucket")[kind]
    for encoded in absences(field):
        assert indices(encoded) == [0]
        if encoded.weight is not None:
            assert weights(encoded)[0][0] == 1
            assert not any(weights(encoded)[0][1:])


@pytest.mark.parametrize("kind", range(5))
def test_missing_under_zero_contributes_nothing(kind: int) -> None:
    field = fields_with("zero")[kind]
    for encoded in absences(field):
        assert indices(encoded) == [0]
        assert not any(weights(encoded)[0])


@pytest.mark.parametrize("kind", range(5))
def test_missing_under_reject_is_refused_with_its_row(kind: int) -> None:
    field = fields_with("reject")[kind]
    full: Any = [1, 1, "a", "a", ["a"]][kind]
    with pytest.raises(FeatureError, match="field 'f' is missing") as caught:
        encode(field, [full, full, None, None])
    assert (caught.value.code, caught.value.row) == ("missing_value", 2)


def test_an_unseen_category_is_unknown() -> None:
    field = CategoricalField(name="f", vocabulary=VOCABULARY)
    assert indices(encode(field, ["a", "1", "true", "new", None])) == [2, 3, 4, 1, 0]


def test_unknown_under_zero_contributes_nothing() -> None:
    field = CategoricalField(name="f", vocabulary=VOCABULARY, unknown="zero")
    encoded = encode(field, ["a", "new", None])
    assert indices(encoded) == [1, 0, 0]
    assert weights(encoded) == [[1], [0], [1]]


@pytest.mark.parametrize("multi", [False, True])
def test_unknown_under_reject_is_refused_with_its_row(multi: bool) -> None:
    field = CategoricalField(
        name="f", vocabulary=VOCABULARY, unknown="reject", multi=multi, max_values=1 + multi
    )
    values = ["a", None, "new"]
    with pytest.raises(FeatureError, match="unknown category") as caught:
        encode(field, [[value] for value in values] if multi else values)
    assert (caught.value.code, caught.value.row) == ("unknown_category", 2)


def test_a_hashed_field_knows_every_category() -> None:
    field = CategoricalField(name="f", hash_buckets=1000)
    found = indices(encode(field, ["a", "b", "a", None]))
    assert found[0] == found[2] != found[1]
    assert found[3] == 0


def test_hash_buckets_do_not_depend_on_the_schemas_seed() -> None:
    field = CategoricalField(name="f", hash_buckets=1000)
    found = set()
    for seed in (0, 1):
        schema = Schema((field,), seed)
        encoder = Encoder(schema, "candidate", schema.build_table())
        columns, _ = encoder.columns_from_values({"f": ["a"]})
        found.add(int(encoder.encode(columns, 1).index[0, 0]))
    assert len(found) == 1


def test_mean_pooling_shares_the_weight_and_pads_with_the_first_index() -> None:
    encoded = encode(multi_field(), [["a", "true"]])
    assert encoded.index.tolist() == [[2, 4, 0]]
    assert weights(encoded) == [[0.5, 0.5, 0]]


def test_sum_pooling_weighs_every_value_1() -> None:
    encoded = encode(multi_field(pooling="sum"), [["a", "true"]])
    assert weights(encoded) == [[1, 1, 0]]


def test_an_unknown_element_under_zero_counts_in_the_mean_but_adds_nothing() -> None:
    encoded = encode(multi_field(unknown="zero"), [["a", "new"]])
    assert weights(encoded) == [[0.5, 0, 0]]


def test_a_list_of_unknown_elements_under_zero_is_not_missing() -> None:
    assert weights(encode(multi_field(unknown="zero"), [["new"]])) == [[0, 0, 0]]


@given(schemas().flatmap(lambda s: st.tuples(st.just(s), columns_of(s, 3))))
def test_a_row_encodes_the_same_alone(drawn: tuple[Schema, dict[str, list[Any]]]) -> None:
    schema, values = drawn
    encoder = Encoder(schema, "candidate", schema.build_table())
    try:
        together = encode_rows(encoder, values, 3)
    except FeatureError:
        return
    for row in range(3):
        alone = encode_rows(encoder, {name: [v[row]] for name, v in values.items()}, 1)
        np.testing.assert_array_equal(alone.index[0], together.index[row])
        if alone.weight is not None and together.weight is not None:
            np.testing.assert_array_equal(alone.weight[0], together.weight[row])


def encode_rows(encoder: Encoder, values: dict[str, list[Any]], rows: int) -> Encoded:
    columns, _ = encoder.columns_from_values(values)
    return encoder.encode(columns, rows)


@given(schemas().flatmap(lambda s: st.tuples(st.just(s), columns_of(s, 4))))
def test_a_policy_rejects_the_first_such_row(drawn: tuple[Schema, dict[str, list[Any]]]) -> None:
    """A missing value under `reject` never gets through, and the named row is the first."""
    schema, values = drawn
    encoder = Encoder(schema, "candidate", schema.build_table())
    columns, _ = encoder.columns_from_values(values)
    encoded = attempt(encoder, columns, 4)
    if isinstance(encoded, FeatureError):
        if encoded.code == "missing_value":
            column = values.get(encoded.message.split("'")[1], [None])
            assert encoded.row == [is_missing(value) for value in column].index(True)
        return
    for member in encoder.fields:
        if member.missing == "reject":
            assert not any(map(is_missing, values.get(member.name, [None])))


def test_is_known_judges_a_whole_column() -> None:
    field = CategoricalField(name="f", vocabulary=VOCABULARY)
    encoder = encoder_of(field)
    assert encoder.is_known(field, ["a", 1, None])
    assert not encoder.is_known(field, ["a", "new"])


def test_is_known_judges_lists_and_hashed_fields() -> None:
    field = multi_field()
    assert encoder_of(field).is_known(field, [["a"], [], None])
    assert not encoder_of(field).is_known(field, [["a", "new"]])
    hashed = CategoricalField(name="f", hash_buckets=2)
    assert encoder_of(hashed).is_known(hashed, ["anything"])


def test_no_rows_encode_to_no_rows() -> None:
    encoder = encoder_of(multi_field(), BucketField(name="g", boundaries=(1.0,)))
    columns, _ = encoder.columns_from_values({"f": [], "g": []})
    assert encoder.encode(columns, 0).index.shape == (0, 4)
