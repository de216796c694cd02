"""Which rows of a model's matrices rotate, where checkpoints rotate pairs of neighbours and the engine halves."""

from __future__ import annotations

from rotary_batch.model.geometry import Geometry


def rotating_rows(name: str, geometry: Geometry) -> tuple[int, int, int] | None:
    """Of one of our dense tensors: rows of a head, how many of them rotate, and where those begin; None = none do."""
    part = name.removesuffix(".bias").rpartition(".")[2]
    rotary = geometry.num_rotary
    if not geometry.kv_lora_rank:
        return (geometry.head_dim, rotary, 0) if part in {"q", "k"} else None
    if part == "kv_a":
        return geometry.head_dim, rotary, geometry.kv_lora_rank
    return (geometry.nope_head_dim + rotary, rotary, geometry.nope_head_dim) if part in {"q", "q_b"} else None
