"""One place of a pool: the engine that is in it now, and what those before it counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from rotary_batch.core import Request, StepReport
from rotary_batch.errors import UnavailableError
from rotary_batch.model.rates import Rates
from rotary_batch.pool.hosted import HostedEngine

Wait = Callable[[Sequence[HostedEngine]], None]  # until one of them may have ended its step
PROBE = Request(request_id=-1, prompt_ids=(0, 1), max_new_tokens=1)


@dataclass(slots=True)
class Member:
    """An engine with its live requests.  `counters` go on over all engines that were in this place."""

    engine: HostedEngine | None = None
    live: set[int] = field(default_factory=set)
    is_apart: bool = False  # what is live is on trial, and nothing else may join it
    is_ready: bool = False  # the engine is open
    is_stepping: bool = False
    new_rates: Rates | None = None  # from the next step on
    starts_at: float = 0.0  # when the next engine may be opened
    num_failed_starts: int = 0  # in a row
    counters: Mapping[str, float] = field(default_factory=dict)
    _before: Mapping[str, float] = field(default_factory=dict)  # by engines that are gone

    @property
    def is_opening(self) -> bool:
        """Whether there is an engine that cannot be asked yet."""
        return self.engine is not None and not self.is_ready

    def takes(self, *, apart: bool) -> bool:
        """Whether a request may join what is live."""
        return not self.is_stepping and (not self.live or self.is_apart == apart)

    def begin_step(self) -> None:
        """Start a step unless one goes on, or nothing is live.  Raises EngineDiedError."""
        if self.engine is not None and self.live and not self.is_stepping:
            if self.new_rates is not None:  # not before: nothing may be asked of an engine in mid-step
                self.engine.use_rates(self.new_rates)
                self.new_rates = None
            self.engine.begin_step()
            self.is_stepping = True

    def end_step(self) -> StepReport | None:
        """What the step did; None while it goes on, or none was begun.  Raises EngineDiedError."""
        if self.engine is None or not self.is_stepping:
            return None
        report = self.engine.end_step()
        if report is not None:
            self.is_stepping = False
            self._count(report)
            self.live -= {one.request_id for one in report.completions}
            self.live -= {one.request_id for one in report.failures}
        return report

    def _count(self, report: StepReport) -> None:
        self.counters = {name: count + self._before.get(name, 0.0) for name, count in report.counters.items()}

    def clear(self) -> None:
        """End the engine and forget what it had."""
        if self.engine is not None:
            self.engine.close()
        self.engine, self._before = None, self.counters
        self.live, self.is_apart, self.new_rates = set(), False, None
        self.is_ready = self.is_stepping = False


def prove(engine: HostedEngine, wait: Wait) -> None:
    """Let an engine answer a tiny request, so that the death of the next one can be blamed on what it was asked.

    Raises EngineDiedError, and UnavailableError when the model gives no finite number.
    """
    engine.admit(PROBE)
    while True:
        engine.begin_step()
        while (report := engine.end_step()) is None:
            wait([engine])
        if report.failures:
            raise UnavailableError(f"the model cannot be used: {report.failures[0].error}")
        if report.completions:
            return
