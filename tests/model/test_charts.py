from __future__ import annotations

import re
from itertools import pairwise
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.charts import Bar, curve_chart, histogram, nice_ticks, reliability_chart
from model.reliability import Reliability, reliability


def places(svg: str, tag: str, *names: str) -> list[tuple[float, ...]]:
    """Attributes of all elements of one kind, as numbers."""
    return [tuple(float(e.get(n, "nan")) for n in names) for e in ET.fromstring(svg).iter(tag)]


def inside(svg: str) -> bool:
    """Whether every number of the drawing is finite and no circle leaves it."""
    width, height = (float(part) for part in (ET.fromstring(svg).get("viewBox") or "").split()[2:])
    dots = places(svg, "circle", "cx", "cy")
    return "nan" not in svg and all(0 <= x <= width and 0 <= y <= height for x, y in dots)


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_ticks_are_few_even_and_enclose_the_numbers(low: float, spread: float) -> None:
    high = low + spread
    ticks = nice_ticks(low, high)
    assert 2 <= len(ticks) <= 6
    slack = 1e-6 * max(abs(low), abs(high), spread) + 1e-9
    assert ticks[0] <= low + slack
    assert ticks[-1] >= high - slack
    steps = [b - a for a, b in pairwise(ticks)]
    assert min(steps) > 0
    assert max(steps) == pytest.approx(min(steps))


def test_ticks_are_round() -> None:
    assert nice_ticks(0.7023, 0.7799) == pytest.approx([0.70, 0.72, 0.74, 0.76, 0.78])


@pytest.mark.parametrize(
    "values", [[0.7], [0.5, 0.5, 0.5], [0.0, 0.0], [0.1 * k for k in range(30)]]
)
def test_curve_of_any_length_stays_inside_its_frame(values: list[float]) -> None:
    svg = curve_chart(values, 1, "validation AUC")
    assert inside(svg)
    assert len(places(svg, "circle", "cx")) == len(values) + 1


def test_curve_rises_where_the_values_do_and_says_its_numbers() -> None:
    svg = curve_chart([0.5, 0.6, 0.55], 2, "validation AUC")
    heights = [y for _, y in places(svg, "circle", "cx", "cy")]
    assert heights[1] < heights[2] < heights[0]  # SVG counts from the top
    assert heights[3] == heights[1]
    assert "first 0.5000, last 0.5500, 0.6000 at epoch 2" in svg


@pytest.mark.parametrize("is_log", [False, True])
def test_perfect_curve_lies_on_the_diagonal(is_log: bool) -> None:
    rates = np.array([0.01, 0.1, 0.5])
    svg = reliability_chart({"before": Reliability(rates, rates, np.full(3, 1000))}, is_log)
    diagonal = next(e for e in ET.fromstring(svg).iter("line") if e.get("class") == "best")
    x1, y1, x2, y2 = (float(diagonal.get(name, "nan")) for name in ("x1", "y1", "x2", "y2"))
    for x, y in places(svg, "circle", "cx", "cy"):
        assert y == pytest.approx(y1 + (x - x1) / (x2 - x1) * (y2 - y1), abs=0.2)


@pytest.mark.parametrize("is_log", [False, True])
@pytest.mark.parametrize("label", [0, 1])
def test_buckets_of_one_label_stay_inside_the_frame(is_log: bool, label: int) -> None:
    curve = reliability(np.linspace(1e-7, 1 - 1e-7, 50), np.full(50, label))
    svg = reliability_chart({"before": curve, "after": curve}, is_log)
    assert inside(svg)
    assert len(places(svg, "circle", "cx")) == 40


def test_bars_are_as_tall_as_their_shares_and_what_occurs_is_seen() -> None:
    bars = [Bar(0.5, "a"), Bar(0.25, "b"), Bar(1e-9, "c"), Bar(0.0, "d")]
    heights = [height for (height,) in places(histogram(bars), "rect", "height")]
    assert heights == [28, 14, 1, 0]


def test_reserved_bars_differ_and_labels_are_escaped() -> None:
    svg = histogram([Bar(0.1, "missing", is_reserved=True), Bar(0.9, "<b>&")])
    assert re.findall(r'rect class="(\w+)"', svg) == ["reserved", "bar"]
    assert "&lt;b&gt;&amp;: 90.00 %" in svg


def test_histogram_of_nothing_is_empty() -> None:
    assert places(histogram([]), "rect", "height") == []
    assert places(histogram([Bar(0.0, "a")]), "rect", "height") == [(0.0,)]
