"""Rotary position embedding (arXiv 2104.09864), in the half-split layout of Hugging Face checkpoints.

T = tokens, D = head dimension.
"""

from __future__ import annotations

import torch


class Rope:
    """Tables of cos and sin for every position of the context, [context, D / 2] in the compute dtype."""

    def __init__(
        self, head_dim: int, theta: float, context_tokens: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        frequencies = 1.0 / theta ** (torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim)
        angles = torch.outer(torch.arange(context_tokens).float(), frequencies)
        self._cos, self._sin = angles.cos().to(device, dtype), angles.sin().to(device, dtype)

    def cos_sin(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """cos and sin for tokens at positions [T], each [T, 1, D / 2]."""
        return self._cos[positions][:, None], self._sin[positions][:, None]


def rotate(x: torch.Tensor, cos_sin: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Apply the embedding to x [T, heads, D]."""
    cos, sin = cos_sin
    first, second = x.chunk(2, -1)
    out = torch.empty_like(x)
    torch.sub(first * cos, second * sin, out=out[..., : first.shape[-1]])
    torch.add(second * cos, first * sin, out=out[..., first.shape[-1] :])
    return out
