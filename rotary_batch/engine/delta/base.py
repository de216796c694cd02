"""What the gated delta rule computes in one step, and the interface of its implementations.

For each value head, token by token, with the state S [Dk, Dv]:

    S = decay * S;  S = S + k (beta * (v - S^T k))^T;  out = S^T q

`exact.py` does just that, and gives bits that do not depend on the batch or on how a prompt is cut.  `fast.py` takes
the decode rows of all sequences together, and prompts in chunks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch


class StateSegment(NamedTuple):
    """Consecutive rows of one sequence in this step, and which state of the arena is its own."""

    first_row: int  # in the flattened batch
    num_rows: int
    state: int

    def rows(self) -> range:
        """Its rows in the flattened batch."""
        return range(self.first_row, self.first_row + self.num_rows)


class DeltaInputs(NamedTuple):
    """What the rule reads, in float32.  T = rows, K = key heads, V = value heads."""

    q: torch.Tensor  # [T, K, Dk], of length 1 / sqrt(Dk)
    k: torch.Tensor  # [T, K, Dk], of length 1
    v: torch.Tensor  # [T, V, Dv]
    log_decay: torch.Tensor  # [T, V], at most 0
    beta: torch.Tensor  # [T, V], 0 to 1: how much of what the state holds under a key is replaced


class DeltaRule(Protocol):
    """The gated delta rule over the rows of a step."""

    def plan(self, segments: Sequence[StateSegment]) -> None:
        """Prepare the index tensors of a step; all layers share them.  Every row is in one segment."""
        ...

    def apply(self, inputs: DeltaInputs, recurrent: torch.Tensor) -> torch.Tensor:
        """Outputs [T, V, Dv]; updates a layer's states `recurrent` [states, V, Dk, Dv] in place."""
        ...


def sum_by_halves(x: torch.Tensor, dim: int) -> torch.Tensor:
    """The sum over a dimension, which is kept; overwrites x.

    The second half is added to the first until one is left.  The order is that of the elements alone, so the bits of a
    sum do not depend on the other dimensions, as those of torch's own reductions may.
    """
    length = x.shape[dim]
    while length > 1:
        half = (length + 1) // 2
        x.narrow(dim, 0, length - half).add_(x.narrow(dim, half, length - half))
        length = half
    return x.narrow(dim, 0, 1)
