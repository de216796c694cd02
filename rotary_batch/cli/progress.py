"""What a command shows while it works: a bar on a terminal, elsewhere a line a minute.  Both go to stderr."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from threading import Event, Thread

from rotary_batch import console
from rotary_batch.commands.meter import Reading
from rotary_batch.console import BarLine
from rotary_batch.interrupts import kept_from_new_threads
from rotary_batch.systemd import Notifier

LINE_EVERY_S = 60.0
MIN_BAR = 5  # columns
_NOTIFIER = Notifier(os.environ)  # systemd's, if it started this process


def tell_begun() -> None:
    """Tell systemd that the command has begun: what ends before it says so has failed, whatever its exit code."""
    _NOTIFIER.alive(lambda: "starting")


class Display:
    """What is being done, and how far it is.  Filled by the main thread, read by the one that shows it."""

    def __init__(self, phase: str, *, is_live: bool, quiet: bool) -> None:
        self._is_live, self._quiet = is_live, quiet
        self._phase = ""
        self._counted: tuple[int, int] | None = None
        self._reading: Reading | None = None
        self._read_at = 0.0
        self.redraw: Callable[[], None] = lambda: None
        self.phase(phase)

    def phase(self, name: str) -> None:
        """Something else begins."""
        if name == self._phase and self._reading is None:
            self._notify()  # it still goes on
            return
        self._phase, self._counted, self._reading = name, None, None
        self.redraw()  # a phase may be shorter than the time between two drawings
        self._print_line()
        self._notify()

    def count(self, done: int, total: int) -> None:
        """How many of the things in this phase are done."""
        self._counted = (done, total) if total else None
        self._notify()

    def count_in(self, phase: str, done: int, total: int) -> None:
        """The same, of a phase that may begin now."""
        self.phase(phase)
        self.count(done, total)

    def reading(self, reading: Reading) -> None:
        """The state of a run after a step."""
        is_first, self._reading = self._reading is None, reading
        self._read_at = time.monotonic()
        if is_first:
            self._print_line()
        self._notify()

    def tell(self, text: str) -> None:
        """A line that stays."""
        if not self._quiet:
            console.err(text)

    def first_page(self, page: Path) -> None:
        """The model has written something that is on a page now."""
        self.tell(f"The first page with text of the model: {page}")

    def bar_line(self, width: int) -> BarLine:
        """The line for a terminal of this width.  What matters least is left out first."""
        reading = self._reading
        if reading is None:
            done, total = self._counted or (0, 0)
            return BarLine(self._phase, done / total if total else None, f"{done:,}/{total:,}" if total else "")
        counted = f"{reading.num_done:,}/{reading.num_items:,}"
        parts = [  # in their order on the line, and the smaller the number, the longer it stays
            (0, percent(reading.share)),
            (3, counted),
            (5, "items"),
            (4, speed(reading)),
            (6, of_the_bound(reading)),
            (1, left(reading)),
            (2, stops(reading, self._then(datetime.now()))),  # noqa: DTZ005 - the wall clock of the person
        ]
        for rank in range(len(parts), 0, -1):
            texts = [text for number, text in parts if number < rank and text]
            after = "  ".join(texts).replace(f"{counted}  items", f"{counted} items")
            if len("answering") + len(after) + 2 + MIN_BAR <= width:
                break
        return BarLine("answering", reading.share, after)

    def text_line(self, now: datetime) -> str:
        """The line where there is no terminal: `12:04 38 % 269/718, 6 min left`."""
        reading = self._reading
        if reading is None:
            counted = f" {self._counted[0]:,}/{self._counted[1]:,}" if self._counted else ""
            return f"{now:%H:%M} {self._phase}{counted}"
        parts = (items(reading), left(reading), stops(reading, self._then(now)))
        return f"{now:%H:%M} {', '.join(part for part in parts if part)}"

    def _then(self, now: datetime) -> datetime:
        """When the reading was taken: a step may take minutes, and a deadline does not move meanwhile."""
        return now - timedelta(seconds=time.monotonic() - self._read_at)

    def _notify(self) -> None:
        """Called by the main thread alone, when something was done: a run that is stuck says nothing."""
        _NOTIFIER.alive(lambda: self.text_line(datetime.now()))  # noqa: DTZ005 - the wall clock of the person

    def _print_line(self) -> None:
        if not self._is_live and not self._quiet:
            console.err(self.text_line(datetime.now()))  # noqa: DTZ005 - the wall clock of the person

    def print_lines(self, is_over: Event, every_s: float) -> None:
        """Until it is over, print a line now and then; in a thread, since a step may take minutes."""
        while not is_over.wait(every_s):
            self._print_line()


def percent(share: float) -> str:
    """Rounded down, so that 100 % is all of it."""
    return f"{int(share * 100)} %"


def items(reading: Reading) -> str:
    """`38 % 269/718`."""
    return f"{percent(reading.share)} {reading.num_done:,}/{reading.num_items:,}"


def speed(reading: Reading) -> str:
    """`1,240 tok/s`."""
    return f"{reading.tokens_per_s:,.0f} tok/s"


def of_the_bound(reading: Reading) -> str:
    """`61 % of the bound`; empty when the machine was not measured."""
    return "" if reading.bound_share is None else f"{percent(reading.bound_share)} of the bound"


def reading_text(reading: Reading) -> str:
    """All of it, in a sentence."""
    now = datetime.now()  # noqa: DTZ005 - the wall clock of the person
    parts = (items(reading), speed(reading), of_the_bound(reading), left(reading), stops(reading, now))
    return ", ".join(part for part in parts if part)


def left(reading: Reading) -> str:
    """`6 min left`, or `estimating`."""
    return "estimating" if reading.left_s is None else console.time_left(reading.left_s)


def stops(reading: Reading, now: datetime) -> str:
    """`stops Sat 07:00`, or `stops after 50 items`, when that comes before the end of the work."""
    if reading.stops_in_s is not None:
        return f"stops {now + timedelta(seconds=reading.stops_in_s + 30):%a %H:%M}"  # to the nearest minute
    return "" if reading.max_items is None else f"stops after {reading.max_items:,} items"


@contextmanager
def shown_progress(phase: str, *, quiet: bool = False, every_s: float = LINE_EVERY_S) -> Iterator[Display]:
    """Show what a command does while the block runs; `quiet` shows nothing."""
    is_live = not quiet and console.has_live_terminal()
    display = Display(phase, is_live=is_live, quiet=quiet)
    if is_live:
        with console.live_line(display.bar_line) as display.redraw:
            yield display
        return
    is_over = Event()
    thread = Thread(target=display.print_lines, args=(is_over, every_s), daemon=True)
    with kept_from_new_threads():
        thread.start()
    try:
        yield display
    finally:
        is_over.set()
        thread.join()


@contextmanager
def counting(phase: str) -> Iterator[Callable[[int, int], None]]:
    """A bar of one phase.  Yields a function of (done, total)."""
    with shown_progress(phase) as display:
        yield display.count
