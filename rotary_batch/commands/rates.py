"""The machine's rates around a run: probed before it, and raised when the run is faster than they allow."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from rotary_batch.config import Settings, cache_dir
from rotary_batch.log import event
from rotary_batch.model.format_shares import formats_of
from rotary_batch.model.manifest import Manifest
from rotary_batch.model.rates import Rates, cached_rates, exceeded_by, rates_path, save_rates
from rotary_batch.run_stats import Progress

_EXCEEDED = "a run was faster than their bound"
REMEASURE_EVERY_S = 24 * 3600.0  # at most, when runs are faster than the roofline: measuring takes a minute


def refresh_rates(
    settings: Settings, pack: Path, manifest: Manifest, now: float, on_probe: Callable[[], None] = lambda: None
) -> None:
    """Probe the machine, and store the rates anew; `on_probe` is called before.

    A machine that was never measured is not measured here, because that takes a minute.  A disk error ends no run:
    old rates only make the roofline less exact.
    """
    path = rates_path(settings.device, cache_dir(os.environ))
    is_exact = (settings.numerics or manifest.default_numerics) == "exact"  # rates are of fast numerics
    try:
        if not is_exact and path.exists():
            on_probe()
            stored = cached_rates(settings.device, path.parent)
            save_rates(_current_rates(stored, settings, pack, manifest, now), path)
    except OSError as error:
        event("rates not refreshed", why=str(error))


def _current_rates(stored: Rates | None, settings: Settings, pack: Path, manifest: Manifest, now: float) -> Rates:
    from rotary_batch.engine.measuring import measure
    from rotary_batch.engine.runtime.device import resolve_device

    formats = formats_of(manifest)
    why = _why_outdated(stored, measure.machine_name(resolve_device(settings.device)), now)
    if stored is not None and why is None:
        stored = measure.with_formats(stored, formats)
        rates = stored.best_of(measure.probe_machine(stored, pack, manifest, settings.kv))
        event("rates probed", rates=rates.told())
        return rates
    event("rates measured anew", why=why)
    rates = measure.measure_machine(settings.device, cache_dir(os.environ))
    rates = stored.measured_anew(rates) if stored is not None and why == _EXCEEDED else rates
    return measure.with_formats(rates, formats)


def _why_outdated(stored: Rates | None, machine: str, now: float) -> str | None:
    """Why the stored rates are of no use, or None."""
    if stored is None:
        return "damaged or of another version"
    if stored.machine != machine:
        return "another machine"
    is_old = abs(now - stored.measured_at) >= REMEASURE_EVERY_S
    return _EXCEEDED if stored.is_exceeded and is_old else None


class Rated(Protocol):
    """What has a roofline: an engine, or a pool of them."""

    @property
    def rates(self) -> Rates | None:
        """The rates that the roofline is computed from; None = there is no roofline."""
        ...

    def use_rates(self, rates: Rates) -> None:
        """Compute the roofline from these from now on."""
        ...


class RateWatch:
    """Called after every step; raises the rates of the engine, and the stored ones, when a run beats its roofline."""

    def __init__(self, engine: Rated, settings: Settings, on_step: Callable[[Progress], None]) -> None:
        self._engine = engine
        self._path = rates_path(settings.device, cache_dir(os.environ))
        self._on_step = on_step
        self._roofline_s = self._step_s = 0.0  # sums since the rates were last raised

    def __call__(self, progress: Progress) -> None:
        """Compare the run with its roofline, then call `on_step`."""
        if progress.report.roofline_s:
            self._roofline_s += progress.report.roofline_s
            self._step_s += progress.report.step_s
            if gain := exceeded_by(self._roofline_s, self._step_s):
                self._raise_rates(gain, progress)
        self._on_step(progress)

    def _raise_rates(self, gain: float, progress: Progress) -> None:
        rates = self._engine.rates
        assert rates is not None, "a step has a roofline only where there are rates"
        rates = rates.raised(gain, time.time())
        self._engine.use_rates(rates)
        try:
            save_rates(rates, self._path)
        except OSError as error:
            event("rates not kept", why=str(error))
        self._roofline_s = self._step_s = 0.0
        progress.stats.rates_raised *= gain
        progress.stats.roofline_s /= gain  # steps so far were compared with rates that were too low
        event("rates raised", gain=round(gain, 3), why="revolutions were faster than their bound")
