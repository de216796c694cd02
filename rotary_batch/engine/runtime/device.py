"""What a name of a device means, and how much memory it has.

Knows torch's devices; knows nothing of models.
"""

from __future__ import annotations

import os

import torch

from rotary_batch.errors import UnavailableError
from rotary_batch.model.host import free_nbytes


def device_named(name: str) -> torch.device:
    """`cpu`, `cuda` or `cuda:1`; a CUDA device is the current one from now on.  Raises UnavailableError."""
    if not name.startswith("cuda"):
        return torch.device(name)
    if not torch.cuda.is_available():
        raise UnavailableError(f"--device {name}: torch {torch.__version__} finds no CUDA device; use --device cpu")
    index = torch.device(name).index or 0  # torch caps the memory of a device that has a number
    if index >= (count := torch.cuda.device_count()):
        raise UnavailableError(f"--device {name}: there are {count}, counted from cuda:0")
    # rows come and go in every number: in blocks of fixed sizes some of the memory could not be joined up again
    os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    torch.cuda.set_device(index)  # events, and kernels of Triton, go to the current one
    return torch.device("cuda", index)


def device_memory_nbytes(device: torch.device) -> int:
    """All memory of a device; on a CPU what is free."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return free_nbytes()
