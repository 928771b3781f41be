"""Resident memory of a training, by the length of the log.

    python -m bench.memory --rows 5000000,20000000 [--set train.batch_size=16384 ...]

Each length is written once to a temporary folder (Parquet, about 120 bytes a row) and trained on
for one epoch in a process of its own; a thread reads /proc every half second. `anonymous` is memory
that the process itself holds; the rest of `resident` is mapped files, which the kernel can drop.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import threading
import time
from pathlib import Path

from bench.click_log import write_log, write_spec
from features.spec import load_spec
from model.train import train

VALID_ROWS = 100_000


def main() -> None:
    """Write, train, print one line per length."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", default="1000000,5000000")
    parser.add_argument("--set", action="append", default=[])
    options = parser.parse_args()
    for rows in map(int, options.rows.split(",")):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_log(folder / "log.parquet", rows)
            write_log(folder / "valid.parquet", VALID_ROWS, seed=1)
            write_spec(folder / "spec.toml", "log.parquet", "valid.parquet")
            overrides = ["train.epochs=1", *options.set]
            spawned = multiprocessing.get_context("spawn")
            child = spawned.Process(target=_train, args=(folder, overrides, rows))
            child.start()
            child.join()


def _train(folder: Path, overrides: list[str], rows: int) -> None:
    peaks = {"VmRSS": 0, "RssAnon": 0}

    def watch() -> None:
        while True:
            for line in Path("/proc/self/status").read_text().splitlines():
                key, _, value = line.partition(":")
                if key in peaks:
                    peaks[key] = max(peaks[key], int(value.split()[0]))
            time.sleep(0.5)

    threading.Thread(target=watch, daemon=True).start()
    begun = time.perf_counter()
    train(load_spec(folder / "spec.toml", overrides), folder / "run")
    resident, anonymous = peaks["VmRSS"] / 2**20, peaks["RssAnon"] / 2**20
    seconds = time.perf_counter() - begun
    print(
        f"{rows:,} rows: resident at most {resident:.2f} GiB, "
        f"anonymous {anonymous:.2f} GiB, {seconds:.0f} s"
    )


if __name__ == "__main__":
    main()
