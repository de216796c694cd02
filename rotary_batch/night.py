"""When a run must stop: a deadline, a number of items, a signal.

Knows clocks and signals; knows nothing of the queue or the engine.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import FrameType

from rotary_batch.errors import UsageError

_SECONDS = {"s": 1, "m": 60, "h": 3600}


@dataclass(slots=True, kw_only=True)
class Window:
    """How long a run may go on.  Signal handlers set `interrupted`; the run reads it between steps."""

    deadline: float | None = None  # seconds on `clock`
    max_items: int | None = None  # how many items may be taken up
    clock: Callable[[], float] = time.monotonic
    interrupted: bool = field(default=False, init=False)
    items_taken: int = field(default=0, init=False)

    @property
    def items_left(self) -> int | None:
        """How many more items may be taken up; None = any number."""
        return None if self.max_items is None else self.max_items - self.items_taken

    def why_closed(self) -> str | None:
        """Name the reason to stop now, or None."""
        if self.interrupted:
            return "interrupted"
        if self.deadline is not None and self.clock() >= self.deadline:
            return "deadline"
        return None

    def is_closed(self) -> bool:
        """Whether to stop now; handed down as `should_stop`."""
        return self.why_closed() is not None


def seconds_for(text: str) -> float:
    """Read `30m`, `2h`, `90s` or `1h30m`.  Raises UsageError."""
    if not re.fullmatch(r"(\d+[smh])+", text):
        raise UsageError(f"--for {text!r}: write a duration like 90s, 30m or 1h30m")
    return float(sum(int(n) * _SECONDS[unit] for n, unit in re.findall(r"(\d+)([smh])", text)))


def seconds_until(text: str, now: datetime) -> float:
    """Seconds from `now` (with a time zone) to the next local HH:MM.  Raises UsageError."""
    match = re.fullmatch(r"(\d{1,2}):(\d{2})", text)
    if not match or int(match[1]) > 23 or int(match[2]) > 59:
        raise UsageError(f"--until {text!r}: write a time of day like 07:00")
    # In local wall time, so that a night with a clock change still ends at the hour that was asked for.
    wall = now.replace(tzinfo=None)
    goal = wall.replace(hour=int(match[1]), minute=int(match[2]), second=0, microsecond=0)
    goal += timedelta(days=1) if goal <= wall else timedelta()
    return goal.astimezone().timestamp() - now.timestamp()


@contextmanager
def stop_on_signals(window: Window) -> Iterator[None]:
    """SIGINT and SIGTERM close the window; a second SIGINT ends the process at once."""

    def close(signum: int, _frame: FrameType | None) -> None:
        if window.interrupted and signum == signal.SIGINT:
            os._exit(130)  # whatever was committed is safe; the next run goes on from there
        window.interrupted = True

    before = {number: signal.signal(number, close) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
