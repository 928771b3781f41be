"""The three losses with and without R-Drop on MovieLens 1M grouped by user, one table row each.

`python -m bench.losses` reads `CTR_DATA`/ml_1m (default ../shared/data), split as
examples/prepare.py states. Training stops by validation rows, the calibration is fitted on
validation rows, and every figure is of the test rows.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from examples.prepare import prepare
from examples.run import EXAMPLES
from features.spec import load_spec
from model.calibrate import fit_calibration
from model.config import ModelConfig, TrainConfig, configs
from model.data import Split, read_split
from model.deepfm import DeepFM
from model.metrics import evaluate
from model.train import fit, predict

COLUMNS = ("auc", "gauc", "ndcg@10", "log_loss", "ece", "copc")


def main() -> None:
    """Print the table, row by row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--losses", nargs="*", default=["pointwise", "pairwise", "joint"])
    parser.add_argument("--r-drop", type=float, nargs="*", default=[0.0, 1.0])
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--set", action="append", default=[], help="as of `deepfm train`")
    options = parser.parse_args()
    source = Path(os.environ.get("CTR_DATA", "../shared/data")) / "ml_1m"
    with tempfile.TemporaryDirectory() as folder:
        root = prepare("ml_1m", source, Path(folder))
        spec = load_spec(EXAMPLES / "ml_1m.toml", [f'data.root="{root}"', *options.set])
        model, config = configs(spec)
        split = read_split(spec)
    print(f"| loss | r_drop | seed | {' | '.join(COLUMNS)} | method | epoch | s per epoch |")
    print("|---" * (len(COLUMNS) + 6) + "|", flush=True)
    for seed in options.seeds:
        for loss in options.losses:
            for r_drop in options.r_drop:
                chosen = replace(config, loss=loss, r_drop=r_drop, seed=seed)
                print(f"| {loss} | {r_drop} | {seed} | {_row(split, model, chosen)} |", flush=True)


def _row(split: Split, model: ModelConfig, config: TrainConfig) -> str:
    """Calibrated test metrics of one training."""
    torch.manual_seed(config.seed)
    network = DeepFM(split.schema, model)
    progress = fit(network, split, config, split.train.counts(split.schema.size))
    calibration = fit_calibration("auto", predict(network, split.valid), split.valid.label)
    test = split.test
    assert test is not None
    logit = predict(network, test)
    metrics = evaluate(logit, calibration.score(logit), test.label, test.group)
    figures = " | ".join(f"{metrics[name]:.4f}" for name in COLUMNS)
    pace = progress.seconds / len(progress.history)
    return f"{figures} | {calibration.method} | {progress.best_epoch} | {pace:.1f}"


if __name__ == "__main__":
    main()
