"""The shape of a Gated DeltaNet layer (arXiv 2412.06464), and the bytes of a sequence's state in it."""

from __future__ import annotations

from dataclasses import dataclass

from rotary_batch.errors import ModelError

STATE_NUMBER_NBYTES = 4  # states are float32 in every numerics


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaShape:
    """Linear attention with a state of fixed size instead of a KV cache.

    Each key head serves a run of consecutive value heads.
    """

    num_key_heads: int
    num_value_heads: int
    key_head_dim: int
    value_head_dim: int
    conv_width: int  # inputs that the causal convolution sees, the newest included

    def __post_init__(self) -> None:
        if min(self.num_key_heads, self.num_value_heads, self.key_head_dim, self.value_head_dim) < 1:
            raise ModelError("linear attention without heads, or with heads of size 0")
        if self.num_value_heads % self.num_key_heads:
            raise ModelError(
                f"{self.num_value_heads} linear value heads are not a multiple of {self.num_key_heads} linear key heads"
            )
        if self.conv_width < 2:
            raise ModelError(f"a linear convolution of width {self.conv_width}; the least is 2")

    @property
    def heads_per_key(self) -> int:
        """Value heads that a key head serves."""
        return self.num_value_heads // self.num_key_heads

    @property
    def key_width(self) -> int:
        """Channels of all queries, and of all keys."""
        return self.num_key_heads * self.key_head_dim

    @property
    def value_width(self) -> int:
        """Channels of all values."""
        return self.num_value_heads * self.value_head_dim

    @property
    def conv_channels(self) -> int:
        """Channels of the convolution: all queries, all keys, all values, in this order."""
        return 2 * self.key_width + self.value_width

    @property
    def state_params(self) -> int:
        """Numbers of one sequence's state in one layer: of the delta rule, and the last inputs of the convolution."""
        recurrent = self.num_value_heads * self.key_head_dim * self.value_head_dim
        return recurrent + (self.conv_width - 1) * self.conv_channels

    @property
    def state_nbytes(self) -> int:
        """Bytes of one sequence's state in one layer."""
        return self.state_params * STATE_NUMBER_NBYTES
