from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from features.canonical import field_seed
from features.cross import CrossField
from features.crosser import FACTORS, Crosser, mix
from features.encode import Encoded, Encoder
from features.schema import SIDES, BucketField, CategoricalField, Schema, Side
from features.vocabulary import Vocabulary
from tests.features.strategies import columns_of, crossed_schemas

SCHEMA = Schema(
    (
        BucketField(name="hour", side="context", boundaries=(6.0, 18.0)),  # 0 missing, 1 to 3
        CategoricalField(name="item", vocabulary=Vocabulary.of("abc"), missing="zero"),
    ),
    crosses=(
        CrossField(name="pair", side="candidate", of=("hour", "item"), hash_buckets=1000),
        CrossField(name="riap", side="candidate", of=("item", "hour"), hash_buckets=1 << 20),
    ),
)
FIRST = 4 + 4  # hour's and item's indices stand before the crosses'
_MASK = 2**64 - 1


def encode(schema: Schema, values: dict[str, list[Any]], rows: int) -> tuple[Encoded, Encoded]:
    """Both sides, the crosses filled."""
    table = schema.build_table()
    sides = []
    for side in SIDES:
        encoder = Encoder(schema, side, table)
        columns, _ = encoder.columns_from_values(values)
        sides.append(encoder.encode(columns, rows))
    Crosser(schema).fill(sides[0], sides[1])
    return sides[0], sides[1]


def bucket_by_hand(cross: CrossField, locals_: list[int]) -> int:
    """The rule of docs/bundle.md in Python's own integers."""
    factors = (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9)
    key = field_seed(cross.name, 0)
    for factor, local in zip(factors, locals_, strict=False):
        key = (key + factor * local) & _MASK
    key = (key ^ key >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    key = (key ^ key >> 27) * 0x94D049BB133111EB & _MASK
    key ^= key >> 31
    return (key >> 32) * cross.hash_buckets >> 32


def test_known_answers() -> None:
    """Numbers that must never change: bundles hold weights trained under them."""
    _, items = encode(SCHEMA, {"hour": [3, 12, None, 3], "item": ["a", "b", "z", None]}, 4)
    found = items.index[:, 1:] - [FIRST, FIRST + 1000]
    assert found.tolist() == [[281, 131335], [996, 626595], [660, 361505], [852, 974229]]


def test_the_mixing_function_is_splitmix64() -> None:
    """Its published first outputs from seed 0: the state grows by the golden ratio's bits."""
    state = np.arange(1, 4, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    expected = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert mix(state).tolist() == expected


@given(crossed_schemas().flatmap(lambda s: st.tuples(st.just(s), columns_of(s, 3))))
def test_every_bucket_is_the_rules_own_and_inside_its_range(
    drawn: tuple[Schema, dict[str, list[Any]]],
) -> None:
    schema, values = drawn
    sides = dict(zip(SIDES, encode(schema, values, 3), strict=True))
    for cross in schema.crosses:
        owned, column = schema.ranges[cross.name], column_of(schema, sides, cross.name)
        for row in range(3):
            parts = [local_index(schema, sides, name, row) for name in cross.of]
            assert column[row] == owned.start + bucket_by_hand(cross, parts)
            assert column[row] in owned


@given(crossed_schemas().flatmap(lambda s: st.tuples(st.just(s), columns_of(s, 6))))
def test_a_row_crosses_alone_as_among_others(drawn: tuple[Schema, dict[str, list[Any]]]) -> None:
    """One row is encoded value by value, six are encoded column by column."""
    schema, values = drawn
    table, crosser = schema.build_table(), Crosser(schema)
    encoders = [Encoder(schema, side, table) for side in SIDES]
    whole = [encoder.encode_values(values, 6)[0] for encoder in encoders]
    crosser.fill(whole[0], whole[1])
    for row in range(6):
        own = {name: column[row : row + 1] for name, column in values.items()}
        alone = [encoder.encode_values(own, 1)[0] for encoder in encoders]
        crosser.fill(alone[0], alone[1])
        for one, all_ in zip(alone, whole, strict=True):
            np.testing.assert_array_equal(one.index[0], all_.index[row])


@given(crossed_schemas().flatmap(lambda s: st.tuples(st.just(s), columns_of(s, 5))))
def test_a_shared_context_crosses_as_a_repeated_one(
    drawn: tuple[Schema, dict[str, list[Any]]],
) -> None:
    schema, values = drawn
    names = {member.name for member in schema.side("context")}
    same = {name: [v[0]] * 5 if name in names else v for name, v in values.items()}
    repeated, expected = encode(schema, same, 5)
    shared, candidate = encode(schema, same, 5)
    one = Encoded(shared.index[:1], None if shared.weight is None else shared.weight[:1])
    Crosser(schema).fill(one, candidate)
    np.testing.assert_array_equal(candidate.index, expected.index)
    np.testing.assert_array_equal(one.index[0], repeated.index[4])


def test_a_cross_weighs_1_whatever_its_parts_weigh() -> None:
    _, items = encode(SCHEMA, {"hour": [None], "item": [None]}, 1)
    assert items.weight is not None
    assert items.weight.tolist() == [[0, 1, 1]]


def test_a_part_under_zero_is_told_from_its_fields_first_index() -> None:
    """Both have the same index; a cross must not take absent for the first category."""
    table = CategoricalField(
        name="item", vocabulary=Vocabulary.of("a"), missing="zero", unknown="zero"
    )
    schema = Schema((SCHEMA.fields[0], table), crosses=SCHEMA.crosses)
    _, items = encode(schema, {"hour": [3] * 3, "item": ["a", None, "new"]}, 3)
    assert items.index[0, 0] == items.index[1, 0] == items.index[2, 0]
    assert items.index[0, 2] != items.index[1, 2] == items.index[2, 2]


def test_buckets_are_used_evenly() -> None:
    """10,000 pairs over 100 buckets: each holds about 100 (five deviations are allowed)."""
    first, second = np.indices((100, 100)).reshape(2, -1).astype(np.uint64)
    key = first * np.uint64(FACTORS[0]) + second * np.uint64(FACTORS[1])
    buckets = (mix(key) >> np.uint64(32)) * np.uint64(100) >> np.uint64(32)
    counts = np.bincount(buckets.astype(np.int64), minlength=100)
    assert abs(counts - 100).max() < 50


def test_no_rows_cross_to_no_rows() -> None:
    context, _ = encode(SCHEMA, {"hour": [3]}, 1)
    none = Encoded(np.empty((0, 3), np.int64), np.empty((0, 3), np.float32))
    Crosser(SCHEMA).fill(context, none)
    assert none.index.shape == (0, 3)


def column_of(schema: Schema, sides: dict[Side, Encoded], name: str) -> list[int]:
    side = next(side for side in SIDES if name in schema.first_slots(side))
    column: list[int] = sides[side].index[:, schema.first_slots(side)[name]].tolist()
    return column


def local_index(schema: Schema, sides: dict[Side, Encoded], name: str, row: int) -> int:
    side = next(side for side in SIDES if name in schema.first_slots(side))
    weight = sides[side].weight
    if weight is not None and weight[row, schema.first_slots(side)[name]] == 0:
        return -1
    return column_of(schema, sides, name)[row] - schema.ranges[name].start
