"""Say at the start of a run when it will stop."""

from __future__ import annotations

import re
import time
from datetime import datetime

from rotary_batch import console
from rotary_batch.sizes import duration_text
from rotary_batch.window import Window

LONG_S = 16 * 3600  # longer than a night and the evening before it: a slip, more often than not


def announce_deadline(window: Window, *, until: str | None, duration: str | None) -> None:
    """Print when the run stops, and a question when that is so far away that it may be a slip."""
    left = window.seconds_left
    if left is None:
        return
    console.info(deadline_text(left, time.time()))
    if left > LONG_S and (until or duration):
        console.info(f"warning: that is more than 16 hours away; {_instead(until, duration)}")


def deadline_text(seconds_left: float, now: float) -> str:
    """`until Sat 28 Nov 07:00, in 21 h 20 min`."""
    moment = datetime.fromtimestamp(round(now + seconds_left))  # noqa: DTZ006 - the time that the wall clock shows
    return f"until {moment:%a} {moment.day} {moment:%b %H:%M}, in {duration_text(seconds_left)}"


def _instead(until: str | None, duration: str | None) -> str:
    """What may have been meant: the other half of the day, or minutes."""
    if until is not None:
        hour, minute = until.split(":")
        return f"did you mean --until {(int(hour) + 12) % 24:02}:{minute}, or --for 8h?"
    hours = re.fullmatch(r"(\d+)h", duration or "")
    return f"did you mean --for {hours[1]}m?" if hours else "did you mean --for 8h?"
