"""From a CSV to encoded rows: `deepfm train` before its first epoch, beside pandas + scikit-learn.

    python -m bench.preprocessing [--rows 500000] [--rounds 3]

The recipe beside it is the usual one: `read_csv`, `fillna`, a `LabelEncoder` per category and a
`KBinsDiscretizer` (32 quantiles) over the numbers. It runs in an environment of its own, made once
in the user's cache. Rounds alternate; the best of each is compared.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.click_log import CATEGORIES, LABEL, NUMBERS, write_log, write_spec
from features.spec import load_spec
from model.data import read_split

VALID_ROWS = 1_000
ENVIRONMENT = Path.home() / ".cache" / "deepfm-service" / "bench-pandas"
PACKAGES = ("pandas==2.3.3", "scikit-learn==1.9.1")
RECIPE = f"""
import sys, time
import pandas, numpy
from sklearn.preprocessing import KBinsDiscretizer, LabelEncoder
begun = time.perf_counter()
numbers, categories = {NUMBERS!r}, {CATEGORIES!r}
rows = pandas.read_csv(sys.argv[1], dtype=dict.fromkeys(categories, str))
rows[categories] = rows[categories].fillna("-1")
rows[numbers] = rows[numbers].fillna(0)
for name in categories:
    rows[name] = LabelEncoder().fit_transform(rows[name])
cut = KBinsDiscretizer(32, encode="ordinal", quantile_method="linear", subsample=None)
rows[numbers] = cut.fit_transform(rows[numbers])
index = rows[numbers + categories].to_numpy(numpy.int32)
label = rows["{LABEL}"].to_numpy(numpy.float32)
print(time.perf_counter() - begun)
"""


def main() -> None:
    """Write the log, time both, print rows per second."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    python = _environment()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_log(folder / "log.csv", options.rows)
        write_log(folder / "valid.csv", VALID_ROWS, seed=1)
        write_spec(folder / "spec.toml", "log.csv", "valid.csv")
        ours, theirs = [], []
        for _ in range(options.rounds):
            ours.append(_ours(folder))
            theirs.append(_recipe(python, folder / "log.csv"))
    for label, seconds in (("deepfm", min(ours)), ("pandas + scikit-learn", min(theirs))):
        print(f"{label}: {seconds:.2f} s, {options.rows / seconds:,.0f} rows/s")
    print(f"ratio: {min(theirs) / min(ours):.1f}")


def _ours(folder: Path) -> float:
    begun = time.perf_counter()
    split = read_split(load_spec(folder / "spec.toml"), folder)
    seconds = time.perf_counter() - begun
    assert split.train.index.shape[1] == len(NUMBERS) + len(CATEGORIES)
    return seconds


def _recipe(python: Path, log: Path) -> float:
    command = [str(python), "-W", "ignore", "-c", RECIPE, str(log)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _environment() -> Path:
    python = ENVIRONMENT / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(ENVIRONMENT)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *PACKAGES], check=True)
    return python


if __name__ == "__main__":
    main()
