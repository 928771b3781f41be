"""Counts are exact up to a bound, and within a stated error beyond it."""

from __future__ import annotations

import gc
import weakref
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from features import counts as module
from features.boundaries import quantile_boundaries
from features.counts import NumberCounts, TextCounts

MOST = 256


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little room, as a long log would meet."""
    monkeypatch.setattr(module, "MOST_NUMBERS", MOST)
    monkeypatch.setattr(module, "MOST_TEXTS", MOST)
    monkeypatch.setattr(module, "MERGED_AT", MOST)


def numbers(column: NDArray[np.float64]) -> NumberCounts:
    total = NumberCounts()
    for part in np.array_split(column, max(len(column) // 100, 1)):
        total.add(NumberCounts.of(part))
    return total


def texts(words: list[str]) -> TextCounts:
    total = TextCounts()
    for start in range(0, len(words), 100):
        coded = pa.array(words[start : start + 100]).dictionary_encode()
        total.add(TextCounts.of(coded.dictionary, coded.indices.to_numpy()))
    return total


@pytest.mark.usefixtures("few")
def test_numbers_are_exact_up_to_the_bound() -> None:
    column = np.random.default_rng(0).integers(0, MOST, 5000) / 7
    values, counts = numbers(np.r_[column, np.nan, np.inf, -0.0]).merged()
    expected = np.unique(np.r_[column, 0.0], return_counts=True)
    np.testing.assert_array_equal(values, expected[0])
    np.testing.assert_array_equal(counts, expected[1])


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("order", ["drawn", "rising", "falling"])
@pytest.mark.parametrize("kind", ["normal", "lognormal", "heavy"])
def test_shares_below_a_value_are_within_the_stated_error(kind: str, order: str) -> None:
    random = np.random.default_rng(1)
    column = random.normal(size=8000) if kind == "normal" else random.lognormal(0, 3, 8000)
    if kind == "heavy":
        column[::3] = 1.0
    column = {"drawn": column, "rising": np.sort(column), "falling": -np.sort(-column)}[order]
    values, counts = numbers(column).merged()
    assert len(values) <= MOST
    assert counts.sum() == len(column)
    for boundary in np.quantile(column, np.linspace(0, 1, 50)):
        share = counts[values < boundary].sum() / len(column)
        assert abs(share - np.mean(column < boundary)) <= 4 * len(column) / MOST**2


@pytest.mark.usefixtures("few")
def test_least_largest_and_mean_are_kept_beyond_the_bound() -> None:
    column = np.random.default_rng(2).normal(5, 1, 5000)
    column[[17, 4000]] = -1e300, 1e9
    values, counts = numbers(column).merged()
    assert (values[0], values[-1]) == (-1e300, 1e9)
    rest = np.sort(column)[1:]
    assert np.average(values[1:], weights=counts[1:]) == pytest.approx(rest.mean(), rel=1e-12)


@pytest.mark.usefixtures("few")
def test_a_frequent_value_keeps_its_count_beyond_the_bound() -> None:
    column = np.random.default_rng(3).normal(size=6000)
    column[::2] = 0.25
    values, counts = numbers(column).merged()
    assert counts[values == 0.25].tolist() == [3000]


@pytest.mark.usefixtures("few")
def test_buckets_of_a_long_column_hold_equal_shares() -> None:
    column = np.random.default_rng(4).lognormal(2, 1.5, 20_000)
    edges = quantile_boundaries(*numbers(column).merged(), 8)
    held = np.bincount(np.searchsorted(edges, column, "right"), minlength=8) / len(column)
    assert len(edges) == 7
    assert held == pytest.approx(np.full(8, 1 / 8), abs=0.02)


@pytest.mark.usefixtures("few")
def test_texts_are_exact_up_to_the_bound() -> None:
    words = [f"w{k}" for k in np.random.default_rng(0).integers(0, MOST, 5000)]
    expected = sorted(Counter(words).items(), key=lambda one: (-one[1], one[0]))
    assert list(texts(words).most_frequent(1, None)) == [text for text, _ in expected]
    assert len(texts(words).most_frequent(20, None)) == sum(count >= 20 for _, count in expected)


@pytest.mark.usefixtures("few")
def test_frequent_texts_are_never_lost_beyond_the_bound() -> None:
    random = np.random.default_rng(5)
    words = [f"rare{k}" for k in range(6000)]
    for number in range(20):
        words += [f"often{number:02}"] * (100 + number)
    words = [words[place] for place in random.permutation(len(words))]
    found = list(texts(words).most_frequent(2, 20))
    assert sorted(found) == [f"often{number:02}" for number in range(20)]
    assert len(texts(words).most_frequent(1, None)) <= MOST


def test_texts_order_by_code_point() -> None:
    words = ["é", "z", "a", "日", "\U0001f600", "", "Z"]
    assert list(texts(words).most_frequent(1, None)) == sorted(words)


def test_missing_texts_are_not_counted() -> None:
    counted = TextCounts.of(pa.array(["a", "b"]), np.array([0, -1, 0], np.int32))
    assert list(counted.most_frequent(1, None)) == ["a"]


def test_counts_do_not_hold_the_batch_in_memory() -> None:
    """Its texts may be a slice of a buffer with all columns of the batch."""
    table = pa.record_batch({"t": pa.array(["a", "b", "a"]).dictionary_encode()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_batch(table)
    raw = np.frombuffer(sink.getvalue(), np.uint8).copy()
    seen = weakref.ref(raw)
    with pa.ipc.open_stream(pa.py_buffer(raw)) as reader:
        column = reader.read_next_batch().column(0)
    counted = TextCounts.of(column.dictionary, column.indices.to_numpy())
    del raw, reader, column
    gc.collect()
    assert seen() is None
    assert list(counted.most_frequent(1, None)) == ["a", "b"]
