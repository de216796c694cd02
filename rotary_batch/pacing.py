"""How fast a run may work now: paused by its user, or yielding to other programs.

Policy alone: what others need comes from sources, the time from a clock.  Slowing down is gradual, and going on again
takes a time of calm, which grows when it was too short.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from rotary_batch.machine.need import PRESSED, Need, Source
from rotary_batch.window import boot_clock

CHECK_EVERY_S = 2.0  # the sources are averages over 10 s
SLOWER_EVERY_S = 10.0
LEAST_SHARE = 0.25
CALM = 0.6  # of what counts as pressed: below it, others have what they need
CALM_S, MOST_CALM_S = 30.0, 900.0  # how long it must be calm to go on
PEACE_S = 1800.0  # without yielding, after which the time of calm is the first again
WAIT_S, MOST_REST_S = 1.0, 30.0
MEMORY_TRIES = 5  # in a row, to go on after device memory ran out


class Pace(NamedTuple):
    """How much of the batch and of the time a run may use; 0 = it gives back its memory and waits."""

    share: float = 1.0
    state: Literal["working", "paused", "yielding"] = "working"
    why: str = ""


FULL = Pace()


@dataclass
class Yielding:
    """Yields to what other programs need."""

    sources: Sequence[Source] = ()
    clock: Callable[[], float] = boot_clock
    _share: float = field(default=1.0, init=False)
    _why: str = field(default="", init=False)
    has_freed: bool = field(default=False, init=False)  # memory was given back, so others may have it
    _calm_s: float = field(default=CALM_S, init=False)

    def __post_init__(self) -> None:
        never = float("-inf")
        self._checked_at = self._slowed_at = self._full_at = never
        self._calm_since: float | None = None

    def pace(self) -> Pace:
        """The pace now."""
        now = self.clock()
        if now - self._checked_at >= CHECK_EVERY_S:
            self._checked_at = now
            self._look([need for source in self.sources if (need := source()) is not None], now)
        return FULL if self._share == 1.0 else Pace(self._share, "yielding", self._why)

    def memory_ran_out(self, why: str) -> None:
        """The device had no memory for this run, so others have it: give back the rest, and wait for a time of calm."""
        self._slow_down(0.0, why, self.clock())

    def memory_is_short(self, why: str) -> None:
        """The device had no memory for all that is live: let fewer in."""
        if self._share > LEAST_SHARE:
            self._slow_down(self._share / 2, why, self.clock())

    def _look(self, needs: Sequence[Need], now: float) -> None:
        pressed = [need for need in needs if need.pressure >= PRESSED]
        if pressed:
            self._yield_to(pressed, now)
        elif any(need.pressure >= CALM for need in needs):
            self._calm_since = None
        elif self._share < 1.0:
            self._go_on(now)
        elif now - self._full_at > PEACE_S:
            self._calm_s = CALM_S

    def _yield_to(self, pressed: Sequence[Need], now: float) -> None:
        worst = max(pressed, key=lambda need: (need.frees, need.pressure))
        if worst.frees:
            if self._share:
                self._slow_down(0.0, worst.why, now)
        elif self._share > LEAST_SHARE and now - self._slowed_at >= SLOWER_EVERY_S:
            self._slow_down(self._share / 2, worst.why, now)
        self._calm_since = None

    def _slow_down(self, share: float, why: str, now: float) -> None:
        if self._share == 1.0 and now - self._full_at < PEACE_S:  # it went on too early
            self._calm_s = min(2 * self._calm_s, MOST_CALM_S)
        self._share, self._why, self._slowed_at, self._calm_since = share, why, now, None
        self.has_freed |= not share

    def _go_on(self, now: float) -> None:
        if self._calm_since is None:
            self._calm_since = now
        if now - self._calm_since < self._calm_s:
            return
        self._share = min(1.0, 2 * self._share) or 1.0
        self._calm_since = now
        if self._share == 1.0:
            self._full_at = now


@dataclass
class Pacer:
    """The pace of one run.  A pause wins over everything else."""

    paused: Callable[[], str | None] = lambda: None  # why, in words
    yielding: Yielding = field(default_factory=Yielding)
    sleep: Callable[[float], None] = time.sleep

    def pace(self) -> Pace:
        """The pace now."""
        why = self.paused()
        return self.yielding.pace() if why is None else Pace(0.0, "paused", why)


@dataclass(kw_only=True)
class Pacekeeper:
    """Keeps the pace of one run: waits, rests between steps, and lets fewer sequences in."""

    pacer: Pacer
    is_closed: Callable[[], bool]
    on_change: Callable[[Pace], None]
    clock: Callable[[], float]
    sleep: Callable[[float], None]
    pace: Pace = FULL
    waited_s: dict[str, float] = field(default_factory=lambda: {"paused": 0.0, "yielding": 0.0})
    _told: Pace = FULL
    _most_live: int = 0

    def look(self) -> Pace:
        """The pace now.  A change is told; that to 0 only by `wait`, when the memory is free."""
        self.pace = self.pacer.pace()
        if self.pace.share:
            self._tell()
        return self.pace

    def wait(self, seconds: float = WAIT_S) -> None:
        """Let a second go by, and count it."""
        self._tell()
        began = self.clock()
        self.sleep(seconds)
        if self.pace.state != "working":
            self.waited_s[self.pace.state] += self.clock() - began

    def _tell(self) -> None:
        if self.pace != self._told:
            self._told = self.pace
            self.on_change(self.pace)

    def rest(self, step_s: float) -> None:
        """After a step that took `step_s`, leave the rest of the time to others."""
        if (share := self.pace.share) in {0.0, 1.0}:
            return
        end = self.clock() + min(MOST_REST_S, step_s * (1 / share - 1))
        while (left := end - self.clock()) > 0 and not self.is_closed() and self.look().share == share:
            self.wait(min(left, WAIT_S))

    def admits(self, num_live: int) -> bool:
        """Whether another sequence may join those that are live."""
        self._most_live = max(self._most_live, num_live)
        return self.pace.share == 1.0 or num_live < max(1, self.pace.share * self._most_live)
