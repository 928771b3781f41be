"""From a CSV to encoded rows: `deepfm train` before its first epoch, beside two other ways.

    python -m bench.preprocessing [--rows 500000] [--rounds 3]

The usual recipe is `read_csv`, `fillna`, a `LabelEncoder` per category and a `KBinsDiscretizer` (32
quantiles) over the numbers. FuxiCTR is used as its documentation does, `FeatureProcessor` and
`build_dataset`; its quantile buckets are fitted but never applied, so its numbers are standardised
instead, and the start of Ray, which it works in, is not counted. Both run in environments of their
own, made once. Rounds alternate; the best of each is compared.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.click_log import CATEGORIES, LABEL, NUMBERS, write_log, write_spec
from bench.training import environment
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
FUXICTR = f"""
import logging, sys, tempfile, time
logging.disable(logging.CRITICAL)
from fuxictr.preprocess import FeatureProcessor, build_dataset
sys.modules["fuxictr.preprocess.build_dataset"].init_ray()
with tempfile.TemporaryDirectory() as folder:
    begun = time.perf_counter()
    number = dict(active=True, dtype="float", type="numeric", normalizer="StandardScaler")
    category = dict(active=True, dtype="str", type="categorical")
    processor = FeatureProcessor(
        [dict(name={NUMBERS!r}, **number), dict(name={CATEGORIES!r}, **category)],
        dict(name="{LABEL}", dtype="float"), dataset_id="log", data_root=folder,
    )
    build_dataset(processor, train_data=sys.argv[1], min_categr_count=2)
    print("\\n", time.perf_counter() - begun)
"""


def main() -> None:
    """Write the log, time both, print rows per second."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    pandas, fuxictr = _environment(), environment("fuxictr")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_log(folder / "log.csv", options.rows)
        write_log(folder / "valid.csv", VALID_ROWS, seed=1)
        write_spec(folder / "spec.toml", "log.csv", "valid.csv")
        seconds: dict[str, list[float]] = {"deepfm": [], "pandas + scikit-learn": [], "FuxiCTR": []}
        for _ in range(options.rounds):
            seconds["deepfm"].append(_ours(folder))
            seconds["pandas + scikit-learn"].append(_script(pandas, RECIPE, folder / "log.csv"))
            seconds["FuxiCTR"].append(_script(fuxictr, FUXICTR, folder / "log.csv"))
    ours = min(seconds["deepfm"])
    for label, found in seconds.items():
        best = min(found)
        print(f"{label}: {best:.2f} s, {options.rows / best:,.0f} rows/s, ratio {best / ours:.1f}")


def _ours(folder: Path) -> float:
    begun = time.perf_counter()
    split = read_split(load_spec(folder / "spec.toml"), folder)
    seconds = time.perf_counter() - begun
    assert split.train.index.shape[1] == len(NUMBERS) + len(CATEGORIES)
    return seconds


def _script(python: Path, script: str, log: Path) -> float:
    """Seconds, which the script prints at its end."""
    command = [str(python), "-W", "ignore", "-c", script, str(log)]
    ended = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(ended.stdout.split()[-1])


def _environment() -> Path:
    python = ENVIRONMENT / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(ENVIRONMENT)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *PACKAGES], check=True)
    return python


if __name__ == "__main__":
    main()
