from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

import model.train as trainer
from features.errors import ConfigError, OutputError
from features.schema_file import load_schema
from features.spec import Spec, spec_from_json
from model.config import configs
from model.data import Split, read_split
from model.deepfm import DeepFM
from model.progress import Progress
from model.run import load_run
from model.train import fit, predict, train
from tests.model.small import small_columns, write_small

RUN_FILES = {
    "weights.safetensors", "schema.json", "table.npy", "spec.json", "metrics.json",
    "reference.json", "sample.index.npy",
    "valid.logit.npy", "valid.label.npy", "valid.group.npy",
    "test.logit.npy", "test.label.npy", "test.group.npy",
    "judged.index.npy", "judged.label.npy", "report.html",
}  # fmt: skip
METRICS = {
    "auc", "log_loss", "pr_auc", "gauc", "gauc_coverage", "ndcg@10", "mrr", "ece", "copc",
}  # fmt: skip


@pytest.fixture
def spec(tmp_path: Path) -> Spec:
    return write_small(tmp_path)


@pytest.fixture
def split(spec: Spec) -> Split:
    return read_split(spec)


def fitted(spec: Spec, split: Split, **options: Any) -> tuple[DeepFM, Progress]:
    """The small network after `fit`, from the same start every time."""
    model, config = configs(spec)
    torch.manual_seed(0)
    network = DeepFM(split.schema, model)
    counts = split.train.counts(split.schema.size)
    return network, fit(network, split, replace(config, **options), counts)


def script_aucs(monkeypatch: pytest.MonkeyPatch, *aucs: float) -> None:
    """Let the validation AUC of each epoch be as given."""
    seen = iter(aucs)
    monkeypatch.setattr(trainer, "_metrics", lambda _: {"auc": next(seen), "log_loss": 0.5})


def same_weights(one: DeepFM, other: DeepFM) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("loss", [(), ("train.loss=joint", "train.r_drop=0.5")])
def test_same_seed_gives_the_same_run_bit_for_bit(tmp_path: Path, loss: tuple[str, ...]) -> None:
    """Weights, shuffling, pairs, dropout and replacement come from it, whatever ran before."""
    overrides = ("model.dropout=0.5", "model.batch_norm=true", *loss)
    spec = write_small(tmp_path, overrides=overrides)
    folders = []
    for name in ("a", "b"):
        folders.append(train(spec, tmp_path / name))
        torch.manual_seed(99)
    weights = [(folder / "weights.safetensors").read_bytes() for folder in folders]
    metrics = [json.loads((folder / "metrics.json").read_text()) for folder in folders]
    for document in (*metrics, *metrics[0]["history"], *metrics[1]["history"]):
        document.pop("seconds")
    assert weights[0] == weights[1]
    assert metrics[0] | {"best_seconds": 0} == metrics[1] | {"best_seconds": 0}


def test_other_seed_gives_another_run(tmp_path: Path, spec: Spec) -> None:
    other = write_small(tmp_path, overrides=("train.seed=1",))
    one, two = (load_run(train(s, tmp_path / str(n))).network for n, s in enumerate((spec, other)))
    assert not same_weights(one, two)


def test_best_epochs_weights_are_kept(
    spec: Spec, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    until_second, _ = fitted(spec, split, epochs=2)
    script_aucs(monkeypatch, 0.6, 0.7, 0.65, 0.69)
    network, progress = fitted(spec, split, epochs=4, patience=9)
    assert (progress.best_epoch, progress.best_auc, len(progress.history)) == (2, 0.7, 4)
    assert same_weights(network, until_second)


def test_after_a_worse_epoch_training_goes_on_from_the_best_weights(
    spec: Spec, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a learning rate that is hardly there, an epoch later they are still where they were."""
    slow = {"learning_rate_decay": 1e-9, "patience": 9}
    best, _ = fitted(spec, split, epochs=1, **slow)
    script_aucs(monkeypatch, 0.6, 0.5, 0.7)
    network, progress = fitted(spec, split, epochs=3, **slow)
    assert progress.best_epoch == 3
    for one, other in zip(best.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(("patience", "epochs"), [(1, 3), (2, 6)])
def test_training_stops_after_patience_epochs_without_a_better_auc(
    spec: Spec, split: Split, monkeypatch: pytest.MonkeyPatch, patience: int, epochs: int
) -> None:
    script_aucs(monkeypatch, 0.6, 0.7, 0.7, 0.8, 0.1, 0.2, 0.9)
    _, progress = fitted(spec, split, epochs=7, patience=patience)
    assert len(progress.history) == epochs


@pytest.mark.parametrize(("aucs", "best"), [((0.6, 0.600009), 1), ((0.6, 0.600009, 0.600018), 3)])
def test_a_gain_of_nearly_nothing_is_none(
    spec: Spec, split: Split, monkeypatch: pytest.MonkeyPatch, aucs: tuple[float, ...], best: int
) -> None:
    script_aucs(monkeypatch, *aucs)
    _, progress = fitted(spec, split, epochs=len(aucs), patience=9)
    assert (progress.best_epoch, progress.best_auc) == (best, aucs[best - 1])


@pytest.mark.parametrize("loss", ["pointwise", "pairwise", "joint"])
def test_loss_falls(spec: Spec, split: Split, loss: str) -> None:
    _, progress = fitted(spec, split, epochs=10, patience=10, loss=loss)
    losses = [entry["loss"] for entry in progress.history]
    assert losses[-1] < losses[0]


def test_best_epoch_of_the_pairwise_loss_is_the_one_of_the_best_gauc(
    spec: Spec, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That loss does not order rows of different groups; without a GAUC the AUC has to do."""
    seen = iter(
        [{"auc": 0.6, "gauc": 0.7}, {"auc": 0.7, "gauc": 0.8}, {"auc": 0.9, "gauc": 0.75}] * 2
        + [{"auc": 0.6}, {"auc": 0.7}, {"auc": 0.65}]
    )
    monkeypatch.setattr(trainer, "_metrics", lambda _: next(seen) | {"log_loss": 0.5})
    best = [
        fitted(spec, split, epochs=3, patience=3, loss=loss)[1].best_epoch
        for loss in ("pairwise", "joint", "pairwise")
    ]
    assert best == [2, 3, 2]


def test_pairwise_loss_orders_rows_inside_groups(spec: Spec, split: Split) -> None:
    _, progress = fitted(spec, split, epochs=20, patience=20, loss="pairwise")
    assert progress.history[-1]["gauc"] > 0.6


@pytest.mark.parametrize("loss", ["pairwise", "joint"])
def test_share_of_rows_that_formed_pairs_is_reported(
    tmp_path: Path, loss: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Four negatives per positive reach every row of a request of five with both labels."""
    columns = small_columns()
    clicks = columns["clicked"].reshape(-1, 5)[:36].sum(1)
    expected = np.mean((clicks > 0) & (clicks < 5))
    spec = write_small(tmp_path, columns, (f"train.loss={loss}",))
    metrics = load_run(train(spec, tmp_path / "run")).metrics
    assert metrics["pair_coverage"] == pytest.approx(expected)
    assert all(entry["pair_coverage"] == metrics["pair_coverage"] for entry in metrics["history"])
    assert f"{expected:.1%} of the training rows formed pairs" in capsys.readouterr().err


def test_pairs_without_groups_are_refused_before_any_data_is_read(tmp_path: Path) -> None:
    spec = write_small(tmp_path, overrides=("train.loss=pairwise", 'data.train="absent.parquet"'))
    document = spec.to_json()
    del document["data"]["group"]
    with pytest.raises(ConfigError, match=r"data\.group"):
        train(spec_from_json(document), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_embedding_l2_draws_rows_that_no_batch_holds_to_zero(spec: Spec, split: Split) -> None:
    """The penalty is on the whole tables; without it Adam leaves an unseen row as it was."""
    torch.manual_seed(0)
    initial = DeepFM(split.schema, configs(spec)[0]).embedding.weight.detach()
    unseen = split.schema.ranges["item"].start
    plain, _ = fitted(spec, split, reserved_rate=0, epochs=1)
    drawn, _ = fitted(spec, split, reserved_rate=0, epochs=1, embedding_l2=0.1, learning_rate=1e-4)
    assert torch.equal(plain.embedding.weight[unseen], initial[unseen])
    assert (drawn.embedding.weight[unseen].abs() < initial[unseen].abs()).all()


def test_embedding_l2_spares_the_dense_layers(spec: Spec, split: Split) -> None:
    """One step: the tables' penalty has not reached the others' gradients yet."""
    one_step = {"epochs": 1, "batch_size": 1000, "reserved_rate": 0}
    plain, _ = fitted(spec, split, **one_step)
    drawn, _ = fitted(spec, split, **one_step, embedding_l2=10.0)
    assert not torch.equal(plain.embedding.weight, drawn.embedding.weight)
    assert torch.equal(plain.bias, drawn.bias)
    for one, other in zip(plain.deep.parameters(), drawn.deep.parameters(), strict=True):
        assert torch.equal(one, other)


def test_gradient_clip_bounds_the_norm_of_the_whole_gradient(spec: Spec, split: Split) -> None:
    def last_norm(clip: float) -> float:
        network, _ = fitted(spec, split, epochs=1, gradient_clip=clip)
        parts = [p.grad.norm() for p in network.parameters() if p.grad is not None]
        return float(torch.stack(parts).norm())

    assert last_norm(0.0) > 0.01
    assert last_norm(0.001) == pytest.approx(0.001, rel=1e-3)


def test_batch_norm_meets_no_batch_of_one_row(tmp_path: Path) -> None:
    overrides = ("model.batch_norm=true", "train.batch_size=179")
    assert train(write_small(tmp_path, overrides=overrides), tmp_path / "run").is_dir()


def test_prediction_does_not_depend_on_dropout(tmp_path: Path) -> None:
    spec = write_small(tmp_path, overrides=("model.dropout=0.9",))
    split = read_split(spec)
    network, _ = fitted(spec, split)
    np.testing.assert_array_equal(predict(network, split.valid), predict(network, split.valid))


def test_run_folder_holds_what_export_needs(tmp_path: Path) -> None:
    spec = write_small(tmp_path, overrides=("data.test=log.parquet", "train.epochs=1"))
    folder = train(spec, tmp_path / "run")
    assert {path.name for path in folder.iterdir()} == RUN_FILES
    schema, _ = load_schema(folder)
    weights = load_file(folder / "weights.safetensors")
    assert weights["embedding.weight"].shape == (schema.embedding_size, 2)
    assert weights["linear.weight"].shape == (schema.size, 1)


def test_precisions_are_compared_on_rows_of_all_the_test_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.train.JUDGED_ROWS", 50)
    columns = small_columns()
    order = np.argsort(columns["clicked"], kind="stable")
    pq.write_table(pa.table(columns).take(order), tmp_path / "sorted.parquet")
    spec = write_small(tmp_path, overrides=("data.test=sorted.parquet", "train.epochs=1"))
    judged = load_run(train(spec, tmp_path / "run")).judged
    assert judged is not None
    assert set(judged.label) == {0, 1}
    assert len(judged.label) == 50


def test_saved_spec_states_every_option(tmp_path: Path, spec: Spec) -> None:
    """The defaults too: a later version with other defaults rebuilds the same network."""
    document = json.loads((train(spec, tmp_path / "run") / "spec.json").read_text())
    assert document["model"]["init_std"] == 0.01
    assert document["model"]["hidden"] == [4]
    assert document["train"]["patience"] == 2
    assert document["name"] == "small"


def test_metrics_hold_the_keys_that_others_read(tmp_path: Path) -> None:
    spec = write_small(tmp_path, overrides=("data.test=log.parquet",))
    metrics = json.loads((train(spec, tmp_path / "run") / "metrics.json").read_text())
    assert metrics.keys() >= {
        "valid", "test", "rows", "seconds", "best_seconds", "epochs", "best_epoch",
    }  # fmt: skip
    assert set(metrics["valid"]) == set(metrics["test"]) == METRICS
    assert metrics["rows"] == 180
    assert metrics["seconds"] >= metrics["best_seconds"] > 0
    assert 1 <= metrics["best_epoch"] <= metrics["epochs"] == len(metrics["history"])


def test_metrics_are_the_best_epochs(tmp_path: Path, spec: Spec) -> None:
    metrics = load_run(train(spec, tmp_path / "run")).metrics
    best = metrics["history"][metrics["best_epoch"] - 1]
    assert metrics["valid"] == {key: best[key] for key in metrics["valid"]}
    assert metrics["valid"]["auc"] == max(entry["auc"] for entry in metrics["history"])
    assert metrics["test"] == {}


def test_metrics_that_cannot_be_judged_are_left_out(tmp_path: Path) -> None:
    """One row per group leaves no GAUC; NaN would be no JSON."""
    columns = small_columns() | {"request": np.arange(200)}
    run = load_run(train(write_small(tmp_path, columns), tmp_path / "run"))
    assert "gauc" not in run.metrics["valid"]
    assert run.metrics["valid"]["gauc_coverage"] == 0
    assert "NaN" not in (tmp_path / "run" / "metrics.json").read_text()


def test_existing_run_folder_is_refused_and_left_alone(tmp_path: Path, spec: Spec) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "mine").write_text("kept")
    with pytest.raises(OutputError, match="run exists already"):
        train(spec, folder)
    assert [path.name for path in folder.iterdir()] == ["mine"]


def test_default_folder_bears_name_and_time(
    tmp_path: Path, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = train(spec)
    assert folder.parent == Path("runs")
    assert folder.name.startswith("small-20")
    assert folder.is_dir()


def test_infinite_loss_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    spec = write_small(tmp_path, overrides=("train.learning_rate=1e30",))
    with pytest.raises(ConfigError, match=r"epoch 1: the loss is .*lower train.learning_rate"):
        train(spec, tmp_path / "run")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.parquet", "spec.toml"]


def test_progress_is_told_in_plain_lines_off_a_terminal(
    tmp_path: Path, spec: Spec, capsys: pytest.CaptureFixture[str]
) -> None:
    train(spec, tmp_path / "run")
    said = capsys.readouterr()
    assert said.out == ""
    assert "180 training and 20 validation rows" in said.err
    assert "epoch 2: loss 0." in said.err
    assert "\r" not in said.err
