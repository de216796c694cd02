"""Where the bytes of a tensor are in a file, how they are read, and what a pack makes of them.

Weights are read in small pieces, because a mapped shard would count as this process's memory.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from rotary_batch.errors import ModelError
from rotary_batch.model.geometry import DTYPE_NBYTES
from rotary_batch.model.ggml_types import BLOCK_TYPES

PIECE_NBYTES = 8 * 2**20
_INTO_FLOAT32 = ("dequantised", "numbers", "kv_b_of_halves")  # recipes
# Of one number, by the name that safetensors gives its type.
NUMBER_NBYTES = DTYPE_NBYTES | {"I64": 8, "I32": 4, "I8": 1, "U8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1}


def tensor_nbytes(dtype: str, shape: tuple[int, ...]) -> int:
    """Bytes of a tensor; `dtype` is safetensors' name, or that of a block type of GGUF, whose rows are whole blocks."""
    if dtype in NUMBER_NBYTES:
        return math.prod(shape) * NUMBER_NBYTES[dtype]
    return math.prod(shape[:-1]) * BLOCK_TYPES[dtype].row_nbytes(shape[-1])


class TensorPlace(NamedTuple):
    """Where the bytes of one tensor are."""

    path: Path
    offset: int
    nbytes: int
    dtype: str
    shape: tuple[int, ...]

    def part(self, index: int, shape: tuple[int, ...]) -> TensorPlace:
        """The `index`-th of the tensors of `shape` that this one consists of."""
        nbytes = tensor_nbytes(self.dtype, shape)
        return TensorPlace(self.path, self.offset + index * nbytes, nbytes, self.dtype, shape)

    def rows(self, begin: int, end: int) -> TensorPlace:
        """Some rows of it."""
        shape = (end - begin, *self.shape[1:])
        row_nbytes = self.nbytes // self.shape[0]
        return TensorPlace(self.path, self.offset + begin * row_nbytes, (end - begin) * row_nbytes, self.dtype, shape)

    @property
    def end(self) -> int:
        """The first byte after it."""
        return self.offset + self.nbytes


class Source(NamedTuple):
    """A tensor of a pack, and where a checkpoint has what it is made of."""

    shape: tuple[int, ...]
    places: tuple[TensorPlace, ...]
    stored_as: str = "bf16"  # what the checkpoint has: plain numbers, or quantised ones that are kept (model/slabs.py)
    recipe: str = "stack"  # how the tensor is made of the places: recipes.py
    arguments: tuple[Any, ...] = ()  # of the recipe

    @property
    def dtype(self) -> str:
        """The type of its numbers, where they are plain."""
        if self.recipe == "adapted":
            return str(self.arguments[1])
        return "F32" if self.recipe in _INTO_FLOAT32 else self.places[0].dtype

    @property
    def nbytes(self) -> int:
        """About what a pack stores of it: as much as is read, but for what an adapter makes plain."""
        if self.recipe == "adapted":
            return tensor_nbytes(self.dtype, self.shape)
        return sum(place.nbytes for place in self.places)


class LowRank(NamedTuple):
    """What an adapter adds to rows of a matrix, beginning with row `at`: scale * B[rows] A[:, columns]."""

    a: TensorPlace  # [rank, columns of the adapter's matrix]
    b: TensorPlace  # [rows of it, rank]
    scale: float
    rows: tuple[int, int]  # the first, and the one after the last
    columns: tuple[int, int]
    order: tuple[int, int, int] | None  # for rows_to_halves, where the engine has the rows in another order
    at: int = 0


Expert = dict[str, Source]  # by the matrices of a slab: gate_up, or gate and up; down; their biases


def pieces(place: TensorPlace) -> Iterator[memoryview]:
    """The bytes of a tensor in pieces of at most PIECE_NBYTES; each piece is valid until the next."""
    buffer = memoryview(bytearray(min(PIECE_NBYTES, place.nbytes)))
    descriptor = os.open(place.path, os.O_RDONLY)
    try:
        done = 0
        while done < place.nbytes:
            piece = buffer[: min(PIECE_NBYTES, place.nbytes - done)]
            count = os.preadv(descriptor, [piece], place.offset + done)
            if count == 0:
                raise ModelError(f"{place.path}: ends at byte {place.offset + done}; fetch the file again")
            yield piece[:count]
            done += count
    finally:
        os.close(descriptor)


def read_bytes(place: TensorPlace) -> bytearray:
    """All bytes of a tensor."""
    buffer, done = bytearray(place.nbytes), 0
    for piece in pieces(place):
        buffer[done : done + len(piece)] = piece
        done += len(piece)
    return buffer
