"""Endurance: mixed load on the service for a while, and what grows meanwhile.

`python -m bench.soak [--minutes 10] [--workers 2]` serves the job's bundle and sends it, by the
open loop and well under saturation, small and large requests of both routes, some of them with a
field that the model does not know, and bodies that must be refused; every minute the service is
switched to the other of two versions, which are the same model. The status of every answer is
checked, and of each shape the scores of one answer every 10 s against the network's own. Memory,
descriptors, threads and latencies are printed every 10 s; at the end, without a warm-up of 5
minutes or a fifth of the run, the median of each and its slope per hour. Any error ends the run
with a status other than 0, at its end.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.figures import percentile, slope
from bench.job import build, path_of, write_bodies
from bench.open_loop import Plan, Shape, Window, windows
from bench.processes import Server, processes, use
from bench.reference import TOLERANCES, Reference, distance
from bench.reload import Reloads, reloadable

WINDOW_S = 10.0
WARM_UP_S = 300.0
RELOAD_EVERY = 6  # windows: a minute
# Requests per second: together about half a core.
RATES = {"score 1": 200.0, "score 32": 40.0, "rank 100": 40.0, "rank 1000": 8.0}
STRANGE_RATE, BAD_RATE = 20.0, 10.0
BODIES = 32
PERCENTS = (50, 99)
BAD = {
    "not JSON": (400, [b'{"instances": [', b"", b"\xff", b'{"instances": [{}]}}']),
    "refused": (
        422,
        [
            b'{"instances": [{"I1": "three"}]}',
            b'{"instances": [{"I1": true}]}',
            b'{"instances": [{"C1": 1152921504606846976}]}',
            b'{"rows": []}',
            b'{"columns": {"I1": [1, 2], "I2": [1]}}',
        ],
    ),
}
Expected = dict[str, list[NDArray[np.float64]]]


def mix(folder: Path) -> list[Shape]:
    """What is sent, and how often; the bodies lie in `folder`."""
    shapes = [
        Shape(name, path_of(name), str(write_bodies(folder, name, BODIES)), rate)
        for name, rate in RATES.items()
    ]
    strange = folder / "strange.jsonl"
    strange.write_bytes(b"\n".join(map(_strange, Path(shapes[0].bodies).read_bytes().splitlines())))
    shapes.append(Shape("strange", "/score", str(strange), STRANGE_RATE))
    for name, (status, bodies) in BAD.items():
        target = folder / f"{name}.jsonl"
        target.write_bytes(b"\n".join(bodies))
        shapes.append(Shape(name, "/score", str(target), BAD_RATE, status))
    return shapes


def _strange(body: bytes) -> bytes:
    document = json.loads(body)
    document["instances"][0]["colour"] = "red"
    return json.dumps(document).encode()


def expected_scores(shapes: list[Shape], reference: Reference) -> Expected:
    """Scores of every good body, computed beforehand so as not to disturb the service later."""
    return {
        shape.name: [
            reference.scores(body) for body in Path(shape.bodies).read_bytes().splitlines()
        ]
        for shape in shapes
        if shape.status == 200
    }


class Record:
    """What was seen of a server so far.

    Args:
        server: whose processes are watched; they must stay the same.
        expected: scores of each shape's bodies.
    """

    def __init__(self, server: Server, expected: Expected) -> None:
        self.server, self.expected = server, expected
        self.processes = processes(server.pid)
        self.errors: Counter[str] = Counter()
        self.answers = 0
        self.at_s: list[float] = []
        self.held: dict[str, list[float]] = {}
        self.latency: dict[tuple[str, int], list[float]] = {}

    def add(self, window: Window) -> None:
        """Take in a window."""
        self.errors.update(window.errors)
        self.answers += sum(map(len, window.latency_us.values()))
        for name, (place, answer) in window.samples.items():
            expected = self.expected.get(name)
            if expected and distance(answer, expected[place]) > TOLERANCES["fp32"]:
                self.errors[f"{name}: wrong scores"] += 1
        try:
            now, holds = processes(self.server.pid), held(self.server, window)
        except OSError:  # /proc lost one while it was read
            self.errors["a process of the service ended"] += 1
            return
        if now != self.processes:
            self.errors["a process of the service was replaced"] += 1
            self.processes = now
        self.at_s.append(window.at_s)
        for name, value in holds.items():
            self.held.setdefault(name, []).append(value)
        for name, latency in window.latency_us.items():
            for percent in PERCENTS:
                found = percentile(latency, percent) / 1e3
                self.latency.setdefault((name, percent), []).append(found)

    def line(self) -> str:
        """The newest figures; of each shape's latency p50/p99."""
        parts = [f"{name} {values[-1]:.4g}" for name, values in self.held.items()]
        for name in dict.fromkeys(name for name, _ in self.latency):
            p50, p99 = (self.latency[name, percent][-1] for percent in PERCENTS)
            parts.append(f"{name} {p50:.2f}/{p99:.2f} ms")
        at_s = self.at_s[-1] if self.at_s else 0
        errors = sum(self.errors.values())
        return f"{at_s:5.0f} s: {errors} errors, {self.answers} answers; {', '.join(parts)}"

    def summary(self) -> list[str]:
        """Median and slope of each series after the warm-up, then the errors."""
        if not self.at_s:
            return ["nothing could be measured", *map(str, self.errors.items())]
        warm = warm_up_s(self.at_s[-1])
        first = sum(at < warm for at in self.at_s) + 1  # the one that warm-up ends in goes too
        hours = [at / 3600 for at in self.at_s[first:]]
        lines = [f"after {warm:.0f} s of warm-up:", f"{'':22} {'median':>10} {'per hour':>12}"]
        latency = {f"{name} p{percent} ms": one for (name, percent), one in self.latency.items()}
        for name, values in (self.held | latency).items():
            judged = values[first:]
            lines.append(f"{name:22} {percentile(judged, 50):10.4g} {slope(hours, judged):+12.4g}")
        lines += [f"{count} x {error}" for error, count in self.errors.items()]
        return [*lines, f"{sum(self.errors.values())} errors in {self.answers} answers"]


def warm_up_s(whole_s: float) -> float:
    """How much of a run is not judged."""
    return min(WARM_UP_S, whole_s / 5)


def held(server: Server, window: Window) -> dict[str, float]:
    """What the service holds, and how late the generator was, by name and unit."""
    now = use(server.pid)
    return {
        "proportional MB": now.proportional,
        "private MB": now.private,
        "descriptors": now.descriptors,
        "threads": now.threads,
        "generator late p99 ms": percentile(window.late_us, 99) / 1e3,
    }


def main() -> None:
    """Print a line per window, then the summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "deepfm-bench")
    options = parser.parse_args()
    build(options.folder)
    shapes = mix(options.folder)
    expected = expected_scores(shapes, Reference(options.folder))
    seconds = 60 * options.minutes
    with reloadable(options.folder, options.workers) as server:
        record, reloads = Record(server, expected), Reloads(server)
        plan = Plan(server.port, tuple(shapes), seconds, windows=math.ceil(seconds / WINDOW_S))
        for number, window in enumerate(windows(plan), 1):
            record.add(window)
            print(record.line(), flush=True)
            if not number % RELOAD_EVERY:
                reloads.reload()
    print(f"{len(reloads.seconds)} reloads, {max(reloads.seconds, default=0):.2f} s at most")
    print(*record.summary(), sep="\n")
    raise SystemExit(bool(record.errors))


if __name__ == "__main__":
    main()
