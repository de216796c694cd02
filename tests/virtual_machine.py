"""A virtual machine with its clocks, which are set, stand still and change their zone; for tests of whole nights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from zoneinfo import ZoneInfo

from rotary_batch.work.rows import RepositoryRow
from tests.test_window import CHANGES

GRACE_S = 10.0  # to write the pages of the last step
ZONES = {name: ZoneInfo(name) for name in CHANGES}
ROW = RepositoryRow(
    root="/r",
    name="r",
    commit_id=None,
    worktree=False,
    docs_dir="rotary-docs",
    model_name="m",
    pack_dir="/p",
    plan_key="k",
    link_template=None,
    job="summarize",
)


class Machine:
    """A machine with its clocks.  `awake_s` is what a process lives through."""

    def __init__(self, start: datetime, zone: ZoneInfo, events: Sequence[tuple[float, str, float]]) -> None:
        self.wall = start.timestamp()
        self.boot = self.awake_s = 0.0
        self._zone, self._events = zone, sorted(events)
        self.happened: Counter[str] = Counter()
        self.deadlines: list[tuple[str, float]] = []  # clock, instant
        self._looked_at = 0.0
        self.overdue_at: float | None = None  # on the awake clock, since when a deadline is over

    def show(self, at: float) -> datetime:
        return datetime.fromtimestamp(at, self._zone).replace(tzinfo=None)

    def left_s(self) -> float:
        return min(at - getattr(self, clock) for clock, at in self.deadlines)

    def work(self, seconds: float) -> None:
        """Time goes by; what happens to the machine meanwhile, happens."""
        end = self.awake_s + seconds
        while self._events and self._events[0][0] <= end:
            at, kind, amount = self._events.pop(0)
            self._go(at - self.awake_s)
            self.happened[kind] += 1
            self.wall += amount
            self.boot += amount if kind == "suspended" else 0
            self._look()
        self._go(end - self.awake_s)

    def _go(self, seconds: float) -> None:
        self.awake_s, self.wall, self.boot = self.awake_s + seconds, self.wall + seconds, self.boot + seconds
        self._look()

    def _look(self) -> None:
        """Note when a deadline passed, unless the clock is set back behind it."""
        late_s = -self.left_s() if self.deadlines else -1.0
        if late_s < 0:
            self.overdue_at = None
        elif self.overdue_at is None:
            self.overdue_at = max(self.awake_s - late_s, self._looked_at)  # it may have passed in one jump
        self._looked_at = self.awake_s
