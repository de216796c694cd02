"""What other programs need of the processors and of RAM: pressure stall information (PSI) of Linux.

PSI says which share of the time tasks waited, whoever made them wait (Documentation/accounting/psi.rst).  So that a run
does not yield to itself, each source asks for a second sign: processors that others use, RAM that is not free.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from rotary_batch.machine.need import Need
from rotary_batch.model.host import PROC, allowed_nbytes, free_nbytes
from rotary_batch.sizes import size_text

PRESSED_WAITS = {"cpu": 0.4, "memory": 0.1}  # share of the last 10 s in which some task waited
PRESSED_USE = 0.5  # of the processors, by other programs
LEAST_FREE = 0.1  # of RAM
LEAST_S = 1.0  # of all processors together: ticks are 0.01 s
_SOME = re.compile(r"^some avg10=([0-9]+(?:\.[0-9]+)?) ", re.MULTILINE)
# Columns of /proc/stat: time of programs of a lower priority, for which no user waits; idle, iowait, and what the host
# gave to other machines.
_NICE, _IDLE = 1, (3, 4, 7)
_NUM_STATES = 8  # columns before the time of guests, which is in them already


def waits(resource: str, proc: Path = PROC) -> float | None:
    """The share of the last 10 s in which some task waited for `cpu` or `memory`; None where Linux does not say."""
    try:
        text = (proc / "pressure" / resource).read_text()
    except OSError:
        return None
    found = _SOME.search(text)
    return float(found[1]) / 100 if found else None


def _own_s() -> float:
    times = os.times()
    return times.user + times.system


def _niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, 0)


@dataclass
class Processors:
    """Whether others need the processors: tasks wait for them, and others use half of them.

    Programs of a lower priority than ours need nothing of us.
    """

    proc: Path = PROC
    own_s: Callable[[], float] = _own_s  # processor time of this process
    niceness: Callable[[], int] = _niceness
    _before: tuple[float, float, float] = field(default=(0.0, 0.0, 0.0), init=False)

    def __post_init__(self) -> None:
        self._before = self._times() or self._before

    def __call__(self) -> Need | None:
        """What others needed since the last call."""
        waited, times = waits("cpu", self.proc), self._times()
        if waited is None or times is None:
            return None
        all_s, busy_s, own_s = (now - before for now, before in zip(times, self._before, strict=True))
        if all_s < LEAST_S:
            return None
        self._before = times
        use = max(0.0, busy_s - own_s) / all_s
        why = f"other programs use {use:.0%} of the processors".replace("%", " %")
        return Need("processors", min(waited / PRESSED_WAITS["cpu"], use / PRESSED_USE), why)

    def _times(self) -> tuple[float, float, float] | None:
        """Seconds of all processors, those in which they worked, and those that this process had."""
        try:
            ticks = [int(tick) for tick in (self.proc / "stat").read_text().split("\n", 1)[0].split()[1:]]
        except (OSError, ValueError):
            return None
        per_s, ticks = os.sysconf("SC_CLK_TCK"), ticks[:_NUM_STATES]
        idle = sum(ticks[column] for column in _IDLE if column < len(ticks))
        if self.niceness() <= 0:  # else our own time is among it
            idle += ticks[_NICE]
        return sum(ticks) / per_s, (sum(ticks) - idle) / per_s, self.own_s()


@dataclass
class Memory:
    """Whether others need RAM: tasks wait for it, and less than a tenth of it is free."""

    proc: Path = PROC
    free: Callable[[], int] = free_nbytes
    allowed: Callable[[], int] = allowed_nbytes

    def __call__(self) -> Need | None:
        """What others need now."""
        waited = waits("memory", self.proc)
        if waited is None:
            return None
        free, least = self.free(), LEAST_FREE * self.allowed()
        why = f"other programs need memory, and {size_text(free)} are free"
        return Need("memory", min(waited / PRESSED_WAITS["memory"], least / max(1, free)), why, frees=True)
