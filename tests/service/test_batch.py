from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

from features.errors import BundleError, DataError, OutputError
from service.batch import score_file
from tests.conftest import write_log
from tests.service.linear import REJECTING, write_bundle

FIELDS = ["age", "income", "city", "history", "price", "size", "item", "shop", "tags"]


def test_a_file_scores_as_the_service_does(
    client: TestClient, bundle_path: Path, tmp_path: Path
) -> None:
    write_log(tmp_path / "log.parquet", rows=150, seed=5)
    assert score_file(bundle_path, str(tmp_path / "log.parquet"), tmp_path / "out.parquet") == 150
    scored, log = (pq.read_table(tmp_path / f"{name}.parquet") for name in ("out", "log"))
    assert scored.drop(["logit", "score"]) == log
    online = client.post("/score", json={"instances": log.select(FIELDS).to_pylist()}).json()
    np.testing.assert_allclose(scored["score"], online["scores"], atol=1e-6)
    order = np.argsort(scored["logit"])
    assert (np.diff(np.array(scored["score"])[order]) >= 0).all()


def test_csv_scores_as_parquet_does(bundle_path: Path, tmp_path: Path) -> None:
    columns = {"age": [31.0, None], "city": ["city1", None], "item": ["3", "7"]}
    (tmp_path / "log.csv").write_text("age,city,item,history\n31,city1,3,h1|h2\n,,7,\n")
    lists = pa.table(columns | {"history": [["h1", "h2"], None]})
    pq.write_table(lists, tmp_path / "log.parquet")
    scores = []
    for name in ("log.csv", "log.parquet"):
        score_file(bundle_path, str(tmp_path / name), tmp_path / "out.parquet")
        scores.append(pq.read_table(tmp_path / "out.parquet")["score"].to_pylist())
    assert scores[0] == scores[1]


def test_lists_of_csv_are_cut_where_training_cut_them(bundle_path: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(bundle_path, tmp_path / bundle_path.parent.name / bundle_path.name)
    manifest = json.loads((bundle / "manifest.json").read_text())
    (bundle / "manifest.json").write_text(json.dumps(manifest | {"list_separator": ";"}))
    scores = []
    for path, separator in ((bundle_path, "|"), (bundle, ";")):
        (tmp_path / "log.csv").write_text(f"item,history\n3,h1{separator}h2\n")
        score_file(path, str(tmp_path / "log.csv"), tmp_path / "out.parquet")
        scores.append(pq.read_table(tmp_path / "out.parquet")["score"].to_pylist())
    assert scores[0] == scores[1]


def test_earlier_scores_in_the_input_are_replaced(bundle_path: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"item": ["3"], "score": [9.0]}), tmp_path / "log.parquet")
    score_file(bundle_path, str(tmp_path / "log.parquet"), tmp_path / "out.parquet")
    scored = pq.read_table(tmp_path / "out.parquet")
    assert scored.column_names == ["item", "logit", "score"]
    assert 0 < scored["score"][0].as_py() < 1


def test_a_file_without_any_field_is_refused_and_nothing_is_written(
    bundle_path: Path, tmp_path: Path
) -> None:
    pq.write_table(pa.table({"colour": ["red"]}), tmp_path / "log.parquet")
    with pytest.raises(DataError, match="no column of the model's fields"):
        score_file(bundle_path, str(tmp_path / "log.parquet"), tmp_path / "out.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["log.parquet"]


def test_a_value_that_its_field_rejects_names_the_row(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "m" / "1", REJECTING)
    rows = {"age": [1.0, 2.0, 3.0], "price": [1.0, 1.0, 1.0], "kind": ["a", "b", "z"]}
    pq.write_table(pa.table(rows), tmp_path / "log.parquet")
    with pytest.raises(DataError, match=r"log\.parquet: row 2: field 'kind'"):
        score_file(bundle, str(tmp_path / "log.parquet"), tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()


def test_a_bundle_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"manifest\.json"):
        score_file(tmp_path, "log.parquet", tmp_path / "out.parquet")


def test_a_column_that_is_not_there_is_told_once(
    bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that was renamed upstream, above all."""
    for name in ("a", "b"):
        rows: dict[str, list[Any]] = {
            field: ["1"] for field in FIELDS if field not in ("age", "city")
        }
        for field in ("income", "price", "size"):
            rows[field] = [1.0]
        for field in ("history", "tags"):
            rows[field] = [["1"]]
        (tmp_path / "log").mkdir(exist_ok=True)
        pq.write_table(pa.table(rows), tmp_path / "log" / f"{name}.parquet")
    score_file(bundle_path, str(tmp_path / "log"), tmp_path / "out.parquet")
    told = capsys.readouterr().err.splitlines()
    assert told == [
        f"{tmp_path}/log/a.parquet: has no column '{name}', it is scored as missing"
        for name in ("age", "city")
    ]


def test_the_input_is_not_overwritten(bundle_path: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"item": ["3"]}), tmp_path / "log.parquet")
    with pytest.raises(OutputError, match=r"log\.parquet: holds rows to score"):
        score_file(bundle_path, str(tmp_path / "log.parquet"), tmp_path / "log.parquet")
    assert pq.read_table(tmp_path / "log.parquet").column_names == ["item"]


def test_parquet_is_not_written_under_another_name(bundle_path: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"expected a name that ends in \.parquet"):
        score_file(bundle_path, "log.parquet", tmp_path / "out.csv")


def test_files_of_different_columns_are_not_put_into_one(bundle_path: Path, tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    pq.write_table(pa.table({"item": ["3"]}), tmp_path / "log" / "a.parquet")
    pq.write_table(pa.table({"item": ["3"], "age": [1.0]}), tmp_path / "log" / "b.parquet")
    with pytest.raises(DataError, match=r"b\.parquet: has other columns than the file before it"):
        score_file(bundle_path, str(tmp_path / "log"), tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()
