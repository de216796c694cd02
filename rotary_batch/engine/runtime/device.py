"""Devices by name, and how much memory they have."""

from __future__ import annotations

import os

import torch

from rotary_batch.errors import UnavailableError
from rotary_batch.model.host import free_nbytes


def resolve_device(name: str) -> torch.device:
    """`cpu`, `cuda` or `cuda:1`; a CUDA device becomes the current one.  Raises UnavailableError."""
    if not name.startswith("cuda"):
        return torch.device(name)
    if not torch.cuda.is_available():
        raise UnavailableError(f"--device {name}: torch {torch.__version__} finds no CUDA device; use --device cpu")
    index = torch.device(name).index or 0  # torch limits the memory only of a device with an index
    if index >= (count := torch.cuda.device_count()):
        raise UnavailableError(f"--device {name}: there are {count}, counted from cuda:0")
    # the number of rows changes at every step: segments of fixed sizes would fragment the memory
    os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    torch.cuda.set_device(index)  # events and Triton kernels use the current device
    return torch.device("cuda", index)


def device_memory_nbytes(device: torch.device) -> int:
    """The total memory of a CUDA device; the free memory of a CPU."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return free_nbytes()
