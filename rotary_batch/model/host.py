"""How much memory this process may use: from /proc and control groups, cgroups(7), of both versions."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")
GROUPS = Path("/sys/fs/cgroup")
LIMIT_FILES = ("memory.max", "memory.high", "memory.limit_in_bytes")
USAGE_FILES = ("memory.current", "memory.usage_in_bytes")
DROPPABLE = ("total_inactive_file", "inactive_file")  # page cache within the usage, in memory.stat; the first one found


def physical_nbytes() -> int:
    """The machine's memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def allowed_nbytes(proc: Path = PROC, groups: Path = GROUPS) -> int:
    """The machine's memory, within the limits of the control groups around this process.

    A service with `MemoryMax=`, or a container, is killed at its limit however much the machine has.
    """
    limits = [limit for folder in _groups(proc, groups) for limit in _numbers(folder, LIMIT_FILES)]
    return min([physical_nbytes(), *limits])


def free_nbytes(proc: Path = PROC, groups: Path = GROUPS) -> int:
    """The part of it that is free now; page cache that can be dropped counts as free."""
    left = [
        limit - max(0, usage - _droppable_nbytes(folder))
        for folder in _groups(proc, groups)
        for limit in _numbers(folder, LIMIT_FILES)
        for usage in [*_numbers(folder, USAGE_FILES), 0][:1]
    ]
    return max(0, min([physical_nbytes(), *_available_nbytes(proc), *left]))


def address_space_left_nbytes(proc: Path = PROC) -> int | None:
    """How much more may be mapped under `ulimit -v`; None where there is no such limit."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return None
    pages = next(iter(_lines(proc / "self" / "statm")), "0").split()[0]
    return max(0, limit - int(pages) * os.sysconf("SC_PAGE_SIZE"))


def _available_nbytes(proc: Path) -> Iterator[int]:
    for line in _lines(proc / "meminfo"):
        if line.startswith("MemAvailable:"):
            yield int(line.split()[1]) * 1024


def _groups(proc: Path, groups: Path) -> Iterator[Path]:
    """The folder of every group from this process's own up to the root."""
    for line in _lines(proc / "self" / "cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            root = groups / controllers
            folder = root / path.strip("/")
            yield from (place for place in (folder, *folder.parents) if place.is_relative_to(root))


def _numbers(folder: Path, names: tuple[str, ...]) -> Iterator[int]:
    yield from (int(text) for name in names for text in _lines(folder / name) if text.isdigit())


def _droppable_nbytes(folder: Path) -> int:
    fields = dict(line.split(" ", 1) for line in _lines(folder / "memory.stat"))
    return next((int(fields[name]) for name in DROPPABLE if name in fields), 0)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
