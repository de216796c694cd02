"""The states of live sequences and of shared prefixes: one of fixed size for each, in one arena.

A state cannot be rolled back: it holds what its sequence has read so far, and nothing of how it came to be.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import torch

from rotary_batch.engine.runtime.buffers import zeros
from rotary_batch.model.delta import DeltaShape


class StateArena:
    """The states of all Gated DeltaNet layers, in float32, and which of them are free."""

    def __init__(self, shape: DeltaShape, num_layers: int, num_states: int, device: torch.device) -> None:
        heads = (shape.num_value_heads, shape.key_head_dim, shape.value_head_dim)
        self.recurrent = zeros((num_layers, num_states, *heads), torch.float32, device)
        inputs = (shape.conv_width - 1, shape.conv_channels)  # the oldest first
        self.conv = zeros((num_layers, num_states, *inputs), torch.float32, device)
        self.num_states = num_states
        self._free = list(range(num_states))

    @property
    def nbytes(self) -> int:
        """Device memory in use."""
        return self.recurrent.nbytes + self.conv.nbytes

    @property
    def num_free(self) -> int:
        """How many sequences or prefixes could still get a state."""
        return len(self._free)

    def allocate(self) -> SequenceState:
        """Reserve the lowest free state, which keeps those in use next to each other, and clear it.

        Raises ValueError when none is free.
        """
        if not self._free:
            raise ValueError(f"none of {self.num_states} states is free")
        state = SequenceState(self, heapq.heappop(self._free))
        state.clear()
        return state

    def free(self, index: int) -> None:
        """Return a state."""
        heapq.heappush(self._free, index)


@dataclass(frozen=True, slots=True)
class SequenceState:
    """The state of one sequence, or at the end of one prefix, in all layers."""

    arena: StateArena
    index: int

    def clear(self) -> None:
        """Hold what a sequence begins with."""
        for states in (self.arena.recurrent, self.arena.conv):
            states[:, self.index].zero_()

    def copy_from(self, other: SequenceState) -> None:
        """Hold what `other` holds."""
        for states in (self.arena.recurrent, self.arena.conv):
            states[:, self.index].copy_(states[:, other.index])

    def free(self) -> None:
        """Return it to the arena."""
        self.arena.free(self.index)
