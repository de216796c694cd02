"""Run a command under a cap on its memory, page cache included; the kernel enforces it.

Knows cgroup v1 and v2 at their usual places; needs root.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


def can_cap() -> bool:
    """Whether a group can be made here."""
    try:
        return bool(_group(2**30))
    except OSError:
        return False


def _group(limit_nbytes: int) -> Path:
    v1 = (ROOT / "memory" / "memory.limit_in_bytes").exists()
    folder = (ROOT / "memory" if v1 else ROOT) / "rotary-batch-benchmark"
    folder.mkdir(exist_ok=True)
    (folder / ("memory.limit_in_bytes" if v1 else "memory.max")).write_text(str(limit_nbytes))
    return folder / ("tasks" if v1 else "cgroup.procs")


def run(
    command: Sequence[str], limit_nbytes: int | None, timeout_s: float, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run it to its end, capped or not; the page cache is dropped first, because its pages stay charged elsewhere."""
    subprocess.run("sync; echo 3 > /proc/sys/vm/drop_caches", shell=True, stderr=subprocess.DEVNULL)
    tasks = None if limit_nbytes is None else _group(limit_nbytes)

    def join() -> None:
        if tasks is not None:
            tasks.write_text(str(os.getpid()))

    return subprocess.run(
        list(command),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env={**os.environ, **(environment or {})},
        preexec_fn=join,
    )
