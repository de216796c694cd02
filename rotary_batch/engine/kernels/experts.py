"""All experts of a layer in one compiled call (fast numerics on a CPU), for int4, int8 and blocks of GGUF files.

Rows of x are quantised once, then products, SwiGLU and biases follow without Python between them: at one row that takes
two thirds of the time of three products and torch's operators.

T = rows of x, A = rows of all experts, H = hidden, I = intermediate, K = experts of a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from rotary_batch.engine.kernels.cpu import PART_COLUMNS, CpuKernels
from rotary_batch.engine.kernels.dispatch import GGML, INT4, PAIRS, Level
from rotary_batch.engine.kernels.matrices import (
    GgmlMatrix,
    Int4Matrix,
    Int8Matrix,
    Matrix,
    format_name,
    is_well_formed,
    num_columns,
    num_rows,
    parts_of,
)
from rotary_batch.model.ggml_types import BLOCK_TYPES
from rotary_batch.model.slabs import BLOCK_ROWS

WHOLE = 64  # H and I are multiples of it
# Level -> the end of names of functions, dtype of rows.
ROWS = {
    Level.AVX512_BF16: ("avx512_q8", torch.bfloat16),
    Level.AVX_VNNI: ("avxvnni_q8", torch.float32),
    Level.AVX2: ("avx2_q8", torch.float32),
}


OWN_INT4, OWN_INT8 = 256, 257  # q8.h


class Layout(NamedTuple):
    """How the kernel reads a matrix: `struct layout` without the sizes."""

    type: int
    group: int = 0
    pair: int = 0
    scale_rows: int = 0


class ExpertAddresses(NamedTuple):
    """An expert as the kernel reads it."""

    gate_up: Layout
    down: Layout
    hidden: int
    intermediate: int
    addresses: tuple[int, ...]  # gate, up, down; their scales; their biases.  0 = there are none


class Activation(NamedTuple):
    """SwiGLU, or gpt-oss's clamped variant of it where `limit` is not 0."""

    limit: float
    alpha: float


def expert_addresses(
    gate_up: Sequence[Matrix], down: Matrix, gate_up_bias: torch.Tensor | None, down_bias: torch.Tensor | None
) -> ExpertAddresses | None:
    """None for an expert that the kernel cannot read.  They are valid as long as its tensors are."""
    first, last = gate_up[0], gate_up[-1]
    layouts = [_layout(matrix) for matrix in (first, last, down)]
    hidden, intermediate = num_rows(down), num_columns(down)
    own_rows = 2 * intermediate // len(gate_up)
    shapes_fit = all((num_rows(matrix), num_columns(matrix)) == (own_rows, hidden) for matrix in (first, last))
    biases_fit = _fits(gate_up_bias, 2 * intermediate) and _fits(down_bias, hidden)
    is_whole = not (hidden % WHOLE or intermediate % WHOLE)
    if (
        layouts[0] is None
        or layouts[2] is None
        or layouts[0] != layouts[1]
        or not (shapes_fit and biases_fit and is_whole)
    ):
        return None
    gate, up, out = _address(first), _address(last, 0 if len(gate_up) == 2 else intermediate), _address(down)
    both_bias, out_bias = (0 if bias is None else bias.data_ptr() for bias in (gate_up_bias, down_bias))
    biases = (both_bias, both_bias and both_bias + 4 * intermediate, out_bias)
    codes, scales = zip(gate, up, out, strict=True)
    return ExpertAddresses(layouts[0], layouts[2], hidden, intermediate, (*codes, *scales, *biases))


def _layout(matrix: Matrix) -> Layout | None:
    """None for a matrix that the kernel cannot read."""
    is_readable = format_name(matrix) in (*GGML, *INT4, "int8") and is_well_formed(matrix)
    if not is_readable or not all(part.is_contiguous() and part.is_cpu for part in parts_of(matrix).values()):
        return None
    if isinstance(matrix, GgmlMatrix):
        return Layout(BLOCK_TYPES[matrix.type_name].number)
    if isinstance(matrix, Int8Matrix):
        return Layout(OWN_INT8)
    assert isinstance(matrix, Int4Matrix), "nothing else is readable"
    if matrix.group % PART_COLUMNS:
        return None
    return Layout(OWN_INT4, matrix.group, PAIRS[matrix.format_name], matrix.scale_zero.shape[1])


def _address(matrix: Matrix, row: int = 0) -> tuple[int, int]:
    """Where the codes are from a row on, and their scales."""
    if isinstance(matrix, Int4Matrix):
        pairs = matrix.scale_zero
        nibbles = matrix.nibbles.data_ptr() + row // BLOCK_ROWS * matrix.nibbles[0].numel()
        return nibbles, pairs.data_ptr() + row * 2 * pairs.itemsize
    if isinstance(matrix, Int8Matrix):
        return matrix.values.data_ptr() + row * matrix.num_columns, matrix.scale.data_ptr() + row * 4
    assert isinstance(matrix, GgmlMatrix), "nothing else is readable"
    return matrix.blocks.data_ptr() + row * matrix.blocks.shape[1], 0


def _fits(bias: torch.Tensor | None, size: int) -> bool:
    if bias is None:
        return True
    return bias.dtype == torch.float32 and bias.shape == (size,) and bias.is_contiguous()


class LayerProducts:
    """The experts of one layer on rows of x [T, H], of which `rows` [A] int64 are those of the experts in order.

    It trusts that `rows` are below T, as routing makes them.  Raises ValueError for a dtype that is not the kernels'.
    """

    def __init__(self, kernels: CpuKernels, x: torch.Tensor, rows: torch.Tensor, activation: Activation) -> None:
        level = kernels.experts_level
        if level is None or x.dtype != ROWS[level][1]:
            raise ValueError(f"there are no kernels for experts on rows of {x.dtype}")
        self._kernels, self._suffix = kernels, ROWS[level][0]
        self._x = x.contiguous()
        self._rows = rows.contiguous()
        self._activation = activation
        self._units: dict[int, torch.Tensor] = {}

    def run(self, experts: Sequence[tuple[ExpertAddresses, range]], out: torch.Tensor) -> None:
        """Experts that are stored alike, each with its places among the A rows -> those rows of out [A, H]."""
        stored, _ = experts[0]
        if any(expert[:4] != stored[:4] for expert, _ in experts) or stored.hidden != self._x.shape[1]:
            raise ValueError("experts of one call are stored alike, and have the columns of x")
        table, scratch_rows = [], 0
        for expert, places in experts:
            table += [*expert.addresses, places.start, len(places), scratch_rows]
            scratch_rows += len(places)
        middle = self._kernels.units(scratch_rows, stored.intermediate)
        both, down = stored.gate_up, stored.down
        tensors = {"experts": torch.tensor(table), "x": self._units_for(both.type), "rows": self._rows}
        self._kernels.call(
            f"experts_{self._suffix}",
            {**tensors, "middle": middle, "out": out},
            E=len(experts),
            T=len(self._x),
            scratch_rows=scratch_rows,
            H=stored.hidden,
            I=stored.intermediate,
            **both._asdict(),
            down_type=down.type,
            down_group=down.group,
            down_pair=down.pair,
            **self._activation._asdict(),
        )

    def _units_for(self, type_number: int) -> torch.Tensor:
        """x in 8 bits, for a type of matrices."""
        if type_number not in self._units:
            units = self._kernels.units(*self._x.shape)
            rows, columns = self._x.shape
            sizes = {"M": rows, "K": columns, "type": type_number}
            self._kernels.call(f"quantise_{self._suffix}", {"x": self._x, "units": units}, **sizes)
            self._units[type_number] = units
        return self._units[type_number]

    def combine(self, experts_out: torch.Tensor, places: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Rows of experts_out [A, H] at places [T, K] int64, times weights [T, K] float32, added up -> [T, H]."""
        out = torch.empty_like(self._x)
        (rows, per_row), hidden = places.shape, out.shape[1]
        tensors = {"experts_out": experts_out, "places": places, "weights": weights, "out": out}
        self._kernels.call(f"combine_{self._suffix}", tensors, T=rows, H=hidden, K=per_row)
        return out
