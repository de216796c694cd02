"""One family of models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rotary_batch.model.tables import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """How a config describes a family's models."""

    name: str  # transformers' model type
    model_types: tuple[str, ...]  # all that a config may say
    architectures: tuple[str, ...]
    oracle: str  # the class of transformers whose logits ours must be
    default_theta: float = 1e4  # of the rotation, where a config does not say it
    adjacent_pairs: bool = False  # checkpoints rotate neighbours, the engine halves: rows are re-ordered when packed
    interleaved_experts: bool = False  # fused experts are [columns, rows], of which even ones are gate, odd ones up
    switches: Callable[[Table], dict[str, Any]]  # fields of Geometry that differ from Mixtral's, or from `config.sizes`
