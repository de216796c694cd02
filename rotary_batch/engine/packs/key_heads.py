"""Input projections of a Gated DeltaNet in one tensor, in which those of each key head stand together."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from rotary_batch.model.delta import DeltaShape


def num_rows(delta: DeltaShape, parts: Sequence[str]) -> int:
    """Rows of the tensor that has these projections: q, k, v, z, or b, a."""
    return delta.num_key_heads * sum(_sizes(delta)[part] for part in parts)


def key_head_ranges(delta: DeltaShape, parts: Sequence[str], wanted: str) -> list[tuple[int, int]]:
    """The rows of the projections that we want, such as `qkv`: of each all key heads, one after the other.

    A range is its first row, and the one after its last.
    """
    sizes = _sizes(delta)
    head_rows = sum(sizes[part] for part in parts)
    begins = dict(zip(parts, accumulate((sizes[part] for part in parts), initial=0), strict=False))
    return [
        (head * head_rows + begins[part], head * head_rows + begins[part] + sizes[part])
        for part in wanted
        for head in range(delta.num_key_heads)
    ]


def _sizes(delta: DeltaShape) -> dict[str, int]:
    """Rows of each projection for one key head."""
    values = delta.heads_per_key * delta.value_head_dim
    sizes = {"q": delta.key_head_dim, "k": delta.key_head_dim, "v": values, "z": values}
    return sizes | dict.fromkeys("ba", delta.heads_per_key)
