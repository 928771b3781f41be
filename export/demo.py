"""`deepfm demo`: simulate a click log, train on it, export, and say how near the best it came."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from export.bundle import export_run, next_version
from features.errors import ConfigError
from features.spec import load_spec
from model.run import load_run
from model.simulate import SPEC_FILE, simulate
from model.train import train

# Fewer may hold no click in a part that is judged.
LEAST_ROWS = 1_000


def make_demo(root: Path, rows: int, seed: int) -> Path:
    """Bundle `ROOT/demo/(next integer)` of a simulated log.

    Args:
        root: of the bundles.
        rows: simulated, a tenth of them for the test.
        seed: of simulation and training.

    Returns:
        The bundle.

    Raises:
        ConfigError: there are too few rows to train on and to judge by, or no such seed.
    """
    if rows < LEAST_ROWS:
        raise ConfigError(f"option --rows is {rows:,}, expected at least {LEAST_ROWS:,}")
    if not 0 <= seed < 2**64:
        raise ConfigError(f"option --seed is {seed}, expected one in [0, 2^64)")
    with tempfile.TemporaryDirectory(prefix="deepfm-demo-") as name:
        folder = Path(name)
        best = simulate(folder, rows, seed)
        sys.stderr.write(f"simulated {rows:,} rows; best reachable test auc {best:.4f}\n")
        spec = load_spec(folder / SPEC_FILE, [f"train.seed={seed}"])
        run = train(spec, folder / "run")
        reached = load_run(run).metrics["test"]["auc"]
        sys.stderr.write(f"test auc {reached:.4f} of the best reachable {best:.4f}\n")
        return export_run(run, next_version(root / "demo"))
