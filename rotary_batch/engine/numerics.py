"""The two ways to compute: exact (the same bits whatever shares the batch) and fast.

Knows dtypes, row tiles and scratch memory; knows nothing of what a matrix means.

Exact: float32, and every matmul sees a multiple of TILE_ROWS rows.  A float32 `linear` gives other bits
at 1, 2, 3 and 7 rows than at 64; at multiples of 16 rows each row's bits were the same at every count and
place that was tried (13 shapes, 16 to 1,024 rows, see NOTES.md).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

TILE_ROWS = 16


class Numerics:
    """How one engine computes.  Not shared by threads: the scratch is reused at every call."""

    def __init__(self, mode: str, device: torch.device) -> None:
        self.mode = mode
        self.exact = mode == "exact"
        self.dtype = torch.float32 if self.exact else torch.bfloat16
        self._device = device
        self._scratch: dict[int, torch.Tensor] = {}

    def pad_rows(self, x: torch.Tensor) -> torch.Tensor:
        """Rows of zeros up to a whole number of tiles, on a CPU in both modes: oneDNN keeps code and buffers for
        every number of rows that it meets, about 10 MB a revolution of ragged batches.
        """
        missing = -x.shape[0] % TILE_ROWS if self.exact or self._device.type == "cpu" else 0
        return F.pad(x, (0, 0, 0, missing)) if missing else x

    def linear(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """x [T, in] times weight [out, in] -> [T, out]; the weight already has the compute dtype."""
        return F.linear(self.pad_rows(x), weight)[: x.shape[0]]

    def weight(self, stored: torch.Tensor, place: int) -> torch.Tensor:
        """Stored weights in the compute dtype; converted ones live in scratch number `place` until its next use."""
        if stored.dtype == self.dtype:
            return stored
        scratch = self._scratch.get(place)
        if scratch is None or scratch.numel() < stored.numel():
            scratch = torch.empty(stored.numel(), dtype=self.dtype, device=self._device)
            self._scratch[place] = scratch
        return scratch[: stored.numel()].view(stored.shape).copy_(stored)

    def silu(self, x: torch.Tensor) -> torch.Tensor:
        """x times sigmoid(x).  Torch's own takes other bits of exp in the last, odd elements of a tensor."""
        return x / (1 + torch.exp(-x)) if self.exact else F.silu(x)

    def rms_norm(self, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        """Root-mean-square norm of rows in float32 (arXiv 1910.07467)."""
        wide = x.float()
        scaled = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
        return (scaled * weight.float()).to(self.dtype)
