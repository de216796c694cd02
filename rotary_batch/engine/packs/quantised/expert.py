"""How the matrices of a quantised expert are stored: parts of a file's matrices, gate over up.  No torch here."""

from __future__ import annotations

import math
from dataclasses import replace

from rotary_batch.engine.packs.quantised.source import QuantisedMatrix
from rotary_batch.errors import ModelError
from rotary_batch.model.ggml_types import BLOCK_TYPES

ORDERED = ":ordered"  # after a stored form whose columns are in another order than its inputs; the order is a part too


def some_rows(matrix: QuantisedMatrix, begin: int, end: int) -> QuantisedMatrix:
    """The rows from `begin` to before `end`, as a slice of a dense model has them: a multiple of their own number."""
    stored_as = _with_block(matrix.stored_as, row=math.gcd(begin, end - begin))
    return replace(matrix, taken_rows=(begin, end, 1), stored_as=stored_as)


def some_columns(matrix: QuantisedMatrix, begin: int, end: int) -> QuantisedMatrix:
    """The columns from `begin` to before `end`.  Raises ModelError where a block would be cut."""
    kind, *parameters = matrix.stored_as.split(":")
    unit = math.gcd(begin, end - begin)
    if kind == "ggml":
        if unit % BLOCK_TYPES[parameters[0]].columns:
            raise ModelError(f"{matrix.name}: columns {begin} to {end} cut a block of {parameters[0]}")
        stored_as = matrix.stored_as
    elif kind == "fp8":
        stored_as = _with_block(matrix.stored_as, column=unit)
    else:
        stored_as = f"{kind}:{math.gcd(unit, int(parameters[0]))}:{parameters[1]}"
    return replace(matrix, taken_columns=(begin, end), stored_as=stored_as)


def rows_alone(matrix: QuantisedMatrix) -> QuantisedMatrix:
    """Each row with scales of its own, so that rows can be in any order."""
    return replace(matrix, stored_as=_with_block(matrix.stored_as, row=1))


def stacked_as(gate: QuantisedMatrix, up: QuantisedMatrix) -> str | None:
    """How gate over up is stored as one matrix; None where they must stay two."""
    if gate.stored_as != up.stored_as or gate.is_ordered or up.is_ordered:
        return None
    return _with_block(gate.stored_as, row=gate.shape[0])


def stored_alone(matrix: QuantisedMatrix) -> str:
    """How a matrix that no other one precedes is stored."""
    return matrix.stored_as + (ORDERED if matrix.is_ordered else "")


def _with_block(stored_as: str, *, row: int = 0, column: int = 0) -> str:
    """A form in FP8 with blocks that begin anew at these rows and columns; others do not change.

    Blocks become lower or narrower where they must: scales are repeated, nothing is lost.  A scale for the whole
    matrix (0) becomes one for each row.
    """
    if not stored_as.startswith("fp8:"):
        return stored_as
    high, wide = (int(side) for side in stored_as.removeprefix("fp8:").split("x"))
    return f"fp8:{math.gcd(high, row) if high else min(row, 1)}x{math.gcd(wide, column) if wide else 0}"
