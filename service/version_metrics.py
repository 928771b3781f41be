"""What Prometheus is told of versions: which answers, which are refused, which stands beside."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from service.comparison import CORRELATION_BOUNDS, DIFFERENCE_BOUNDS, cumulative
from service.models import Models
from service.owner import Owner
from service.second import Second
from service.shadow import Shadow

_PAIR = ["first", "second"]


class VersionCounts(Collector):
    """Which version answers and what waits for it, what became of others, which are refused now.

    Args:
        models: the loaded versions.
        owner: who knows of the others.
    """

    def __init__(self, models: Models, owner: Owner) -> None:
        self._models, self._owner = models, owner

    def collect(self) -> Iterator[Metric]:
        """The metrics as prometheus-client exposes them."""
        waiting = sum(model.batcher.waiting for model in self._models.loaded.values())
        yield GaugeMetricFamily("deepfm_queue_rows", "Rows that wait for a run", value=waiting)
        version = GaugeMetricFamily("deepfm_model_version", "Version that answers")
        if self._models.current is not None:
            version.add_metric([], self._models.current.version)
        yield version
        standing = self._owner.standing
        reloads = CounterMetricFamily("deepfm_reloads", "Versions tried", labels=["outcome"])
        reloads.add_metric(["switched"], standing.switched)
        reloads.add_metric(["refused"], standing.refused)
        yield reloads
        yield GaugeMetricFamily(
            "deepfm_refused_versions", "Versions on disk that are refused", len(standing.refusals)
        )


class TrialCounts(Collector):
    """Counts of both versions, and of the comparison; nothing where there is no second one.

    Args:
        models: where it stands.
    """

    def __init__(self, models: Models) -> None:
        self._models = models

    def collect(self) -> Iterator[Metric]:
        """The metrics as prometheus-client exposes them."""
        second = self._models.second
        if second is not None:
            yield from _of_versions(second)
            if second.shadow is not None:
                yield from _of_shadow(second.shadow, second.model.version)


def _of_versions(second: Second) -> Iterator[Metric]:
    share = GaugeMetricFamily(
        "deepfm_trial_share", "Share that a second version gets", labels=["version", "kind"]
    )
    trial = second.trial
    share.add_metric([str(trial.version), trial.kind], trial.share)
    yield share
    requests = CounterMetricFamily(
        "deepfm_version_requests",
        "Requests answered beside a second version",
        labels=["version", "status"],
    )
    for (version, status), count in list(second.requests.items()):
        requests.add_metric([str(version), str(status)], count)
    yield requests
    latency = HistogramMetricFamily(
        "deepfm_version_request_seconds", "From request to answer", labels=["version"]
    )
    for version, histogram in second.latency.items():
        latency.add_metric([str(version)], histogram.cumulated, histogram.sum)
    yield latency


def _of_shadow(shadow: Shadow, version: int) -> Iterator[Metric]:
    outcomes = CounterMetricFamily(
        "deepfm_shadow_requests", "Requests for the shadow", labels=["outcome"]
    )
    for outcome, count in list(shadow.outcomes.items()):
        outcomes.add_metric([outcome], count)
    yield outcomes
    difference = HistogramMetricFamily(
        "deepfm_shadow_score_difference", "Between two scores of a row, absolute", labels=_PAIR
    )
    scores = CounterMetricFamily(
        "deepfm_shadow_scores", "Sum of the scores compared", labels=[*_PAIR, "by"]
    )
    correlation = HistogramMetricFamily(
        "deepfm_shadow_rank_correlation", "Spearman's, of a request's candidates", labels=_PAIR
    )
    best = CounterMetricFamily(
        "deepfm_shadow_top1", "Rankings by whether both have the same best", labels=[*_PAIR, "same"]
    )
    for first, found in list(shadow.comparisons.items()):
        pair = [str(first), str(version)]
        differences = found.differences.tolist()
        difference.add_metric(pair, _buckets(DIFFERENCE_BOUNDS, differences), found.difference_sum)
        # Without a sum, which would not only grow: correlations may be negative.
        correlation.add_metric(pair, _buckets(CORRELATION_BOUNDS, found.correlations), None)
        _add_both(scores, pair, _PAIR, found.score_sums)
        _add_both(best, pair, ("true", "false"), (found.same_best, found.other_best))
    yield from (difference, scores, correlation, best)


def _add_both(
    family: CounterMetricFamily, pair: list[str], names: Iterable[str], counts: Iterable[float]
) -> None:
    for name, count in zip(names, counts, strict=True):
        family.add_metric([*pair, name], count)


def _buckets(bounds: Sequence[float], counts: list[int]) -> list[tuple[str, float]]:
    return list(zip([*map(str, bounds), "+Inf"], cumulative(counts), strict=True))
