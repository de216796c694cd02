"""What runs on a node of a cluster: one engine, which takes several revolutions before it reports.

It imports no ray: an actor is made of this class by `ray_pool`.  Like `child.py` it knows neither the database nor a
repository.  What comes in and goes out are values of `core`, rates and texts.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from rotary_batch.core import ErrorClass, Failure, Request, StepReport
from rotary_batch.errors import PromptError, RotaryError
from rotary_batch.log import send_events
from rotary_batch.model.rates import Rates
from rotary_batch.pool.child import ANSWER, DEATH, ERROR, without_types
from rotary_batch.pool.hosted import Opener, RatedEngine
from rotary_batch.pool.member import PROBE
from rotary_batch.pool.merging import in_sequence

Event = tuple[str, dict[str, object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bursts:
    """When an engine reports: what it did since its last report is lost with its node."""

    revolutions: int = 8
    seconds: float = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What an engine is told before a burst."""

    requests: tuple[Request, ...] = ()
    dropped: frozenset[int] = frozenset()
    rates: Rates | None = None


class Opened(NamedTuple):
    """An engine that has proved that it works."""

    rates: Rates | None
    events: list[Event]


class Burst(NamedTuple):
    """Some revolutions, as one step, and how many requests wait for room in the engine."""

    report: StepReport
    num_waiting: int
    events: list[Event]


class EngineHost:
    """Every answer is a pair as `child.py` sends them: nothing is raised that the driver could not read."""

    def __init__(self, opener: Opener, bursts: Bursts) -> None:
        self._opener, self._bursts = opener, bursts
        self._engine: RatedEngine
        self._waiting: deque[Request] = deque()
        self._error: Exception | None = None  # of a revolution after some that went well: those are reported first
        self._events: list[Event] = []

    def open(self) -> tuple[str, Any]:
        """Open the engine and let it answer a tiny request."""
        return _answered(self._open)

    def step(self, orders: Orders) -> tuple[str, Any]:
        """Take some revolutions."""
        return _answered(lambda: self._burst(orders))

    def _open(self) -> Opened:
        send_events(lambda name, fields: self._events.append((name, fields)))
        self._engine = self._opener(lambda _: None)
        self._engine.admit(PROBE)
        while self._engine.num_live:
            self._engine.step()
        return Opened(self._engine.rates, self._new_events())

    def _burst(self, orders: Orders) -> Burst:
        self._raise_late()
        self._obey(orders)
        reports: list[StepReport] = []
        began = time.monotonic()
        while not reports or not self._is_over(reports, began):
            try:
                reports.append(self._revolution())
            except (RotaryError, OSError) as error:
                if not reports:
                    raise
                self._error = error
        return Burst(in_sequence(reports), len(self._waiting), self._new_events())

    def _raise_late(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _obey(self, orders: Orders) -> None:
        if orders.dropped:
            self._engine.drop(orders.dropped)
            self._waiting = deque(one for one in self._waiting if one.request_id not in orders.dropped)
        if orders.rates is not None:
            self._engine.use_rates(orders.rates)
        self._waiting.extend(orders.requests)

    def _is_over(self, reports: list[StepReport], began: float) -> bool:
        """Whether to report now: it is time, something is wrong, or the engine has room that only the driver fills."""
        last = reports[-1]
        is_time = len(reports) >= self._bursts.revolutions or time.monotonic() - began >= self._bursts.seconds
        has_room = not self._waiting and (bool(last.completions) or not self._engine.num_live)
        return bool(is_time or has_room or last.failures or self._error)

    def _revolution(self) -> StepReport:
        failures = self._admit()
        report = self._engine.step() if self._engine.num_live else StepReport()
        return replace(report, failures=(*failures, *report.failures))

    def _admit(self) -> list[Failure]:
        """Give the engine what waits; those that can never fit fail."""
        failures = []
        while self._waiting and self._engine.has_room(self._waiting[0]):
            request = self._waiting.popleft()
            try:
                self._engine.admit(request)
            except PromptError as error:
                failed = Failure(request_id=request.request_id, error=str(error), error_class=ErrorClass.BAD_ITEM)
                failures.append(failed)
        return failures

    def _new_events(self) -> list[Event]:
        events, self._events = self._events, []
        return events


def _answered(answer: Callable[[], Any]) -> tuple[str, Any]:
    try:
        return ANSWER, answer()
    except (RotaryError, OSError) as error:
        return ERROR, error
    except Exception as error:  # noqa: BLE001 - the driver is told, and replaces the engine
        return DEATH, without_types(error)
