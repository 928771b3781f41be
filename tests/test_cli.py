"""The command line, from a click log to a served answer, and its errors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

from cli import main
from service.app import create_app
from service.settings import Settings
from tests.conftest import write_log

TRAIN = ["--set", "train.epochs=1", "--set", "model.hidden=[8]", "--set", "model.embedding_dim=2"]


def test_from_a_log_to_a_ranked_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_log(tmp_path / "clicks.parquet")
    told = []
    for command in (
        ["init", "clicks.parquet", "--label", "clicked", "--group", "request", "-o", "my.toml"],
        ["train", "my.toml", "-o", "run", *TRAIN, "--set", "name=my"],
        ["export", "run"],
        ["score", "bundles/my/1", "clicks.parquet", "-o", "scored.parquet"],
        ["inspect", "bundles/my/1"],
    ):
        assert main(command) == 0, capsys.readouterr().err
        told.append(capsys.readouterr().out)
    assert "deepfm train my.toml" in told[0]
    assert f"deepfm serve {tmp_path}/bundles/my" in told[2]
    assert "1,200 rows" in told[3]
    assert "my version 1" in told[4]
    assert pq.read_table("scored.parquet")["score"].null_count == 0
    with TestClient(create_app(Settings(bundle=Path("bundles/my")))) as client:
        assert client.post("/rank", json={"candidates": [{"id": 1}]}).status_code == 200


def test_metrics_json_holds_what_the_contract_names(run_folder: Path) -> None:
    metrics = json.loads((run_folder / "metrics.json").read_text())
    assert {"valid", "test", "rows", "seconds", "best_seconds", "epochs", "best_epoch"} <= set(
        metrics
    )
    assert {"auc", "log_loss", "gauc", "ndcg@10", "ece"} <= set(metrics["valid"])


def failure(command: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(command) == 2
    told = capsys.readouterr().err
    assert "Traceback" not in told
    return told.removeprefix("deepfm: ").rstrip("\n").rpartition("\n")[2]


def test_errors_are_one_sentence_that_names_the_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    spec = '[data]\ntrain = "log.csv"\nlabel = "y"\n[fields.x]\ntype = "numeric"\n'
    (tmp_path / "s.toml").write_text(spec)
    assert "absent.toml" in failure(["train", "absent.toml"], capsys)
    assert "log.csv: no such file" in failure(["train", "s.toml"], capsys)
    (tmp_path / "log.csv").write_text("x,y\n" + "1,0\n2,7\n" * 10)
    assert "label 'y' must be 0 or 1" in failure(["train", "s.toml"], capsys)
    told = failure(["train", "s.toml", "--set", "train.epoch=3"], capsys)
    assert told == "s.toml: unknown key 'train.epoch'; the nearest valid one is 'epochs'"
    assert "no such run folder" in failure(["export", "nothing"], capsys)
    assert "manifest.json" in failure(["inspect", "nothing"], capsys)
    assert "--rows is -5, expected at least" in failure(["demo", "--rows=-5"], capsys)
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())


def test_an_existing_version_is_refused_and_left_alone(
    run_folder: Path, bundle_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (bundle_path / "manifest.json").read_bytes()
    command = ["export", str(run_folder), "-o", str(bundle_path)]
    assert "exists" in failure(command, capsys)
    assert (bundle_path / "manifest.json").read_bytes() == before


def test_init_never_overwrites(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pq.write_table(pa.table({"x": [1.0, 2.0], "y": [0, 1]}), tmp_path / "log.parquet")
    (tmp_path / "spec.toml").write_text("mine")
    command = ["init", str(tmp_path / "log.parquet"), "--label", "y"]
    assert "never overwritten" in failure([*command, "-o", str(tmp_path / "spec.toml")], capsys)
    assert (tmp_path / "spec.toml").read_text() == "mine"


def test_help_needs_neither_torch_nor_the_runtime() -> None:
    code = "import sys, cli; cli._parser(); print({'torch', 'onnxruntime'} & set(sys.modules))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "set()\n"
