"""The machine's rates around a run: probed before it, and raised when the run itself is faster than they allow."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rotary_batch.config import Settings, cache_dir
from rotary_batch.log import event
from rotary_batch.model.manifest import Manifest
from rotary_batch.model.rates import Rates, cached_rates, exceeded_by, rates_path, save_rates
from rotary_batch.runner import Progress

_EXCEEDED = "a run was faster than their bound"
ANEW_AT_MOST_EVERY_S = 24 * 3600.0  # for runs that are faster than their bound: it takes a minute


def refresh_rates(settings: Settings, pack: Path, manifest: Manifest, now: float) -> None:
    """Bring the kept rates up to date.

    A machine that was never measured is not measured here: it would take a minute.  A disk that refuses ends no run:
    old rates only make the bound less exact.
    """
    path = rates_path(settings.device, cache_dir(os.environ))
    exact = (settings.numerics or manifest.default_numerics) == "exact"  # rates are of fast numerics
    try:
        if not exact and path.exists():
            save_rates(_refreshed(cached_rates(settings.device, path.parent), settings, pack, manifest, now), path)
    except OSError as error:
        event("rates not refreshed", why=str(error))


def _refreshed(kept: Rates | None, settings: Settings, pack: Path, manifest: Manifest, now: float) -> Rates:
    from rotary_batch.engine.measuring import measure
    from rotary_batch.engine.runtime.device import device_named

    why = _why_anew(kept, measure.machine_name(device_named(settings.device)), now)
    if kept is not None and why is None:
        found = kept.best_of(measure.probe_machine(kept, pack, manifest, settings.kv))
        event("rates probed", rates=found.told())
        return found
    event("rates measured anew", why=why)
    found = measure.measure_machine(settings.device, cache_dir(os.environ))
    return kept.measured_anew(found) if kept is not None and why == _EXCEEDED else found


def _why_anew(kept: Rates | None, machine: str, now: float) -> str | None:
    """Why kept rates are of no use, if they are not."""
    if kept is None:
        return "damaged or of another version"
    if kept.machine != machine:
        return "another machine"
    is_old = abs(now - kept.measured_at) >= ANEW_AT_MOST_EVERY_S
    return _EXCEEDED if kept.is_exceeded and is_old else None


class RateWatch:
    """Looks at every revolution; raises the rates of the engine, and the kept ones, when the bound is exceeded."""

    def __init__(self, engine: Any, settings: Settings, look: Callable[[Progress], None]) -> None:  # noqa: ANN401
        self._engine = engine
        self._path = rates_path(settings.device, cache_dir(os.environ))
        self._look = look
        self._bound_s = self._step_s = 0.0

    def __call__(self, progress: Progress) -> None:
        """Count a revolution, then let others look."""
        if progress.report.bound_s:
            self._bound_s += progress.report.bound_s
            self._step_s += progress.report.step_s
            if gain := exceeded_by(self._bound_s, self._step_s):
                self._raise(gain, progress)
        self._look(progress)

    def _raise(self, gain: float, progress: Progress) -> None:
        rates: Rates = self._engine.rates.raised(gain, time.time())
        self._engine.use_rates(rates)
        try:
            save_rates(rates, self._path)
        except OSError as error:
            event("rates not kept", why=str(error))
        self._bound_s = self._step_s = 0.0
        progress.stats.rates_raised *= gain
        progress.stats.roofline_s /= gain  # of the revolutions before: they were judged by rates that were too low
        event("rates raised", gain=round(gain, 3), why="revolutions were faster than their bound")
