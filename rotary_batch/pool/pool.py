"""Implements `core.EnginePool` over engines that may die: places requests, merges reports, replaces what died.

It does not know where an engine runs: `open_engine` opens one, and `wait` waits for the steps of several.

An engine that replaces one that died answers a tiny request first.  If it cannot, no item is to blame: after a few
tries the run ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

from rotary_batch.backoff import Backoff
from rotary_batch.core import Loss, Request, StepReport
from rotary_batch.errors import UnavailableError
from rotary_batch.log import event
from rotary_batch.model.rates import Rates
from rotary_batch.pool.hosted import EngineDiedError, HostedEngine
from rotary_batch.pool.member import Member, Wait, prove
from rotary_batch.pool.merging import merged

MAX_STARTS = 3  # of engines in a row that die before they can work
LOOK_EVERY_S = 0.1  # at engines that open elsewhere
MAX_DEATHS = 30  # of engines in a row, without a step in between: ten items that kill one at each attempt


def _restarts() -> Backoff:
    return Backoff(first_s=1.0, most_s=60.0)


@dataclass(kw_only=True)
class Pool:
    """Some engines that are alike.  `opening` is entered around the opening of one."""

    open_engine: Callable[[], HostedEngine]
    wait: Wait
    num_engines: int = 1
    free: Callable[[], None] = lambda: None  # what released engines had in this process
    opening: Callable[[], AbstractContextManager[None]] = nullcontext
    backoff: Backoff = field(default_factory=_restarts)
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._members = [Member() for _ in range(self.num_engines)]
        self._losses: list[Loss] = []  # not yet reported
        self._num_deaths = self._num_failed_starts = 0  # in a row
        self._has_died = False
        self._rates: Rates | None = None  # better ones than the engines were opened with

    @property
    def num_live(self) -> int:
        """How many admitted sequences are neither ended nor reported as lost."""
        return sum(len(one.live) for one in self._members) + sum(len(one.request_ids) for one in self._losses)

    @property
    def starts_in_s(self) -> float:
        """How long nothing can be admitted because engines wait to be replaced."""
        now = self.clock()
        return max(0.0, min(self._starts_in_s(one, now) for one in self._members))

    @staticmethod
    def _starts_in_s(member: Member, now: float) -> float:
        if member.is_opening:
            return LOOK_EVERY_S
        return 0.0 if member.engine else member.starts_at - now

    def has_room(self, request: Request, *, apart: bool = False) -> bool:
        """Whether `admit` would take the request now, or refuse it for ever.  Opens an engine where none is."""
        return self._place(request, apart=apart) is not None

    def admit(self, request: Request, *, apart: bool = False) -> None:
        """Take a request; those that are `apart` get an engine where nothing else is live.

        Raises PromptError when it can never fit, ValueError when there is no room now.
        """
        member = self._place(request, apart=apart)
        if member is None or member.engine is None:
            raise ValueError(f"request {request.request_id}: no room now")
        with self._deadly(member):
            member.live.add(request.request_id)  # first: it may be what kills the engine
            member.is_apart = apart
            try:
                member.engine.admit(request)
            except EngineDiedError:
                raise
            except Exception:
                member.live.discard(request.request_id)
                raise

    def _place(self, request: Request, *, apart: bool) -> Member | None:
        """The member that a request belongs to and that has room."""
        for member in self._candidates(apart=apart):
            if member.takes(apart=apart) and self._is_open(member) and member.engine is not None:
                with self._deadly(member):
                    if member.engine.has_room(request):
                        return member
        return None

    def _candidates(self, *, apart: bool) -> list[Member]:
        """Where a request may go, the best first.  Those that are apart are all in one engine."""
        if apart and (theirs := [one for one in self._members if one.live and one.is_apart]):
            return theirs
        return sorted(self._members, key=lambda one: len(one.live))

    def _is_open(self, member: Member) -> bool:
        """Whether a member has an engine, after opening one if it is time."""
        if member.engine is None and self.clock() >= member.starts_at:
            try:
                with self.opening():
                    member.engine = self._opened()
            except EngineDiedError as error:
                self._note_failed_start(member, error)
        return member.engine is not None and (member.is_ready or self._becomes_ready(member, member.engine))

    def _becomes_ready(self, member: Member, engine: HostedEngine) -> bool:
        """Whether an engine that was opening is open by now."""
        try:
            member.is_ready = engine.is_ready
        except EngineDiedError as error:
            self._note_failed_start(member, error)
        if member.is_ready:
            self._num_failed_starts = member.num_failed_starts = 0
        return member.is_ready

    def _opened(self) -> HostedEngine:
        engine = self.open_engine()
        try:
            if self._has_died and engine.is_ready:  # one that opens elsewhere proves itself
                prove(engine, self.wait)
        except BaseException:
            engine.close()
            raise
        return engine

    def _note_failed_start(self, member: Member, error: EngineDiedError) -> None:
        member.clear()
        self._has_died = True
        self._num_failed_starts += 1
        member.num_failed_starts += 1
        event("engine died", error=str(error), items=0)
        if self._num_failed_starts >= MAX_STARTS:
            raise error.error or UnavailableError(
                f"the engine ended before it could work: {error}; is there too little memory?"
            )
        member.starts_at = self.clock() + self.backoff.wait_s(member.num_failed_starts - 1)

    @contextmanager
    def _deadly(self, member: Member) -> Iterator[None]:
        """A block that may find the engine of a member dead."""
        try:
            yield
        except EngineDiedError as error:
            self._note_death(member, error)

    def _note_death(self, member: Member, error: EngineDiedError) -> None:
        lost, node = tuple(sorted(member.live)), member.engine.node if member.engine else ""
        event("engine died", error=str(error), items=len(lost))
        member.clear()
        self.free()
        if lost:
            self._losses.append(Loss(request_ids=lost, error=str(error), node=node))
        self._has_died = True
        self._num_deaths += 1
        if self._num_deaths >= MAX_DEATHS:
            raise error.error or UnavailableError(
                f"the engine died {self._num_deaths} times in a row, the last time: {error}"
            )
        if self._num_deaths > 1:  # the first is replaced at once
            member.starts_at = self.clock() + self.backoff.wait_s(self._num_deaths - 2)

    def step(self) -> StepReport:
        """Wait until an engine has taken its sequences further or is lost, and report all that did."""
        reports: list[StepReport] = []
        for member in self._members:
            with self._deadly(member):
                member.begin_step()
        while not (reports or self._losses) and any(one.is_stepping for one in self._members):
            self.wait([one.engine for one in self._members if one.engine is not None and one.is_stepping])
            reports = self._ended()
        if reports:
            self._num_deaths = 0
        losses, self._losses = tuple(self._losses), []
        return merged(reports, losses, [one.counters for one in self._members])

    def _ended(self) -> list[StepReport]:
        """The reports of the steps that have ended."""
        reports = []
        for member in self._members:
            with self._deadly(member):
                if (report := member.end_step()) is not None:
                    reports.append(report)
        return reports

    def drop(self, request_ids: Collection[int]) -> None:
        """Forget live sequences."""
        for member in self._members:
            if member.engine is not None and (mine := member.live & set(request_ids)):
                assert not member.is_stepping, "what is dropped was in a step that has ended"
                member.live -= mine
                with self._deadly(member):
                    member.engine.drop(mine)

    @property
    def rates(self) -> Rates | None:
        """The rates that the roofline is computed from."""
        opened = (one.engine.rates for one in self._members if one.engine is not None)
        return self._rates or next(opened, None)

    def use_rates(self, rates: Rates) -> None:
        """Compute the roofline from these from the next steps on."""
        self._rates = rates
        for member in self._members:
            member.new_rates = rates

    def release(self) -> None:
        """Free all memory; every live sequence is forgotten."""
        was_open = any(one.engine is not None for one in self._members)
        self.close()
        if was_open:
            self.free()

    def close(self) -> None:
        """End every engine; idempotent."""
        for member in self._members:
            member.clear()
        self._losses, self._rates = [], None


def wait_for_any(_: Sequence[HostedEngine]) -> None:
    """Engines that end their step when they are asked for it need no waiting."""
