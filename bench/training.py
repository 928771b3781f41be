"""Training speed side by side: ours, deepctr-torch and FuxiCTR, one after the other in one run.

`python -m bench.training` times steps after warm-up, and epochs that include reading the rows, on
a Criteo-shaped job (bench/job.py): 39 single-valued fields, embedding 16, dense layers 3 x 400,
batch 4096. The libraries take turns, three times, and medians are told: a shared machine is slower
for minutes. Where there is dropout, also what R-Drop costs us. `--frappe SEEDS` trains on frappe_x1
in `CTR_DATA` instead, ours and FuxiCTR, with the published settings. Each library gets an
environment of its own in the temporary folder, once.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from bench.job import schema
from bench.peers import peak_mib, timed
from examples.run import EXAMPLES
from features.schema import SIDES, Schema
from features.spec import load_spec
from model.config import ModelConfig, TrainConfig, configs
from model.data import Split, read_split
from model.deepfm import DeepFM
from model.objective import Batch, Objective
from model.optimizer import Optimizer
from model.rows import Rows
from model.train import fit, predict

FOLDER = Path(tempfile.gettempdir()) / "deepfm-bench"
TORCH = "torch==2.13.0"
LIBRARIES = {  # the library itself without what it pins, then what it needs
    "deepctr-torch": (
        "deepctr-torch==0.3.0",
        "numpy pandas scikit-learn tqdm tensorboard requests",
    ),
    "fuxictr": (
        "fuxictr==2.3.10",
        "numpy pandas scikit-learn h5py PyYAML tqdm polars<2 pyarrow ray pydantic",
    ),
}
BATCH, STEPS, WARM, EPOCH_STEPS = 4096, 20, 5, 60
ROUNDS = 3
JOBS = [  # millions of rows, hidden widths, batch norm, dropout, whether an epoch is timed too
    (1, [400, 400, 400], False, 0.0, True),
    (5, [400, 400, 400], False, 0.0, False),
    (1, [400, 400, 400], True, 0.2, False),
    (1, [], False, 0.0, False),
]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m bench.training")
    parser.add_argument("--frappe", type=int, metavar="SEEDS", help="train on frappe_x1")
    parser.add_argument("--ours", metavar="JOB", help=argparse.SUPPRESS)
    options = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    if options.ours:
        print("RESULT " + json.dumps(ours(json.loads(Path(options.ours).read_text()))))
    elif options.frappe:
        compare_on_frappe(options.frappe)
    else:
        compare_steps()


def compare_steps() -> None:
    """One line per job and library."""
    print(f"{'rows':>5} {'job':<24} {'library':<14} {'samples/s':>10} {'times':>6} "
          f"{'with reading':>12} {'times':>6} {'MiB':>6}")  # fmt: skip
    for millions, hidden, batch_norm, dropout, epoch in JOBS:
        job = write_job(millions * 1_000_000) | {
            "hidden": hidden, "batch_norm": batch_norm, "dropout": dropout, "epoch": epoch,
        }  # fmt: skip
        what = f"{'x'.join(map(str, hidden)) or 'FM'}{' bn dropout' if batch_norm else ''}"
        names = ["ours", *(LIBRARIES if hidden else ())]
        rounds = [{name: run_apart(name, job) for name in names} for _ in range(ROUNDS)]
        found = {name: medians([one[name] for one in rounds]) for name in names}
        mine = found["ours"]
        for name, one in found.items():
            print(f"{millions:>4}M {what:<24} {name:<14} {measured(job, one, mine)}", flush=True)
        if dropout:
            again = [run_apart("ours", job | {"r_drop": 1.0}) for _ in range(ROUNDS)]
            twice = medians(again)["step_s"]
            print(f"{millions:>4}M {what:<24} ours, R-Drop: a step takes "
                  f"{twice / mine['step_s']:.2f} times a plain one", flush=True)  # fmt: skip


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Of each figure that several rounds gave."""
    return {name: median(one[name] for one in rounds) for name in rounds[0]}


def measured(job: dict[str, Any], one: dict[str, float], mine: dict[str, float]) -> str:
    """The columns of one library, each speed also as a ratio to ours."""
    steps = f"{BATCH / one['step_s']:10,.0f} {one['step_s'] / mine['step_s']:6.1f}"
    reading = " " * 19
    if "epoch_s" in one:
        reading = f"{job['count'] / one['epoch_s']:12,.0f} {one['epoch_s'] / mine['epoch_s']:6.1f}"
    return f"{steps} {reading} {one['mib']:6,.0f}"


def write_job(categories: int) -> dict[str, Any]:
    """Rows of the Criteo-shaped job, per field from 0, in a file that all libraries read."""
    fields = schema(categories)
    random = np.random.default_rng(0)
    sizes = [len(range_) for range_ in ranges(fields)]
    count = EPOCH_STEPS * BATCH
    # As in bench.job: a power of a uniform number, so some categories come often.
    index = np.stack([(size * random.random(count) ** 3).astype(np.int32) for size in sizes], 1)
    label = (random.random(count) < 0.25).astype(np.float32)
    columns = {f"f{number}": index[:, number] for number in range(len(sizes))}
    np.savez(FOLDER / "rows.npz", index=index, label=label, **columns)  # type: ignore[arg-type]
    return {
        "categories": categories, "sizes": sizes, "count": count, "rows": str(FOLDER / "rows.npz"),
        "folder": str(FOLDER), "dim": 16, "batch": BATCH, "steps": STEPS, "warm": WARM, "seed": 0,
        "embedding_l2": 0,
    }  # fmt: skip


def ranges(fields: Schema) -> list[range]:
    """Rows of the table that each field owns, in the order of a batch."""
    return [
        range(fields.ranges[field.name].start, fields.ranges[field.name].stop)
        for side in SIDES
        for field in fields.side(side)
    ]


def ours(job: dict[str, Any]) -> dict[str, float]:
    """Our steps, then one epoch with shuffling and gathering."""
    fields = schema(job["categories"])
    data = np.load(job["rows"])
    starts = np.array([range_.start for range_ in ranges(fields)], np.int32)
    index = torch.from_numpy(data["index"] + starts)
    label = torch.from_numpy(data["label"])
    torch.manual_seed(job["seed"])
    sizes = ModelConfig(
        embedding_dim=job["dim"], hidden=tuple(job["hidden"]), batch_norm=job["batch_norm"],
        dropout=job["dropout"],
    )  # fmt: skip
    network = DeepFM(fields, sizes)
    config = TrainConfig(batch_size=BATCH, r_drop=job.get("r_drop", 0.0))
    optimizer = Optimizer(network, config)
    rows = Rows(index.numpy(), None, label.numpy(), None, None)
    objective = Objective(config, rows, torch.Generator())
    network.train()

    def step(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
        loss = objective(network, Batch(batch[0], None, batch[1], None, None))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    batches = list(zip(torch.split(index, BATCH), torch.split(label, BATCH), strict=True))
    found = {"step_s": timed(step, batches[: job["steps"]], job["warm"]), "mib": peak_mib()}
    if job["epoch"]:
        started = time.perf_counter()
        data = np.load(job["rows"])
        index, label = torch.from_numpy(data["index"] + starts), torch.from_numpy(data["label"])
        for chosen in torch.split(torch.randperm(len(label)), BATCH):
            step((index[chosen], label[chosen]))
        found["epoch_s"] = time.perf_counter() - started
    return found


def compare_on_frappe(seeds: int) -> None:
    """Time and test AUC of our plain setting and of FuxiCTR's DeepFM on the same encoded rows.

    Both at the published learning rate.
    """
    root = Path(os.environ.get("CTR_DATA", "../shared/data")) / "frappe_x1"
    plain = ["train.r_drop=0", "train.learning_rate=0.001"]
    spec = load_spec(EXAMPLES / "frappe_x1.toml", [f"data.root={json.dumps(str(root))}", *plain])
    split = read_split(spec)
    assert split.test is not None
    sizes, config = configs(spec)
    job = write_frappe(split) | {
        "dim": sizes.embedding_dim, "hidden": list(sizes.hidden), "batch": config.batch_size,
        "batch_norm": sizes.batch_norm, "dropout": sizes.dropout,
        "embedding_l2": config.embedding_l2,
    }  # fmt: skip
    for seed in range(seeds):
        torch.manual_seed(seed)
        network = DeepFM(split.schema, sizes)
        counts = split.train.counts(split.schema.size)
        seconds = fit(network, split, replace(config, seed=seed), counts).seconds
        auc = roc_auc_score(split.test.label, predict(network, split.test))
        theirs = run_apart("fuxictr", job | {"seed": seed})
        print(f"seed {seed}: ours auc {auc:.4f}, {seconds:.0f} s; fuxictr auc {theirs['AUC']:.4f}, "
              f"{theirs['seconds']:.0f} s", flush=True)  # fmt: skip


def write_frappe(split: Split) -> dict[str, Any]:
    """The encoded rows, per field from 0, in files that FuxiCTR reads."""
    owned = ranges(split.schema)
    job: dict[str, Any] = {"sizes": [len(range_) for range_ in owned], "folder": str(FOLDER)}
    for name, rows in (("rows", split.train), ("valid", split.valid), ("test", split.test)):
        assert rows is not None
        columns = {
            f"f{number}": rows.index[:, number] - range_.start
            for number, range_ in enumerate(owned)
        }
        job[name] = str(FOLDER / f"frappe-{name}.npz")
        np.savez(job[name], label=rows.label, **columns)  # type: ignore[arg-type]
    return job


def run_apart(name: str, job: dict[str, Any]) -> dict[str, float]:
    """What a job measures in a process of its own."""
    file = FOLDER / "job.json"
    file.write_text(json.dumps(job))
    command = [sys.executable, "-m", "bench.training", "--ours", str(file)]
    if name != "ours":
        script = str(Path(__file__).with_name("peers.py"))
        # Isolated: what lies beside the script would hide modules of the same name (profile).
        command = [str(environment(name)), "-I", "-W", "ignore", script, name, str(file)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        sys.exit(f"{name} failed: {ended.stderr.strip()[-2000:]}")
    found: dict[str, float] = json.loads(ended.stdout.rpartition("RESULT ")[2])
    return found


def environment(name: str) -> Path:
    """Python of a library's own environment, made when it is not there."""
    folder = FOLDER / "environments" / name
    if not (folder / "ready").exists():
        print(f"installing {name} into {folder}", file=sys.stderr)
        library, needed = LIBRARIES[name]
        venv.create(folder, with_pip=True, clear=True)
        install = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        subprocess.run([*install, TORCH, *needed.split()], check=True)
        subprocess.run([*install, "--no-deps", library], check=True)
        (folder / "ready").touch()
    return folder / "bin" / "python"


if __name__ == "__main__":
    main()
