from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.pairs import Floats, Integers, Pairs, draw_pairs

ROWS = st.lists(st.tuples(st.booleans(), st.integers(-2, 4), st.sampled_from([0, 0.25, 1, 4])))


def draw(
    label: Floats, group: Integers, weight: Floats | None = None, k: int = 2, seed: int = 0
) -> Pairs:
    return draw_pairs(label, group, weight, k, torch.Generator().manual_seed(seed))


def floats(numbers: list[float]) -> Floats:
    return np.array(numbers, np.float32)


def arrays(rows: list[tuple[bool, int, float]]) -> tuple[Floats, Integers, Floats]:
    label, group, weight = zip(*rows, strict=True) if rows else ((), (), ())
    return (
        np.array(label, np.float32), np.array(group, np.int64), np.array(weight, np.float32),
    )  # fmt: skip


@given(ROWS, st.integers(1, 5), st.integers(0, 9), st.booleans())
def test_every_positive_meets_so_many_different_negatives_of_its_group(
    rows: list[tuple[bool, int, float]], k: int, seed: int, weighted: bool
) -> None:
    """As an explicit loop over rows says; rows of weight 0 take no part."""
    label, group, weight = arrays(rows)
    if not weighted:
        weight = np.ones_like(weight)
    pairs = draw(label, group, weight if weighted else None, k, seed)
    drawn: dict[int, list[int]] = {}
    for positive, negative in zip(pairs.positive.tolist(), pairs.negative.tolist(), strict=True):
        drawn.setdefault(positive, []).append(negative)
    for row in range(len(label)):
        others = [
            other
            for other in range(len(label))
            if group[other] == group[row] and not label[other] and weight[other]
        ]
        expected = min(k, len(others)) if label[row] and weight[row] else 0
        met = drawn.get(row, [])
        assert len(met) == len(set(met)) == expected
        assert set(met) <= set(others)


@given(ROWS, st.integers(1, 5))
def test_each_group_with_pairs_weighs_the_same_and_its_pairs_share_it(
    rows: list[tuple[bool, int, float]], k: int
) -> None:
    label, group, _ = arrays(rows)
    pairs = draw(label, group, None, k)
    of_pair = group[pairs.positive.numpy()]
    for number in set(of_pair.tolist()):
        shares = pairs.weight.numpy()[of_pair == number]
        np.testing.assert_allclose(shares, 1 / len(shares), rtol=1e-6)


def test_pair_weighs_the_geometric_mean_of_its_rows() -> None:
    """Weights of c all through a group make the group weigh c."""
    label, group = floats([1, 0, 1, 0, 0]), np.array([1, 1, 2, 2, 2])
    mixed = draw(label, group, floats([9, 4, 3, 3, 3]))
    order = mixed.positive.argsort(stable=True)
    assert mixed.weight[order].tolist() == pytest.approx([6, 1.5, 1.5])


def test_rows_in_several_pairs_count_once() -> None:
    label, group = floats([1, 1, 0, 0, 0, 1]), np.array([1, 1, 1, 1, 1, 2])
    assert draw(label, group, k=2).rows() == 5
    assert draw(label, group, k=1).rows() == 4


def test_groups_of_one_class_give_no_pair() -> None:
    label, group = floats([1, 1, 0, 0]), np.array([1, 1, 2, 2])
    pairs = draw(label, group)
    assert len(pairs.weight) == pairs.rows() == 0


def test_negatives_are_drawn_alike_often_and_anew_every_time() -> None:
    label, group = floats([1, 0, 0, 0, 0, 0]), np.zeros(6, np.int64)
    met = Counter(n for seed in range(600) for n in draw(label, group, seed=seed).negative.tolist())
    assert set(met) == {1, 2, 3, 4, 5}
    assert max(met.values()) < 1.3 * min(met.values())


def test_positives_of_a_group_use_its_negatives_evenly() -> None:
    label, group = floats([1, 1, 1, 0, 0, 0, 0, 0, 0]), np.zeros(9, np.int64)
    assert sorted(draw(label, group).negative.tolist()) == [3, 4, 5, 6, 7, 8]
