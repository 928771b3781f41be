"""Overload: what is left of the service when far more is asked of it than it can do.

`python -m bench.overload [--shape "rank 100"] [--minutes 2]` serves the job's bundle with one
worker on half of the cores and sends requests from the other half, so that the generator takes
nothing from the server. About what it can carry is found by a closed loop of wrk; at 0.8 times that
the open loop finds the 99th percentile of a calm server, the median of three turns, and half as
much again is the deadline that every later request names. With it the best useful throughput is
looked for: answers a second that came in time. Twice that is sent for ten seconds a turn, five
times for minutes, and the best itself between them, since these machines change while they are
used: each turn counts beside the two of the best around it, and the median of turns is the figure.
Right after each overload 0.8 times the best is sent, for the time it takes to recover.

The generator never sleeps: under overload the server would pay for waking it some 2,000 times a
second, as it would not for clients on other machines.

An answer is useful if it came by its deadline, counted by the client from when the request was due;
refusals are counted from there too. How long the server itself took to refuse, from the last byte
of the body on, is told by its own metrics; most are refused before that.
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median

from bench.closed_loop import drive
from bench.figures import percentile
from bench.job import SHAPES, build, path_of, write_bodies
from bench.open_loop import Plan, Shape, Window, windows
from bench.processes import Server, commands, started, use
from bench.reference import TOLERANCES

CALM, CALM_TURNS = 0.8, 3
DOUBLE, DOUBLE_TURNS = 2.0, 10
OVERLOAD, OVERLOAD_TURNS = 5.0, 3
PROBES = (0.9, 1.0, 1.1, 1.2)
SLACK = 1.5
TURN_S = 10.0
REFUSALS = (429, 504)
CONNECTIONS = 64
WINDOW_S = 5.0
RECOVERY_S = 10
_BUCKET = re.compile(r'deepfm_refusal_seconds_bucket\{le="([^"]+)"\} (\S+)')


@dataclass(frozen=True)
class Outcome:
    """What came of one rate.

    Args:
        rate: requests a second that were due.
        seconds: for how long, the last answer included.
        latency_ms: of answers.
        refused_ms: of refusals, by status.
        errors: everything else.
        late_ms: by how much the generator was late, p99.
    """

    rate: float
    seconds: float
    latency_ms: list[float]
    refused_ms: dict[int, list[float]]
    errors: Counter[str]
    late_ms: float

    @classmethod
    def of(cls, rate: float, seconds: float, found: list[Window]) -> Outcome:
        """Windows that follow each other, together."""
        latency = [us / 1e3 for one in found for every in one.latency_us.values() for us in every]
        refused = {
            status: [us / 1e3 for one in found for us in one.refused_us.get(status, [])]
            for status in REFUSALS
        }
        errors = sum((Counter(one.errors) for one in found), Counter[str]())
        late = percentile([us for one in found for us in one.late_us], 99) / 1e3
        return cls(rate, seconds, latency, refused, errors, late)

    def useful(self, deadline_ms: float) -> float:
        """Answers a second that came in time."""
        return sum(ms <= deadline_ms for ms in self.latency_ms) / self.seconds

    def share(self, deadline_ms: float) -> float:
        """Of all requests, those that were answered in time."""
        others = sum(map(len, self.refused_ms.values())) + self.errors.total()
        in_time = sum(ms <= deadline_ms for ms in self.latency_ms)
        return in_time / max(1, len(self.latency_ms) + others)

    def line(self, deadline_ms: float) -> str:
        """All of it for a person."""
        refused = ", ".join(
            f"{len(every) / self.seconds:.1f}/s by {status} (p99 {percentile(every, 99):.2f} ms)"
            for status, every in self.refused_ms.items()
            if every
        )
        errors = ", ".join(f"{count} x {error}" for error, count in self.errors.items())
        return (
            f"{self.rate:7.1f}/s sent, {self.useful(deadline_ms):7.1f}/s useful; "
            f"p50 {percentile(self.latency_ms, 50):.2f}, p99 {percentile(self.latency_ms, 99):.2f} "
            f"ms; refused {refused or 'none'}; errors {errors or 'none'}; "
            f"generator p99 {self.late_ms:.2f} ms late"
        )


class Overload:
    """One server under all loads.

    Args:
        server: that is watched.
        shape: of the requests.
        bodies: a file of them.
    """

    def __init__(self, server: Server, shape: str, bodies: Path) -> None:
        self.server, self.shape, self.bodies = server, shape, bodies
        self.deadline_ms, self.calm_ms = 0, 0.0

    def run(self, seconds: float, minutes: float) -> None:
        """Print a line for each load."""
        closed = drive(self.server, self.shape, CONNECTIONS, max(1, int(seconds)), self.bodies)
        print(f"closed loop of {CONNECTIONS} connections: {closed.requests_s:.1f} requests/s")
        calm = [self.outcome(CALM * closed.requests_s, seconds) for _ in range(CALM_TURNS)]
        self.calm_ms = median(percentile(one.latency_ms, 99) for one in calm)
        self.deadline_ms = max(1, int(SLACK * self.calm_ms))
        for one in calm:
            print(f"calm: {one.line(self.deadline_ms)}")
        print(f"deadline from here on: {self.deadline_ms} ms", flush=True)
        probes = [self.outcome(factor * closed.requests_s, seconds) for factor in PROBES]
        rate = max(probes, key=lambda one: one.useful(self.deadline_ms)).rate
        best = self.best(rate)
        share = self.outcome(CALM * best, seconds).share(self.deadline_ms)
        print(f"{CALM * best:.1f}/s: a share of {share:.2f} in time", flush=True)
        self.compare(rate, DOUBLE, DOUBLE_TURNS, lambda sent: self.outcome(sent, TURN_S))
        self.compare(rate, OVERLOAD, OVERLOAD_TURNS, lambda sent: self.overload(sent, 60 * minutes))

    def compare(
        self, rate: float, load: float, turns: int, send: Callable[[float], Outcome]
    ) -> None:
        """Send many times the best in turns with it; print what is left, as shares of it.

        Args:
            rate: at which the best is had.
            load: of the best.
            turns: how many.
            send: one turn of so many requests a second.
        """
        left, tails = [], []
        best = self.best(rate)
        for _ in range(turns):
            outcome = send(load * best)
            print(f"{load:g} x:  {outcome.line(self.deadline_ms)}", flush=True)
            before, best = best, self.best(rate)
            left.append(outcome.useful(self.deadline_ms) / fmean((before, best)))
            tails.append(percentile(outcome.latency_ms, 99) / self.calm_ms)
        print(
            f"{load:g} times the best: {told(left)} of its useful throughput; "
            f"p99 {told(tails)} of the calm one",
            flush=True,
        )

    def best(self, rate: float) -> float:
        """Useful answers a second, measured anew: the best of several readings is too good."""
        outcome = self.outcome(rate, TURN_S)
        print(f"best: {outcome.line(self.deadline_ms)}", flush=True)
        return outcome.useful(self.deadline_ms)

    def overload(self, rate: float, seconds: float) -> Outcome:
        """Send far too much for long; print what refusals and memory took, and how it ended."""
        found, held = [], [use(self.server.pid).private]
        before = self.refusals()
        for window in self.windows(rate, seconds, max(1, round(seconds / WINDOW_S))):
            found.append(window)
            held.append(use(self.server.pid).private)
        outcome = Outcome.of(rate, seconds, found)
        print(
            f"  as the server sees it, 99 of 100 refusals took at most "
            f"{1e3 * bound_of(self.refusals() - before, 99):g} ms; private memory "
            f"{held[0]:.1f} MB before, {held[-1]:.1f} after, {max(held):.1f} at most",
            flush=True,
        )
        self.recover(CALM * rate / OVERLOAD)
        return outcome

    def recover(self, rate: float) -> None:
        """Print which share of the requests of each second after an overload is in time."""
        found = self.windows(rate, RECOVERY_S, RECOVERY_S)
        shares = " ".join(
            f"{Outcome.of(rate, 1, [one]).share(self.deadline_ms):.2f}" for one in found
        )
        print(f"{rate:.1f}/s right after it, share in time of each second: {shares}")

    def refusals(self) -> Counter[float]:
        """How many refusals took the server at most so many seconds, by bucket of its metrics."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.server.port}/metrics") as answer:
            found = [(float(le), float(n)) for le, n in _BUCKET.findall(answer.read().decode())]
        below = [(0.0, 0.0), *found]
        return Counter({le: int(n - less) for (_, less), (le, n) in pairwise(below)})

    def outcome(self, rate: float, seconds: float) -> Outcome:
        """One rate for a while."""
        return Outcome.of(rate, seconds, list(self.windows(rate, seconds, 1)))

    def windows(self, rate: float, seconds: float, number: int) -> Iterator[Window]:
        """What the generator tells of one rate."""
        path, bodies = path_of(self.shape), str(self.bodies)
        asked = Shape(
            self.shape, path, bodies, rate, deadline_ms=self.deadline_ms, refusals=REFUSALS
        )
        return windows(Plan(self.server.port, (asked,), seconds, number, is_awake=True))


def told(found: Sequence[float]) -> str:
    """The median of turns, and their range."""
    return f"{median(found):.3f} ({min(found):.3f} to {max(found):.3f})"


def bound_of(buckets: Counter[float], percent: float) -> float:
    """The smallest bound within which so many percent of all counts are; NaN without any."""
    counts = [le for le, count in sorted(buckets.items()) for _ in range(count)]
    return percentile(counts, percent)


def main() -> None:
    """Serve, load, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=list(SHAPES), default="rank 100")
    parser.add_argument("--seconds", type=float, default=10, help="of each load up to the best")
    parser.add_argument("--minutes", type=float, default=2, help="of each overload")
    parser.add_argument("--precision", choices=list(TOLERANCES), default="fp32")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "deepfm-bench")
    options = parser.parse_args()
    bundle = build(options.folder, options.precision)
    bodies = write_bodies(options.folder, options.shape)
    cores = sorted(os.sched_getaffinity(0))
    half = len(cores) // 2
    if not half:
        raise SystemExit("two cores are needed: one for the server, one for the generator")
    os.sched_setaffinity(0, cores[:half])  # which the server inherits
    with started(commands(bundle, workers=1)["deepfm"], bundle) as server:
        os.sched_setaffinity(0, cores[half:])
        Overload(server, options.shape, bodies).run(options.seconds, options.minutes)


if __name__ == "__main__":
    main()
