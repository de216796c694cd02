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

_mine = threading.local()  # .given: threads that torch had before the outermost `threads_for`


def num_threads() -> int:
    """Threads that the engine may use: those that torch was given."""
    return getattr(_mine, "given", None) or torch.get_num_threads()


@contextmanager
def threads_for(numel: int) -> Iterator[None]:
    """Let torch's operators, which work on `numel` numbers each, take one thread if those are few, else all."""
    outer, before = getattr(_mine, "given", None), torch.get_num_threads()
    _mine.given = num_threads()
    torch.set_num_threads(1 if numel < SMALL_NUMEL else _mine.given)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        _mine.given = outer
