from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from features.spec import load_spec
from model.simulate import CANDIDATES, SPEC_FILE, simulate

ROWS = 20_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("simulated")


@pytest.fixture(scope="module")
def best(folder: Path) -> float:
    """Simulates into `folder`."""
    return simulate(folder, ROWS, 5)


def test_best_reachable_auc_is_far_from_chance_and_from_certainty(best: float) -> None:
    assert 0.7 < best < 0.9


def test_rows_are_shared_between_training_and_test(folder: Path, best: float) -> None:
    train, test = (pq.read_table(folder / f"{name}.parquet") for name in ("train", "test"))
    assert (train.num_rows, test.num_rows) == (ROWS * 9 // 10, ROWS // 10)
    assert not set(train["request_id"].to_pylist()) & set(test["request_id"].to_pylist())


def test_same_seed_writes_the_same_rows(folder: Path, best: float, tmp_path: Path) -> None:
    assert simulate(tmp_path, ROWS, 5) == best
    for name in ("train.parquet", "test.parquet"):
        assert pq.read_table(tmp_path / name).equals(pq.read_table(folder / name))


def test_other_seed_writes_other_rows(best: float, tmp_path: Path) -> None:
    assert simulate(tmp_path, ROWS, 6) != best


def test_written_spec_reads_and_names_columns_of_the_log(folder: Path, best: float) -> None:
    spec = load_spec(folder / SPEC_FILE)
    names = pq.read_schema(folder / "train.parquet").names
    assert {field.name for field in spec.fields} < set(names)
    assert {spec.data.label, spec.data.group} < set(names)
    assert {field.side for field in spec.fields} == {"context", "candidate"}


def test_rows_of_a_request_share_their_context(folder: Path, best: float) -> None:
    table = pq.read_table(folder / "test.parquet")
    for name in ("user_id", "hour", "device"):
        values = np.array(table[name].to_pylist()).reshape(-1, CANDIDATES)
        assert (values == values[:, :1]).all()


def test_log_holds_gaps_outliers_and_lists(folder: Path, best: float) -> None:
    table = pq.read_table(folder / "train.parquet")
    income = table["income"].to_numpy()
    assert 0.02 < np.isnan(income).mean() < 0.04
    assert np.nanmax(income) == 1e9
    lengths = {len(tags) for tags in table["tags"].to_pylist()}
    assert lengths == {0, 1, 2, 3, 4}


def test_any_number_of_rows_can_be_asked_for(tmp_path: Path) -> None:
    simulate(tmp_path, 300, 0)
    assert pq.read_table(tmp_path / "train.parquet").num_rows == 270
