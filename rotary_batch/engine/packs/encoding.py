"""The bytes that a pack stores, computed from the tensors of a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch

from rotary_batch.engine.kernels.quant import quantise
from rotary_batch.engine.packs.checkpoint import Checkpoint
from rotary_batch.engine.packs.tensors import TensorPlace, pieces
from rotary_batch.model.geometry import DTYPE_NBYTES
from rotary_batch.model.slabs import SlabLayout

DTYPES = {
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "F8_E4M3": torch.float8_e4m3fn,
}


class DensePart(NamedTuple):
    """One tensor of dense.safetensors; `pieces` gives its bytes in order."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    pieces: Callable[[], Iterable[memoryview]]


def encoded_slab(layout: SlabLayout, experts: str, places: Sequence[TensorPlace]) -> memoryview:
    """The bytes of a quantised slab; `places` are w1, w3 and w2 in the checkpoint."""
    slab = torch.zeros(layout.nbytes, dtype=torch.uint8)
    w1, w3, w2 = (partial(_load, place) for place in places)
    for name, loads in (("up", (w1, w3)), ("down", (w2,))):
        for suffix, tensor in quantise(torch.cat([load() for load in loads]), experts).items():
            part = layout.parts[name + suffix]
            slab[part.offset : part.offset + part.nbytes] = _bytes(tensor)
    return memoryview(slab.numpy())  # type: ignore[arg-type]


def dense_parts(checkpoint: Checkpoint, dense: str) -> Iterator[DensePart]:
    """Every tensor that is not an expert's; routers and norms are never quantised."""
    for name, place in checkpoint.dense.items():
        if dense == "bf16" or not checkpoint.geometry.is_quantisable(name):
            yield DensePart(name, place.dtype, place.shape, place.nbytes, partial(pieces, place))
            continue
        rows, columns = place.shape
        yield DensePart(name, "I8", place.shape, rows * columns, partial(_quantised, place, dense, ""))
        yield DensePart(name + ".scale", "F32", (rows,), 4 * rows, partial(_quantised, place, dense, ".scale"))


def _quantised(place: TensorPlace, dense: str, suffix: str) -> list[memoryview]:
    return [memoryview(_bytes(quantise(_load(place), dense)[suffix]).numpy())]  # type: ignore[arg-type]


def _load(place: TensorPlace) -> torch.Tensor:
    buffer, done = bytearray(place.nbytes), 0
    for piece in pieces(place):
        buffer[done : done + len(piece)] = piece
        done += len(piece)
    assert place.nbytes % DTYPE_NBYTES[place.dtype] == 0
    return torch.frombuffer(buffer, dtype=DTYPES[place.dtype]).view(place.shape)


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().view(-1).view(torch.uint8)
