"""Plots of a run as SVG: lines over the time of day, and a bar of shares.  Colours are classes of the page's style."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT = 420, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 10, 24  # around the lines
_TICKS_S = (10, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)
_MOST_TIMES, _MOST_VALUES = 5, 4


class Series(NamedTuple):
    """A line: its name, its class, and its points (seconds since the start, value)."""

    name: str
    style: str
    points: Sequence[tuple[float, float]]
    is_filled: bool = False


def written(value: float) -> str:
    """A number of an axis; whole ones have no decimals, and no two ticks look alike."""
    return f"{value:,.0f}" if abs(value - round(value)) < 1e-9 else f"{value:,.3g}"


class Axes(NamedTuple):
    """What a plot is about."""

    begun: datetime  # local time at 0 seconds
    seconds: float  # that the plot is wide
    top: float | None = None  # of the values; None = what fits them
    write: Callable[[float], str] = written  # a value


def line_plot(label: str, axes: Axes, lines: Sequence[Series]) -> str:
    """One plot; `label` says what it shows to those who cannot see it."""
    values = [value for line in lines for _, value in line.points]
    ticks = _value_ticks(axes.top or max(values, default=0.0))
    scale = _Scale(axes.seconds, ticks[-1])
    return "".join(
        [
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">',
            *_value_axis(scale, ticks, axes.write),
            *_time_axis(scale, axes),
            *(_drawn(scale, line) for line in lines if line.points),
            *_hints(scale, axes, lines),
            "</svg>",
        ]
    )


class _Scale(NamedTuple):
    seconds: float
    top: float

    def x(self, seconds: float) -> float:
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * min(1.0, seconds / self.seconds if self.seconds else 0.0)

    def y(self, value: float) -> float:
        return HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * min(1.0, max(0.0, value / self.top))


def _value_ticks(top: float) -> list[float]:
    """Round numbers from 0 to the first that is not below `top`."""
    if not math.isfinite(top) or top <= 0:
        return [0.0, 1.0]
    magnitude = 10.0 ** math.floor(math.log10(top / _MOST_VALUES))
    step = next(magnitude * n for n in (1, 2, 2.5, 5, 10) if magnitude * n * _MOST_VALUES >= top * (1 - 1e-9))
    return [step * n for n in range(math.ceil(top / step - 1e-9) + 1)]


def _value_axis(scale: _Scale, ticks: Sequence[float], write: Callable[[float], str]) -> Iterator[str]:
    for value in ticks:
        y = scale.y(value)
        yield f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text class="tick" x="{_LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{escape(write(value))}</text>'


def _time_axis(scale: _Scale, axes: Axes) -> Iterator[str]:
    """Round times of day."""
    every = next((s for s in _TICKS_S if axes.seconds / s <= _MOST_TIMES), _TICKS_S[-1])
    midnight = axes.begun.replace(hour=0, minute=0, second=0, microsecond=0)
    first = every * math.ceil((axes.begun - midnight).total_seconds() / every)
    moment = midnight + timedelta(seconds=first)
    form = "%H:%M" if every >= 60 else "%H:%M:%S"
    while (at_s := (moment - axes.begun).total_seconds()) <= axes.seconds:
        x = min(max(scale.x(at_s), _LEFT + 14), WIDTH - _RIGHT - 16)
        yield f'<text class="tick" x="{x:.1f}" y="{HEIGHT - 7}" text-anchor="middle">{moment.strftime(form)}</text>'
        moment += timedelta(seconds=every)


def _drawn(scale: _Scale, line: Series) -> str:
    points = [f"{scale.x(at_s):.1f},{scale.y(value):.1f}" for at_s, value in line.points]
    if len(points) == 1:
        x, _, y = points[0].partition(",")
        return f'<circle class="dot {line.style}" cx="{x}" cy="{y}" r="3"/>'
    area = ""
    if line.is_filled:
        start, end = points[0].partition(",")[0], points[-1].partition(",")[0]
        area = (
            f'<polygon class="area {line.style}" points="{start},{scale.y(0)} {" ".join(points)} {end},{scale.y(0)}"/>'
        )
    return f'{area}<polyline class="line {line.style}" points="{" ".join(points)}"/>'


def _hints(scale: _Scale, axes: Axes, lines: Sequence[Series]) -> Iterator[str]:
    """What the pointer is told above each point of the first line: the time and all values there."""
    points = lines[0].points if lines else ()
    for place, (at_s, _) in enumerate(points):
        left = scale.x(points[place - 1][0] if place else 0.0)
        values = [f"{line.name} {axes.write(line.points[place][1])}" for line in lines if place < len(line.points)]
        moment = (axes.begun + timedelta(seconds=at_s)).strftime("%H:%M:%S")
        yield (
            f'<rect class="hint" x="{left:.1f}" y="{_TOP}" width="{max(0.0, scale.x(at_s) - left):.1f}" '
            f'height="{HEIGHT - _TOP - _BOTTOM}"><title>{moment}: {escape(", ".join(values))}</title></rect>'
        )


class Part(NamedTuple):
    """A part of a bar: its name, its class, and how many."""

    name: str
    style: str
    number: int


def share_bar(label: str, parts: Sequence[Part]) -> str:
    """A bar of the parts, with their names and numbers below it."""
    total = sum(part.number for part in parts)
    if not total:
        return ""
    drawn, x = [], 0.0
    for part in parts:
        width = 1000 * part.number / total
        drawn.append(
            f'<rect class="part {part.style}" x="{x:.2f}" y="0" width="{width:.2f}" height="28">'
            f"<title>{escape(part.name)}: {part.number:,}</title></rect>"
        )
        x += width
    bar = "".join(drawn)
    return (
        f'<svg class="bar" viewBox="0 0 1000 28" preserveAspectRatio="none" role="img" aria-label="{escape(label)}">'
        f"{bar}</svg>{legend([(part.name, part.style, f'{part.number:,}') for part in parts if part.number])}"
    )


def legend(entries: Sequence[tuple[str, str, str]]) -> str:
    """Names beside their colours: (name, class, value)."""
    shown = "".join(
        f'<li><span class="key {style}"></span>{escape(name)}{f" <b>{escape(value)}</b>" if value else ""}</li>'
        for name, style, value in entries
    )
    return f'<ul class="legend">{shown}</ul>'
