"""Serving speed, side by side in one run: this service, a tutorial server and a trivial app.

`python -m bench.serving [--seconds 5]` needs wrk (a Debian package). Each server is started in turn
and its scores are compared with the network's own. A closed loop of wrk drives every shape of the
job over 256 distinct bodies at 1, 16 and 64 connections; CPU time is user and system time of the
server's processes, from /proc, per request. Then the open loop looks for the highest rate of
independent requests at which the 99th percentile keeps a promise. Last, with one worker of ours,
one connection scores single rows while another ranks 1,000 candidates without a pause.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from bench.closed_loop import Load, drive
from bench.figures import percentile
from bench.job import SHAPES, build, path_of, write_bodies
from bench.open_loop import Plan, Shape, windows
from bench.processes import Server, commands, started, use
from bench.reference import TOLERANCES, Reference, check

CONNECTIONS = (1, 16, 64)
PROMISES_MS = {"score 1": 10.0, "rank 100": 30.0}
_HALVINGS = 7


@dataclass(frozen=True)
class Probe:
    """What the open loop found at one rate; `late_ms` is the generator's own p99."""

    rate: float
    p50_ms: float
    p99_ms: float
    late_ms: float
    cores: float
    errors: dict[str, int]

    def keeps(self, promise_ms: float) -> bool:
        """Whether every request had its answer, 99 of 100 in time."""
        return not self.errors and self.p99_ms <= promise_ms


@dataclass
class Found:
    """All figures of one server."""

    closed: dict[tuple[str, int], Load] = field(default_factory=dict)
    open: dict[str, Probe | None] = field(default_factory=dict)


class Benchmark:
    """One run over all servers.

    Args:
        options: of the command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.seconds, self.precision = options.seconds, options.precision
        self.bundle = build(options.folder, options.precision)
        self.bodies = {shape: write_bodies(options.folder, shape) for shape in SHAPES}
        self.reference = Reference(options.folder)

    def measure(self, name: str, command: list[str]) -> Found:
        """All loads of one server, printed as they come."""
        found = Found()
        with started(command, self.bundle) as server:
            if name != "trivial":
                worst = check(server.port, self.reference, TOLERANCES[self.precision])
                print(f"{name}: scores within {worst:.1e}")
            for shape, connections in itertools.product(SHAPES, CONNECTIONS):
                load = drive(server, shape, connections, self.seconds, self.bodies[shape])
                found.closed[shape, connections] = load
                print(
                    f"{name:9} {shape:10} {connections:3} connections "
                    f"{load.requests_s:9.1f} requests/s, p50 {load.p50_ms:8.2f} ms, "
                    f"p99 {load.p99_ms:8.2f} ms, CPU {load.cpu_ms:8.3f} ms",
                    flush=True,
                )
            held = use(server.pid)
            print(
                f"{name}: memory {held.resident:.0f} MB resident, {held.proportional:.0f} MB "
                f"proportional, {held.largest_private:.0f} MB private to the largest worker"
            )
            if name != "trivial":
                found.open = {shape: self.sustained(server, shape, found) for shape in PROMISES_MS}
        return found

    def sustained(self, server: Server, shape: str, found: Found) -> Probe | None:
        """The fastest probe that keeps the promise, at most at what the closed loop reached."""
        most = max(found.closed[shape, connections].requests_s for connections in CONNECTIONS)
        return highest(
            lambda rate: self.probe(server, shape, rate),
            lambda probe: probe.keeps(PROMISES_MS[shape]),
            most,
        )

    def probe(self, server: Server, shape: str, rate: float) -> Probe:
        """One run of the open loop."""
        asked = Shape(shape, path_of(shape), str(self.bodies[shape]), rate)
        (window,) = windows(Plan(server.port, (asked,), self.seconds))
        latency = window.latency_us[shape]
        return Probe(
            rate=rate,
            p50_ms=percentile(latency, 50) / 1e3,
            p99_ms=percentile(latency, 99) / 1e3,
            late_ms=percentile(window.late_us, 99) / 1e3,
            cores=window.cpu_s / window.at_s,
            errors=window.errors,
        )

    def small_beside_large(self) -> Load:
        """One-row requests to one worker of ours that also ranks 1,000 without a pause."""
        command = commands(self.bundle, workers=1)["deepfm"]
        with started(command, self.bundle) as server, ThreadPoolExecutor(1) as aside:
            large = aside.submit(
                drive, server, "rank 1000", 1, self.seconds + 2, self.bodies["rank 1000"]
            )
            time.sleep(1)
            small = drive(server, "score 1", 1, self.seconds, self.bodies["score 1"])
            large.result()
        return small


def highest(
    probe: Callable[[float], Probe], keeps: Callable[[Probe], bool], most: float
) -> Probe | None:
    """The fastest probe that keeps its promise, by halving the range up to `most`; None if none.

    A rate may fail once: a pause of the machine is not the server's.
    """
    best = None
    low, high = 0.0, most
    for _ in range(_HALVINGS):
        rate = (low + high) / 2
        kept = next((one for one in (probe(rate) for _ in range(2)) if keeps(one)), None)
        if kept is None:
            high = rate
        else:
            best, low = kept, rate
    return best


def summary(found: dict[str, Found]) -> Iterator[str]:
    """The servers beside each other, line by line."""
    others = {name: one for name, one in found.items() if name != "deepfm"}
    ours = found["deepfm"].closed if "deepfm" in found and others else {}
    for (shape, connections), load in ours.items():
        ratios = (f"{name} {one.closed[shape, connections].cpu_ms / load.cpu_ms:6.2f}"
                  for name, one in others.items())  # fmt: skip
        yield f"{shape:10} {connections:3} connections, CPU time beside ours: {' '.join(ratios)}"
    for name, one in found.items():
        for shape, probe in one.open.items():
            told = "none" if probe is None else (
                f"{probe.rate:9.1f} requests/s, p50 {probe.p50_ms:6.2f} ms, "
                f"p99 {probe.p99_ms:6.2f} ms (generator: p99 {probe.late_ms:.2f} ms late, "
                f"{probe.cores:.2f} cores)"
            )  # fmt: skip
            promise = f"p99 within {PROMISES_MS[shape]:.0f} ms"
            yield f"{name:9} {shape:10} highest Poisson rate with {promise}: {told}"


def main() -> None:
    """Print one line per load, then the summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=5, help="of each load")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--servers", default="deepfm,tutorial,trivial")
    parser.add_argument("--precision", choices=list(TOLERANCES), default="fp32", help="of ours")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "deepfm-bench")
    options = parser.parse_args()
    benchmark = Benchmark(options)
    found = {
        name: benchmark.measure(name, command)
        for name, command in commands(benchmark.bundle, options.workers).items()
        if name in options.servers.split(",")
    }
    print(*summary(found), sep="\n")
    if "deepfm" in found:
        load = benchmark.small_beside_large()
        print(
            f"one worker, /score of 1 row beside /rank of 1,000 without a pause: "
            f"p50 {load.p50_ms:.2f} ms, p99 {load.p99_ms:.2f} ms"
        )


if __name__ == "__main__":
    main()
