"""Show when slabs were read, copied and used: as an SVG picture, or as Chrome trace events for Perfetto."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rotary_batch.engine.runtime.trace import Interval

ROWS = {
    "read": ("reads", "#4477aa"),
    "copy": ("copies", "#66ccee"),
    "attention": ("attention", "#cc6677"),
    "compute": ("experts", "#ddaa33"),
    "stall": ("waiting", "#999999"),
}
WIDTH, LEFT, ROW_HEIGHT = 1200, 90, 34
SHOWN_S, SHOWN_INTERVALS = 3.0, 1500  # the last of a run; more would be a blur


def save_timeline(intervals: Sequence[Interval], path: Path) -> None:
    """Write a picture of the last seconds, or every interval as trace events where the name ends in .json."""
    path.write_text(json.dumps(trace_events(intervals)) if path.suffix == ".json" else svg(intervals))


def trace_events(intervals: Sequence[Interval]) -> dict[str, Any]:
    """The Trace Event Format: one track for each kind of interval, microseconds from the first one.

    Intervals of two prefetchers overlap, which complete events of one track must not: they are on tracks of their own.
    """
    origin_s = min((one.start_s for one in intervals), default=0.0)
    events: list[dict[str, Any]] = []
    track = 0
    for kind, (title, _) in ROWS.items():
        for lane in _lanes([one for one in intervals if one.kind == kind]):
            track += 1
            events.append({"ph": "M", "name": "thread_name", "pid": 1, "tid": track, "args": {"name": title}})
            events += [
                {
                    "ph": "X",
                    "name": one.label,
                    "cat": kind,
                    "pid": 1,
                    "tid": track,
                    "ts": (one.start_s - origin_s) * 1e6,
                    "dur": (one.end_s - one.start_s) * 1e6,
                }
                for one in lane
            ]
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def _lanes(intervals: Sequence[Interval]) -> list[list[Interval]]:
    """The intervals in as few lists as possible, none with two that overlap."""
    lanes: list[list[Interval]] = []
    for one in sorted(intervals, key=lambda interval: interval.start_s):
        lane = next((lane for lane in lanes if lane[-1].end_s <= one.start_s), None)
        if lane is None:
            lanes.append([one])
        else:
            lane.append(one)
    return lanes


def svg(intervals: Sequence[Interval]) -> str:
    """A picture of the last seconds: one row for each kind, with the labels of intervals as titles."""
    end_s = max((one.end_s for one in intervals), default=0.0)
    last = sorted(one.start_s for one in intervals)[-SHOWN_INTERVALS:]
    start_s = max(end_s - SHOWN_S, last[0] if last else 0.0)
    scale = (WIDTH - LEFT - 10) / max(end_s - start_s, 1e-9)  # pixels per second
    shown = [one for one in intervals if one.end_s > start_s]
    parts = [_row(place, kind, shown, start_s, scale) for place, kind in enumerate(ROWS)]
    height = 10 + len(ROWS) * ROW_HEIGHT + 24
    tick_s = 0.25 if end_s - start_s > 1 else 0.05
    for tick in range(int((end_s - start_s) / tick_s) + 1):
        x = LEFT + tick * tick_s * scale
        parts.append(f'<text x="{x:.0f}" y="{height - 6}" font-size="11">{tick * tick_s:g} s</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif">'
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>{"".join(parts)}</svg>\n'
    )


def _row(place: int, kind: str, shown: Sequence[Interval], start_s: float, scale: float) -> str:
    title, colour = ROWS[kind]
    y = 10 + place * ROW_HEIGHT
    parts = [f'<text x="4" y="{y + 18}" font-size="13">{title}</text>']
    for one in shown:
        if one.kind == kind:
            begin_s = max(one.start_s, start_s)
            x, width = LEFT + (begin_s - start_s) * scale, max(0.3, (one.end_s - begin_s) * scale)
            box = f'x="{x:.1f}" y="{y}" width="{width:.1f}" height="{ROW_HEIGHT - 8}" fill="{colour}"'
            parts.append(f"<rect {box}><title>{one.label}: {(one.end_s - one.start_s) * 1e3:.1f} ms</title></rect>")
    return "".join(parts)
