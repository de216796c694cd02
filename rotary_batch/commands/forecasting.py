"""What a run will have done by when, from the pace of earlier runs or from the roofline."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, NamedTuple

from rotary_batch.commands.groups import Group
from rotary_batch.commands.simulation import Ended, simulate
from rotary_batch.commands.step_costs import Pace
from rotary_batch.core import Unit
from rotary_batch.model.memory_plan import DEFAULT_BATCH
from rotary_batch.work import counts
from rotary_batch.work.queued import Queued, answer_lengths, queued
from rotary_batch.work.store import WorkStore

ENOUGH_S = 60.0  # of steps: the newest run with as many tells the pace, else the longest
MAX_SIMULATED = 200_000  # items, which take 2 s; of more, the time is in proportion to their number
MAX_POINTS = 60  # of a curve
MAX_NAMED = 5  # files


class KnownPace(NamedTuple):
    """The pace of an earlier run, and how its engine was set."""

    pace: Pace
    at: str  # when that run ended
    numerics: str
    kv: str
    max_batch: int  # 0 = the default
    opening_s: float

    @property
    def batch(self) -> float:
        """How many sequences it has when there is no room for one more."""
        return self.pace.full_batch or self.max_batch or DEFAULT_BATCH

    @property
    def engine(self) -> tuple[str, str, int]:
        """What a pace depends on besides model and device."""
        return self.numerics, self.kv, self.max_batch


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """When how many items will have ended."""

    basis: str  # what the pace is from
    num_items: int  # open, with the parts of long files that will be queued later
    seconds: float  # for all
    times: Sequence[float]  # ascending
    items: Sequence[int]  # ended by each of these times
    files: Mapping[str, float] = field(default_factory=dict)  # path -> when its text is there; in the order of worth

    def items_by(self, seconds: float) -> int:
        """How many items have ended by then."""
        place = bisect_right(self.times, seconds)
        return self.items[place - 1] if place else 0

    def curve(self) -> list[tuple[float, int]]:
        """At most MAX_POINTS + 1 points, from the start to the end."""
        moments = [self.seconds * n / MAX_POINTS for n in range(MAX_POINTS + 1)]
        return [(round(moment, 1), self.items_by(moment + 1e-6)) for moment in moments]

    def as_dict(self, window_s: float | None) -> dict[str, Any]:
        """As it is stored with a run; `window_s` is the time to the deadline."""
        return {
            "basis": self.basis,
            "items": self.num_items,
            "seconds": round(self.seconds, 1),
            "window_s": None if window_s is None else round(window_s, 1),
            "items_by_deadline": None if window_s is None else self.items_by(window_s),
            "curve": self.curve(),
        }


def forecast(store: WorkStore, group: Group) -> Forecast | None:
    """When a drain will have done what; None when no run of this model tells, or nothing is open."""
    known = known_pace(store, group)
    return None if known is None else at_pace(Work.of(store, group), known)


def known_pace(store: WorkStore, group: Group) -> KnownPace | None:
    """The pace of the newest run of this model and device with the same settings of the engine."""
    wanted = engine_of(group)
    return next((one for one in paces(store, group) if one.engine == wanted), None)


def engine_of(group: Group) -> tuple[str, str, int]:
    """What a pace depends on besides model and device."""
    settings = group.settings
    return settings.numerics or group.manifest.default_numerics, settings.kv, settings.max_batch or 0


def paces(store: WorkStore, group: Group) -> list[KnownPace]:
    """One for each way in which the engine was set: of the newest run with enough steps, else of the longest."""
    best: dict[tuple[str, str, int], KnownPace] = {}
    for at, stats in counts.paces(store, group.manifest.name, group.settings.device):
        table = dict(stats["pace"])
        opening_s = table.pop("opening_s", 0.0)
        one = KnownPace(Pace(**table), at, stats["numerics"], stats["kv"], stats["max_batch"], opening_s)
        before = best.get(one.engine)
        if before is None or before.pace.seconds < min(ENOUGH_S, one.pace.seconds):
            best[one.engine] = one
    return list(best.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """The open items, and how long answers are."""

    queue: Sequence[Queued]
    lengths: Mapping[Unit, Sequence[int]]

    @classmethod
    def of(cls, store: WorkStore, group: Group) -> Work:
        """What some repositories have to do."""
        jobs = sorted({row.job for row in group.rows})
        return cls(
            queue=queued(store, [row.id for row in group.rows]),
            lengths=answer_lengths(store, group.manifest.name, jobs),
        )


def at_pace(work: Work, known: KnownPace) -> Forecast | None:
    """What will be done when, at the pace of an earlier run; None when nothing is open."""
    return of_pace(work, known.pace, known.batch, f"the run that ended {known.at}", known.opening_s)


def of_pace(work: Work, pace: Pace, batch: float, basis: str, opening_s: float = 0.0) -> Forecast | None:
    """What will be done when, at some pace; None when nothing is open."""
    queue = work.queue[:MAX_SIMULATED]
    if not queue:
        return None
    ended = simulate(queue, work.lengths, pace, batch, opening_s)
    num_items = sum(item.num_items for item in work.queue)
    items = list(accumulate(queue[one.place].num_items for one in ended))
    seconds = ended[-1].at_s * num_items / items[-1]  # those that were not simulated take as long as the others
    is_all = len(queue) == len(work.queue)
    return Forecast(
        basis=basis,
        num_items=num_items,
        seconds=seconds,
        times=[one.at_s for one in ended] if is_all else [seconds * n / MAX_POINTS for n in range(MAX_POINTS + 1)],
        items=items if is_all else [num_items * n // MAX_POINTS for n in range(MAX_POINTS + 1)],
        files=_files(queue, ended),
    )


def _files(queue: Sequence[Queued], ended: Sequence[Ended]) -> dict[str, float]:
    """When the last item of each file ends; the files in the order of worth."""
    last: dict[str, float] = {}
    for at_s, place in ended:
        if queue[place].unit in {Unit.CHUNK, Unit.SYMBOL, Unit.FILE}:
            last[queue[place].path] = at_s
    return {item.path: last[item.path] for item in queue if item.unit is Unit.FILE and item.path in last}


def files_by(found: Forecast, seconds: float) -> dict[str, Any]:
    """Which files are done by then: how many, the first of those, and of those that are not, by worth."""
    done = [path for path, at_s in found.files.items() if at_s <= seconds]
    left = [path for path, at_s in found.files.items() if at_s > seconds]
    return {"files": len(found.files), "done": len(done), "first": done[:MAX_NAMED], "left": left[:MAX_NAMED]}
