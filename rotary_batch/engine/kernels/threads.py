"""How many threads torch's operators use.

The compiled kernels share their loops in small tasks (kernels/c/pool.c).  Torch cuts a loop into equal parts and waits
for all of them: a busy process on one core delays every operator, even one that takes microseconds.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Operators on fewer elements use one thread: 66 us for the SwiGLU of 32 rows by 3,584, versus 77 us with two.
SMALL_NUMEL = 2**17

_configured = torch.get_num_threads()
_thread = threading.local()  # .within: count within `threads_for`; .last_seen: torch's count when this thread left here
_thread.last_seen = _configured


def num_threads() -> int:
    """Threads that the engine may use: as many as the user gave to torch.

    A new thread begins with the count that torch was last told in any thread, which may be the 1 of a `threads_for`.
    So 1 counts as the user's choice only in a thread that had more before.
    """
    global _configured  # noqa: PLW0603 - torch's setting is one of the process
    if within := getattr(_thread, "within", 0):
        return int(within)
    if (count := torch.get_num_threads()) != getattr(_thread, "last_seen", 1):
        _configured = _thread.last_seen = count
    return _configured


@contextmanager
def threads_for(numel: int) -> Iterator[None]:
    """Limit torch's operators in the block, which work on `numel` elements each, to one thread if those are few."""
    outer, before, configured = getattr(_thread, "within", 0), torch.get_num_threads(), num_threads()
    _thread.within = configured
    torch.set_num_threads(1 if numel < SMALL_NUMEL else configured)
    try:
        yield
    finally:
        _thread.within = outer
        torch.set_num_threads(before if outer else configured)
        _thread.last_seen = configured
