"""What a layer gets to mix tokens with, and the interface of its variants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch

from rotary_batch.engine.attention.base import QuerySegment
from rotary_batch.engine.kvcache.arena import KvArena


class StepRows(NamedTuple):
    """The rows of a step, as all layers share them."""

    segments: Sequence[QuerySegment]
    cos_sin: tuple[torch.Tensor, torch.Tensor]  # of their positions, each [T, 1, R / 2]
    slot_mapping: torch.Tensor  # [T] where their keys and values go in the arena
    kv: KvArena


class Mixer(Protocol):
    """One layer's mixing of tokens."""

    def mix(self, layer: int, x: torch.Tensor, step: StepRows) -> torch.Tensor:
        """Normed rows [T, H] -> [T, H], and the cache of the layer is brought up to date."""
        ...
