"""Counters for Prometheus.

A request is counted in plain Python integers: an observation of a prometheus-client histogram costs
2 to 3 us, as much as a small part of a request.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from itertools import accumulate

from prometheus_client.core import (
    CounterMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from service.errors import Overloaded

LATENCY_BOUNDS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_BOUNDS = (*map(str, LATENCY_BOUNDS_S), "+Inf")


class Histogram:
    """How many durations were within each bound, and their sum in seconds."""

    def __init__(self) -> None:
        self.buckets = [0] * (len(LATENCY_BOUNDS_S) + 1)
        self.sum = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        self.buckets[bisect_left(LATENCY_BOUNDS_S, seconds)] += 1
        self.sum += seconds

    @property
    def cumulated(self) -> list[tuple[str, float]]:
        """Bounds and counts as Prometheus wants them: each holds those below it."""
        return list(zip(_BOUNDS, accumulate(self.buckets), strict=True))


class Telemetry(Collector):
    """Counts of one process."""

    def __init__(self) -> None:
        # Not Counters, which take twice as long to count one more.
        self.requests: defaultdict[tuple[str, int], int] = defaultdict(int)
        self.rows: defaultdict[str, int] = defaultdict(int)
        self.latency: defaultdict[str, Histogram] = defaultdict(Histogram)
        self.refusal_latency = Histogram()
        self.refused: defaultdict[str, int] = defaultdict(int)
        self.warned: defaultdict[str, int] = defaultdict(int)

    def observe(self, route: str, status: int, rows: int, seconds: float) -> None:
        """Count one answered request."""
        self.requests[route, status] += 1
        self.rows[route] += rows
        # Refusals are apart: under overload they would make the rest look fast.
        latency = self.refusal_latency if status == Overloaded.status else self.latency[route]
        latency.add(seconds)

    def refuse(self, reason: str) -> None:
        """Count a refusal; an empty reason is none."""
        if reason:
            self.refused[reason] += 1

    def collect(self) -> Iterator[Metric]:
        """The metrics as prometheus-client exposes them."""
        requests = CounterMetricFamily(
            "deepfm_requests", "Answered requests", labels=["route", "status"]
        )
        for (route, status), count in self.requests.items():
            requests.add_metric([route, str(status)], count)
        yield requests
        rows = CounterMetricFamily("deepfm_rows", "Rows scored", labels=["route"])
        for route, count in self.rows.items():
            rows.add_metric([route], count)
        yield rows
        latency = HistogramMetricFamily(
            "deepfm_request_seconds", "From head to answer", labels=["route"]
        )
        for route, histogram in self.latency.items():
            latency.add_metric([route], histogram.cumulated, histogram.sum)
        yield latency
        refusals = HistogramMetricFamily("deepfm_refusal_seconds", "From body to a 429")
        refusals.add_metric([], self.refusal_latency.cumulated, self.refusal_latency.sum)
        yield refusals
        refused = CounterMetricFamily("deepfm_refused", "Refusals", labels=["reason"])
        for reason, count in self.refused.items():
            refused.add_metric([reason], count)
        yield refused
        warned = CounterMetricFamily("deepfm_warnings", "Warnings told, in rows", labels=["code"])
        for code, count in self.warned.items():
            warned.add_metric([code], count)
        yield warned
