from __future__ import annotations

import pytest

from bench.serving import Probe, highest


def probe_until(limit: float) -> tuple[list[float], Probe | None]:
    """Rates tried, and what is found, where every rate up to `limit` keeps the promise."""
    tried: list[float] = []

    def probe(rate: float) -> Probe:
        tried.append(rate)
        p99 = 1.0 if rate <= limit else 99.0
        return Probe(rate=rate, p50_ms=1.0, p99_ms=p99, late_ms=0.0, cores=0.1, errors={})

    return tried, highest(probe, lambda probe: probe.keeps(10.0), 1000.0)


def test_the_highest_rate_is_found_to_one_part_in_a_hundred() -> None:
    for limit in (17.0, 500.0, 993.0):
        tried, found = probe_until(limit)
        assert found is not None
        assert found.rate == pytest.approx(limit, abs=10)
        assert found.rate <= limit
        assert len(tried) <= 14


def test_a_rate_may_fail_once() -> None:
    tried: set[float] = set()

    def probe(rate: float) -> Probe:
        p99 = 1.0 if rate in tried else 99.0
        tried.add(rate)
        return Probe(rate=rate, p50_ms=1.0, p99_ms=p99, late_ms=0.0, cores=0.1, errors={})

    found = highest(probe, lambda probe: probe.keeps(10.0), 1000.0)
    assert found is not None
    assert found.rate > 990


def test_no_rate_may_keep_the_promise() -> None:
    assert probe_until(0.0)[1] is None


def test_a_probe_with_an_error_keeps_no_promise() -> None:
    assert not Probe(1.0, 1.0, 1.0, 0.0, 0.1, {"no answer in time": 1}).keeps(10.0)
