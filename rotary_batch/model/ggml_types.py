"""The block types of GGUF files: names, numbers and sizes (ggml/include/ggml.h and gguf-py's constants.py).

A row is cut into blocks of some columns; a block is some bytes.  Rows never share a block.
"""

from __future__ import annotations

from typing import NamedTuple


class BlockType(NamedTuple):
    """One type of tensor in a GGUF file."""

    number: int  # in the file
    columns: int  # of a block
    nbytes: int  # of a block

    def row_nbytes(self, columns: int) -> int:
        """Bytes of a row; `columns` is a multiple of a block's."""
        return columns // self.columns * self.nbytes


BLOCK_TYPES = {
    "F32": BlockType(0, 1, 4),
    "F16": BlockType(1, 1, 2),
    "Q4_0": BlockType(2, 32, 18),
    "Q4_1": BlockType(3, 32, 20),
    "Q5_0": BlockType(6, 32, 22),
    "Q5_1": BlockType(7, 32, 24),
    "Q8_0": BlockType(8, 32, 34),
    "Q2_K": BlockType(10, 256, 84),
    "Q3_K": BlockType(11, 256, 110),
    "Q4_K": BlockType(12, 256, 144),
    "Q5_K": BlockType(13, 256, 176),
    "Q6_K": BlockType(14, 256, 210),
    "IQ4_NL": BlockType(20, 32, 18),
    "IQ4_XS": BlockType(23, 256, 136),
    "BF16": BlockType(30, 1, 2),
    "MXFP4": BlockType(39, 32, 17),
}
PLAIN_TYPES = ("F32", "F16", "BF16")  # one number a block: stored as a plain matrix
