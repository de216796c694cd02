"""What a busy process costs an engine of two threads: prefill and decode, quiet and beside it, in turns.

Engines of several versions and settings stay open, asleep, while one of them works.
"""

from __future__ import annotations

import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
ROUNDS = int(os.environ.get("BENCHMARK_ROUNDS", "5"))
BEFORE = "711a107"  # the last version whose kernels had OpenMP's threads
BUSY = "import os, sys\nos.sched_setaffinity(0, {int(sys.argv[1])})\nwhile True: pass"
AVX2 = ("ROTARY_BATCH_MAX_ISA", "avx2")
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


class Variant(NamedTuple):
    """One row of the table."""

    name: str
    is_before: bool
    environment: tuple[tuple[str, str], ...]


VARIANTS = (
    Variant("OpenMP, before (float32 rows, AVX2)", is_before=True, environment=(AVX2,)),
    Variant(
        "the same with OMP_WAIT_POLICY=passive", is_before=True, environment=(AVX2, ("OMP_WAIT_POLICY", "passive"))
    ),
    Variant("the pool (float32 rows, AVX2)", is_before=False, environment=(AVX2,)),
    Variant("the pool, with all that the processor has", is_before=False, environment=()),
)


class Pair(NamedTuple):
    """Tokens a second."""

    prefill: float
    decode: float


class Round(NamedTuple):
    """One comparison."""

    quiet: Pair
    busy: Pair


def compare() -> dict[Variant, list[Round]]:
    """Every variant in turns; the busy process takes the cores in turns too."""
    found: dict[Variant, list[Round]] = {variant: [] for variant in VARIANTS}
    with tempfile.TemporaryDirectory() as folder:
        before = Path(folder) / "before"
        _check_out(before)
        engines = {variant: _start(variant, before, Path(folder)) for variant in VARIANTS}
        for number in range(ROUNDS):
            for variant, engine in engines.items():
                quiet = _ask(engine)
                busy = subprocess.Popen([sys.executable, "-c", BUSY, str(number % 2)])
                try:
                    found[variant].append(Round(quiet, _ask(engine)))
                finally:
                    busy.kill()
                    busy.wait()
                print(f"{number + 1}/{ROUNDS} {variant.name}: {found[variant][-1]}", file=sys.stderr, flush=True)
        for engine in engines.values():
            engine.communicate()
    return found


def _check_out(folder: Path) -> None:
    command = ["git", "-C", str(HERE.parent), "archive", BEFORE, "rotary_batch"]
    archive = subprocess.run(command, check=True, capture_output=True)
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(folder, filter="data")


def _start(variant: Variant, before: Path, folder: Path) -> subprocess.Popen[str]:
    source = before if variant.is_before else HERE.parent
    kept = {name: value for name, value in os.environ.items() if name not in WAITING}
    environment = (
        kept | {"PYTHONPATH": str(source), "XDG_CACHE_HOME": str(folder / "cache")} | dict(variant.environment)
    )
    command = [sys.executable, str(HERE / "busy_engine.py"), str(folder / "pack")]
    engine = subprocess.Popen(
        command, cwd=source, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert engine.stdout is not None
    if engine.stdout.readline() != "ready\n":
        raise SystemExit(f"{variant.name}: the engine did not start")
    return engine


def _ask(engine: subprocess.Popen[str]) -> Pair:
    assert engine.stdin is not None
    assert engine.stdout is not None
    engine.stdin.write("go\n")
    engine.stdin.flush()
    return Pair(*json.loads(engine.stdout.readline()))


def table(found: Mapping[Variant, Sequence[Round]]) -> list[str]:
    """Medians, and what is left beside the busy process."""
    lines = [
        "| Threads | Prefill tok/s quiet | Beside a busy process | Left | Decode tok/s quiet | Beside a busy process | Left |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for variant, rounds in found.items():
        cells = []
        for phase in range(2):
            quiet = [one.quiet[phase] for one in rounds]
            busy = [one.busy[phase] for one in rounds]
            left = statistics.median(busy) / statistics.median(quiet)
            cells += [_spread(quiet), _spread(busy), f"{left:.0%}"]
        lines.append(f"| {variant.name} | {' | '.join(cells)} |")
    return lines


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):,.0f} ({min(values):,.0f} to {max(values):,.0f})"
