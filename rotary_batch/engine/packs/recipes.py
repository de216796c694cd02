"""Make the tensors of a pack from those of a checkpoint."""

from __future__ import annotations

from collections.abc import Callable

import torch

from rotary_batch.engine.packs.tensors import Source, TensorPlace, read_bytes
from rotary_batch.model.ggml_types import BLOCK_TYPES

DTYPES = {
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "F8_E4M3": torch.float8_e4m3fn,
}
Parts = dict[str, torch.Tensor]  # by the suffixes of model/slabs.py
_Recipe = Callable[[Source], Parts]


def load(place: TensorPlace) -> torch.Tensor:
    """A tensor of a file: plain numbers in their shape, blocks of GGUF as rows of bytes."""
    buffer = read_bytes(place)
    if place.dtype in DTYPES:
        return torch.frombuffer(buffer, dtype=DTYPES[place.dtype]).view(place.shape)
    return torch.frombuffer(buffer, dtype=torch.uint8).view(*place.shape[:-1], -1)


def stored_parts(source: Source) -> Parts:
    """The stored parts of a tensor, as the checkpoint has them."""
    return RECIPES[source.recipe](source)


def _stack(source: Source) -> Parts:
    """The places one above the other."""
    parts, is_plain = [load(place) for place in source.places], source.dtype in DTYPES
    row = parts[0].shape[1:] if is_plain else parts[0].shape[-1:]  # numbers, or bytes
    stacked = torch.cat([part.view(-1, *row) for part in parts])
    return {"": stacked.view(source.shape if is_plain else (source.shape[0], -1))}


def _rows_to_halves(source: Source) -> Parts:
    """Rows of q or k whose heads rotate pairs of neighbours -> the first of all pairs, then the second of all.

    Arguments: rows of a head, rows of it that rotate, and where those begin.  Scores do not change when queries and
    keys are re-ordered alike.
    """
    head_rows, rotary, begin = source.arguments
    order = torch.arange(head_rows)
    rotating = order[begin : begin + rotary]
    order[begin : begin + rotary] = torch.cat([rotating[0::2], rotating[1::2]])
    return _in_head_order(source, head_rows, order)


def _in_head_order(source: Source, head_rows: int, order: torch.Tensor) -> Parts:
    rows = _stack(source)[""]
    return {"": rows.view(-1, head_rows, *rows.shape[1:])[:, order].reshape(rows.shape)}


def _columns(source: Source) -> Parts:
    """Some columns of a matrix; arguments: the first, and the one after the last."""
    begin, end = source.arguments
    place = source.places[0]
    if place.dtype in DTYPES:
        return {"": load(place)[:, begin:end].contiguous()}
    kind = BLOCK_TYPES[place.dtype]
    return {"": load(place)[:, kind.row_nbytes(begin) : kind.row_nbytes(end)].contiguous()}


def _transpose(source: Source) -> Parts:
    """A matrix that the file has as [columns, rows]."""
    return {"": load(source.places[0]).T.contiguous()}


def _even_then_odd(source: Source) -> Parts:
    """A vector that has gate and up in turn -> gate, then up."""
    vector = load(source.places[0])
    return {"": torch.cat([vector[0::2], vector[1::2]])}


def _even_then_odd_columns(source: Source) -> Parts:
    """A matrix [columns, rows] whose rows are gate and up in turn -> gate over up, [rows, columns]."""
    rows = load(source.places[0]).T
    return {"": torch.cat([rows[0::2], rows[1::2]])}


RECIPES: dict[str, _Recipe] = {
    "stack": _stack,
    "columns": _columns,
    "rows_to_halves": _rows_to_halves,
    "transpose": _transpose,
    "even_then_odd": _even_then_odd,
    "even_then_odd_columns": _even_then_odd_columns,
}
