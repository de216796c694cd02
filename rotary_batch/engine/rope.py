"""Rotary position embedding (arXiv 2104.09864), in the half-split layout of Hugging Face checkpoints.

T = tokens, D = head dimension, R = dimensions of a head that rotate: the first ones.
"""

from __future__ import annotations

import torch

from rotary_batch.model.geometry import Geometry
from rotary_batch.model.rope_scaling import frequencies


class Rope:
    """Tables of cos and sin for every position of the context, [context, R / 2] in the compute dtype."""

    def __init__(self, geometry: Geometry, context_tokens: int, dtype: torch.dtype, device: torch.device) -> None:
        scaled = frequencies(geometry.rope_theta, geometry.num_rotary, geometry.rope_scaling)
        angles = torch.outer(torch.arange(context_tokens).float(), _angles(geometry, scaled.angles))
        self._cos, self._sin = ((part * scaled.factor).to(device, dtype) for part in (angles.cos(), angles.sin()))

    def cos_sin(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """cos and sin for tokens at positions [T], each [T, 1, R / 2]."""
        return self._cos[positions][:, None], self._sin[positions][:, None]


def _angles(geometry: Geometry, scaled: list[float]) -> torch.Tensor:
    """The frequencies [R / 2] in float32; unscaled ones with the bits that transformers gives them."""
    if geometry.rope_scaling.kind != "default" or geometry.rope_scaling.divisors:
        return torch.tensor(scaled, dtype=torch.float64).float()
    dim = geometry.num_rotary
    return 1.0 / geometry.rope_theta ** (torch.arange(0, dim, 2, dtype=torch.int64).float() / dim)


def rotate(x: torch.Tensor, cos_sin: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Apply the embedding to the first R dimensions of x [T, heads, D]."""
    cos, sin = cos_sin
    half = cos.shape[-1]
    first, second = x[..., :half], x[..., half : 2 * half]
    out = torch.empty_like(x)
    torch.sub(first * cos, second * sin, out=out[..., :half])
    torch.add(second * cos, first * sin, out=out[..., half : 2 * half])
    out[..., 2 * half :] = x[..., 2 * half :]
    return out
