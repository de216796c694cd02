"""Time work on a device."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

ROUNDS = 5


def seconds(work: Callable[[], object], device: torch.device, rounds: int = ROUNDS) -> float:
    """The best time of several runs, after one to warm up."""
    times_s = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times_s.append(time.perf_counter() - start)
    return min(times_s[1:])
