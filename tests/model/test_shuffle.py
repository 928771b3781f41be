from __future__ import annotations

import numpy as np
import pytest
import torch

from model import shuffle
from model.rows import Rows
from model.shuffle import shuffled


def rows(count: int, slots: int = 2) -> Rows:
    index = np.zeros((count, slots), np.int32)
    return Rows(index, None, np.zeros(count, np.float32), None, None)


def order(count: int, seed: int = 0) -> list[int]:
    found: list[int] = shuffled(rows(count), torch.Generator().manual_seed(seed)).tolist()
    return found


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 10 rows, windows of 100."""
    monkeypatch.setattr(shuffle, "CHUNK_ROWS", 10)
    monkeypatch.setattr(shuffle, "WINDOW_BYTES", 100 * 2 * 4)


def test_rows_of_one_window_are_permuted_wholly() -> None:
    expected = torch.randperm(500, generator=torch.Generator().manual_seed(3))
    assert order(500, seed=3) == expected.tolist()


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize("count", [100, 101, 995, 1000])
def test_every_row_comes_once(count: int) -> None:
    assert sorted(order(count)) == list(range(count))
    assert order(count) == order(count)
    assert order(count) != order(count, seed=1)


@pytest.mark.usefixtures("small_windows")
def test_a_window_reads_few_whole_chunks_from_anywhere() -> None:
    found = np.array(order(1000)).reshape(10, 100)
    for window in found:
        places, counts = np.unique(window // 10, return_counts=True)
        assert counts.tolist() == [10] * 10
        assert places.max() - places.min() > 20
    inside = np.diff(found, axis=1)
    assert (inside == 1).mean() < 0.1
