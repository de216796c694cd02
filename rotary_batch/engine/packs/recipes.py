"""Make the tensors of a pack from those of a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from rotary_batch.engine.kernels.quant import dequantise, matrix_from
from rotary_batch.engine.packs.gguf_names import Change
from rotary_batch.engine.packs.gguf_order import original_order
from rotary_batch.engine.packs.loading import DTYPES, load
from rotary_batch.engine.packs.quantised.decoding import column_order, quantised_parts
from rotary_batch.engine.packs.quantised.source import QuantisedMatrix, RowOrder
from rotary_batch.engine.packs.tensors import Source, TensorPlace
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

    Arguments: the order of the rows (None; a RowOrder; the matrix whose columns they follow), then the matrices.
    """
    rows, *matrices = source.arguments
    return quantised_parts(matrices, source.stored_as, _row_order(rows, matrices[0].rows))


def _row_order(rows: QuantisedMatrix | RowOrder | None, num_rows: int) -> torch.Tensor | None:
    if rows is None or isinstance(rows, QuantisedMatrix):
        return None if rows is None else column_order(rows)
    order = torch.arange(num_rows)
    if rows.ranges:
        order = torch.cat([order[begin:end] for begin, end in rows.ranges])
    return order[_order_of_halves(len(order), rows.halves)] if rows.halves else order


def _dequantised(source: Source) -> Parts:
    """A matrix that is never quantised, such as a router, in float32.

    Arguments: how its codes would be stored, then those of `_quantised`.
    """
    stored_as, *arguments = source.arguments
    parts = _quantised(source._replace(stored_as=stored_as, arguments=tuple(arguments)))
    stored = matrix_from(parts, source.shape[0], stored_as)
    return {"": dequantise(stored, torch.empty(source.shape))}


def _swapped_rows(source: Source) -> Parts:
    """Rows, packed or not, in the order that they had before llama.cpp's converter; argument: what it swapped."""
    (swap,) = source.arguments
    rows = _stack(source)[""]
    return {"": rows[torch.from_numpy(original_order(swap, len(rows)))]}


def _numbers(source: Source) -> Parts:
    """A tensor of a GGUF file that is never quantised, in float32 and as it was before the converter.

    Arguments: what it swapped, or None; how it changed the values, or None.
    """
    swap, change = source.arguments
    numbers = torch.cat([_floats(place) for place in source.places])
    if swap is not None:
        numbers = numbers[torch.from_numpy(original_order(swap, len(numbers)))]
    if change == Change.PLUS_ONE:
        numbers = numbers - 1
    elif change == Change.MINUS_EXP:
        numbers = torch.log(-numbers)
    return {"": numbers.view(source.shape)}


def _floats(place: TensorPlace) -> torch.Tensor:
    stored = load(place)
    if place.dtype in DTYPES:
        return stored.float()
    rows = stored.flatten(0, -2)
    matrix = matrix_from({"": rows}, len(rows), f"ggml:{place.dtype}")
    return dequantise(matrix, torch.empty(len(rows), place.shape[-1])).view(place.shape)


def _kv_b_of_halves(source: Source) -> Parts:
    """kv_b [heads * (N + V), C] of k_b [heads, C, N] and v_b [heads, V, C], which may be blocks: in float32."""
    k_b, v_b = (_floats(place) for place in source.places)
    return {"": torch.cat([k_b.transpose(1, 2), v_b], 1).reshape(source.shape)}


def _adapted(source: Source) -> Parts:
    """A matrix with what an adapter adds to it; arguments: its source, the type of the sum, the LowRanks.

    The products are in float64, so that every machine rounds to the same bits.
    """
    below, dtype, added = source.arguments
    whole = _in_float32(below).double()
    for one in added:
        (row, rows), (column, columns) = one.rows, one.columns
        change = load(one.b)[row:rows].double() @ load(one.a)[:, column:columns].double()
        if one.order:
            change = change[_order_of_halves(len(change), one.order)]
        whole[one.at : one.at + len(change)] += one.scale * change
    return {"": whole.to(DTYPES[dtype])}


def _in_float32(source: Source) -> torch.Tensor:
    """A matrix of a checkpoint, dequantised."""
    parts = stored_parts(source)
    if source.stored_as == "bf16":
        return parts[""].float()
    return dequantise(matrix_from(parts, source.shape[0], source.stored_as), torch.empty(source.shape))


RECIPES: dict[str, _Recipe] = {
    "adapted": _adapted,
    "stack": _stack,
    "columns": _columns,
    "rows_to_halves": _rows_to_halves,
    "transpose": _transpose,
    "even_then_odd": _even_then_odd,
    "even_then_odd_columns": _even_then_odd_columns,
    "quantised": _quantised,
    "dequantised": _dequantised,
    "swapped_rows": _swapped_rows,
    "numbers": _numbers,
    "kv_b_of_halves": _kv_b_of_halves,
}
