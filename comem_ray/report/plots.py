"""Line and point plots as inline SVG: a <figure> with a title, a drawing and a legend.

Colours are classes of report.css, which has them for light and dark. The drawing is as wide as a phone, so that its
text keeps its size there. The same numbers always give the same text. Knows nothing of what it draws.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

WIDTH, HEIGHT = 400, 270  # CSS pixels
LEFT, RIGHT, TOP, BOTTOM = 44, 20, 26, 42  # margins around the plotting area
_TICKS = 5  # intervals between ticks, at most
_MARKED = 40  # points of a line above which they are not marked
_CROWDED = 34  # pixels between ticks of an axis below which one is left out


@dataclass(frozen=True)
class Point:
    """`low` and `high` are its interval. `label` is drawn beside it; `description` is shown under the mouse."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    label: str = ""
    description: str = ""


@dataclass(frozen=True)
class Series:
    """Points under one name. `style` is the class of its colour. A "level" is a dashed line across the whole plot."""

    name: str
    style: str
    points: Sequence[Point]
    shape: Literal["line", "level", "points", "hollow"] = "line"


@dataclass(frozen=True)
class Axis:
    """`ticks` and `limits` follow from the data unless they are given. A y axis without a title has the plot's."""

    title: str
    log: bool = False
    ticks: Sequence[float] | None = None
    limits: tuple[float, float] | None = None


@dataclass(frozen=True)
class _Scale:
    """From a value of the data to a pixel."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        low, high, v = (math.log(x) if self.log else x for x in (self.low, self.high, value))
        return self.start + (self.end - self.start) * ((v - low) / (high - low) if high > low else 0.5)


def plot(title: str, x: Axis, y: Axis, series: Sequence[Series]) -> Markup:
    """The figure. On a logarithmic axis every value must be above zero; the x of a level is ignored."""
    xs = [p.x for s in series if s.shape != "level" for p in s.points]
    ys = [v for s in series for p in s.points for v in (p.y, p.low, p.high) if v is not None]
    across, x_ticks = _scale(x, xs, LEFT, WIDTH - RIGHT)
    up, y_ticks = _scale(y, ys, HEIGHT - BOTTOM, TOP)
    body = [_axes(x, y, across, up, x_ticks, y_ticks)]
    body += [_interval(s, across, up) for s in series] + [_series(s, across, up) for s in series]
    description = f"{title}. {y.title or title} against {x.title}. " + ". ".join(map(_description, series))
    drawing = _tag("svg", *body, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=description)
    return _tag("figure", _tag("figcaption", title), drawing, _legend(series), class_="plot")


def _scale(axis: Axis, values: Sequence[float], start: float, end: float) -> tuple[_Scale, list[float]]:
    low, high = axis.limits or (min(values, default=0), max(values, default=1))
    if axis.ticks is not None:
        ticks = sorted(axis.ticks)
        low, high = min([low, *ticks]), max([high, *ticks])
    elif axis.log:
        ticks = [t for t in _log_ticks(low, high) if low <= t <= high]
    else:
        ticks = _linear_ticks(low, high)
        if axis.limits is not None:
            ticks = [tick for tick in ticks if low <= tick <= high]
        low, high = min([low, *ticks]), max([high, *ticks])
    if axis.log:  # a little room at both ends
        low, high = low / (high / low) ** 0.04, high * (high / low) ** 0.04
    scale = _Scale(low, high, start, end, axis.log)
    return scale, _apart(ticks, scale) if axis.log or axis.ticks else ticks


def _linear_ticks(low: float, high: float) -> list[float]:
    """Round numbers around low..high, at most _TICKS + 2 of them."""
    if high <= low:
        low, high = low - (abs(low) or 1), high + (abs(high) or 1)
    power = 10.0 ** math.floor(math.log10((high - low) / _TICKS))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power * _TICKS >= (high - low) * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [m * 10.0**p for p in powers for m in (1, 2, 5)]


def _apart(ticks: Sequence[float], scale: _Scale) -> list[float]:
    """The ticks, without those that would touch the tick before."""
    kept: list[float] = []
    for tick in ticks:
        if not kept or abs(scale.at(tick) - scale.at(kept[-1])) >= _CROWDED:
            kept.append(tick)
    return kept


def _axes(x: Axis, y: Axis, across: _Scale, up: _Scale, x_ticks: Sequence[float], y_ticks: Sequence[float]) -> Markup:
    parts = []
    for tick in y_ticks:
        at = up.at(tick)
        parts.append(_tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=at, y2=at, class_="grid"))
        parts.append(_tag("text", short(tick), x=LEFT - 6, y=at + 4, class_="tick", text_anchor="end"))
    floor = HEIGHT - BOTTOM
    for tick in x_ticks:
        at = across.at(tick)
        parts.append(_tag("line", x1=at, x2=at, y1=floor, y2=floor + 4, class_="axis"))
        parts.append(_tag("text", short(tick), x=at, y=floor + 17, class_="tick", text_anchor="middle"))
    parts.append(_tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=floor, y2=floor, class_="axis"))
    parts.append(_tag("text", y.title, x=4, y=12, class_="name"))
    parts.append(_tag("text", x.title, x=WIDTH - RIGHT, y=HEIGHT - 6, class_="name", text_anchor="end"))
    return Markup("").join(parts)


def _interval(series: Series, across: _Scale, up: _Scale) -> Markup:
    """A band along a line, a bar at a point."""
    intervals = [(p.x, p.low, p.high) for p in series.points if p.low is not None and p.high is not None]
    if not intervals:
        return Markup("")
    if series.shape == "level":
        intervals = [(end, low, high) for end in (across.low, across.high) for _, low, high in intervals[:1]]
    if series.shape in ("line", "level") and len(intervals) > 1:
        outline = [(x, low) for x, low, _ in intervals] + [(x, high) for x, _, high in reversed(intervals)]
        return _tag("polygon", points=_path(outline, across, up), class_=f"band {series.style}")
    bars = [
        _tag("line", x1=across.at(x), x2=across.at(x), y1=up.at(low), y2=up.at(high), class_=f"bar {series.style}")
        for x, low, high in intervals
    ]
    return Markup("").join(bars)


def _series(series: Series, across: _Scale, up: _Scale) -> Markup:
    parts = []
    if series.shape == "level":
        ends = [(end, series.points[0].y) for end in (across.low, across.high)]
        line = _tag("polyline", points=_path(ends, across, up), class_=f"line level {series.style}")
        return _tag("g", _tag("title", series.points[0].description or series.name), line)
    if series.shape == "line":
        points = [(p.x, p.y) for p in series.points]
        long = " long" if len(points) > _MARKED else ""
        parts.append(_tag("polyline", points=_path(points, across, up), class_=f"line {series.style}{long}"))
    if series.shape != "line" or len(series.points) <= _MARKED:
        parts += [_mark(series, n, p, across, up) for n, p in enumerate(series.points)]
    return Markup("").join(parts)


def _mark(series: Series, number: int, point: Point, across: _Scale, up: _Scale) -> Markup:
    x, y = across.at(point.x), up.at(point.y)
    hollow = " hollow" if series.shape == "hollow" else ""
    title = _tag("title", point.description or f"{series.name}: {short(point.x)}, {short(point.y)}")
    parts = [_tag("circle", title, cx=x, cy=y, r=3.5, class_=f"mark {series.style}{hollow}")]
    if point.label:
        right = x > WIDTH - RIGHT - 34
        below = number % 2 and y < HEIGHT - BOTTOM - 16  # neighbours may be close
        at = {"x": x - 6 if right else x + 6, "y": y + (14 if below else -6)}
        parts.append(_tag("text", point.label, **at, class_="label", text_anchor="end" if right else "start"))
    return Markup("").join(parts)


def _path(points: Sequence[tuple[float, float]], across: _Scale, up: _Scale) -> str:
    return " ".join(f"{across.at(x):.1f},{up.at(y):.1f}" for x, y in points)


def _legend(series: Sequence[Series]) -> Markup:
    if len(series) < 2:
        return Markup("")
    entries = []
    for one in series:
        kind = {"level": " level", "hollow": " hollow"}.get(one.shape, "")
        swatch = _tag("span", class_=f"swatch {one.style}{kind}", aria_hidden="true")
        entries.append(_tag("li", swatch, one.name))
    return _tag("ul", *entries, class_="legend")


def _description(series: Series) -> str:
    """A series in words, for readers who cannot see it; a long one by its first and last point."""
    points = series.points if len(series.points) <= _MARKED else [series.points[0], series.points[-1]]
    values = "; ".join(p.description or f"{short(p.x)}: {short(p.y)}" for p in points)
    return f"{series.name}: {values}"


def short(value: float) -> str:
    """A number for an axis: 2500 -> 2500, 25000 -> 25k, 3000000 -> 3M."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size and abs(value) >= 1e4:
            return f"{value / size:.4g}{letter}"
    return f"{value:.4g}"


def _tag(tag_name: str, *children: str, **attributes: str | float) -> Markup:
    """An element. `class_` is class, `aria_label` is aria-label. Text and attributes are escaped, Markup is not."""
    attribute_text = Markup("").join(
        Markup(' {}="{}"').format(
            key.rstrip("_").replace("_", "-"), f"{value:.1f}" if isinstance(value, float) else value
        )
        for key, value in attributes.items()
    )
    return Markup("<{0}{1}>{2}</{0}>").format(tag_name, attribute_text, Markup("").join(children))
