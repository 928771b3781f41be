"""`deepfm train`: set-up, loop, report, top to bottom."""

from __future__ import annotations

import copy
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from features.atomic import new_folder
from features.errors import ConfigError
from features.spec import Spec
from model.calibrate import Calibration
from model.checkpoint import Checkpoint, Training, origin, told_how_to_go_on
from model.config import TrainConfig, configs
from model.data import Split, read_split
from model.deepfm import DeepFM
from model.metrics import evaluate
from model.objective import Batch, Objective
from model.optimizer import Optimizer
from model.progress import Progress
from model.report import REPORT_FILE, write_report
from model.reserved import ReservedSampling
from model.rows import Rows
from model.run import JUDGED_ROWS, SAMPLE_ROWS, Judged, Run, Sample, save_run

_EVALUATION_ROWS = 2_048
# An AUC that rises by less has not risen: at a learning rate near nothing it would do so for long.
_LEAST_GAIN = 1e-5


def train(spec: Spec, folder: Path | None = None) -> Path:
    """Train a network on the spec's click log and leave a run folder.

    Args:
        spec: what to learn from, and how.
        folder: where to; default `runs/NAME-TIMESTAMP` in the working folder. Beside it a
            checkpoint is kept until the folder is whole; where one is found, training goes on
            from there, with the result of a training that was never interrupted.

    Returns:
        The run folder.

    Raises:
        ConfigError: a key of `[model]` or `[train]` is wrong, or makes the loss infinite.
        DataError: the click log cannot be read or learned from, or the checkpoint is of another
            spec or other data.
        OutputError: the folder exists already or cannot be written.
    """
    model_config, config = configs(spec)
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    folder = folder or Path("runs") / f"{spec.name}-{stamp}"
    with told_how_to_go_on(folder, _say), new_folder(folder) as draft:
        started = time.perf_counter()
        _say(f"reading {spec.data.location(spec.data.train)}")
        split = read_split(spec, draft)
        _say(_summary(split, time.perf_counter() - started))

        torch.manual_seed(config.seed)
        network = DeepFM(split.schema, model_config)
        counts = split.train.counts(split.schema.size)
        fingerprint = split.train.fingerprint()
        checkpoint = Checkpoint(folder, origin(spec, fingerprint, split.valid.fingerprint()))
        progress = fit(network, split, config, counts, checkpoint)

        run = _judged_run(spec, split, network, counts, progress)
        run = replace(run, data_fingerprint=fingerprint)
        save_run(run, draft, model_config, config)
        write_report(run, draft / REPORT_FILE)
    checkpoint.remove()
    _say(_report(run.metrics))
    return folder


def fit(
    network: DeepFM,
    split: Split,
    config: TrainConfig,
    counts: np.ndarray[Any, Any],
    checkpoint: Checkpoint | None = None,
) -> Progress:
    """Run epochs until the validation AUC (pairwise loss: GAUC) stops rising; keep the best."""
    generator = torch.Generator().manual_seed(config.seed)
    reserved = ReservedSampling(
        split.schema, torch.from_numpy(counts), len(split.train), config.reserved_rate, generator
    )
    objective = Objective(config, split.train, generator)
    optimizer = Optimizer(network, config)
    progress = Progress()
    if checkpoint is not None and checkpoint.file.exists():
        checkpoint.resume(Training(network, optimizer, generator, progress))
        _say(f"{checkpoint.file}: going on after epoch {len(progress.history)}")
    started = time.perf_counter() - progress.seconds
    for epoch in range(len(progress.history) + 1, config.epochs + 1):
        if epoch - 1 - progress.best_epoch >= config.patience:
            break
        loss = _train_epoch(network, split.train, optimizer, reserved, objective, epoch)
        logit = predict(optimizer.judged, split.valid)
        _check_finite(epoch, loss, logit)
        judged = _metrics(Judged(logit, split.valid.label, split.valid.group))
        progress.seconds = time.perf_counter() - started
        progress.history.append(
            {"epoch": epoch, "loss": loss, "seconds": progress.seconds}
            | objective.report()
            | judged
        )
        _say(
            f"epoch {epoch}: loss {loss:.4f}, validation auc {judged['auc']:.4f}, "
            f"log loss {judged['log_loss']:.4f}"
        )
        quality = _quality(judged, config)
        if quality > progress.best_auc + _LEAST_GAIN:
            progress.best_epoch, progress.best_auc = epoch, quality
            progress.best_state = copy.deepcopy(optimizer.judged.state_dict())
            progress.best_seconds = progress.seconds
        else:
            optimizer.go_back(progress.best_state)
        if checkpoint is not None:
            checkpoint.keep(Training(network, optimizer, generator, progress))
    network.load_state_dict(progress.best_state)
    return progress


def _quality(judged: dict[str, float], config: TrainConfig) -> float:
    """What decides which epoch is best; without a group of both labels it can only be the AUC."""
    by_group = config.loss == "pairwise" and "gauc" in judged
    return judged["gauc"] if by_group else judged["auc"]


def _train_epoch(
    network: DeepFM,
    rows: Rows,
    optimizer: Optimizer,
    reserved: ReservedSampling,
    objective: Objective,
    epoch: int,
) -> float:
    """One pass over shuffled rows; the mean loss."""
    network.train()
    parts: list[Any] = [None if p is None else torch.from_numpy(p) for p in rows.parts()]
    total = torch.zeros(())
    bar = tqdm(
        total=len(rows),
        desc=f"epoch {epoch}",
        unit=" samples",
        unit_scale=True,
        leave=False,
        disable=not sys.stderr.isatty(),
    )
    with bar:
        for chosen in objective.batches():
            if len(chosen) == 1:  # batch norm cannot judge the spread of one row
                continue
            columns: list[Any] = [None if part is None else part[chosen] for part in parts]
            batch = Batch(*columns)
            reserved.replace(batch.index, batch.weight)
            loss = objective(network, batch)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.detach() * len(chosen)
            bar.update(len(chosen))
    return float(total) / len(rows)


def _check_finite(epoch: int, loss: float, logit: np.ndarray[Any, Any]) -> None:
    if not (np.isfinite(loss) and np.isfinite(logit).all()):
        raise ConfigError(
            f"epoch {epoch}: the loss is {loss} or a validation logit is not finite; "
            "lower train.learning_rate, set train.gradient_clip, or give large value fields "
            "a transform"
        )


@torch.inference_mode()
def predict(network: DeepFM, rows: Rows) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Logits `[rows]` float32 in evaluation mode."""
    network.eval()
    logits = []
    for start in range(0, len(rows), _EVALUATION_ROWS):
        part = slice(start, start + _EVALUATION_ROWS)
        weight = None if rows.weight is None else torch.from_numpy(rows.weight[part])
        logits.append(network(torch.from_numpy(rows.index[part]), weight).numpy())
    return np.concatenate(logits)


def _judged_run(
    spec: Spec,
    split: Split,
    network: DeepFM,
    counts: np.ndarray[Any, Any],
    progress: Progress,
) -> Run:
    valid, test = (
        None if rows is None else Judged(predict(network, rows), rows.label, rows.group)
        for rows in (split.valid, split.test)
    )
    assert valid is not None
    sample = _sample(split.train, SAMPLE_ROWS)
    judged = _sample(split.valid if split.test is None else split.test, JUDGED_ROWS)
    metrics = {
        "valid": _metrics(valid),
        "test": {} if test is None else _metrics(test),
        "rows": len(split.train),
        "seconds": progress.seconds,
        "best_seconds": progress.best_seconds,
        "epochs": len(progress.history),
        "best_epoch": progress.best_epoch,
        "history": progress.history,
    }
    best = progress.history[progress.best_epoch - 1]
    metrics |= {name: best[name] for name in ("pair_coverage",) if name in best}
    return Run(
        spec=spec,
        schema=split.schema,
        table=split.table,
        network=network,
        metrics=metrics,
        data_fingerprint="",
        counts=counts,
        rows=len(split.train),
        valid=valid,
        test=test,
        sample_index=sample.index,
        sample_weight=sample.weight,
        judged=Sample(judged.index, judged.weight, judged.label),
    )


def _sample(rows: Rows, most: int) -> Rows:
    """At most so many of the rows, drawn at random: the first ones of a log may be all alike."""
    chosen = np.random.default_rng(0).permutation(len(rows))[:most]
    return rows.take(np.sort(chosen))


def _metrics(judged: Judged) -> dict[str, float]:
    score = Calibration("none").score(judged.logit)
    return evaluate(judged.logit, score, judged.label, judged.group)


def _summary(split: Split, seconds: float) -> str:
    parts = f"{len(split.train):,} training and {len(split.valid):,} validation rows"
    if split.test is not None:
        parts += f", {len(split.test):,} test rows"
    return f"{parts}, {split.schema.size:,} indices, encoded in {seconds:.1f} s"


def _report(metrics: dict[str, Any]) -> str:
    lines = [f"best epoch {metrics['best_epoch']} of {metrics['epochs']}"]
    if "pair_coverage" in metrics:
        lines.append(f"{metrics['pair_coverage']:.1%} of the training rows formed pairs")
    for name in ("valid", "test"):
        values = ", ".join(f"{key} {value:.4f}" for key, value in metrics[name].items())
        lines += [f"{name}: {values}"] if values else []
    return "\n".join(lines)


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
