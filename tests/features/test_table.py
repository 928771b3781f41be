from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.errors import SchemaError
from features.table import NOT_FOUND, HashTable

hashes = st.integers(1, 2**64 - 1)
# Equal upper halves share a home slot; the last ones run into the room behind the last home.
colliding = st.builds(
    lambda high, low: (high << 32) + low,
    st.sampled_from([0, 1, 2**31, 2**32 - 2, 2**32 - 1]),
    st.integers(1, 40),
)
entries = st.lists(hashes | colliding, max_size=60, unique=True)


def build(keys: list[int]) -> HashTable:
    return HashTable.build(np.array(keys, np.uint64), np.arange(len(keys)))


@given(entries, st.lists(hashes | colliding))
def test_finds_what_a_dict_finds(keys: list[int], others: list[int]) -> None:
    table = build(keys)
    expected = {key: place for place, key in enumerate(keys)}
    asked = keys + others
    assert table.find_all(np.array(asked, np.uint64)).tolist() == [
        expected.get(key, NOT_FOUND) for key in asked
    ]


@given(entries, st.lists(hashes | colliding))
def test_one_by_one_finds_what_all_at_once_finds(keys: list[int], others: list[int]) -> None:
    table = build(keys)
    asked = keys + others
    assert [table.find(key) for key in asked] == table.find_all(np.array(asked, np.uint64)).tolist()


@pytest.mark.parametrize("high", [0, 2**32 - 1])
def test_entries_of_one_home_lie_behind_each_other(high: int) -> None:
    """Those of the last home too: a lookup never walks past the end of the array."""
    keys = [(high << 32) + low for low in range(1, 201)]
    table = build(keys)
    assert table.find_all(np.array(keys, np.uint64)).tolist() == list(range(200))
    assert table.find((high << 32) + 999) == NOT_FOUND
    assert table.slots[-1].tolist() == [0, 0]


def test_an_empty_table_finds_nothing() -> None:
    table = build([])
    assert table.find(5) == NOT_FOUND
    assert table.find_all(np.array([5, 2**64 - 1], np.uint64)).tolist() == [NOT_FOUND] * 2


def test_no_question_no_answer() -> None:
    assert build([1]).find_all(np.empty(0, np.uint64)).shape == (0,)


def test_a_large_table_needs_few_steps() -> None:
    keys = np.unique(np.random.default_rng(0).integers(1, 2**64, 200_000, dtype=np.uint64))
    table = HashTable.build(keys, np.arange(len(keys)))
    at = ((keys >> np.uint64(32)) * np.uint64(table.homes) >> np.uint64(32)).astype(np.int64)
    place = np.flatnonzero(table.slots[:, 0])
    assert np.abs(place - at).mean() < 1
    assert (table.find_all(keys) == np.arange(len(keys))).all()


def test_two_entries_with_one_hash_are_refused() -> None:
    with pytest.raises(SchemaError, match="same 64-bit hash") as caught:
        build([7, 8, 7])
    assert caught.value.code == "hash_collision"


def test_a_hash_of_0_is_refused() -> None:
    with pytest.raises(SchemaError, match="hash of 0"):
        build([0, 5])


@pytest.mark.parametrize(
    "slots",
    [
        np.zeros((4, 3), np.uint64),
        np.zeros(4, np.uint64),
        np.zeros((4, 2), np.int64),
        np.ones((4, 2), np.uint64),
    ],
)
def test_an_array_that_is_no_table_is_refused(slots: np.ndarray) -> None:
    with pytest.raises(SchemaError, match="the hash table"):
        HashTable(slots, 2)


@pytest.mark.parametrize("homes", [0, -1, 4, 99])
def test_homes_outside_the_array_are_refused(homes: int) -> None:
    with pytest.raises(SchemaError, match="no empty slot"):
        HashTable(np.zeros((4, 2), np.uint64), homes)
