"""Open the engine that the settings ask for.

Imports no torch by itself: the engine is imported when the first one is opened.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import fields
from pathlib import Path

from rotary_batch.commands.rates import refresh_rates
from rotary_batch.config import Settings, kernel_dir
from rotary_batch.model.engine_options import EngineOptions
from rotary_batch.model.footprint import Workload
from rotary_batch.model.manifest import Manifest
from rotary_batch.pool.hosted import Opener, Phase, RatedEngine
from rotary_batch.pool.in_process import in_process_pool
from rotary_batch.pool.pool import Pool
from rotary_batch.pool.subprocess_pool import subprocess_pool

# A setting that has the name of an option is that option.  `experts` decided which pack is opened.
_SHARED = sorted({one.name for one in fields(EngineOptions)} & {one.name for one in fields(Settings)} - {"experts"})


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


def open_prepared(
    settings: Settings, pack: Path, options: EngineOptions, open_engine: OpenEngine, phase: Phase
) -> RatedEngine:
    """Open an engine once its kernels are there."""
    prepare_kernels(settings, lambda: phase("compiling kernels for this processor"))
    phase("opening the model")
    return open_engine(pack, options)


def open_measured(
    settings: Settings, pack: Path, options: EngineOptions, open_engine: OpenEngine, phase: Phase
) -> RatedEngine:
    """Open an engine once its kernels are there and the rates of the machine are up to date."""
    prepare_kernels(settings, lambda: phase("compiling kernels for this processor"))
    refresh_rates(settings, pack, Manifest.load(pack), time.time(), lambda: phase("measuring the machine"))
    phase("opening the model")
    return open_engine(pack, options)


def pool_for(
    settings: Settings, opener: Callable[[], Opener], phase: Phase, opening: Callable[[], AbstractContextManager[None]]
) -> Pool:
    """The engine that the settings ask for, in this process or in one of its own; nothing is opened yet.

    A process of its own costs 25 MB and no time that can be measured, as this one then loads no torch.
    """
    if settings.engine == "subprocess":
        return subprocess_pool(opener, phase=phase, opening=opening)
    return in_process_pool(opener, phase=phase, free=free_memory, opening=opening)
