"""FP8: weight F8_E4M3 [N, K] and scales that multiply it, for blocks, rows or the whole matrix.

Scales are weight_scale_inv (which is no inverse) or weight_scale, in F32, F16, BF16 or powers of two (F8_E8M0, or U8
with the same bytes).  Scales of activations are not used: activations stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence

from rotary_batch.engine.packs.quantised.source import QuantisedMatrix, Tensors, place_of
from rotary_batch.errors import ModelError
from rotary_batch.model.tables import Table

SCALE_NAMES = (".weight_scale_inv", ".weight_scale")
SCALE_DTYPES = ("F32", "BF16", "F16", "F8_E8M0", "U8")
_MAX_BLOCK = 2**16


class Fp8:
    """The FP8 modules of one checkpoint."""

    def __init__(self, config: Table) -> None:
        self._blocks: list[tuple[int, int]] = []
        if config.has("weight_block_size"):
            block = config.wholes("weight_block_size", 2, _MAX_BLOCK)
            if len(block) != 2 or 0 in block:
                raise config.wrong("weight_block_size", "two whole numbers above 0")
            self._blocks = [(block[0], block[1])]

    def matrix(self, tensors: Tensors, name: str, shape: tuple[int, int]) -> QuantisedMatrix | None:
        """The matrix of a module; None for one that is not quantised."""
        if not is_fp8(tensors, name):
            return None
        return fp8_matrix(tensors, name, shape, self._blocks)


def is_fp8(tensors: Tensors, name: str) -> bool:
    """Whether the weight of a module is in 8-bit floats.  Raises ModelError for the kind that is not read."""
    place = tensors.get(name + ".weight")
    if place is not None and place.dtype == "F8_E5M2":
        raise ModelError(f"{place.path}: tensor {name}.weight is of type F8_E5M2; this version reads F8_E4M3")
    return place is not None and place.dtype == "F8_E4M3"


def fp8_matrix(
    tensors: Tensors, name: str, shape: tuple[int, int], blocks: Sequence[tuple[int, int]]
) -> QuantisedMatrix:
    """A module in FP8; the shape of its scale says whether it is for one of `blocks`, for rows or for the matrix."""
    rows, columns = shape
    weight = place_of(tensors, name + ".weight", ["F8_E4M3"], shape)
    suffix = next((one for one in SCALE_NAMES if name + one in tensors), SCALE_NAMES[0])
    shapes: dict[tuple[int, ...], tuple[int, int]] = {
        (-(-rows // high), -(-columns // wide)): (high, wide) for high, wide in blocks
    }
    if not shapes or suffix != SCALE_NAMES[0]:  # with a block size, weight_scale_inv is for blocks
        shapes = {(): (0, 0), (1,): (0, 0), (1, 1): (0, 0), (rows, 1): (1, 0), (rows,): (1, 0)} | shapes
    scale = place_of(tensors, name + suffix, SCALE_DTYPES, *shapes)
    block = shapes[scale.shape]
    return QuantisedMatrix(
        name=name,
        rows=rows,
        columns=columns,
        stored_as=f"fp8:{block[0]}x{block[1]}",
        layout="fp8",
        places={".weight": weight, suffix: scale},
        block=block,
    )
