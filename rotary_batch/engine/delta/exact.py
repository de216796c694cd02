"""The gated delta rule token by token, whose bits depend neither on the batch nor on how a prompt is cut.

All operations are products and sums of single elements, and every sum has its fixed order, so it does not matter which
sequences are computed together.

B = sequences of a group, T = rows, K = key heads, V = value heads, Dk and Dv = their dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from rotary_batch.engine.delta.base import DeltaInputs, StateSegment, sum_by_halves
from rotary_batch.model.delta import DeltaShape

GROUP_NBYTES = 16 * 2**20  # states that are computed together; bounds the workspace


class _Group(NamedTuple):
    """Segments that are computed together, the longest first."""

    states: torch.Tensor  # [B]
    rows: torch.Tensor  # [longest, B]; of shorter segments only the first `num_active`
    num_active: list[int]  # segments that have a token at each place


class ExactDeltaRule:
    """The delta rule of one engine with exact numerics."""

    def __init__(self, shape: DeltaShape, device: torch.device) -> None:
        self._shape = shape
        self._device = device
        nbytes = shape.num_value_heads * shape.key_head_dim * shape.value_head_dim * 4
        self._group_size = max(1, GROUP_NBYTES // nbytes)
        self._groups: list[_Group] = []

    def plan(self, segments: Sequence[StateSegment]) -> None:
        """Group segments of similar length."""
        longest_first = sorted(segments, key=lambda segment: -segment.num_rows)
        begins = range(0, len(longest_first), self._group_size)
        self._groups = [self._group(longest_first[begin : begin + self._group_size]) for begin in begins]

    def _group(self, segments: Sequence[StateSegment]) -> _Group:
        places = torch.arange(segments[0].num_rows)[:, None]
        first_rows = torch.tensor([segment.first_row for segment in segments])
        lengths = torch.tensor([segment.num_rows for segment in segments])
        num_active = (places < lengths).sum(1).tolist()
        states = torch.tensor([segment.state for segment in segments])
        return _Group(states.to(self._device), (first_rows + places).to(self._device), num_active)

    def apply(self, inputs: DeltaInputs, recurrent: torch.Tensor) -> torch.Tensor:
        """Outputs [T, V, Dv]; updates `recurrent` [states, V, Dk, Dv]."""
        out = torch.empty_like(inputs.v)
        heads = self._shape.heads_per_key
        decay = inputs.log_decay.exp()
        by_head = DeltaInputs(
            inputs.q.repeat_interleave(heads, 1), inputs.k.repeat_interleave(heads, 1), inputs.v, decay, inputs.beta
        )
        for group in self._groups:
            states = recurrent[group.states]
            scratch = torch.empty_like(states)
            for place, active in enumerate(group.num_active):
                rows = group.rows[place, :active]
                token = DeltaInputs(*(part[rows] for part in by_head))
                out[rows] = _advance(states[:active], token, scratch[:active])
            recurrent[group.states] = states
        return out


def _advance(states: torch.Tensor, token: DeltaInputs, scratch: torch.Tensor) -> torch.Tensor:
    """Take states [B, V, Dk, Dv] one token further, in place; outputs [B, V, Dv].

    `token` has q and k of every value head, and the decay itself instead of its logarithm.
    """
    k, beta = token.k[..., None], token.beta[..., None]
    states.mul_(token.log_decay[..., None, None])
    held = sum_by_halves(torch.mul(states, k, out=scratch), -2)[..., 0, :]
    new = (token.v - held) * beta
    states.add_(torch.mul(k, new[..., None, :], out=scratch))
    return sum_by_halves(torch.mul(states, token.q[..., None], out=scratch), -2)[..., 0, :].clone()
