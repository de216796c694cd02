"""How much memory there is for this process, as the system says.

Knows /proc and control groups; knows nothing of what the memory is for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")
GROUPS = Path("/sys/fs/cgroup")
LIMIT_FILES = ("memory.max", "memory.limit_in_bytes")  # of cgroup v2 and v1


def physical_nbytes() -> int:
    """The machine's memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def usable_nbytes(proc: Path = PROC, groups: Path = GROUPS) -> int:
    """What may be taken: what the machine has to spare, within the limits of the control groups around this process.

    A service with `MemoryMax=`, or a container, is killed at its limit however much the machine has.
    """
    return min([physical_nbytes(), *_available_nbytes(proc), *_limits_nbytes(proc, groups)])


def _available_nbytes(proc: Path) -> Iterator[int]:
    """`MemAvailable`: free, or page cache that can be dropped."""
    for line in _lines(proc / "meminfo"):
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            yield int(value.split()[0]) * 1024


def _limits_nbytes(proc: Path, groups: Path) -> Iterator[int]:
    """The limit of every group from this process's own up to the root.  See cgroups(7)."""
    for line in _lines(proc / "self" / "cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        root = groups / controllers
        folder = root / path.strip("/")
        for place in (folder, *folder.parents):
            for name in LIMIT_FILES:
                yield from (int(text) for text in _lines(place / name) if text.isdigit())
            if place == root:
                break


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
