from __future__ import annotations

import mmap
import pkgutil
import resource
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.errors import DataError, OutputError
from model.data import read_split
from model.rows import Rows
from model.store import RowStore
from model.train import train
from tests.model.small import small_columns, write_small


def rows(count: int, seed: int, weighted: bool = False) -> Rows:
    random = np.random.default_rng(seed)
    index = random.integers(0, 99, (count, 3), np.int32)
    weight = random.random((count, 3), np.float32) if weighted else None
    label = random.integers(0, 2, count).astype(np.float32)
    return Rows(index, weight, label, random.integers(0, 9, count), label + 1)


def stored(parts: list[Rows]) -> Rows:
    with TemporaryFile() as index, TemporaryFile() as weight:
        store = RowStore(index, weight)
        for part in parts:
            store.append(part)
        return store.rows()


@pytest.mark.parametrize("weighted", [False, True])
def test_rows_come_back_as_they_were_appended(weighted: bool) -> None:
    parts = [rows(count, count, weighted) for count in (5, 1, 7)]
    joined = stored(parts)
    for place, array in enumerate(joined.parts()):
        given = [part.parts()[place] for part in parts]
        if given[0] is None:
            assert array is None
        else:
            np.testing.assert_array_equal(array, np.concatenate(given))
            assert array.dtype == given[0].dtype


def test_released_rows_are_read_again() -> None:
    part = rows(5000, 0, weighted=True)
    joined = stored([part])
    before = joined.fingerprint()
    joined.release()
    assert joined.fingerprint() == before == part.fingerprint()
    np.testing.assert_array_equal(joined.index, part.index)


def test_rows_in_memory_have_nothing_to_release() -> None:
    rows(5, 0).release()


def test_encoded_rows_are_mapped_and_leave_no_file(tmp_path: Path) -> None:
    spec = write_small(tmp_path)
    (tmp_path / "scratch").mkdir()
    split = read_split(spec, tmp_path / "scratch")
    base: Any = split.train.index
    while isinstance(base, np.ndarray):
        base = base.base
    assert isinstance(getattr(base, "obj", base), mmap.mmap)
    assert list((tmp_path / "scratch").iterdir()) == []


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Writing beyond it fails, as on a full disk (Python ignores the signal that comes with it)."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    ("step", "left"),
    [
        ("model.data.Spool", set()),
        ("model.data.encode_log", set()),
        ("model.checkpoint.save_tensors", set()),
        ("model.run.save_tensors", {"run.checkpoint"}),
    ],
)
def test_a_full_disk_is_one_sentence_and_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, left: set[str]
) -> None:
    monkeypatch.setattr("features.spool.MOST_HELD", 0)  # else the spool needs no file
    spec = write_small(tmp_path, small_columns(2000))
    whole = pkgutil.resolve_name(step)

    def cramped(*arguments: Any) -> Any:
        with largest_file(100):
            return whole(*arguments)

    monkeypatch.setattr(step, cramped)
    with pytest.raises(OutputError, match=r"cannot be written: .*File too large") as caught:
        train(spec, tmp_path / "run")
    assert "\n" not in caught.value.message
    assert {path.name for path in tmp_path.iterdir()} == {"log.parquet", "spec.toml"} | left


def test_an_empty_validation_log_is_one_sentence(tmp_path: Path) -> None:
    spec = write_small(tmp_path, overrides=("data.valid=none.parquet",))
    pq.write_table(pa.table(small_columns()).slice(0, 0), tmp_path / "none.parquet")
    with pytest.raises(DataError, match=r"the validation rows \(0\) need both labels"):
        train(spec, tmp_path / "run")


def test_appended_indices_do_not_stay_in_memory() -> None:
    part = rows(5, 0)
    seen = weakref.ref(part.index)
    with TemporaryFile() as index, TemporaryFile() as weight:
        store = RowStore(index, weight)
        store.append(part)
        del part
        assert seen() is None
        assert len(store.rows()) == 5
