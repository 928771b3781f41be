"""The report's charts as inline SVG: numbers in, markup out; colours are the page's CSS classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

import numpy as np
from markupsafe import Markup

from model.reliability import Reliability

_LEFT, _RIGHT, _TOP, _BOTTOM = 50.0, 14.0, 12.0, 38.0
_BAR, _GAP, _SPARK_HEIGHT = 5.0, 1.0, 28.0
_MOST_EPOCH_TICKS = 8
# Rates below are drawn at it: a bucket without a click has no logarithm.
_LEAST_RATE = 1e-5


@dataclass(frozen=True)
class Bar:
    """One bar of a histogram.

    Args:
        share: of all values, 0 to 1.
        label: what the bar stands for.
        is_reserved: whether it is missing or unknown.
    """

    share: float
    label: str
    is_reserved: bool = False


@dataclass(frozen=True)
class _Frame:
    """A drawing's size and the numbers along its edges.

    Args:
        size: width and height in the units of the page's text.
        x: least and greatest number from left to right.
        y: the same from bottom to top.
    """

    size: tuple[float, float]
    x: tuple[float, float]
    y: tuple[float, float]

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Where a point lies in the drawing."""
        width, height = self.size
        right = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return (
            _LEFT + right * (width - _LEFT - _RIGHT),
            height - _BOTTOM - up * (height - _TOP - _BOTTOM),
        )

    def line(self, kind: str, start: tuple[float, float], end: tuple[float, float]) -> Markup:
        """A straight line between two points."""
        return Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(
            kind, *self.place(*start), *self.place(*end)
        )

    def dot(self, kind: str, x: float, y: float, radius: float) -> Markup:
        """A circle around a point."""
        return Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="{}"/>').format(
            kind, *self.place(x, y), radius
        )

    def x_tick(self, x: float, text: str) -> Markup:
        """A number under the drawing."""
        across, down = self.place(x, self.y[0])
        return _text("middle", across, down + 15, text)

    def y_tick(self, y: float, text: str) -> Markup:
        """A number left of the drawing, and a line at its height."""
        across, down = self.place(self.x[0], y)
        grid = self.line("grid", (self.x[0], y), (self.x[1], y))
        return grid + _text("end", across - 7, down + 3.5, text)

    def x_title(self, text: str) -> Markup:
        """What the numbers under the drawing are."""
        middle = (_LEFT + self.size[0] - _RIGHT) / 2
        return _text("middle", middle, self.size[1] - 5, text)

    def svg(self, parts: Sequence[Markup], spoken: str) -> Markup:
        """The whole drawing; `spoken` is read out in its stead."""
        return Markup(
            '<svg role="img" viewBox="0 0 {:.0f} {:.0f}" aria-label="{}">{}</svg>'
        ).format(*self.size, spoken, Markup("").join(parts))


def curve_chart(values: Sequence[float], best: int, label: str) -> Markup:
    """One value per epoch as a line, the best epoch marked.

    Args:
        values: at least one, of epochs 1, 2, ...
        best: the epoch whose weights were kept.
        label: what is measured.
    """
    ticks, epochs = nice_ticks(min(values), max(values)), len(values)
    # One epoch stands in the middle.
    span = (0.5, 1.5) if epochs == 1 else (1.0, float(epochs))
    frame = _Frame((270, 180), span, (ticks[0], ticks[-1]))
    step = ceil(epochs / _MOST_EPOCH_TICKS)
    line = " ".join("{:.1f},{:.1f}".format(*frame.place(*p)) for p in enumerate(values, 1))
    parts = [
        *(frame.y_tick(tick, _tick_text(tick, ticks)) for tick in ticks),
        *(frame.x_tick(epoch, str(epoch)) for epoch in range(1, epochs + 1, step)),
        frame.x_title("epoch"),
        frame.line("best", (best, ticks[0]), (best, ticks[-1])),
        Markup('<polyline class="line" points="{}"/>').format(line),
        *(frame.dot("dot", epoch, value, 2.5) for epoch, value in enumerate(values, 1)),
        frame.dot("dot", best, values[best - 1], 4.5),
    ]
    spoken = f"{label} per epoch: first {values[0]:.4f}, last {values[-1]:.4f}"
    return frame.svg(parts, f"{spoken}, {values[best - 1]:.4f} at epoch {best}")


def reliability_chart(curves: dict[str, Reliability], is_log: bool) -> Markup:
    """Observed CTR against mean score per bucket.

    Args:
        curves: by the CSS class in which they are drawn.
        is_log: whether both axes are logarithmic, to tell small probabilities apart.
    """
    rates = np.concatenate([r for c in curves.values() for r in (c.predicted, c.observed)])
    if is_log:
        low = floor(log10(max(rates[rates > 0].min(initial=1), _LEAST_RATE)))
        ticks = [float(power) for power in range(min(low, -1), 1)]
        texts = [f"{10**power:.{-int(power)}f}" for power in ticks]
    else:
        ticks = nice_ticks(0, float(rates.max()))
        texts = [_tick_text(tick, ticks) for tick in ticks]
    span = ticks[0], ticks[-1]
    frame = _Frame((520, 330), span, span)
    parts = [
        *(frame.y_tick(tick, text) for tick, text in zip(ticks, texts, strict=True)),
        *(frame.x_tick(tick, text) for tick, text in zip(ticks, texts, strict=True)),
        frame.x_title("mean predicted click probability"),
        frame.line("best", (span[0], span[0]), (span[1], span[1])),
    ]

    def along(rate: float) -> float:
        number = log10(max(rate, _LEAST_RATE)) if is_log else rate
        return min(max(number, span[0]), span[1])

    for kind, curve in curves.items():
        parts += _curve_parts(frame, kind, curve, along)
    return frame.svg(parts, "Observed click rate against mean predicted click probability")


def _curve_parts(
    frame: _Frame, kind: str, curve: Reliability, along: Callable[[float], float]
) -> list[Markup]:
    parts = []
    columns = (curve.predicted, curve.observed, *curve.interval())
    for buckets in zip(*columns, strict=True):
        predicted, observed, low, high = (along(float(rate)) for rate in buckets)
        parts.append(frame.line(f"{kind} whisker", (predicted, low), (predicted, high)))
        parts.append(frame.dot(kind, predicted, observed, 3.5))
    return parts


def histogram(bars: Sequence[Bar]) -> Markup:
    """Small bars side by side, each with its label and share as a tooltip."""
    width = len(bars) * (_BAR + _GAP)
    most = max((bar.share for bar in bars), default=0) or 1.0
    parts = [_bar(place, bar, bar.share / most) for place, bar in enumerate(bars)]
    return Markup(
        '<svg class="spark" role="img" width="{0:.0f}" height="{1:.0f}" '
        'viewBox="0 0 {0:.0f} {1:.0f}" aria-label="share of values in {2} bars">{3}</svg>'
    ).format(width, _SPARK_HEIGHT, len(bars), Markup("").join(parts))


def _bar(place: int, bar: Bar, height: float) -> Markup:
    # What occurs at all is seen.
    tall = max(height * _SPARK_HEIGHT, 1.0 if bar.share else 0.0)
    return Markup(
        '<rect class="{}" x="{:.0f}" y="{:.1f}" width="{:.0f}" height="{:.1f}">'
        "<title>{}: {:.2f} %</title></rect>"
    ).format(
        "reserved" if bar.is_reserved else "bar",
        place * (_BAR + _GAP),
        _SPARK_HEIGHT - tall,
        _BAR,
        tall,
        bar.label,
        100 * bar.share,
    )


def nice_ticks(low: float, high: float) -> list[float]:
    """Round numbers, equally far apart, at most six: from at most `low` to at least `high`."""
    spread = high - low
    if spread <= max(1e-6 * abs(high), 1e-9):  # one number, or as good as one
        spread = max(abs(high) / 10, 1e-3)
    magnitude = 10.0 ** floor(log10(spread / 4))
    step = next(m * magnitude for m in (1, 2, 5, 10) if spread <= 4.001 * m * magnitude)
    first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
    return [number * step for number in range(first, max(last, first + 1) + 1)]


def _tick_text(tick: float, ticks: Sequence[float]) -> str:
    decimals = max(0, -floor(log10(ticks[1] - ticks[0]) + 1e-9))
    return f"{tick:.{decimals}f}"


def _text(anchor: str, x: float, y: float, text: str) -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}">{}</text>').format(anchor, x, y, text)
