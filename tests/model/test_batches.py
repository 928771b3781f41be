from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.batches import Groups, row_batches
from model.rows import Rows


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_row_batches_hold_every_row_once() -> None:
    label = np.zeros(10, np.float32)
    rows = Rows(np.zeros((10, 1), np.int32), None, label, None, None)
    batches = list(row_batches(rows, 4, seeded()))
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert torch.cat(batches).sort().values.tolist() == list(range(10))


@given(
    st.lists(st.integers(-3, 8), min_size=1, max_size=60),
    st.integers(2, 12),
    st.integers(1, 60),
    st.integers(0, 9),
)
def test_pieces_stay_whole_and_batches_are_filled(
    numbers: list[int], size: int, most: int, seed: int
) -> None:
    """Wherever a group's rows stand; only a piece that is larger alone makes a larger batch."""
    group = np.array(numbers, np.int64)
    groups = Groups(group, most)
    batches = [batch.numpy() for batch in groups.batches(size, seeded(seed))]
    assert np.sort(np.concatenate(batches)).tolist() == list(range(len(group)))
    assert groups.sizes.max() <= most
    assert all(len(batch) <= size or len(batch) in groups.sizes for batch in batches)
    for batch, following in pairwise(batches):
        assert len(batch) + min(groups.sizes.max(), len(following)) > size


@given(st.lists(st.integers(-3, 8), min_size=1, max_size=60), st.integers(0, 9))
def test_group_of_few_rows_is_in_one_batch(numbers: list[int], seed: int) -> None:
    group = np.array(numbers, np.int64)
    held = [
        set(group[batch.numpy()].tolist()) for batch in Groups(group, 60).batches(5, seeded(seed))
    ]
    assert sum(len(groups) for groups in held) == len(set(numbers))


def test_large_group_is_cut_into_nearly_equal_pieces() -> None:
    group = np.repeat([3, 4, 5], [10, 4, 1])
    assert Groups(group, 4).sizes.tolist() == [3, 3, 4, 4, 1]


def test_large_group_is_cut_anew_every_epoch() -> None:
    groups, generator = Groups(np.zeros(40, np.int64), 4), seeded()
    met = [{frozenset(batch.tolist()) for batch in groups.batches(4, generator)} for _ in range(2)]
    assert len(met[0]) == 10
    assert len(met[0] & met[1]) < 3


def test_groups_are_shuffled_every_epoch() -> None:
    groups, generator = Groups(np.arange(50) // 2, 8), seeded()
    first, second = (torch.cat(list(groups.batches(8, generator))) for _ in range(2))
    again = torch.cat(list(groups.batches(8, seeded())))
    assert not torch.equal(first, second)
    assert torch.equal(first, again)


def test_group_larger_than_a_batch_is_a_batch_of_its_own() -> None:
    batches = list(Groups(np.r_[np.zeros(30), np.ones(3)], 99).batches(4, seeded()))
    assert sorted(len(batch) for batch in batches) == [3, 30]
