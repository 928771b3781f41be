"""Where a worker's time goes, for each shape of the job; needs wrk and py-spy (a Python package).

`python -m bench.profile [--precision int8]` starts one worker, drives it over 64 connections (16
for 1,000 candidates) and lets py-spy look at it 500 times a second. Each look is counted for the
step whose code, or native code called from it, was running; the shares divide the worker's CPU time
per request, which /proc gives. Looking costs the worker a few percent.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from bench.closed_loop import Load, drive
from bench.job import SHAPES, build, write_bodies
from bench.processes import Server, commands, processes, started

STEPS = {
    "bytes -> indices": ("compiled.py", "_encoded", "PlainReader"),
    "run of the graph": ("Scorer._run",),
    "joining": ("batcher.py", "waiting.py", "scorer.py"),
    "answer": ("ranking.py", "Route.answer"),
}
REST = "HTTP, loop, kernel"
_LOOKS_PER_S = 500


def shares(stacks: Iterable[str]) -> dict[str, float]:
    """Part of all looks that each step has; they sum to 1.

    Args:
        stacks: lines of py-spy's raw format, `outer;...;inner COUNT`.
    """
    counts: Counter[str] = Counter()
    for line in stacks:
        stack, _, count = line.rpartition(" ")
        counts[_step(stack)] += int(count)
    return {step: counts[step] / counts.total() for step in (*STEPS, REST)}


def _step(stack: str) -> str:
    """The step of the innermost frame that belongs to one."""
    for frame in reversed(stack.split(";")):
        for step, marks in STEPS.items():
            if any(mark in frame for mark in marks):
                return step
        if "uvicorn" in frame or "protocol.py" in frame:
            break
    return REST


def look(server: Server, shape: str, bodies: Path, seconds: int) -> tuple[Load, dict[str, float]]:
    """The load of one shape, and the shares of the steps meanwhile."""
    connections = 16 if shape == "rank 1000" else 64
    drive(server, shape, connections, 1, bodies)
    worker = processes(server.pid)[-1]
    with tempfile.NamedTemporaryFile() as file:
        command = ["py-spy", "record", "-r", str(_LOOKS_PER_S), "-d", str(seconds), "-f", "raw",
                   "-o", file.name, "--nonblocking", "-p", str(worker)]  # fmt: skip
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as spy:
            load = drive(server, shape, connections, seconds + 1, bodies)
            spy.wait()
        return load, shares(Path(file.name).read_text(encoding="utf-8").splitlines())


def main() -> None:
    """Print microseconds of CPU time per request, shape by shape."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=4, help="of each load")
    parser.add_argument("--precision", choices=["fp32", "int8"], default="fp32")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "deepfm-bench")
    options = parser.parse_args()
    bundle = build(options.folder, options.precision)
    with started(commands(bundle, workers=1)["deepfm"], bundle) as server:
        for shape in SHAPES:
            bodies = write_bodies(options.folder, shape)
            load, found = look(server, shape, bodies, options.seconds)
            told = ", ".join(
                f"{step} {share * load.cpu_ms * 1e3:.0f}" for step, share in found.items()
            )
            print(f"{shape:10} {load.cpu_ms * 1e3:8.0f} us: {told}", flush=True)


if __name__ == "__main__":
    main()
