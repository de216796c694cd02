"""When a run may work and must stop: hours of the day, a duration, a number of items, a signal.

A command makes one `Window` at its start, and every phase checks it.  Loops in modules that do not import this one
take `should_stop` (`Window.is_closed`) and raise `StoppedError` when it returns true.  A signal ends a phase at once,
except in a block that is `finishing`.
"""

from __future__ import annotations

import re
import signal
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import FrameType
from typing import NamedTuple

from rotary_batch import interrupts
from rotary_batch.errors import RotaryError, StoppedError, UsageError
from rotary_batch.interrupts import Interrupt

_SECONDS = {"s": 1, "m": 60, "h": 3600}
_PROBE_S = 900  # no time zone ever changed its clock twice within 15 minutes
SOFT_STOP_STEPS = 2  # that must fit before a deadline, for anything new to begin

Clock = Callable[[], float]
ShowWall = Callable[[float], datetime]  # local time without a zone at an instant


def boot_clock() -> float:
    """Seconds since boot, including time in suspension."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Clocks(NamedTuple):
    """The clocks of the machine: seconds since 1970, seconds since boot, and what the wall clock shows."""

    wall: Clock
    boot: Clock
    show: ShowWall = datetime.fromtimestamp


class Deadline(NamedTuple):
    """An instant, in seconds on its own clock."""

    at: float
    clock: Clock

    @property
    def seconds_left(self) -> float:
        """Seconds until it passes.  The clock is read each time, so time in suspension counts."""
        return self.at - self.clock()


@dataclass(slots=True, kw_only=True)
class Window:
    """How long a run may go on.  Signal handlers set `interrupted`; every phase reads it between steps."""

    deadlines: Sequence[Deadline] = ()
    max_items: int | None = None  # how many items may be claimed
    interrupted: bool = field(default=False, init=False)
    items_taken: int = field(default=0, init=False)
    answer: str | None = field(default=None, init=False)  # to a signal in a block that is finishing; elsewhere None

    @property
    def items_left(self) -> int | None:
        """How many more items may be claimed; None = any number."""
        return None if self.max_items is None else self.max_items - self.items_taken

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the first deadline; None = no deadline."""
        return min((deadline.seconds_left for deadline in self.deadlines), default=None)

    def why_closed(self) -> str | None:
        """The reason to stop now, or None."""
        if self.interrupted:
            return "interrupted"
        if any(deadline.seconds_left <= 0 for deadline in self.deadlines):
            return "deadline"
        return None

    def is_closed(self) -> bool:
        """Whether to stop now; passed down as `should_stop`."""
        return self.why_closed() is not None

    def is_closing(self, step_s: float) -> bool:
        """Whether nothing new should begin, as the deadline is less than two steps of `step_s` away.

        What is live goes on.  A new sequence would be read in the first of them, and again in the next run.
        """
        left = self.seconds_left
        return left is not None and left < SOFT_STOP_STEPS * step_s

    def check(self) -> None:
        """Raise StoppedError when it is time to stop."""
        if why := self.why_closed():
            raise StoppedError(f"{why}: stopped before the work was done; {interrupts.how_to_go_on()}")

    @contextmanager
    def finishing(self, answer: str) -> Iterator[None]:
        """In this block a first signal only closes the window, and says `answer`, if that is not empty."""
        before, self.answer = self.answer, answer
        try:
            yield
        finally:
            self.answer = before

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """In this part of a block that is finishing, a signal raises StoppedError wherever the program is."""
        before, self.answer = self.answer, None
        try:
            self.check()
            with _stopped_by_interrupts(self):
                yield
        finally:
            self.answer = before


def open_window(
    *,
    until: str | None,
    duration: str | None,
    hours: str | None = None,
    max_items: int | None = None,
    clocks: Clocks | None = None,
) -> Window:
    """The window that `--until`, `--for`, `--window` and `--limit` ask for.

    Raises UsageError, and StoppedError outside the hours of `--window`.
    """
    found = deadlines(until=until, duration=duration, hours=hours, clocks=clocks)
    return Window(deadlines=found, max_items=max_items)


@contextmanager
def _stopped_by_interrupts(window: Window) -> Iterator[None]:
    """Raises a StoppedError where an Interrupt ends the block."""
    try:
        yield
    except (Interrupt, RuntimeError) as error:
        if interrupts.came_of_one(error):
            window.check()
        raise


@contextmanager
def explain_stop(window: Window) -> Iterator[None]:
    """A StoppedError from the block says why the window is closed, and so does what an interrupt broke."""
    try:
        yield
    except StoppedError:
        window.check()
        raise
    except (Interrupt, RotaryError, RuntimeError) as error:
        # `git` gets the signal of the terminal too, and fails first.
        if window.interrupted and (isinstance(error, RotaryError) or interrupts.came_of_one(error)):
            window.check()
        raise


def deadlines(
    *, until: str | None, duration: str | None, hours: str | None = None, clocks: Clocks | None = None
) -> list[Deadline]:
    """The deadlines that `--until`, `--for` and `--window` ask for.

    A time of day is an instant on the wall clock, so it moves when that clock is set.  A duration is counted on the
    clock since boot, which no time server sets and which runs on while the machine is suspended.  Raises UsageError,
    and StoppedError outside the hours: a timer that missed its hour fires when the machine is next switched on.
    """
    clocks = clocks or Clocks(time.time, boot_clock)
    now = clocks.wall()
    result = []
    if duration is not None:
        result.append(Deadline(clocks.boot() + seconds_for(duration), clocks.boot))
    if until is not None:
        result.append(Deadline(next_instant(*time_of_day(until), now, clocks.show), clocks.wall))
    if hours is not None:
        result.append(Deadline(_end_of_hours(hours, now, clocks.show), clocks.wall))
    return result


def _end_of_hours(hours: str, now: float, show: ShowWall) -> float:
    """When `23:00-07:00` ends; the wall clock must show a time in them now."""
    start, end = hours_of_day(hours)
    shown = show(now).hour, show(now).minute
    is_inside = start <= shown < end if start < end else shown >= start or shown < end
    if not is_inside:
        raise StoppedError(
            f"--window: it is {show(now):%H:%M}, outside {hours}; nothing was done, and the same command works from "
            f"{start[0]:02}:{start[1]:02} on"
        )
    return next_instant(*end, now, show)


def hours_of_day(text: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """Read `HH:MM-HH:MM`: the start, which belongs to the hours, and the end, which does not.  Raises UsageError."""
    parts = [_time_of_day(part) for part in text.split("-")]
    if len(parts) == 2 and parts[0] and parts[1] and parts[0] != parts[1]:
        return parts[0], parts[1]
    raise UsageError(f"--window: {text!r} is not two times of day; write HH:MM-HH:MM, for example 23:00-07:00")


def seconds_for(text: str) -> float:
    """Read `30m`, `2h`, `90s` or `1h30m`.  Raises UsageError."""
    if not re.fullmatch(r"([0-9]{1,9}[smh])+", text) or not re.search("[1-9]", text):
        raise UsageError(f"--for: {text!r} is not a duration; write for example 90s, 30m or 1h30m")
    return float(sum(int(n) * _SECONDS[unit] for n, unit in re.findall(r"([0-9]+)([smh])", text)))


def time_of_day(text: str) -> tuple[int, int]:
    """Read `HH:MM`.  Raises UsageError."""
    if (found := _time_of_day(text)) is None:
        raise UsageError(f"--until: {text!r} is not a time of day; write HH:MM, for example 07:00")
    return found


def _time_of_day(text: str) -> tuple[int, int] | None:
    match = re.fullmatch(r"([0-9]{1,2}):([0-9]{2})", text)
    return (int(match[1]), int(match[2])) if match and int(match[1]) < 24 and int(match[2]) < 60 else None


def next_instant(hour: int, minute: int, now: float, show: ShowWall = datetime.fromtimestamp) -> float:
    """The first instant after `now` at which the wall clock shows hour:minute, or is set forward past it.

    When the change to summer time skips that time, this is the end of the gap.  When the change to winter time repeats
    it, this is the first of the two that is still to come.  `show` is the local time of the machine.
    """
    at = now
    while True:
        shown = show(at)
        goal = shown.replace(hour=hour, minute=minute, second=0, microsecond=0, fold=0)
        if goal < shown or (goal == shown and at == now):
            goal += timedelta(days=1)
        there = at + (goal - shown).total_seconds()
        change = _first_change(at, there, show)
        if change is None:
            return float(round(there))
        if show(change) >= goal:
            return float(change)
        at = change


def _first_change(start: float, end: float, show: ShowWall) -> int | None:
    """The first second in (start, end] at which the UTC offset differs from that at `start`."""
    before, last = _offset(int(start), show), round(end)
    same = int(start)
    for probe in [*range(same + _PROBE_S, last, _PROBE_S), last]:
        if _offset(probe, show) != before:
            between = range(same + 1, probe)
            return same + 1 + bisect_left(between, True, key=lambda at: _offset(at, show) != before)  # noqa: FBT003
        same = probe
    return None


def _offset(at: int, show: ShowWall) -> timedelta:
    return show(at) - datetime.fromtimestamp(at, UTC).replace(tzinfo=None)


@contextmanager
def stop_on_signals(window: Window) -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP close the window; a second SIGINT ends the process at once.

    Raises StoppedError when the first one comes where nothing has to be finished.
    """

    def close(signum: int, _frame: FrameType | None) -> None:
        if signum == signal.SIGHUP:
            interrupts.leave_terminal()
        if window.interrupted:
            if signum == signal.SIGINT:
                interrupts.quit_now()  # committed work is safe; the next run continues from there
            return
        window.interrupted = True
        if window.answer is None:
            raise Interrupt
        if window.answer:
            interrupts.say(window.answer)

    before = {number: signal.signal(number, close) for number in interrupts.heard()}
    try:
        with _stopped_by_interrupts(window):
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if window.interrupted:
            interrupts.raise_no_more()
