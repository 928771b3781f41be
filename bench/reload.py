"""Reloads under load: what they add to the latency of others, and whether memory stays.

`python -m bench.reload [--reloads 200] [--every 1] [--workers 1]` serves the job's bundle in two
versions, which are the same model, and sends one-row requests by the open loop: first for as long
as the reloads will take, without one; then as long again, with a reload every so many seconds from
one version to the other and back. Of every window the scores of one answer are checked.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.figures import percentile
from bench.job import build, path_of, write_bodies
from bench.open_loop import Plan, Shape, Window, windows
from bench.processes import Server, commands, started, use
from bench.reference import TOLERANCES, Reference, distance

SHAPE = "score 1"
VERSIONS = (1, 2)
PERCENTS = (50, 99, 99.9)
FIRST_RELOADS = 10
_KEY = "key"
_WINDOW_S = 10.0
_PATIENCE_S = 60


class Reloads:
    """Switches a server to and fro between two versions.

    Args:
        server: the newer one answers.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.versions = cycle(VERSIONS)
        self.seconds: list[float] = []

    def reload(self) -> None:
        """Switch, and wait until the other version answers.

        Raises:
            urllib.error.HTTPError: it was refused.
        """
        began = time.perf_counter()
        body = json.dumps({"version": next(self.versions)}).encode()
        address = f"http://127.0.0.1:{self.server.port}/admin/reload"
        request = urllib.request.Request(address, body, {"authorization": f"Bearer {_KEY}"})
        with urllib.request.urlopen(request, timeout=_PATIENCE_S):
            self.seconds.append(time.perf_counter() - began)

    def every(self, seconds: float, number: int) -> list[float]:
        """So many reloads at such times; proportional MB after the first ones and after all.

        Not after each: to count the pages of a process holds it up.
        """
        began, held = time.perf_counter(), []
        for turn in range(1, number + 1):
            time.sleep(max(0.0, began + turn * seconds - time.perf_counter()))
            self.reload()
            if turn in (FIRST_RELOADS, number):
                time.sleep(seconds / 2)  # the version before is let go
                held.append(use(self.server.pid).proportional)
        return held


@contextmanager
def reloadable(folder: Path, workers: int) -> Iterator[Server]:
    """A server of the job's bundle in both versions, with `/admin`."""
    bundle = [build(folder, version=version) for version in VERSIONS][-1]
    with tempfile.TemporaryDirectory() as name:
        keys = Path(name) / "keys"
        keys.write_text(_KEY)
        command = commands(bundle, workers)["deepfm"]
        with started(command, bundle, DEEPFM_ADMIN_KEYS_FILE=str(keys)) as server:
            yield server


def figures(found: list[Window]) -> str:
    """Latency of all answers in ms, and what went wrong."""
    latency = [us / 1e3 for one in found for us in one.latency_us[SHAPE]]
    late = percentile([us / 1e3 for one in found for us in one.late_us], 99.9)
    parts = [f"p{percent:g} {percentile(latency, percent):.2f}" for percent in PERCENTS]
    errors = sum(sum(one.errors.values()) for one in found)
    return (
        f"{len(latency)} answers, {errors} errors; {', '.join(parts)}, worst {max(latency):.2f} "
        f"ms; generator p99.9 {late:.2f} ms late"
    )


def wrong_scores(found: list[Window], expected: list[NDArray[np.float64]]) -> int:
    """How many of the windows' samples are not what the network says."""
    samples = (one.samples[SHAPE] for one in found)
    return sum(distance(answer, expected[at]) > TOLERANCES["fp32"] for at, answer in samples)


def main() -> None:
    """Print latencies without and with reloads, how long those took, and memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reloads", type=int, default=200)
    parser.add_argument("--every", type=float, default=1.0, help="seconds")
    parser.add_argument("--rate", type=float, default=200.0, help="requests a second")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "deepfm-bench")
    options = parser.parse_args()
    file = write_bodies(options.folder, SHAPE)
    build(options.folder)
    reference = Reference(options.folder)
    expected = [reference.scores(body) for body in file.read_bytes().splitlines()]
    shape = Shape(SHAPE, path_of(SHAPE), str(file), options.rate)
    seconds = options.reloads * options.every
    with reloadable(options.folder, options.workers) as server, ThreadPoolExecutor(1) as aside:
        plan = Plan(server.port, (shape,), seconds, max(1, round(seconds / _WINDOW_S)))
        without = list(windows(plan))
        print(f"without a reload: {figures(without)}", flush=True)
        reloads = Reloads(server)
        held = aside.submit(reloads.every, options.every, options.reloads)
        found = list(windows(plan))
        memory = held.result()
    print(f"with {options.reloads} reloads: {figures(found)}")
    wrong = wrong_scores(without + found, expected)
    print(f"{wrong} wrong of {len(without + found)} answers checked")
    took = np.array(reloads.seconds) * 1e3
    print(f"a reload takes {np.median(took):.0f} ms, at worst {took.max():.0f}")
    print(
        f"proportional memory after the first {FIRST_RELOADS} reloads {memory[0]:.0f} MB, "
        f"after all {memory[-1]:.0f} MB"
    )


if __name__ == "__main__":
    main()
