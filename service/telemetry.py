"""Counters for Prometheus.

A request is counted in plain Python integers: an observation of a prometheus-client histogram costs
2 to 3 us, as much as a small part of a request.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from service.models import Models

if TYPE_CHECKING:
    from service.owner import Owner

LATENCY_BOUNDS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class Telemetry(Collector):
    """Counts of one process.

    Args:
        models: whose version is told.
    """

    def __init__(self, models: Models) -> None:
        self.models = models
        self.requests: Counter[tuple[str, int]] = Counter()
        self.rows: Counter[str] = Counter()
        self.latency: dict[str, list[int]] = {}
        self.latency_sum: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()

    def observe(self, route: str, status: int, rows: int, seconds: float) -> None:
        """Count one answered request."""
        self.requests[route, status] += 1
        self.rows[route] += rows
        buckets = self.latency.setdefault(route, [0] * (len(LATENCY_BOUNDS_S) + 1))
        buckets[bisect_left(LATENCY_BOUNDS_S, seconds)] += 1
        self.latency_sum[route] += seconds  # type: ignore[assignment]

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
            "deepfm_request_seconds", "From body to answer", labels=["route"]
        )
        bounds = [*map(str, LATENCY_BOUNDS_S), "+Inf"]
        for route, buckets in self.latency.items():
            seen = [sum(buckets[: place + 1]) for place in range(len(buckets))]
            latency.add_metric(
                [route], list(zip(bounds, seen, strict=True)), self.latency_sum[route]
            )
        yield latency
        refused = CounterMetricFamily("deepfm_refused", "Refusals", labels=["reason"])
        for reason, count in self.refused.items():
            refused.add_metric([reason], count)
        yield refused
        waiting = sum(model.batcher.waiting for model in self.models.loaded.values())
        yield GaugeMetricFamily("deepfm_queue_rows", "Rows that wait for a run", value=waiting)
        version = GaugeMetricFamily("deepfm_model_version", "Version that answers")
        if self.models.current is not None:
            version.add_metric([], self.models.current.version)
        yield version


class VersionCounts(Collector):
    """What became of versions, and which ones are refused now.

    Args:
        owner: who knows.
    """

    def __init__(self, owner: Owner) -> None:
        self.owner = owner

    def collect(self) -> Iterator[Metric]:
        """The metrics as prometheus-client exposes them."""
        standing = self.owner.standing
        reloads = CounterMetricFamily("deepfm_reloads", "Versions tried", labels=["outcome"])
        reloads.add_metric(["switched"], standing.switched)
        reloads.add_metric(["refused"], standing.refused)
        yield reloads
        yield GaugeMetricFamily(
            "deepfm_refused_versions", "Versions on disk that are refused", len(standing.refusals)
        )
