"""How the C library hands out memory.

Knows two of its settings; knows nothing of tensors.
"""

from __future__ import annotations

import ctypes
import ctypes.util

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc
_LARGEST = 2**31 - 1


def keep_freed_memory() -> None:
    """Reuse freed memory instead of giving it back to the system: activations of a revolution come and go.

    By default glibc maps every large block anew, and its pages are zeroed at first touch: 2,048 prompt tokens took
    1.2 s instead of 0.9 s.  Another C library has no such settings and needs none.
    """
    name = ctypes.util.find_library("c")
    mallopt = getattr(ctypes.CDLL(name), "mallopt", None) if name else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 2**30)
        mallopt(_M_TRIM_THRESHOLD, _LARGEST)
