"""Draw when slabs came and when they were used, as one SVG picture, so that a bubble can be seen.

Knows rectangles and seconds; needs no drawing library.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

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


def draw(intervals: Sequence[Interval], target: Path) -> None:
    """Write the picture of the last seconds; one row for each kind, experts labelled by layer in their titles."""
    end = max((one.end_s for one in intervals), default=0.0)
    last = sorted(one.start_s for one in intervals)[-SHOWN_INTERVALS:]
    start = max(end - SHOWN_S, last[0] if last else 0.0)
    scale = (WIDTH - LEFT - 10) / max(end - start, 1e-9)
    parts = []
    for place, (kind, (label, colour)) in enumerate(ROWS.items()):
        y = 10 + place * ROW_HEIGHT
        parts.append(f'<text x="4" y="{y + 18}" font-size="13">{label}</text>')
        for one in intervals:
            if one.kind == kind and one.end_s > start:
                begin = max(one.start_s, start)
                x, width = LEFT + (begin - start) * scale, max(0.3, (one.end_s - begin) * scale)
                title = f"<title>{one.label}: {(one.end_s - one.start_s) * 1e3:.1f} ms</title>"
                box = f'x="{x:.1f}" y="{y}" width="{width:.1f}" height="{ROW_HEIGHT - 8}" fill="{colour}"'
                parts.append(f"<rect {box}>{title}</rect>")
    height = 10 + len(ROWS) * ROW_HEIGHT + 24
    step = 0.25 if end - start > 1 else 0.05
    for tick in range(int((end - start) / step) + 1):
        x = LEFT + tick * step * scale
        parts.append(f'<text x="{x:.0f}" y="{height - 6}" font-size="11">{tick * step:g} s</text>')
    target.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif">'
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>{"".join(parts)}</svg>\n'
    )
