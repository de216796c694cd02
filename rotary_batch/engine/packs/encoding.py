"""The bytes that a pack stores, computed from the tensors of a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import chain
from typing import NamedTuple

import torch

from rotary_batch.engine.kernels.quant import quantise
from rotary_batch.engine.packs.checkpoint import Checkpoint
from rotary_batch.engine.packs.loading import DTYPES
from rotary_batch.engine.packs.recipes import Parts, stored_parts
from rotary_batch.engine.packs.tensors import Expert, Source, pieces, tensor_nbytes
from rotary_batch.model.slabs import SlabLayout, matrix_parts


class DensePart(NamedTuple):
    """One tensor of dense.safetensors; `pieces` gives its bytes in order."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    pieces: Callable[[], Iterable[memoryview]]


def slab_pieces(layout: SlabLayout, stored: Mapping[str, str], expert: Expert) -> Iterator[memoryview]:
    """The bytes of a slab in order; `stored` says how each matrix is stored."""
    done = 0
    for name, source in expert.items():
        for suffix, part_pieces in _part_pieces(source, stored.get(name, "bias")).items():
            part = layout.parts[name + suffix]
            yield memoryview(bytes(part.offset - done))
            yield from part_pieces
            done = part.offset + part.nbytes
    yield memoryview(bytes(layout.nbytes - done))


def _part_pieces(source: Source, stored_as: str) -> dict[str, Iterable[memoryview]]:
    """The bytes of each stored part of a matrix, by its suffix; what is copied as it is, in small pieces."""
    if stored_as == "bias":
        return {"": [_bytes(stored_parts(source)[""].float())]}
    if source.recipe == "stack" and stored_as == source.stored_as:
        return {"": chain.from_iterable(pieces(place) for place in source.places)}
    return {suffix: [_bytes(part)] for suffix, part in encoded(source, stored_as).items()}


def encoded(source: Source, stored_as: str) -> Parts:
    """The stored parts of a tensor: as the checkpoint has it, or quantised."""
    parts = stored_parts(source)
    if stored_as == source.stored_as:
        return parts
    return quantise(parts[""], stored_as)


def dense_parts(checkpoint: Checkpoint, dense: str) -> Iterator[DensePart]:
    """Every tensor that is not an expert's; routers and norms are never quantised."""
    for name, source in checkpoint.dense.items():
        is_quantised = source.stored_as == "bf16" and dense != "bf16" and checkpoint.geometry.is_quantisable(name)
        stored_as = dense if is_quantised else source.stored_as
        if stored_as == "bf16":
            dtype = source.dtype
            yield DensePart(
                name, dtype, source.shape, tensor_nbytes(dtype, source.shape), partial(_plain_pieces, source)
            )
            continue
        rows, columns = source.shape
        for suffix, dtype, shape in matrix_parts(stored_as, rows, columns, source.dtype):
            yield DensePart(
                name + suffix, dtype, shape, tensor_nbytes(dtype, shape), partial(_one_part, source, stored_as, suffix)
            )


def _plain_pieces(source: Source) -> Iterable[memoryview]:
    if source.recipe == "stack":
        return chain.from_iterable(pieces(place) for place in source.places)
    return [_bytes(stored_parts(source)[""].to(DTYPES[source.dtype]))]


def _one_part(source: Source, stored_as: str, suffix: str) -> Iterable[memoryview]:
    return _part_pieces(source, stored_as)[suffix]


def _bytes(tensor: torch.Tensor) -> memoryview:
    return memoryview(tensor.contiguous().view(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
