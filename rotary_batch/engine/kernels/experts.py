"""All experts of a layer in one compiled call (fast numerics on a CPU), for matrices of GGUF blocks.

Rows of x are quantised once, then products, SwiGLU and biases follow without Python between them: at one row that takes
two thirds of the time of three products and torch's operators.

T = rows of x, A = rows of all experts, H = hidden, I = intermediate, K = experts of a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeGuard

import torch

from rotary_batch.engine.kernels.cpu import CpuKernels
from rotary_batch.engine.kernels.dispatch import GGML, Level
from rotary_batch.engine.kernels.matrices import GgmlMatrix, Matrix, is_well_formed
from rotary_batch.model.ggml_types import BLOCK_TYPES

WHOLE = 64  # H and I are multiples of it
# Level -> the end of names of functions, dtype of rows.
ROWS = {Level.AVX512_BF16: ("avx512_q8", torch.bfloat16), Level.AVX2: ("avx2_q8", torch.float32)}


class ExpertAddresses(NamedTuple):
    """An expert as the kernel reads it."""

    type_name: str  # of gate and up
    down_type_name: str
    hidden: int
    intermediate: int
    addresses: tuple[int, ...]  # gate, up, down, their biases or 0


class Activation(NamedTuple):
    """SwiGLU, or gpt-oss's clamped variant of it where `limit` is not 0."""

    limit: float
    alpha: float


def expert_addresses(
    gate_up: Sequence[Matrix], down: Matrix, gate_up_bias: torch.Tensor | None, down_bias: torch.Tensor | None
) -> ExpertAddresses | None:
    """None for an expert that the kernel cannot read.  They are valid as long as its tensors are."""
    first, last = gate_up[0], gate_up[-1]
    if not (_is_readable(first) and _is_readable(last) and _is_readable(down)):
        return None
    hidden, intermediate = down.num_rows, down.num_columns
    is_split = len(gate_up) == 2
    own_rows = 2 * intermediate // len(gate_up)
    shapes_fit = all((matrix.num_rows, matrix.num_columns) == (own_rows, hidden) for matrix in (first, last))
    biases_fit = _fits(gate_up_bias, 2 * intermediate) and _fits(down_bias, hidden)
    is_whole = not (hidden % WHOLE or intermediate % WHOLE)
    if not (shapes_fit and biases_fit and is_whole) or first.type_name != last.type_name:
        return None
    gate = first.blocks.data_ptr()
    up = last.blocks.data_ptr() if is_split else gate + intermediate * first.blocks.shape[1]
    both, out = (0 if bias is None else bias.data_ptr() for bias in (gate_up_bias, down_bias))
    addresses = (gate, up, down.blocks.data_ptr(), both, both and both + 4 * intermediate, out)
    return ExpertAddresses(first.type_name, down.type_name, hidden, intermediate, addresses)


def _is_readable(matrix: Matrix) -> TypeGuard[GgmlMatrix]:
    if not isinstance(matrix, GgmlMatrix) or matrix.format_name not in GGML or not is_well_formed(matrix):
        return False
    return matrix.blocks.is_contiguous() and matrix.blocks.is_cpu


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
        self._units: dict[str, torch.Tensor] = {}

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
        tensors = {"experts": torch.tensor(table), "x": self._units_for(stored.type_name), "rows": self._rows}
        self._kernels.call(
            f"experts_{self._suffix}",
            {**tensors, "middle": middle, "out": out},
            E=len(experts),
            T=len(self._x),
            scratch_rows=scratch_rows,
            H=stored.hidden,
            I=stored.intermediate,
            type=BLOCK_TYPES[stored.type_name].number,
            down_type=BLOCK_TYPES[stored.down_type_name].number,
            limit=self._activation.limit,
            alpha=self._activation.alpha,
        )

    def _units_for(self, type_name: str) -> torch.Tensor:
        """x in 8 bits, for a type of matrices."""
        if type_name not in self._units:
            units = self._kernels.units(*self._x.shape)
            rows, columns = self._x.shape
            sizes = {"M": rows, "K": columns, "type": BLOCK_TYPES[type_name].number}
            self._kernels.call(f"quantise_{self._suffix}", {"x": self._x, "units": units}, **sizes)
            self._units[type_name] = units
        return self._units[type_name]

    def combine(self, experts_out: torch.Tensor, places: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Rows of experts_out [A, H] at places [T, K] int64, times weights [T, K] float32, added up -> [T, H]."""
        out = torch.empty_like(self._x)
        (rows, per_row), hidden = places.shape, out.shape[1]
        tensors = {"experts_out": experts_out, "places": places, "weights": weights, "out": out}
        self._kernels.call(f"combine_{self._suffix}", tensors, T=rows, H=hidden, K=per_row)
        return out
