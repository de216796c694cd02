"""Make the tensors of a pack from those of a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from rotary_batch.engine.kernels.quant import dequantise, matrix_from
from rotary_batch.engine.packs.loading import DTYPES, load
from rotary_batch.engine.packs.quantised.decoding import column_order, quantised_parts
from rotary_batch.engine.packs.quantised.expert import stored_alone
from rotary_batch.engine.packs.quantised.source import QuantisedMatrix
from rotary_batch.engine.packs.tensors import Source
from rotary_batch.model.ggml_types import BLOCK_TYPES

Parts = dict[str, torch.Tensor]  # by the suffixes of model/slabs.py
_Recipe = Callable[[Source], Parts]


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
    rows = _stack(source)[""]
    return {"": rows[_order_of_halves(len(rows), source.arguments)]}


def _order_of_halves(num_rows: int, arguments: Sequence[int]) -> torch.Tensor:
    head_rows, rotary, begin = arguments
    order = torch.arange(head_rows)
    rotating = order[begin : begin + rotary]
    order[begin : begin + rotary] = torch.cat([rotating[0::2], rotating[1::2]])
    return (torch.arange(0, num_rows, head_rows)[:, None] + order).flatten()


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


def _quantised(source: Source) -> Parts:
    """Matrices of a quantised checkpoint, one above the other.

    Arguments: the order of the rows, then the matrices.  The order is None, or that of the columns of a matrix, or the
    arguments of rows_to_halves, or ranges of rows.
    """
    rows, *matrices = source.arguments
    if rows is None:
        return quantised_parts(matrices, source.stored_as)
    if isinstance(rows, QuantisedMatrix):
        order = column_order(rows)
    elif isinstance(rows[0], tuple):
        order = _order_of_ranges(rows)
    else:
        order = _order_of_halves(source.shape[0], rows)
    return quantised_parts(matrices, source.stored_as, order)


def _order_of_ranges(ranges: Sequence[tuple[int, int]]) -> torch.Tensor:
    return torch.cat([torch.arange(begin, end) for begin, end in ranges])


def _dequantised(source: Source) -> Parts:
    """A matrix that is never quantised, such as a router, in float32.

    Arguments: the matrix of the checkpoint, and where not all of its rows are wanted, their ranges.
    """
    matrix, *ranges = source.arguments
    stored_as, (rows, columns) = stored_alone(matrix), source.shape
    parts = quantised_parts([matrix], stored_as, _order_of_ranges(*ranges) if ranges else None)
    return {"": dequantise(matrix_from(parts, rows, stored_as), torch.empty(rows, columns))}


RECIPES: dict[str, _Recipe] = {
    "stack": _stack,
    "columns": _columns,
    "rows_to_halves": _rows_to_halves,
    "transpose": _transpose,
    "even_then_odd": _even_then_odd,
    "even_then_odd_columns": _even_then_odd_columns,
    "quantised": _quantised,
    "dequantised": _dequantised,
}
