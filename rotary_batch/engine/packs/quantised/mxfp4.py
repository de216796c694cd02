"""MXFP4 (OCP Microscaling Formats 1.0): blocks of 32 four-bit floats with a power of two, regrouped into ggml's blocks.

gpt-oss has all experts of a layer in one tensor: `_blocks` U8 [E, N, K / 32, 16] and `_scales` U8 [E, N, K / 32].
compressed-tensors has weight_packed U8 [N, K / 2] and weight_scale U8 [N, K / 32] for each module.  In both the low
nibble of a byte is the even column; ggml has columns 0 to 15 in the low nibbles, 16 to 31 in the high ones.
"""

from __future__ import annotations

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


def fused_experts(
    tensors: Tensors, name: str, num_experts: int, shape: tuple[int, int], *, first_row: int = 0, row_step: int = 1
) -> list[QuantisedMatrix]:
    """One matrix [rows, columns] of every expert; `first_row` and `row_step` choose gate (0, 2) or up (1, 2).

    `name` is that of the tensors without `_blocks` and `_scales`.  Empty for experts that are not in MXFP4.
    """
    if name + "_blocks" not in tensors:
        return []
    rows, blocks = shape[0] * row_step, block_count(name, shape[1])
    codes = place_of(tensors, name + "_blocks", ["U8"], (num_experts, rows, blocks, BLOCK_NBYTES))
    scales = place_of(tensors, name + "_scales", ["U8"], (num_experts, rows, blocks))
    return [
        QuantisedMatrix(
            name=name,
            rows=rows,
            columns=shape[1],
            stored_as=STORED_AS,
            layout="mxfp4",
            places={
                "_blocks": codes.part(expert, (rows, blocks, BLOCK_NBYTES)),
                "_scales": scales.part(expert, (rows, blocks)),
            },
            taken_rows=(first_row, rows, row_step),
        )
        for expert in range(num_experts)
    ]


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
