"""Where the bytes of a tensor are in a file, and how they are read.

Weights are read in small pieces, because a mapped shard would count as this process's memory.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rotary_batch.errors import ModelError
from rotary_batch.model.geometry import DTYPE_NBYTES

PIECE_NBYTES = 8 * 2**20


class TensorPlace(NamedTuple):
    """Where the bytes of one tensor are."""

    path: Path
    offset: int
    nbytes: int
    dtype: str
    shape: tuple[int, ...]

    def part(self, index: int, shape: tuple[int, ...]) -> TensorPlace:
        """The `index`-th of the tensors of `shape` that this one consists of."""
        nbytes = math.prod(shape) * DTYPE_NBYTES[self.dtype]
        return TensorPlace(self.path, self.offset + index * nbytes, nbytes, self.dtype, shape)

    @property
    def end(self) -> int:
        """The first byte after it."""
        return self.offset + self.nbytes


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
