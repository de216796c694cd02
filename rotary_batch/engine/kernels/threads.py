"""How many threads torch's operators take, and how those wait.

The compiled kernels share their loops in small pieces (kernels/c/pool.c).  Torch cuts a loop into equal parts and waits
for all of them: a busy process on one core holds up every operator, even one that would take microseconds.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Operators on fewer numbers take one thread: 66 us for the SwiGLU of 32 rows by 3,584, where two take 77.
SMALL_NUMEL = 2**17

_given = torch.get_num_threads()
_mine = threading.local()  # .given: within `threads_for`; .left: what torch had when this thread was last here
_mine.left = _given


def num_threads() -> int:
    """Threads that the engine may use: those that torch was given.

    A thread begins with the count that torch was told last in any thread, which may be the 1 of a `threads_for`.  So 1
    counts only as a change, in a thread that had more here before.
    """
    global _given  # noqa: PLW0603 - torch's setting is one of the process
    if within := getattr(_mine, "given", 0):
        return int(within)
    if (count := torch.get_num_threads()) != getattr(_mine, "left", 1):
        _given = _mine.left = count
    return _given


@contextmanager
def threads_for(numel: int) -> Iterator[None]:
    """Let torch's operators, which work on `numel` numbers each, take one thread if those are few, else all."""
    outer, before, given = getattr(_mine, "given", 0), torch.get_num_threads(), num_threads()
    _mine.given = given
    torch.set_num_threads(1 if numel < SMALL_NUMEL else given)
    try:
        yield
    finally:
        _mine.given = outer
        torch.set_num_threads(before if outer else given)
        _mine.left = given
