"""Rotary position embedding (arXiv 2104.09864), halves layout as in Hugging Face checkpoints.

Knows angles; knows nothing of heads' meaning.  T = tokens, D = head dimension.
"""

from __future__ import annotations

import torch


class Rope:
    """Tables of cos and sin for every position of the context, [context, D] float32."""

    def __init__(self, head_dim: int, theta: float, context_tokens: int, device: torch.device) -> None:
        inverse = 1.0 / theta ** (torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim)
        angles = torch.outer(torch.arange(context_tokens).float(), inverse)
        both = torch.cat([angles, angles], -1)
        self._cos, self._sin = both.cos().to(device), both.sin().to(device)

    def rotate(self, x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Turn x [T, heads, D] by positions [T]."""
        cos, sin = self._cos[positions][:, None], self._sin[positions][:, None]
        wide = x.float()
        first, second = wide.chunk(2, -1)
        return (wide * cos + torch.cat([-second, first], -1) * sin).to(x.dtype)
