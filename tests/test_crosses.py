"""The wide part from spec to answer: what is served is what was trained.

The small model of conftest has three crosses: within the context and with an embedding, across the
sides, and of three parts with a `zero` policy among them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from starlette.testclient import TestClient

from export.bundle import export_run
from features.bundle import Bundle, open_bundle
from model.calibrate import Calibration
from model.data import encode_log, training_log
from model.run import load_run
from model.train import predict
from service.batch import score_file

CROSSES = ["age_city", "city_item", "item_size_age"]
ROWS = 100


@pytest.fixture(scope="module")
def rows(run_folder: Path, bundle: Bundle) -> list[dict[str, Any]]:
    """The first rows of the log, as requests hold them."""
    table = pq.read_table(run_folder.parent / "log.parquet").slice(0, ROWS)
    names = [field.name for field in bundle.schema.fields]
    found: list[dict[str, Any]] = table.select(names).to_pylist()
    return found


def trained_scores(run_folder: Path, bundle: Bundle) -> NDArray[np.float64]:
    """The network's own on the same rows, by the trainer's encoder, calibrated."""
    run = load_run(run_folder)
    log = training_log(run.spec, run.spec.data.train)
    encoded = encode_log(run.spec, run.schema, run.table, log.batches(stop=ROWS))
    return Calibration(**bundle.manifest.calibration).score(predict(run.network, encoded))


@pytest.mark.parametrize("form", ["whole", "row by row"])
def test_score_gives_the_trainers_scores(
    form: str, client: TestClient, run_folder: Path, bundle: Bundle, rows: list[dict[str, Any]]
) -> None:
    bodies = [rows] if form == "whole" else [[row] for row in rows[:20]]
    answers = [client.post("/score", json={"instances": body}).json() for body in bodies]
    scores = [score for answer in answers for score in answer["scores"]]
    expected = trained_scores(run_folder, bundle)[: len(scores)]
    np.testing.assert_allclose(scores, expected, atol=1e-5, rtol=0)


def test_columns_and_rows_score_alike(client: TestClient, rows: list[dict[str, Any]]) -> None:
    """Rows take the compiled pass where it is there, columns never do."""
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    by_row = client.post("/score", json={"instances": rows}).json()["scores"]
    by_column = client.post("/score", json={"columns": columns}).json()["scores"]
    np.testing.assert_allclose(by_column, by_row, atol=1e-6, rtol=0)


def test_rank_scores_as_score_does_on_the_joined_rows(
    client: TestClient, bundle: Bundle, rows: list[dict[str, Any]]
) -> None:
    names = [field.name for field in bundle.schema.side("context")]
    context = {name: rows[0][name] for name in names}
    candidates = [
        {"id": place, "features": {name: row[name] for name in row if name not in names}}
        for place, row in enumerate(rows)
    ]
    joined = [row | context for row in rows]
    scores = client.post("/score", json={"instances": joined}).json()["scores"]
    ranked = client.post("/rank", json={"context": context, "candidates": candidates}).json()
    for item in ranked["items"]:
        assert item["score"] == pytest.approx(scores[item["id"]], abs=1e-6)


def test_a_file_is_scored_as_requests_are(
    run_folder: Path, bundle: Bundle, tmp_path: Path, client: TestClient, rows: list[dict[str, Any]]
) -> None:
    pq.write_table(pq.read_table(run_folder.parent / "log.parquet").slice(0, ROWS),
                   tmp_path / "rows.parquet")  # fmt: skip
    score_file(bundle.path, str(tmp_path / "rows.parquet"), tmp_path / "scored.parquet")
    offline = pq.read_table(tmp_path / "scored.parquet")["score"].to_numpy()
    online = client.post("/score", json={"instances": rows}).json()["scores"]
    np.testing.assert_allclose(offline, online, atol=1e-6, rtol=0)


def test_crosses_change_scores(run_folder: Path) -> None:
    """Otherwise the other tests here could not fail."""
    run = load_run(run_folder)
    wide = run.network.wide
    assert wide is not None
    assert int((wide.weight != 0).sum()) > 50


@pytest.mark.parametrize("name", CROSSES)
def test_a_request_that_sends_a_cross_sends_an_unknown_field(
    name: str, client: TestClient, rows: list[dict[str, Any]]
) -> None:
    plain = client.post("/score", json={"instances": rows[:2]}).json()
    sent = client.post("/score", json={"instances": [row | {name: 7} for row in rows[:2]]}).json()
    assert {"field": name, "code": "unknown_field", "count": 2} in sent["warnings"]
    assert sent["scores"] == plain["scores"]


def test_crosses_are_summarised_but_not_described_as_inputs(client: TestClient) -> None:
    model = client.get("/v1/models").json()
    assert all(f'"{name}"' in str(model).replace("'", '"') for name in CROSSES)
    document = client.get("/openapi.json").text
    assert not any(name in document for name in CROSSES)


def test_reference_counts_leave_crosses_out(bundle: Bundle) -> None:
    assert bundle.reference["counts"].keys() == {field.name for field in bundle.schema.fields}


def test_int8_keeps_crosses(
    run_folder: Path,
    tmp_path: Path,
    copied_graph: Callable[..., list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Here: the table and the golden replay; 120 rows are too few to judge what int8 costs."""
    monkeypatch.setattr("export.quantize.MOST_AUC_LOST", 0.005)
    monkeypatch.setattr("export.bundle.write_onnx", copied_graph)
    target = export_run(run_folder, tmp_path / "tiny" / "1", "int8")
    assert open_bundle(target).manifest.precision == "int8"
