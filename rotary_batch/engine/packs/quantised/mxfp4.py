"""MXFP4 (OCP Microscaling Formats 1.0): blocks of 32 four-bit floats with a power of two, regrouped into ggml's blocks.

gpt-oss has all experts of a layer in one tensor: `_blocks` U8 [E, N, K / 32, 16] and `_scales` U8 [E, N, K / 32].
compressed-tensors has weight_packed U8 [N, K / 2] and weight_scale U8 [N, K / 32] for each module.  In both the low
nibble of a byte is the even column; ggml has columns 0 to 15 in the low nibbles, 16 to 31 in the high ones.
"""

from __future__ import annotations

from collections.abc import Sequence

from rotary_batch.engine.packs.quantised.source import QuantisedMatrix, Tensors, place_of
from rotary_batch.errors import ModelError

BLOCK_COLUMNS = 32
BLOCK_NBYTES = BLOCK_COLUMNS // 2  # of codes
STORED_AS = "ggml:MXFP4"


class Mxfp4:
    """The MXFP4 experts of gpt-oss; all its other tensors are plain."""

    def matrix(self, tensors: Tensors, name: str, shape: tuple[int, int]) -> QuantisedMatrix | None:
        """None: this method quantises fused experts only."""
        del tensors, name, shape
        return None


def fused_matrix(
    tensors: Tensors, name: str, expert: tuple[int, int], shape: tuple[int, int], rows: Sequence[int] = (0, 1)
) -> QuantisedMatrix | None:
    """One matrix [rows, columns] of an expert, which is a number and how many there are.

    `rows` are the first row and the step: (0, 2) is gate and (1, 2) is up.  `name` is that of the tensors without
    `_blocks` and `_scales`.  None for experts that are not in MXFP4.
    """
    if name + "_blocks" not in tensors:
        return None
    (number, num_experts), (first_row, step) = expert, rows
    height, blocks = shape[0] * step, block_count(name, shape[1])
    codes = place_of(tensors, name + "_blocks", ["U8"], (num_experts, height, blocks, BLOCK_NBYTES))
    scales = place_of(tensors, name + "_scales", ["U8"], (num_experts, height, blocks))
    return QuantisedMatrix(
        name=name,
        rows=height,
        columns=shape[1],
        stored_as=STORED_AS,
        layout="mxfp4",
        places={
            "_blocks": codes.part(number, (height, blocks, BLOCK_NBYTES)),
            "_scales": scales.part(number, (height, blocks)),
        },
        taken_rows=(first_row, height, step),
    )


def packed_matrix(tensors: Tensors, name: str, shape: tuple[int, int]) -> QuantisedMatrix:
    """A module that compressed-tensors has quantised to MXFP4."""
    rows, blocks = shape[0], block_count(name, shape[1])
    return QuantisedMatrix(
        name=name,
        rows=rows,
        columns=shape[1],
        stored_as=STORED_AS,
        layout="mxfp4",
        places={
            ".weight_packed": place_of(tensors, name + ".weight_packed", ["U8"], (rows, blocks * BLOCK_NBYTES)),
            ".weight_scale": place_of(tensors, name + ".weight_scale", ["U8", "F8_E8M0"], (rows, blocks)),
        },
    )


def block_count(name: str, columns: int) -> int:
    """Blocks of a row.  Raises ModelError for a row that blocks do not cut evenly."""
    if columns % BLOCK_COLUMNS:
        raise ModelError(f"{name}: rows of {columns} numbers cannot be cut into MXFP4 blocks of {BLOCK_COLUMNS}")
    return columns // BLOCK_COLUMNS
