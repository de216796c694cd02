"""How the rotary embedding is stretched to longer contexts: frequencies, and what cos and sin are multiplied by.

The formulas are those of transformers' modeling_rope_utils.py.  D = dimensions that rotate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from rotary_batch.errors import ModelError

ROPE_KINDS = ("default", "linear", "llama3", "yarn", "longrope", "ntk")


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeScaling:
    """The parameters of one kind; those that a kind does not use keep their defaults."""

    kind: str = "default"
    factor: float = 1.0
    original_max_position: int = 0  # that the model was trained with
    low_freq_factor: float = 1.0  # llama3
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0  # yarn (arXiv 2309.00071)
    beta_slow: float = 1.0
    truncate: bool = True
    attention_factor: float | None = None  # of cos and sin; None = by the formula of the kind
    mscale: float = 0.0
    mscale_all_dim: float = 0.0
    factors: tuple[float, ...] = ()  # longrope: one for each pair of dimensions
    divisors: tuple[float, ...] = ()  # of the frequencies, as a GGUF file stores them for llama3

    def __post_init__(self) -> None:
        if self.kind not in ROPE_KINDS:
            raise ModelError(f"rope type {self.kind!r} is not supported; known types: {', '.join(ROPE_KINDS)}")


class Frequencies(NamedTuple):
    """The angle of one position for each pair of dimensions [D / 2], and the factor of cos and sin."""

    angles: list[float]
    factor: float


def frequencies(theta: float, rotary_dim: int, scaling: RopeScaling) -> Frequencies:
    """The frequencies of a head of which `rotary_dim` dimensions rotate."""
    if scaling.kind == "ntk":  # Hunyuan: the base grows
        theta *= scaling.factor ** (rotary_dim / (rotary_dim - 2))
    plain = [theta ** (-pair / rotary_dim) for pair in range(0, rotary_dim, 2)]
    if scaling.divisors:
        return Frequencies([angle / by for angle, by in zip(plain, scaling.divisors, strict=True)], 1.0)
    if scaling.kind == "linear":
        return Frequencies([angle / scaling.factor for angle in plain], 1.0)
    if scaling.kind == "llama3":
        return Frequencies([_llama3(angle, scaling) for angle in plain], 1.0)
    if scaling.kind == "yarn":
        return Frequencies(_yarn(plain, theta, rotary_dim, scaling), _yarn_factor(scaling))
    if scaling.kind == "longrope":
        stretched = [angle / by for angle, by in zip(plain, scaling.factors, strict=True)]
        return Frequencies(stretched, 1.0 if scaling.attention_factor is None else scaling.attention_factor)
    return Frequencies(plain, 1.0)


def _llama3(angle: float, scaling: RopeScaling) -> float:
    """Long waves are stretched, short ones are not, those between in part."""
    wavelength = 2 * math.pi / angle
    if wavelength < scaling.original_max_position / scaling.high_freq_factor:
        return angle
    if wavelength > scaling.original_max_position / scaling.low_freq_factor:
        return angle / scaling.factor
    smooth = (scaling.original_max_position / wavelength - scaling.low_freq_factor) / (
        scaling.high_freq_factor - scaling.low_freq_factor
    )
    return (1 - smooth) * angle / scaling.factor + smooth * angle


def _yarn(plain: list[float], theta: float, rotary_dim: int, scaling: RopeScaling) -> list[float]:
    def dimension(rotations: float) -> float:
        """The dimension that turns so often over the original context."""
        return rotary_dim * math.log(scaling.original_max_position / (rotations * 2 * math.pi)) / (2 * math.log(theta))

    low, high = dimension(scaling.beta_fast), dimension(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rotary_dim - 1)
    if low == high:
        high += 0.001
    kept = [1 - min(1.0, max(0.0, (pair - low) / (high - low))) for pair in range(len(plain))]
    return [angle / scaling.factor * (1 - share) + angle * share for angle, share in zip(plain, kept, strict=True)]


def _yarn_factor(scaling: RopeScaling) -> float:
    if scaling.attention_factor is not None:
        return scaling.attention_factor
    if scaling.mscale and scaling.mscale_all_dim:
        return yarn_mscale(scaling.factor, scaling.mscale) / yarn_mscale(scaling.factor, scaling.mscale_all_dim)
    return yarn_mscale(scaling.factor, 1.0)


def yarn_mscale(factor: float, mscale: float) -> float:
    """How much sharper attention gets when the context is stretched by `factor`."""
    return 0.1 * mscale * math.log(factor) + 1.0 if factor > 1 else 1.0
