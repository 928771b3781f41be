"""Every example on its published data: what is served equals what was trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from starlette.testclient import TestClient

from examples.prepare import prepare
from examples.run import EXAMPLES, locate, ranking_request, source_of
from export.bundle import export_run
from features.bundle import open_bundle
from features.spec import load_spec
from model.calibrate import Calibration
from model.data import encode_log, training_log
from model.run import load_run
from model.train import predict, train
from service.app import create_app
from service.batch import score_file
from service.settings import Settings

ROWS = 10_000
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.toml"))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_served_and_offline_scores_are_the_trainers_own(
    name: str, real_data: Path, tmp_path: Path
) -> None:
    root = prepared(name, real_data, tmp_path)
    spec = load_spec(EXAMPLES / f"{name}.toml", [f'data.root="{root}"', "train.epochs=1"])
    run = train(spec, tmp_path / "run")
    bundle = export_run(run, tmp_path / "bundles" / name / "1")
    # Training rows too: no example's test part alone holds as many rows.
    parts = [pq.read_table(root / f"{part}.parquet") for part in ("test", "train")]
    for part, rows in zip(parts, (ROWS // 2, ROWS), strict=True):
        pq.write_table(part.slice(0, rows), tmp_path / f"{rows}.parquet")
    sample = pq.read_table(tmp_path / f"{ROWS}.parquet")
    expected = trainer_scores(run, tmp_path / f"{ROWS}.parquet", bundle)
    assert len(expected) == ROWS
    assert np.std(expected) > 0.01

    score_file(bundle, str(tmp_path / f"{ROWS}.parquet"), tmp_path / "out.parquet")
    offline = pq.read_table(tmp_path / "out.parquet")["score"].to_numpy()
    np.testing.assert_allclose(offline, expected, atol=1e-5, rtol=0)

    names = [field.name for field in spec.fields]
    settings = Settings(bundle=bundle.parent, max_rows=ROWS)
    with TestClient(create_app(settings)) as client:
        answer = client.post("/score", json={"instances": sample.select(names).to_pylist()})
        np.testing.assert_allclose(answer.json()["scores"], expected, atol=1e-5, rtol=0)
        request = ranking_request(open_bundle(bundle).schema, tmp_path / f"{ROWS}.parquet")
        ranked = client.post("/rank", json=request).json()["items"]
        context = request.get("context", {})
        joined = [context | item["features"] for item in request["candidates"]]
        scores = client.post("/score", json={"instances": joined}).json()["scores"]
        np.testing.assert_allclose(
            [item["score"] for item in ranked], sorted(scores, reverse=True), atol=1e-5
        )


@pytest.mark.parametrize("name", NAMES)
def test_make_example_finds_the_data_of_every_example(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CTR_DATA", str(tmp_path))
    monkeypatch.setattr("examples.run.prepare", lambda _, source, __: source)
    for published in ("adult", "criteo_20f_46k", "frappe_x1", "ml_1m"):
        (tmp_path / published).mkdir()
    spec, source = locate(name, tmp_path / "prepared")
    assert spec == EXAMPLES / f"{name}.toml"
    assert name.startswith(source.name)


def prepared(name: str, real_data: Path, folder: Path) -> Path:
    """Folder of an example's three files."""
    return prepare(name, source_of(name, real_data), folder / "data")


def trainer_scores(run_folder: Path, rows: Path, bundle: Path) -> NDArray[np.float64]:
    """The network's own predictions on a file, the bundle's calibration applied."""
    run = load_run(run_folder)
    spec = replace(run.spec, data=replace(run.spec.data, root="/"))
    batches = training_log(spec, str(rows)).batches()
    logit = predict(run.network, encode_log(spec, run.schema, run.table, batches))
    document = open_bundle(bundle).manifest.calibration
    return Calibration(**document).score(logit)
