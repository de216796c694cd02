"""Host memory in pages of its own: aligned, huge where the system has them, page-locked for a CUDA device.

Knows mmap and cudaHostRegister; knows nothing of what lies in it.
"""

from __future__ import annotations

import mmap
from contextlib import suppress

import torch

from rotary_batch.model.slabs import PAGE_NBYTES


def page_buffer(nbytes: int) -> torch.Tensor:
    """A page-aligned uint8 tensor of its own; the memory goes back to the system with it.

    Private, because shared memory has no huge pages on most systems.  Near a memory limit small pages lie scattered,
    and the disk wrote them at half its speed: 32 sequences decoded 35 tokens a second, in huge pages 61.
    """
    memory = mmap.mmap(-1, max(nbytes, PAGE_NBYTES), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.uint8, count=nbytes)


def in_own_pages(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A copy, as numbers of that type, that lies as slabs do."""
    return page_buffer(tensor.numel() * dtype.itemsize).view(dtype).view(tensor.shape).copy_(tensor)


def page_lock(memory: torch.Tensor) -> bool:
    """Page-lock bytes of an exact size, if the system allows; torch's own pinned allocator rounds 170 MB up to 256."""
    result = torch.cuda.cudart().cudaHostRegister(memory.data_ptr(), memory.numel(), 0)  # type: ignore[no-untyped-call]
    if int(result):
        with suppress(RuntimeError):
            torch.zeros(1, device="cuda")  # takes the error that the refusal leaves behind for the next kernel
    return int(result) == 0


def page_unlock(*memories: torch.Tensor) -> None:
    """Undo `page_lock`."""
    for memory in memories:
        torch.cuda.cudart().cudaHostUnregister(memory.data_ptr())  # type: ignore[no-untyped-call]
