"""Undo what llama.cpp's converter did to the order and the values of a tensor.

Orders are of whole rows wherever a matrix may be quantised, because rows never share a block: the packed rows move.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rotary_batch.errors import ModelError

if TYPE_CHECKING:  # importing it takes 0.1 s, and `index` reads only the names in a file
    import numpy as np
    import numpy.typing as npt


class Swap(NamedTuple):
    """Rows or columns that were [blocks, outer, inner, width] and are stored as [blocks, inner, outer, width]."""

    start: int  # those before are where they were
    blocks: int
    outer: int
    inner: int
    width: int


def halves(num_heads: int, head_dim: int) -> Swap:
    """Of q and k: the two halves of each head, which rope turns against each other, were interleaved."""
    return Swap(0, num_heads, 2, head_dim // 2, 1)


def value_heads(num_key_heads: int, num_value_heads: int, width: int, start: int = 0) -> Swap:
    """Of a Gated DeltaNet: the value heads of a key head stood together; now each turn has one of every key head."""
    return Swap(start, 1, num_key_heads, num_value_heads // num_key_heads, width)


def original_order(swap: Swap, count: int) -> npt.NDArray[np.int64]:
    """Where each of `count` rows or columns of the original is stored.  Raises ModelError when they do not fit."""
    moved = swap.blocks * swap.outer * swap.inner * swap.width
    if swap.start + moved != count:
        raise ModelError(f"{count:,} rows or columns, not {swap.start:,} and then {moved:,} in heads")
    import numpy as np

    stored = np.arange(moved).reshape(swap.blocks, swap.inner, swap.outer, swap.width)
    return np.concatenate([np.arange(swap.start), swap.start + stored.swapaxes(1, 2).ravel()])


def undo_rows(rows: npt.NDArray[np.generic], swap: Swap) -> npt.NDArray[np.generic]:
    """Rows in the original order: bytes [rows, nbytes] of packed ones, or numbers [rows, ...]."""
    return rows[original_order(swap, len(rows))]


def undo_columns(matrix: npt.NDArray[np.generic], swap: Swap) -> npt.NDArray[np.generic]:
    """The numbers of a matrix [rows, columns] with the columns in the original order."""
    return matrix[:, original_order(swap, matrix.shape[1])]


def join_kv_b(k_b: npt.NDArray[np.generic], v_b: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """kv_b [heads * (nope + v), rank] of its parts: k_b [heads, rank, nope] and v_b [heads, v, rank]."""
    import numpy as np

    both = np.concatenate([k_b.swapaxes(1, 2), v_b], axis=1)
    return both.reshape(-1, both.shape[2])
