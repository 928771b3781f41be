"""An interrupted training goes on, and ends as one that was never interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import model.train as trainer
from cli import main
from features.errors import DataError
from features.spec import Spec
from model.train import train
from tests.model.small import small_columns, write_small

ROOT = Path(__file__).parents[2]
OPTIONS = ("model.dropout=0.5", "model.batch_norm=true", "train.epochs=4", "train.patience=9")


@pytest.fixture
def spec(tmp_path: Path) -> Spec:
    return write_small(tmp_path, overrides=OPTIONS)


def interrupt(spec: Spec, folder: Path, epoch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train until Ctrl-C in the middle of an epoch."""
    whole = trainer._train_epoch

    def until(*arguments: Any) -> float:
        if arguments[-1] == epoch:
            whole(*arguments)
            raise KeyboardInterrupt
        return whole(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "_train_epoch", until)
        with pytest.raises(KeyboardInterrupt):
            train(spec, folder)


def outcome(folder: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """All that a run folder holds, but for the seconds."""
    metrics = json.loads((folder / "metrics.json").read_text())
    for document in (metrics, *metrics["history"]):
        document.pop("seconds")
    metrics.pop("best_seconds")
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    del files["metrics.json"], files["report.html"]  # both tell the seconds
    return metrics, files


@pytest.mark.parametrize("epoch", [2, 4])
def test_going_on_ends_as_if_never_interrupted(
    tmp_path: Path, spec: Spec, monkeypatch: pytest.MonkeyPatch, epoch: int
) -> None:
    interrupt(spec, tmp_path / "run", epoch, monkeypatch)
    assert not (tmp_path / "run").exists()
    train(spec, tmp_path / "run")
    train(spec, tmp_path / "whole")
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


def test_epochs_that_are_done_are_not_run_again(
    tmp_path: Path, spec: Spec, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupt(spec, tmp_path / "run", 3, monkeypatch)
    capsys.readouterr()
    train(spec, tmp_path / "run")
    said = capsys.readouterr().err
    assert "run.checkpoint: going on after epoch 2" in said
    assert "epoch 2: loss" not in said
    assert "epoch 3: loss" in said


def test_patience_that_ran_out_is_not_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped between the last epoch and the run folder."""
    spec = write_small(tmp_path, overrides=("train.epochs=9", "train.patience=1"))
    aucs = iter([0.6, 0.5])
    monkeypatch.setattr(trainer, "_metrics", lambda _: {"auc": next(aucs), "log_loss": 0.5})
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "_judged_run", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train(spec, tmp_path / "run")
    aucs = iter([0.6])
    train(spec, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["epochs"] == 2


def test_nothing_but_the_run_folder_is_left(
    tmp_path: Path, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(spec, tmp_path / "run", 2, monkeypatch)
    names = {"log.parquet", "spec.toml"}
    assert {path.name for path in tmp_path.iterdir()} == names | {"run.checkpoint"}
    train(spec, tmp_path / "run")
    assert {path.name for path in tmp_path.iterdir()} == names | {"run"}
    assert not any("checkpoint" in path.name for path in (tmp_path / "run").iterdir())


@pytest.mark.parametrize("changed", ["spec", "data"])
def test_another_origin_is_refused_and_the_checkpoint_kept(
    tmp_path: Path, spec: Spec, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    interrupt(spec, tmp_path / "run", 2, monkeypatch)
    kept = (tmp_path / "run.checkpoint").read_bytes()
    columns = small_columns()
    if changed == "data":
        columns["clicked"] = 1 - columns["clicked"]
    other = ("train.seed=1",) if changed == "spec" else ()
    with pytest.raises(DataError, match=f"run.checkpoint: the {changed} changed .*delete it"):
        train(write_small(tmp_path, columns, (*OPTIONS, *other)), tmp_path / "run")
    assert (tmp_path / "run.checkpoint").read_bytes() == kept
    assert not (tmp_path / "run").exists()


def test_validation_rows_are_part_of_the_data(
    tmp_path: Path, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(spec, tmp_path / "run", 2, monkeypatch)
    columns = small_columns()
    columns["clicked"] = np.where(np.arange(200) < 180, columns["clicked"], 1 - columns["clicked"])
    with pytest.raises(DataError, match="the data changed"):
        train(write_small(tmp_path, columns, OPTIONS), tmp_path / "run")


def test_a_damaged_checkpoint_is_refused(tmp_path: Path, spec: Spec) -> None:
    (tmp_path / "run.checkpoint").write_bytes(b"half")
    with pytest.raises(DataError, match=r"run.checkpoint: not a checkpoint: .*delete it"):
        train(spec, tmp_path / "run")


@pytest.fixture(scope="module")
def trainings(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[int, tuple[Path, subprocess.Popen[str]]]]:
    """Two that would never end, in processes, for the signals to come; both start at once."""
    # SIGINT reaches what is started here, even where a shell in the background ignores it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    started = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        folder = tmp_path_factory.mktemp(number.name)
        write_small(folder)
        command = [sys.executable, "-m", "cli", "train", str(folder / "spec.toml")]
        options = ["-o", str(folder / "run"), "--set", "train.epochs=100000"]
        process = subprocess.Popen(
            [*command, *options, "--set", "train.patience=100000"], cwd=ROOT,
            stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        started[number] = (folder, process)
    signal.signal(signal.SIGINT, before)
    yield {int(number): one for number, one in started.items()}
    for _, process in started.values():
        process.kill()
        process.communicate()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_training_with_the_checkpoint_kept(
    trainings: dict[int, tuple[Path, subprocess.Popen[str]]], number: int, code: int
) -> None:
    folder, process = trainings[number]
    until = time.monotonic() + 60
    while not (folder / "run.checkpoint").exists() and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(number)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == code, said
    assert f"run.checkpoint is kept; to go on from it, train again with -o {folder}/run" in said
    assert said.endswith("deepfm: interrupted\n")
    assert "Traceback" not in said
    names = {path.name for path in folder.iterdir()}
    assert names == {"log.parquet", "spec.toml", "run.checkpoint"}


def test_the_same_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupt(write_small(tmp_path), tmp_path / "run", 2, monkeypatch)
    assert main(["train", str(tmp_path / "spec.toml"), "-o", str(tmp_path / "run")]) == 0
    assert "going on after epoch 1" in capsys.readouterr().err
