"""Open the engine that the settings ask for.

Imports no torch by itself: the engine is imported when the first one is opened.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Protocol

from rotary_batch.config import Settings, kernel_dir
from rotary_batch.core import Engine, Request, StepReport
from rotary_batch.model.engine_options import EngineOptions
from rotary_batch.model.footprint import Workload
from rotary_batch.model.rates import Rates

# A setting that has the name of an option is that option.  `experts` decided which pack is opened.
_SHARED = sorted({one.name for one in fields(EngineOptions)} & {one.name for one in fields(Settings)} - {"experts"})


class RatedEngine(Engine, Protocol):
    """An engine whose roofline is computed from rates that can be replaced while it works."""

    @property
    def rates(self) -> Rates | None:
        """The rates that the roofline is computed from; None = there is no roofline."""
        ...

    def use_rates(self, rates: Rates) -> None:
        """Compute the roofline from these from now on."""
        ...


OpenEngine = Callable[[Path, EngineOptions], RatedEngine]


def engine_options(settings: Settings, workload: Workload | None = None) -> EngineOptions:
    """The options of an engine for these settings; `workload` is what it is going to do."""
    return EngineOptions(workload=workload, **{name: getattr(settings, name) for name in _SHARED})


def open_engine(pack: Path, options: EngineOptions) -> RatedEngine:
    """Open a pack.  Raises ModelError, ConfigError, UnavailableError."""
    from rotary_batch.engine import build

    return build.open_engine(pack, options)


def prepare_kernels(settings: Settings, on_compile: Callable[[], None]) -> None:
    """Compile the kernels for this processor, if they are not; `on_compile` is called before.  Raises ConfigError."""
    from rotary_batch.engine.kernels import build, cpu, dispatch

    if settings.device == "cpu" and build.must_compile(kernel_dir(os.environ), dispatch.cap(os.environ)):
        on_compile()
        cpu.default()


def free_memory() -> None:
    """Give back what a closed engine used, to the device and to the system."""
    gc.collect()
    from rotary_batch.engine.runtime.memory import return_memory

    return_memory()


class LazyEngine:
    """An engine that is opened when an item needs it: a run without work loads no model.

    Once released, it is opened again in the same way.  Its counters go on over all of them.
    """

    def __init__(self, open_now: Callable[[], RatedEngine], free: Callable[[], None] = free_memory) -> None:
        self._open_now, self._free = open_now, free
        self._engine: RatedEngine | None = None
        self._counted: dict[str, float] = {}  # up to the last step
        self._before: dict[str, float] = {}  # by engines that were released

    def _opened(self) -> RatedEngine:
        if self._engine is None:
            self._engine = self._open_now()
        return self._engine

    @property
    def num_live(self) -> int:
        """How many admitted sequences are unfinished; 0 before it is opened."""
        return self._engine.num_live if self._engine is not None else 0

    def has_room(self, request: Request) -> bool:
        """Whether `admit` would take the request now, or refuse it for ever."""
        return self._opened().has_room(request)

    def admit(self, request: Request) -> None:
        """Take a request; raises PromptError when it can never fit."""
        self._opened().admit(request)

    def step(self) -> StepReport:
        """Run one step for every live sequence."""
        report = self._opened().step()
        counters = {name: count + self._before.get(name, 0) for name, count in report.counters.items()}
        self._counted = counters
        return replace(report, counters=counters)

    @property
    def rates(self) -> Rates | None:
        """The rates that the roofline is computed from."""
        return self._opened().rates

    def use_rates(self, rates: Rates) -> None:
        """Compute the roofline from these from now on."""
        self._opened().use_rates(rates)

    def release(self) -> None:
        """Free all memory; every live sequence is forgotten."""
        if self._engine is not None:
            self._engine.close()
            self._engine, self._before = None, self._counted
            self._free()

    def close(self) -> None:
        """Free the memory if it was opened; idempotent."""
        if self._engine is not None:
            self._engine.close()
