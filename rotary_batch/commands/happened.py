"""The forecast that a run was begun with, beside what happened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Happened(NamedTuple):
    """A forecast beside what came of it."""

    what: str  # `items`, at the moment when the run stopped; `seconds`, when nothing was left
    forecast: float
    actual: float

    @property
    def error(self) -> float:
        """Of the forecast, as a share of what happened."""
        return self.forecast / self.actual - 1 if self.actual else 0.0


def happened(stats: Mapping[str, Any], *, is_done: bool) -> Happened | None:
    """The forecast of a run beside what it did; None when there was none."""
    told, drain_s = stats.get("forecast"), float(stats.get("drain_s", 0.0))
    if not told or not drain_s:
        return None
    if is_done:
        return Happened("seconds", told["seconds"], drain_s)
    ended = stats.get("done", 0) + stats.get("reused", 0) + stats.get("parked_by_run", stats.get("parked", 0))
    return Happened("items", at_moment(told["curve"], drain_s), ended)


def at_moment(curve: Sequence[Sequence[float]], moment: float) -> float:
    """The value of a curve at a moment, on a straight line between its points."""
    before = curve[0]
    for point in curve:
        if point[0] >= moment:
            span = point[0] - before[0]
            return before[1] + (point[1] - before[1]) * ((moment - before[0]) / span if span else 1.0)
        before = point
    return float(before[1])
