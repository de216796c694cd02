"""A Gated DeltaNet layer over the rows of one step.

Projections, a causal convolution over the last few inputs of each channel, the gated delta rule, and a norm with an
output gate.  As in Qwen3-Next and Qwen3.5 (transformers' `Qwen3NextGatedDeltaNet`, `Qwen3_5MoeGatedDeltaNet`).

T = rows, S = segments, W = width of the convolution, H = hidden, K = key heads, V = value heads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self

import torch

from rotary_batch.engine.delta.base import DeltaInputs, DeltaRule, StateSegment, sum_by_halves
from rotary_batch.engine.delta.exact import ExactDeltaRule
from rotary_batch.engine.delta.fast import FastDeltaRule
from rotary_batch.engine.delta.states import StateArena
from rotary_batch.engine.kernels.numerics import Numerics
from rotary_batch.engine.kernels.quant import Matrix
from rotary_batch.model.delta import DeltaShape

_L2_EPS = 1e-6
_LINEAR_ABOVE = 20.0  # softplus(x) = x in float32 from there on


class DeltaWeights(NamedTuple):
    """One layer's tensors."""

    qkv: Matrix  # [2 K Dk + V Dv, H]: all queries, all keys, all values
    z: Matrix  # [V Dv, H]
    b: Matrix  # [V, H]
    a: Matrix  # [V, H]
    conv: torch.Tensor  # [channels, W]
    A_log: torch.Tensor  # [V]
    dt_bias: torch.Tensor  # [V]
    norm: torch.Tensor  # [Dv]
    out: Matrix  # [H, V Dv]

    @classmethod
    def of_layer(cls, dense: Mapping[str, Matrix], layer: int) -> Self:
        """The tensors of a layer by their names in a pack."""
        tensors = {name: dense[f"layers.{layer}.delta.{name}"] for name in cls._fields}
        for name in ("conv", "A_log", "dt_bias", "norm"):
            tensor = tensors[name]
            assert isinstance(tensor, torch.Tensor), "only matrices are quantised"
            tensors[name] = tensor.float()
        return cls(**tensors)  # type: ignore[arg-type]


class _ConvPlan(NamedTuple):
    """Indices into the inputs of the convolution: the conv states of all segments, then the rows of the step."""

    states: torch.Tensor  # [S] of the arena
    taps: torch.Tensor  # [W, T] inputs of each row, the oldest first
    last: torch.Tensor  # [S, W - 1] what the conv states are after the step


class GatedDelta:
    """The Gated DeltaNet layers of one engine."""

    def __init__(self, shape: DeltaShape, eps: float, numerics: Numerics, device: torch.device) -> None:
        self._shape = shape
        self._eps = eps
        self._numerics = numerics
        self._device = device
        rule: type[ExactDeltaRule | FastDeltaRule] = ExactDeltaRule if numerics.exact else FastDeltaRule
        self._rule: DeltaRule = rule(shape, device)
        self._conv_plan: _ConvPlan | None = None

    def plan(self, segments: Sequence[StateSegment]) -> None:
        """Prepare the index tensors of a step; all layers share them.  Segments are in the order of their rows."""
        self._rule.plan(segments)
        kept = self._shape.conv_width - 1
        taps, last = [], []
        for n, segment in enumerate(segments):
            first = len(segments) * kept + segment.first_row
            inputs = torch.cat([torch.arange(n * kept, (n + 1) * kept), torch.arange(first, first + segment.num_rows)])
            taps.append(inputs.unfold(0, segment.num_rows, 1))
            last.append(inputs[segment.num_rows :])
        states = torch.tensor([segment.state for segment in segments])
        self._conv_plan = _ConvPlan(
            *(tensor.to(self._device) for tensor in (states, torch.cat(taps, 1), torch.stack(last)))
        )

    def mix(self, x: torch.Tensor, weights: DeltaWeights, states: StateArena, state_layer: int) -> torch.Tensor:
        """Normed rows [T, H] -> [T, H]; updates the states of the `state_layer`-th layer that has any."""
        shape, linear = self._shape, self._numerics.linear
        channels = self._convolve(linear(x, weights.qkv).float(), weights.conv, states.conv[state_layer])
        q, k, v = torch.split(channels, [shape.key_width, shape.key_width, shape.value_width], 1)
        inputs = DeltaInputs(
            self._l2_norm(q.view(len(x), shape.num_key_heads, -1)) * shape.key_head_dim**-0.5,
            self._l2_norm(k.view(len(x), shape.num_key_heads, -1)),
            v.view(len(x), shape.num_value_heads, -1),
            -weights.A_log.exp() * _softplus(linear(x, weights.a).float() + weights.dt_bias),
            _sigmoid(linear(x, weights.b).float()),
        )
        out = self._rule.apply(inputs, states.recurrent[state_layer])
        return linear(self._gated_norm(out, linear(x, weights.z).float(), weights.norm), weights.out)

    def _convolve(self, x: torch.Tensor, weight: torch.Tensor, conv_states: torch.Tensor) -> torch.Tensor:
        """silu of the causal convolution of rows [T, channels]; updates `conv_states` [states, W - 1, channels]."""
        plan = self._conv_plan
        assert plan is not None, "plan comes first"
        inputs = torch.cat([conv_states[plan.states].flatten(0, 1), x])
        out = inputs[plan.taps[0]] * weight[:, 0]
        for tap in range(1, self._shape.conv_width):
            out += inputs[plan.taps[tap]] * weight[:, tap]
        conv_states[plan.states] = inputs[plan.last]
        return self._numerics.silu(out)

    def _l2_norm(self, x: torch.Tensor) -> torch.Tensor:
        """Vectors [..., D] of length 1."""
        squares = x.square()
        total = sum_by_halves(squares, -1) if self._numerics.exact else squares.sum(-1, keepdim=True)
        return x * (total + _L2_EPS).rsqrt()

    def _gated_norm(self, x: torch.Tensor, gate: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """RMS norm of each head of x [T, V, Dv], times silu of gate [T, V * Dv] -> [T, V * Dv]."""
        squares = x.square()
        total = sum_by_halves(squares, -1) if self._numerics.exact else squares.sum(-1, keepdim=True)
        normed = x * (total / x.shape[-1] + self._eps).rsqrt() * weight
        return (normed.flatten(1) * self._numerics.silu(gate)).to(self._numerics.dtype)


def _sigmoid(x: torch.Tensor) -> torch.Tensor:
    """Torch's own computes other bits in the last elements of an odd-sized tensor, as with silu (numerics.py)."""
    return 1 / (1 + torch.exp(-x))


def _softplus(x: torch.Tensor) -> torch.Tensor:
    """log(1 + exp(x)), by operators whose bits are those of each element; see `_sigmoid`."""
    return torch.where(x > _LINEAR_ABOVE, x, torch.log1p(torch.exp(x)))
