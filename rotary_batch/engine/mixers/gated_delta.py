"""A Gated DeltaNet layer over the rows of one step.

Projections, a causal convolution over the last few inputs of each channel, the gated delta rule, and a norm with an
output gate.  As in Qwen3-Next and Qwen3.5 (transformers' `Qwen3NextGatedDeltaNet`, `Qwen3_5MoeGatedDeltaNet`).

T = rows, S = segments, W = width of the convolution, H = hidden, K = key heads, V = value heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from rotary_batch.engine.delta.base import DeltaInputs, DeltaRule, StateSegment, sum_by_halves
from rotary_batch.engine.delta.exact import ExactDeltaRule
from rotary_batch.engine.delta.fast import FastDeltaRule
from rotary_batch.engine.delta.states import StateArena
from rotary_batch.engine.mixers.base import StepRows
from rotary_batch.engine.weights import Weights

_L2_EPS = 1e-6
_LINEAR_ABOVE = 20.0  # softplus(x) = x in float32 from there on


class _ConvPlan(NamedTuple):
    """Indices into the inputs of the convolution: the conv states of all segments, then the rows of the step."""

    states: torch.Tensor  # [S] of the arena
    taps: torch.Tensor  # [W, T] inputs of each row, the oldest first
    last: torch.Tensor  # [S, W - 1] what the conv states are after the step


class GatedDelta:
    """The Gated DeltaNet layers of one engine."""

    def __init__(self, weights: Weights, states: StateArena) -> None:
        shape, self._numerics = weights.geometry.delta, weights.numerics
        assert shape is not None, "the model has such layers"
        self._shape = shape
        self._weights = weights
        self._states = states
        self._state_layers = {layer: place for place, layer in enumerate(weights.geometry.delta_layers)}
        self._device = states.recurrent.device
        self._rule: DeltaRule = (
            ExactDeltaRule(shape, self._device)
            if self._numerics.exact
            else FastDeltaRule(shape, self._device, self._numerics.kernels)
        )
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

    def mix(self, layer: int, x: torch.Tensor, step: StepRows) -> torch.Tensor:
        """Normed rows [T, H] -> [T, H]; advances the states of their sequences."""
        shape, stem = self._shape, f"layers.{layer}.delta"
        channels = self._convolve(layer, self._linear(x, f"{stem}.qkv"))
        q, k, v = torch.split(channels, [shape.key_width, shape.key_width, shape.value_width], 1)
        inputs = DeltaInputs(
            self._l2_norm(q.view(len(x), shape.num_key_heads, -1)) * shape.key_head_dim**-0.5,
            self._l2_norm(k.view(len(x), shape.num_key_heads, -1)),
            v.view(len(x), shape.num_value_heads, -1),
            self._log_decay(layer, self._linear(x, f"{stem}.a")),
            self._numerics.sigmoid(self._linear(x, f"{stem}.b")),
        )
        out = self._rule.apply(inputs, self._states.recurrent[self._state_layers[layer]])
        gated = self._gated_norm(out, self._linear(x, f"{stem}.z"), self._vector(f"{stem}.norm"))
        if self._weights.geometry.delta_out_by_turns:
            heads = gated.view(len(x), shape.num_key_heads, shape.heads_per_key, shape.value_head_dim)
            gated = heads.transpose(1, 2).flatten(1)
        return self._weights.linear(gated, f"{stem}.out")

    def _linear(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return self._weights.linear(x, name).float()

    def _vector(self, name: str) -> torch.Tensor:
        return self._weights.vector(name).float()

    def _convolve(self, layer: int, x: torch.Tensor) -> torch.Tensor:
        """silu of the causal convolution of rows [T, channels]; advances the conv states of their sequences."""
        plan, weight = self._conv_plan, self._vector(f"layers.{layer}.delta.conv")
        assert plan is not None, "plan comes first"
        states = self._states.conv[self._state_layers[layer]]  # [states, W - 1, channels]
        inputs = torch.cat([states[plan.states].flatten(0, 1), x])
        out = inputs[plan.taps[0]] * weight[:, 0]
        for tap in range(1, self._shape.conv_width):
            out += inputs[plan.taps[tap]] * weight[:, tap]
        states[plan.states] = inputs[plan.last]
        return self._numerics.silu(out)

    def _log_decay(self, layer: int, a: torch.Tensor) -> torch.Tensor:
        stem = f"layers.{layer}.delta"
        return -self._vector(f"{stem}.A_log").exp() * _softplus(a + self._vector(f"{stem}.dt_bias"))

    def _l2_norm(self, x: torch.Tensor) -> torch.Tensor:
        """Vectors [..., D] of length 1."""
        squares = x.square()
        total = sum_by_halves(squares, -1) if self._numerics.exact else squares.sum(-1, keepdim=True)
        return x * (total + _L2_EPS).rsqrt()

    def _gated_norm(self, x: torch.Tensor, gate: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """RMS norm of each head of x [T, V, Dv], times silu of gate [T, V * Dv] -> [T, V * Dv]."""
        squares = x.square()
        total = sum_by_halves(squares, -1) if self._numerics.exact else squares.sum(-1, keepdim=True)
        normed = x * (total / x.shape[-1] + self._weights.geometry.rms_norm_eps).rsqrt() * weight
        return (normed.flatten(1) * self._numerics.silu(gate)).to(self._numerics.dtype)


def _softplus(x: torch.Tensor) -> torch.Tensor:
    """log(1 + exp(x)), by operators whose bits are those of each element, unlike torch's own; see numerics.py."""
    return torch.where(x > _LINEAR_ABOVE, x, torch.log1p(torch.exp(x)))
